"""The requirements module of Mellea: requirements, and short ways to make them."""

from __future__ import annotations

from mellea_sc.core.requirement import (
    PartialValidationResult,
    Requirement,
    ValidationResult,
    default_output_to_bool,
)
from mellea_sc.stdlib.requirements.making import check, req, reqify, simple_validate

__all__ = [
    "PartialValidationResult",
    "Requirement",
    "ValidationResult",
    "check",
    "default_output_to_bool",
    "req",
    "reqify",
    "simple_validate",
]
