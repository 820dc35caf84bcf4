"""Validates a finished answer by several requirements at the same time; and preconditions, beside the answer."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import anyio.lowlevel

from mellea_sc.core.backend import Backend, Format, ModelOptions
from mellea_sc.core.base import Context, text_of
from mellea_sc.core.errors import (
    InvalidVerdict,
    PreconditionFailed,
    RunError,
    ValidatorTimeout,
)
from mellea_sc.core.question import Question, settle
from mellea_sc.core.requirement import Requirement, ValidationResult, is_misdefined, reasons_in
from mellea_sc.runtime.failures import (
    raise_if_stray,
    stray_cancellation_as,
    task_group,
    without_internals,
)
from mellea_sc.runtime.generation.bound import opened_scope
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.nursery import Nursery, reraise_if_cancelled

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
            with anyio.move_on_after(limit) as watchdog:
                try:
                    verdict: object = await requirement.validate(
                        backend, ctx, format=format, model_options=model_options
                    )
                except anyio.get_cancelled_exc_class():
                    # instead of a stray_cancellation_as() block, whose message would be made for each verdict
                    raise_if_stray(f"validate of {requirement!r}", RunError)
                    raise
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


async def answer_if_met(
    question: Question,
    ctx: Context,
    judges: Nursery,
    answer: Callable[[], Awaitable[None]],
    *,
    judged: Callable[[Sequence[ValidationResult]], None] | None = None,
    met: Callable[[], None],
    timeout: float = math.inf,
    judge_began: Callable[[ModelOutputThunk], None] | None = None,
) -> None:
    """Generate the answer, and validate the preconditions at the same time, on the question as if it were an answer.

    The answer may be complete before the preconditions are validated. It must not be shown before ``met`` is called.

    Args:
        question: The arguments of the call.
        ctx: The conversation before it. Validators get an empty one of the same class.
        judges: The nursery for preconditions that ask a model.
        answer: Generates the answer.
        judged: Called with the verdicts, in the order of the preconditions.
        met: Called after that, if all preconditions are met.
        timeout: Seconds that each precondition may take, unless it has its own timeout.
        judge_began: Called with each generation of a judge.

    Raises:
        PreconditionFailed: one is not met; the answer has been cancelled.
        Exception: as a precondition, or the answer, raised it.

    Cancellation: the answer and the preconditions are cancelled and have ended.
    """
    preconditions = question.preconditions

    async def check() -> None:
        with stray_cancellation_as("a precondition"):
            # the answer's request is sent before a validator can block this thread
            await anyio.lowlevel.checkpoint()
            await settle(question.action)
            asked = ModelOutputThunk.computed(text_of(question.action))
            async with opened_scope(judges, started=judge_began) as backend:
                verdicts = await validate_all(
                    preconditions, backend, ctx.without_items().add(asked), timeout=timeout
                )
            if judged is not None:
                judged(verdicts)
            if reasons := reasons_in(list(zip(preconditions, verdicts, strict=True))):
                raise PreconditionFailed(
                    f"the input does not meet a precondition: {'; '.join(reasons)}", reasons=reasons
                )
        met()

    async with task_group() as tasks:
        tasks.start_soon(check, name="preconditions")
        with stray_cancellation_as("an answer"):
            await answer()
