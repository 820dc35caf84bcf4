"""Short ways to make a requirement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mellea_sc.core.base import Context
from mellea_sc.core.errors import InvalidOption, InvalidVerdict
from mellea_sc.core.requirement import (
    Requirement,
    ValidationFunction,
    ValidationResult,
    as_requirement,
)

__all__ = ["as_requirement", "check", "req", "reqify", "simple_validate"]


def req(
    description: str | None = None,
    validation_fn: ValidationFunction | None = None,
    *,
    check_only: bool = False,
) -> Requirement:
    """A requirement: ``req("be polite")`` is judged by a model, with a function by that function.

    The model is the one that validators are given, a session's own or the ``validation_backend`` of a stream.
    One that cannot judge, as the embedded default, is not asked, but an error raised before anything is;
    :class:`~mellea_sc.LLMJudge` has a backend of its own.
    """
    return Requirement(description, validation_fn, check_only=check_only)


def check(
    description: str | None = None, validation_fn: ValidationFunction | None = None
) -> Requirement:
    """A requirement that is checked and not said: its description stays out of the prompt."""
    return Requirement(description, validation_fn, check_only=True)


reqify: Final = as_requirement
"""Mellea's name for it."""


def simple_validate(
    fn: Callable[[str], bool | tuple[bool, str] | ValidationResult], *, reason: str | None = None
) -> ValidationFunction:
    """A ``validation_fn`` made of a function of the answer's text.

    Args:
        fn: Gives whether the text passes, or that and the reason, or a whole ``ValidationResult``.
        reason: Why a text fails, where the function does not say; without it the requirement's
            description is the reason.

    Raises:
        InvalidVerdict: from the validation, when the function returned something else.
    """

    async def validate(ctx: Context) -> ValidationResult:
        output = ctx.last_output()
        if output is None:
            raise InvalidOption("there is no output in the context that could be validated")
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
