"""Ways to say what must hold."""

from __future__ import annotations

from mellea_sc.core.requirement import (
    PartialValidationResult,
    Requirement,
    ValidationResult,
    default_output_to_bool,
)
from mellea_sc.stdlib.requirements.limits import MaxSentences, MaxWords
from mellea_sc.stdlib.requirements.making import check, req, reqify, simple_validate
from mellea_sc.stdlib.requirements.patterns import MustNotMatch

__all__ = [
    "MaxSentences",
    "MaxWords",
    "MustNotMatch",
    "PartialValidationResult",
    "Requirement",
    "ValidationResult",
    "check",
    "default_output_to_bool",
    "req",
    "reqify",
    "simple_validate",
]
