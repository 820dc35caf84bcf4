"""Requirements, and short ways to make them: Mellea's module of this name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mellea_sc.core.base import Context
from mellea_sc.core.errors import InvalidOption, InvalidVerdict
from mellea_sc.core.requirement import (
    PartialValidationResult,
    Requirement,
    ValidationFunction,
    ValidationResult,
    as_requirement,
    default_output_to_bool,
)

__all__ = [
    "PartialValidationResult",
    "Requirement",
    "ValidationResult",
    "as_requirement",
    "check",
    "default_output_to_bool",
    "req",
    "reqify",
    "simple_validate",
]


def req(
    description: str | None = None,
    validation_fn: ValidationFunction | None = None,
    *,
    check_only: bool = False,
) -> Requirement:
    """Make a requirement. With a ``validation_fn`` that function validates the answer, otherwise a model judges it.

    The judge is the session's model, or the ``validation_backend`` of a stream. If it cannot judge, as the embedded
    default, an error is raised before any request is made. :class:`~mellea_sc.LLMJudge` has a backend of its own.
    """
    return Requirement(description, validation_fn, check_only=check_only)


def check(
    description: str | None = None, validation_fn: ValidationFunction | None = None
) -> Requirement:
    """Make a requirement whose description is not in the prompt."""
    return Requirement(description, validation_fn, check_only=True)


reqify: Final = as_requirement
"""Mellea's name for it."""


def simple_validate(
    fn: Callable[[str], bool | tuple[bool, str] | ValidationResult], *, reason: str | None = None
) -> ValidationFunction:
    """Make a ``validation_fn`` from a function of the answer's text.

    Args:
        fn: Returns whether the text passes, or that and the reason, or a ``ValidationResult``.
        reason: The reason of a fail, if the function returns none; by default the requirement's description.

    Raises:
        InvalidOption: it is no function.
        InvalidVerdict: during validation, if the function returns something else.
    """
    if not callable(fn):
        raise InvalidOption(f"simple_validate takes a function of the text, not {fn!r}")

    async def validate(ctx: Context) -> ValidationResult:
        output = ctx.last_output()
        if output is None:
            raise InvalidOption("there is no output in the context to validate")
        verdict: object = fn(await output.avalue())
        match verdict:
            case ValidationResult():
                return verdict
            case bool():
                return ValidationResult(verdict, reason=None if verdict else reason)
            case (bool() as passed, str() as why):
                return ValidationResult(passed, reason=why)
            case _:
                raise InvalidVerdict(
                    f"{fn!r} must return a bool, (bool, str) or a ValidationResult, not {verdict!r}"
                )

    return validate
