"""What one call asks, as a value."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from mellea_sc.core.backend import Format
from mellea_sc.core.base import Component, Span
from mellea_sc.core.model_options import ModelOptions
from mellea_sc.core.requirement import Requirement
from mellea_sc.core.retries import Retries
from mellea_sc.core.sampling import SamplingStrategy
from mellea_sc.core.spending import Limits

__all__ = ["Question"]


@attrs.frozen(kw_only=True)
class Question:
    """What one call asks, made once from its arguments.

    The conversation that it is asked in is no part of it: that is known only when its turn has come.

    Args:
        action: What the model is asked.
        requirements: What must hold of the answer; the originals, of which each attempt has copies.
        preconditions: What must hold of what is asked; copies of this call's own.
        strategy: What follows a rejected answer; ``None``: nothing, unless a requirement says so.
        format: What the answer has to fit.
        model_options: For every generation of the call.
        limits: What the call may use, its attempts and judges together.
        retries: How often its requests are made again; ``None``: as the session says.
    """

    action: Component | Span
    requirements: Sequence[Requirement] = ()
    preconditions: Sequence[Requirement] = ()
    strategy: SamplingStrategy | None = None
    format: Format | None = None
    model_options: ModelOptions | None = None
    limits: Limits | None = None
    retries: Retries | None = None
