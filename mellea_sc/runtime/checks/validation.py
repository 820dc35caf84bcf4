"""Judging one finished answer by many requirements, at the same time."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Final

import anyio

from mellea_sc.core.backend import Backend, Format
from mellea_sc.core.base import Component, Context, Span, text_of
from mellea_sc.core.errors import (
    InvalidVerdict,
    ValidatorTimeout,
)
from mellea_sc.core.model_options import ModelOptions
from mellea_sc.core.prompt import settle
from mellea_sc.core.requirement import Requirement, ValidationResult
from mellea_sc.runtime.failures import stray_cancellation_as, task_group, without_internals
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.nursery import reraise_if_cancelled

__all__ = ["check_input", "validate_all"]

log: Final = logging.getLogger("mellea_sc")


async def validate_all(
    requirements: Sequence[Requirement],
    backend: Backend,
    ctx: Context,
    *,
    timeout: float = math.inf,
    format: Format | None = None,
    model_options: ModelOptions | None = None,
) -> list[ValidationResult]:
    """One verdict per requirement on the last output of the context, in their order.

    Args:
        requirements: Several are judged in a task of their own each.
        backend: For those that ask a model; bound to a scope of the caller's.
        ctx: Ends with the answer.
        timeout: Seconds for each, unless the requirement has a timeout of its own.
        format: Handed to every validator.
        model_options: Handed to every validator.

    Raises:
        ValidatorTimeout: one took too long.
        InvalidVerdict: one returned something else than a ``ValidationResult``.
        Exception: as a validator raised it; several at once as an ``ExceptionGroup``.

    Cancellation: every validator is cancelled; so they are when one raises.
    """

    async def judge(index: int, requirement: Requirement) -> None:
        limit = timeout if requirement.timeout is None else requirement.timeout
        try:
            what = f"validate of {requirement!r}"
            with anyio.move_on_after(limit) as watchdog, stray_cancellation_as(what):
                verdict: object = await requirement.validate(
                    backend, ctx, format=format, model_options=model_options
                )
                if not isinstance(verdict, ValidationResult):
                    raise InvalidVerdict(
                        f"validate of {requirement!r} must return a ValidationResult, not {verdict!r}"
                    )
                verdicts[index] = verdict
            if not watchdog.cancel_called:
                return
            raise ValidatorTimeout(f"validate of {requirement!r} did not return within {limit:g} s")
        except Exception as error:
            await reraise_if_cancelled(error)  # noqa: ASYNC120 - that is the point
            if not requirement.fail_open:
                raise
            log.warning(
                "an error in %r counts as passed", requirement, exc_info=without_internals(error)
            )
            verdicts[index] = ValidationResult(True, reason=f"not judged: {error!r}")

    verdicts: dict[int, ValidationResult] = {}
    if len(requirements) == 1:  # there is nothing beside it: no task
        await judge(0, requirements[0])
        return [verdicts[0]]
    async with task_group() as tasks:
        for index, requirement in enumerate(requirements):
            tasks.start_soon(judge, index, requirement, name=f"validate {requirement!r}")
    return [verdicts[index] for index in range(len(requirements))]


async def check_input(
    preconditions: Sequence[Requirement],
    action: Component | Span,
    backend: Backend,
    ctx: Context,
    *,
    timeout: float = math.inf,
) -> list[ValidationResult]:
    """One verdict per precondition on what the model is asked, as it reads it.

    Args:
        preconditions: Each judges the action's text as if it were an answer.
        action: What is asked; thunks in it are waited for.
        backend: For those that ask a model; bound to a scope of the caller's.
        ctx: The conversation before it; only its kind matters.
        timeout: Seconds for each, unless the requirement has a timeout of its own.

    Raises:
        Exception: as of :func:`validate_all`.

    Cancellation: every validator is cancelled.
    """
    await settle(action)
    asked = ctx.without_items().add(ModelOutputThunk.computed(text_of(action)))
    return await validate_all(preconditions, backend, asked, timeout=timeout)
