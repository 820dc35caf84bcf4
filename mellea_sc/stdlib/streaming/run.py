"""The task of one streaming run.

::

    AttemptRunner ──> Attempt ──cut, advance──> AttemptView ──> Readers ──> user
        │            └─ race: producer, lanes         ^
        │                                             │
        └──Choice──> Gate.accept / reject ────────────┤
    preconditions ────────────────────── Gate.unlock ─┘   (a failing one cancels the attempts)

The run is one task of its session. It ends only after all tasks that it has started, and only then its readers and
waiters learn the outcome. Only this task writes the attributes of :class:`StreamRun`. Users read them through a
:class:`~mellea_sc.stdlib.StreamChunkingResult`, which has no state of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

import anyio

from mellea_sc.core.base import Context
from mellea_sc.core.errors import BudgetExceeded
from mellea_sc.core.prompt import describe
from mellea_sc.core.question import Question
from mellea_sc.core.requirement import PartialValidationResult, Requirement, ValidationResult
from mellea_sc.core.retries import retries_of_call
from mellea_sc.runtime.budgets.limits import LimitedBlock, budget_scope
from mellea_sc.runtime.checks.attempt import Attempt
from mellea_sc.runtime.failures import failure_of, raise_unchanged
from mellea_sc.runtime.generation.answers import read_meaning, warn_of_misfit
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.loops.current import call_in, check_loop, clock, current_loop, running_task
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.unobserved import OwnError
from mellea_sc.stdlib.preconditions import answer_if_met
from mellea_sc.stdlib.sampling.engine.options import StreamOptions
from mellea_sc.stdlib.sampling.engine.runner import AttemptRunner, Nurseries
from mellea_sc.stdlib.sampling.plan import AttemptResult, Plan, is_rejected
from mellea_sc.stdlib.streaming.events import CompletedEvent, ErrorEvent, InputCheckEvent
from mellea_sc.stdlib.streaming.view import Gate
from mellea_sc.stdlib.turns import Turn

__all__ = ["StreamRun"]


class StreamRun:
    """One streaming run: its task and its state.

    Args:
        question: The arguments of the call.
        plan: Decides what follows a rejected attempt.
        options: The options for checking and showing the text.
        turn: Takes the run's turn in a conversation. Gets a callback that stops back-pressure by readers, for when
            another request waits for the turn.
        own_error: Holds the error of the run, if it fails.

    Raises:
        InvalidOption: a chunking is not known.
        Exception: as a requirement's ``__copy__`` raises it.
    """

    def __init__(
        self,
        question: Question,
        plan: Plan,
        options: StreamOptions,
        turn: Callable[[Callable[[], None]], Turn],
        own_error: OwnError,
    ) -> None:
        self.question: Question = question
        self.own_error: OwnError = own_error
        """The error that has ended it, if one has."""
        self.ended: anyio.Event = anyio.Event()
        self.completed: bool = False
        self.cancelled: bool = False
        self.cancel_reason: str | None = None
        self.unmet: list[tuple[Requirement, PartialValidationResult]] = []
        """The preconditions that are not met, with their verdicts."""
        self.chosen: AttemptResult | None = None
        """The attempt that was chosen."""
        self.answer: ModelOutputThunk | None = None
        """The answer as a thunk, if the run has one."""
        self.input_judges: list[tuple[ModelOutputThunk, float]] = []
        """The generations of judges of the preconditions, and when each began."""
        self.observed: anyio.Event = anyio.Event()
        """Set when somebody has observed the error."""
        self.gate: Gate = Gate(
            lookahead=options.lookahead,
            hold_back=options.held_back,
            may_retract=plan.asks_anew,
            concurrent=plan.concurrent,
            locked=bool(question.preconditions),
            error=self.error_to_raise,
        )
        self.runner: AttemptRunner = AttemptRunner(plan, question, options, self.gate)
        self._timeout = options.validator_timeout
        self._scope = anyio.CancelScope()
        self._loop = current_loop()
        self._error_was_raised = False
        # The last step of __init__: a turn that is taken must be released by run(), so nothing after it may raise.
        self._turn = turn(self.gate.stop_throttling)

    # --- its task ------------------------------------------------------------------------------

    async def run(
        self,
        generating: AbstractAsyncContextManager[Nursery],
        judging: AbstractAsyncContextManager[Nursery] | None,
        session: Nursery | None,
    ) -> None:
        """The body of the task. It raises only cancellations, or its error if the session has ``on_error="cancel"``.

        Args:
            generating: The nursery whose backend generates.
            judging: The nursery whose backend the validators use, if it is another one.
            session: The nursery that raises the error at its end if nobody has observed it.
        """
        task, question = running_task(), self.question
        try:
            with (
                self._scope,
                budget_scope(),
                nullcontext() if question.limits is None else LimitedBlock(question.limits),
                retries_of_call(question.retries),
            ):
                answer = self._checked_answer if question.preconditions else self._answer
                async with generating as nursery, self._turn as ctx:
                    if judging is None:
                        await answer(Nurseries(nursery, nursery), ctx)
                    else:
                        async with judging as judges:
                            await answer(Nurseries(nursery, judges), ctx)
        except BaseException as error:  # noqa: ASYNC103 - what failure_of() does not know is raised
            failure = failure_of(error, "a stream", task)
            if failure is None:
                raise
            self.own_error.fail(failure)
        finally:
            self._end()
        if (
            session is not None
            and session.on_error == "cancel"
            and self.own_error.is_pending
            and self.own_error.error is not None
        ):
            raise_unchanged(self.own_error.error)

    def on_never_started(self) -> None:
        """Its task was cancelled before its first step."""
        self._turn.give_up()
        self._end()

    async def _checked_answer(self, nurseries: Nurseries, ctx: Context) -> None:
        await answer_if_met(
            self.question,
            ctx,
            nurseries.judging,
            partial(self._answer, nurseries, ctx),
            judged=self._input_judged,
            met=self.gate.unlock,
            timeout=self._timeout,
            judge_began=lambda thunk: self.input_judges.append((thunk, clock()())),
        )

    def _input_judged(self, verdicts: Sequence[ValidationResult]) -> None:
        self.unmet = [
            (one, PartialValidationResult("fail", reason=verdict.reason, score=verdict.score))
            for one, verdict in zip(self.question.preconditions, verdicts, strict=True)
            if is_rejected(one, verdict)
        ]
        self.gate.readers.write(InputCheckEvent(not self.unmet, verdicts))

    async def _answer(self, nurseries: Nurseries, ctx: Context) -> None:
        choice = await self.runner.run(ctx, nurseries)
        gate, action = self.gate, self.question.action
        number, view = choice.number, gate.view
        is_live = view is not None and not gate.hold_back
        if not choice.success and view is not None and gate.hold_back < math.inf:
            # No attempt is good, and the plan prefers one of them. But a reader may have seen text of another one,
            # and result and conversation must have the text that was shown.
            number = view.number
        chosen = self.runner.result(number)
        # Text that was shown as it came is the answer, whether or not it is good. Text that was held back is shown only
        # if it is good.
        if chosen.completed and (choice.success or is_live):
            await gate.accept(number, nurseries.generating.valves)
            answer = chosen.thunk()
            answer.name = describe(action)
            read_meaning(answer, answer.value, action, self.question.format)
            warn_of_misfit(answer)
            self.answer = answer
            self.completed = True
            self._turn.commit(ctx.add(action).add(answer))
        else:
            gate.reject(number)
        self.chosen = chosen

    def _end(self) -> None:
        """Publish the outcome. There is no await in here, so that no other task sees a part of it."""
        readers, attempt, error = self.gate.readers, self.attempt, self.own_error.error
        if error is not None:
            if not self.own_error.is_pending:
                self.observed.set()
            # an attempt may have been accepted before: then closing the connections has failed
            self.completed = False
            self.cancelled = isinstance(error, BudgetExceeded)
            readers.write(ErrorEvent(type(error).__name__, _message_of(error)))
        elif self.chosen is None:
            # Neither an error nor a choice: the run was cancelled before the plan could choose. If a check had
            # failed by then, that has stopped the text all the same.
            self.completed = False
            self.cancelled = not (attempt is not None and attempt.ledger.failures)
        attempts = max(1, len(self.runner.attempts))
        readers.write(CompletedEvent(self.completed, self.released_text(), attempts))
        self.ended.set()
        readers.end()

    # --- its state ---------------------------------------------------------------------------------

    @property
    def attempt(self) -> Attempt | None:
        """The attempt that was chosen, or else that is shown, or else that began last."""
        attempts, view = self.runner.attempts, self.gate.view
        if self.chosen is not None:
            return attempts[self.chosen.number - 1]
        if view is not None and view.number <= len(attempts):
            return attempts[view.number - 1]
        return attempts[-1] if attempts else None

    def released_text(self) -> str:
        """The released text of the attempt that is shown."""
        attempt, view = self.attempt, self.gate.view
        if attempt is None or view is None:
            return ""
        return attempt.text if self.completed else attempt.edited[: view.position]

    # --- its end from outside ----------------------------------------------------------------------

    def check_loop(self) -> None:
        """Raise unless the run goes on in the event loop that runs here.

        Raises:
            WrongEventLoop: it goes on in another one.
        """
        if not self.ended.is_set():
            check_loop(self._loop, f"the stream {describe(self.question.action)!r}")

    def cancel(self, reason: str | None) -> None:
        """Cancel it; without effect when it has ended. Its error, if it fails meanwhile, stays unobserved.

        Raises:
            WrongEventLoop: it goes on in another event loop.
        """
        self.check_loop()
        if not self.ended.is_set():
            self.cancel_reason = reason
            self._scope.cancel(reason)

    def error_to_raise(self) -> Exception | None:
        """The error for the caller to raise, if the run has one and it was not raised before."""
        if self.own_error.error is None or self._error_was_raised:
            return None
        self._error_was_raised = True
        error = self.own_error.to_raise()
        # Set only after the error is marked as raised: this may run in another thread than the task that waits for
        # the event and then logs errors that nobody has observed.
        call_in(self._loop, self.observed.set)
        return error

    def dismiss(self) -> None:
        """Say that nobody will ask for its error: one that nobody has observed is logged."""
        self.own_error.dismiss()
        if self.own_error.error is not None:
            call_in(self._loop, self.observed.set)


def _message_of(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error of somebody's that cannot say its message
        return "(its message cannot be read)"
