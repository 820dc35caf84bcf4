"""Validates preconditions on the input, at the same time as the answer is generated."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import anyio
import anyio.lowlevel

from mellea_sc.core.base import Context, text_of
from mellea_sc.core.errors import PreconditionFailed
from mellea_sc.core.question import Question, settle
from mellea_sc.core.requirement import ValidationResult
from mellea_sc.runtime.checks.validation import validate_all
from mellea_sc.runtime.failures import stray_cancellation_as, task_group
from mellea_sc.runtime.generation.bound import opened_scope
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.stdlib.sampling.plan import reasons_in

__all__ = ["answer_if_met"]


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
