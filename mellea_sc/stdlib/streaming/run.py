"""The task of one streaming run.

::

    AttemptRunner ──> Attempt ──cut, advance──> AttemptView ──> Readers ──> user
        │            └─ race: producer, lanes         ^
        │                                             │
        └──Choice──> StreamRun._answer ───────────────┤
    preconditions ────────────────────────── unlock ──┘   (a failing one cancels the attempts)

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
from mellea_sc.core.question import Question, StreamOptions, describe
from mellea_sc.core.requirement import (
    PartialValidationResult,
    Requirement,
    ValidationResult,
    is_rejected,
)
from mellea_sc.core.retries import retries_of_call
from mellea_sc.runtime.budgets.limits import LimitedBlock, budget_scope
from mellea_sc.runtime.checks.attempt import Attempt
from mellea_sc.runtime.checks.chunks import Ledger
from mellea_sc.runtime.checks.editors import Edits
from mellea_sc.runtime.checks.validation import answer_if_met
from mellea_sc.runtime.failures import failure_of, raise_unchanged
from mellea_sc.runtime.generation.pump import read_meaning, warn_of_misfit
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.loops.current import call_in, check_loop, clock, current_loop, running_task
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.pacing import Valves
from mellea_sc.runtime.unobserved import OwnError
from mellea_sc.stdlib.sampling.plan import Ask, Plan
from mellea_sc.stdlib.sampling.results import AttemptResult
from mellea_sc.stdlib.sampling.runner import AttemptRunner
from mellea_sc.stdlib.streaming.events import (
    CompletedEvent,
    ErrorEvent,
    InputCheckEvent,
    QuickCheckEvent,
    RetryEvent,
)
from mellea_sc.stdlib.streaming.view import AttemptView, Readers
from mellea_sc.stdlib.turns import Turn


class StreamRun:
    """One streaming run: its task and its state, and which of its attempts is shown, from when on.

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
        self.view: AttemptView | None = None
        """The view of the attempt that is shown, or will be shown."""
        self._views: dict[int, AttemptView] = {}
        # Attempts that run at the same time are not shown before one is accepted.
        self._concurrent = plan.concurrent
        self._held_back = math.inf if plan.concurrent else options.held_back
        self._locked = bool(question.preconditions)
        self._unlocked = anyio.Event()
        self.readers: Readers = Readers(
            lookahead=options.lookahead,
            may_retract=plan.asks_anew and self._held_back < math.inf,
            is_full=self._is_full,
            on_read=self._advance,
            error=self.error_to_raise,
        )
        self.runner: AttemptRunner = AttemptRunner(plan, question, options, self)
        self._timeout = options.validator_timeout
        self._scope = anyio.CancelScope()
        self._loop = current_loop()
        self._error_was_raised = False
        # The last step of __init__: a turn that is taken must be released by run(), so nothing after it may raise.
        self._turn = turn(self.stop_throttling)

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
                nullcontext() if question.retries is None else retries_of_call(question.retries),
            ):
                answer = self._checked_answer if question.preconditions else self._answer
                async with generating as nursery, self._turn as ctx:
                    if judging is None:
                        await answer(nursery, nursery, ctx)
                    else:
                        async with judging as judges:
                            await answer(nursery, judges, ctx)
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

    async def _checked_answer(self, nursery: Nursery, judges: Nursery, ctx: Context) -> None:
        await answer_if_met(
            self.question,
            ctx,
            judges,
            partial(self._answer, nursery, judges, ctx),
            judged=self._input_judged,
            met=self._unlock,
            timeout=self._timeout,
            judge_began=lambda thunk: self.input_judges.append((thunk, clock()())),
        )

    def _input_judged(self, verdicts: Sequence[ValidationResult]) -> None:
        self.unmet = [
            (one, PartialValidationResult("fail", reason=verdict.reason, score=verdict.score))
            for one, verdict in zip(self.question.preconditions, verdicts, strict=True)
            if is_rejected(one, verdict)
        ]
        self.readers.write(InputCheckEvent(not self.unmet, verdicts))

    async def _answer(self, nursery: Nursery, judges: Nursery, ctx: Context) -> None:
        choice = await self.runner.run(ctx, nursery, judges)
        action, held_back = self.question.action, self._held_back
        number, view = choice.number, self.view
        is_live = view is not None and not held_back
        if not choice.success and view is not None and held_back < math.inf:
            # No attempt is good, and the plan prefers one of them. But a reader may have seen text of another one,
            # and result and conversation must have the text that was shown.
            number = view.number
        chosen = self.runner.result(number)
        # Text that was shown as it came is the answer, whether or not it is good. Text that was held back is shown only
        # if it is good.
        if chosen.end == "completed" and (choice.success or is_live):
            await self._accept(self._views[number], nursery.valves)
            answer = chosen.thunk()
            answer.name = describe(action)
            read_meaning(answer, answer.value, action, self.question.format)
            if answer.format_error is not None:
                warn_of_misfit(answer)
            self.answer = answer
            self.completed = True
            self._turn.commit(ctx.add(action).add(answer))
        else:
            # it is the best, and stays shown as far as it was
            self._views[number].write_validation()
            if self._concurrent:
                self.view = self._views[number]
        self.chosen = chosen

    def _end(self) -> None:
        """Publish the outcome. There is no await in here, so that no other task sees a part of it."""
        readers, attempt, error = self.readers, self.attempt, self.own_error.error
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

    # --- which attempt is shown ------------------------------------------------------------------

    def begin_attempt(self, number: int, ask: Ask, ledger: Ledger, edits: Edits) -> AttemptView:
        """Begin to show an attempt; chunks of the previous one that it does not keep are retracted."""
        before, shown = self.view, 0
        if before is not None:
            before.write_validation()
            before.hold()
            if before.released > ask.keep:
                self.readers.retract(ask.keep, before.number)
            shown = min(before.released, ask.keep)
        view = self._views[number] = AttemptView(number, ledger, edits, self.readers, shown=shown)
        if not self._concurrent:
            self.view = view
            if not self._locked:
                view.show(self._held_back)
        if ask.reason is not None:
            self.readers.write(RetryEvent(number, ask.reason))
        return view

    def end_attempt(self, number: int, attempt: Attempt) -> int:
        """End the view of an attempt; returns the number of its chunks that were shown, 1 for white space alone."""
        if attempt.ledger.failures:
            index, verdicts = attempt.ledger.failed_chunk()
            self.readers.write(QuickCheckEvent(index, number, False, verdicts))
        view = self._views[number]
        return max(view.chunks_released, min(view.released, 1))

    async def _accept(self, view: AttemptView, valves: Valves) -> None:
        """Accept an attempt: show everything that is held back, as fast as the readers have room.

        Cancellation: chunks that were not released by then never are.
        """
        if self._locked:
            await self._unlocked.wait()
        self.view = view
        view.show(0)
        await view.room(valves)
        view.finish()

    def _unlock(self) -> None:
        """Allow showing: the preconditions are met."""
        self._locked = False
        self._unlocked.set()
        if self.view is not None:
            self.view.show(self._held_back)

    def stop_throttling(self) -> None:
        """Stop the back-pressure by the readers."""
        self.readers.valve.open_for_good()
        self._advance()

    def _is_full(self) -> bool:
        return self.view is not None and self.view.is_full

    def _advance(self) -> None:
        if self.view is not None:
            self.view.advance()

    # --- its state ---------------------------------------------------------------------------------

    @property
    def attempt(self) -> Attempt | None:
        """The attempt that was chosen, or else that is shown, or else that began last."""
        attempts, view = self.runner.attempts, self.view
        if self.chosen is not None:
            return attempts[self.chosen.number - 1]
        if view is not None and view.number <= len(attempts):
            return attempts[view.number - 1]
        return attempts[-1] if attempts else None

    def characters_shown(self) -> dict[int, int]:
        """For each attempt's number, how many characters of its own it has shown."""
        return {number: view.characters for number, view in self._views.items()}

    def released_text(self) -> str:
        """The released text of the attempt that is shown."""
        attempt, view = self.attempt, self.view
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
