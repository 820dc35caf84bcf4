"""Values and contracts: no tasks, no I/O. Imports nothing of ours but itself.

What Mellea exports from its ``core`` can be imported from here too; the modules have more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mellea_sc.core.backend import Backend
    from mellea_sc.core.base import CBlock, Component, Context, ContextTurn, Span
    from mellea_sc.core.logger import MelleaLogger
    from mellea_sc.core.requirement import (
        PartialValidationResult,
        Requirement,
        ValidationResult,
        default_output_to_bool,
    )
    from mellea_sc.core.sampling import SamplingResult, SamplingStrategy
    from mellea_sc.runtime.generation.thunk import ModelOutputThunk
else:
    from mellea_sc._lazy import importing

    # where type checkers do not see it: with a module's __getattr__, they take every name for one that is there
    __getattr__ = importing(
        __name__,
        {
            "mellea_sc.core.backend": ("Backend",),
            "mellea_sc.core.base": ("CBlock", "Component", "Context", "ContextTurn", "Span"),
            "mellea_sc.core.logger": ("MelleaLogger",),
            "mellea_sc.core.requirement": (
                "PartialValidationResult",
                "Requirement",
                "ValidationResult",
                "default_output_to_bool",
            ),
            "mellea_sc.core.sampling": ("SamplingResult", "SamplingStrategy"),
            "mellea_sc.runtime.generation.thunk": ("ModelOutputThunk",),
        },
    )

__all__ = [
    "Backend",
    "CBlock",
    "Component",
    "Context",
    "ContextTurn",
    "MelleaLogger",
    "ModelOutputThunk",
    "PartialValidationResult",
    "Requirement",
    "SamplingResult",
    "SamplingStrategy",
    "Span",
    "ValidationResult",
    "default_output_to_bool",
]
