"""Validates a finished answer by several requirements at the same time."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Final

import anyio

from mellea_sc.core.backend import Backend, Format, ModelOptions
from mellea_sc.core.base import Context
from mellea_sc.core.errors import (
    InvalidVerdict,
    ValidatorTimeout,
)
from mellea_sc.core.requirement import Requirement, ValidationResult, is_misdefined
from mellea_sc.runtime.failures import stray_cancellation_as, task_group, without_internals
from mellea_sc.runtime.nursery import reraise_if_cancelled

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
    """Validate the last output of a context; returns one verdict per requirement, in their order.

    Args:
        requirements: The requirements. If there are several, each is validated in its own task.
        backend: The backend that validators are given, bound to a scope of the caller.
        ctx: The conversation, which ends with the answer.
        timeout: Seconds that one may take, unless the requirement has its own timeout.
        format: Passed to every validator.
        model_options: Passed to every validator.

    Raises:
        ValidatorTimeout: one took too long.
        InvalidVerdict: one returned something else than a ``ValidationResult``.
        Exception: as a validator raised it; several at once as an ``ExceptionGroup``.

    Cancellation: every validator is cancelled. If one raises, the others are cancelled too.
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
            if is_misdefined(error) and not requirement.fail_open:
                raise InvalidVerdict(
                    f"validate of {requirement!r} must be defined as "
                    f"`async def validate(self, backend, ctx, *, format=None, model_options=None)`: {error}"
                ) from None
            if not requirement.fail_open:
                raise
            log.warning(
                "an error in %r counts as passed", requirement, exc_info=without_internals(error)
            )
            verdicts[index] = ValidationResult(True, reason=f"not judged: {error!r}")

    verdicts: dict[int, ValidationResult] = {}
    if len(requirements) == 1:  # needs no task of its own
        await judge(0, requirements[0])
        return [verdicts[0]]
    async with task_group() as tasks:
        for index, requirement in enumerate(requirements):
            tasks.start_soon(judge, index, requirement, name=f"validate {requirement!r}")
    return [verdicts[index] for index in range(len(requirements))]
