"""One streaming run: attempts, and the gate to who reads them, in one cancel scope.

::

    AttemptRunner ──> Attempt ──cut, advance──> AttemptView ──> Gate ──> readers
        │            └─ race: producer, lanes                ^
        │                                                    │
        └──Choice──> accept / reject ────────────────────────┘
    preconditions ──────────────────────────────── unlock ───┘   (a failing one cancels the attempts)

The run lives in one task of its session's. When that task is done, all others are gone; only then the
consumer learns how it went.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import anyio
import attrs

from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.errors import BudgetExceeded, PreconditionFailed
from mellea_sc.core.generation_info import GenerationInfo
from mellea_sc.core.requirement import PartialValidationResult, Requirement
from mellea_sc.core.retries import Retries, retried
from mellea_sc.core.spending import Limits
from mellea_sc.core.tool_calls import ToolCall
from mellea_sc.core.trace import Cause, Trace
from mellea_sc.runtime.budgets.limits import limited
from mellea_sc.runtime.budgets.scope import budget_scope
from mellea_sc.runtime.checks.attempt import Attempt
from mellea_sc.runtime.checks.validation import check_input
from mellea_sc.runtime.failures import (
    failure_of,
    raise_unchanged,
    stray_cancellation_as,
    task_group,
)
from mellea_sc.runtime.generation.answers import read_meaning, warn_of_misfit
from mellea_sc.runtime.generation.producer import describe, opened_scope
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.loops.current import call_in, clock, current_loop, running_task
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.unobserved import Held, log_unobserved
from mellea_sc.stdlib.conversation import Turn
from mellea_sc.stdlib.sampling.by_requirement import ByRequirement
from mellea_sc.stdlib.sampling.engine.judges import AttemptSettings
from mellea_sc.stdlib.sampling.engine.runner import AttemptRunner
from mellea_sc.stdlib.sampling.engine.tracing import cause_of_error, named
from mellea_sc.stdlib.sampling.plan import AttemptResult, Choice, Plan, is_rejected, raise_if_unmet
from mellea_sc.stdlib.stream.events import CompletedEvent, ErrorEvent, InputCheckEvent
from mellea_sc.stdlib.stream.result import StreamChunkingResult
from mellea_sc.stdlib.stream.view import Gate

__all__ = ["StreamRun", "StreamSettings"]


@attrs.frozen(kw_only=True)
class StreamSettings:
    """How a run is shown, and by what strategy it is made.

    Args:
        strategy: What follows a rejected attempt; ``None``: nothing, unless a requirement says so.
        preconditions: What must hold of the input.
        limits: What the run may use.
        retries: How often its requests are made again; ``None``: as the session says.
        lookahead: How many released chunks may wait unread; ``None``: any number.
        hold_back: How many chunks are held back until their attempt is accepted; may be infinite.
        attempt: How attempts are made.
    """

    strategy: Plan | None
    preconditions: Sequence[Requirement]
    limits: Limits | None
    retries: Retries | None
    lookahead: int | None
    hold_back: float
    attempt: AttemptSettings


class StreamRun:
    """The tasks behind a :class:`StreamChunkingResult`.

    Args:
        action: What the model is asked.
        turn: Takes the run's place in a conversation; given what has the run go on without its reader when
            another request waits for it.
        requirements: What must hold; the originals.
        settings: How it is made and shown.

    Raises:
        InvalidOption: a chunking is not known.
        Exception: as a requirement's ``__copy__`` raises it.
    """

    def __init__(
        self,
        action: Component | Span,
        turn: Callable[[Callable[[], None]], Turn],
        requirements: Sequence[Requirement],
        settings: StreamSettings,
    ) -> None:
        self._action = action
        self._limits = settings.limits
        self._retries = settings.retries
        self._preconditions = [copy.copy(one) for one in settings.preconditions]
        self._input_timeout = settings.attempt.validator_timeout
        self._unmet: list[tuple[Requirement, PartialValidationResult]] = []
        self._input_judges: list[tuple[ModelOutputThunk, float]] = []
        self._keeper: Nursery | None = None
        self._held: Held | None = None
        self._dismissed = False
        self.started_at: str = ""
        self._chosen: AttemptResult | None = None
        self._answered: ModelOutputThunk | None = None
        self._format = settings.attempt.format
        self._loop = current_loop()
        self.observed: anyio.Event = anyio.Event()
        strategy = ByRequirement(settings.strategy, requirements)
        self._gate = Gate(
            lookahead=settings.lookahead,
            hold_back=settings.hold_back,
            may_retract=strategy.asks_anew,
            concurrent=strategy.concurrent,
            locked=bool(self._preconditions),
            error=self.error_to_raise,
        )
        self._conductor = AttemptRunner(strategy, requirements, settings.attempt, self._gate)
        self.result: StreamChunkingResult = StreamChunkingResult(
            self, self._gate, tuple(requirements)
        )
        # the last step: whoever is in the line of a conversation has to come to run()
        self._turn = turn(self._gate.open)

    # --- its task ------------------------------------------------------------------------------

    async def run(
        self,
        backend: AbstractAsyncContextManager[Nursery],
        validation_backend: AbstractAsyncContextManager[Nursery] | None,
        keeper: Nursery | None,
    ) -> None:
        """Run to the end. Raises nothing but cancellation, unless the keeper wants its first error.

        Args:
            backend: The nursery whose backend generates.
            validation_backend: The one that validators generate with, if it is another.
            keeper: Keeps the error if nobody observes it.
        """
        self._keeper = keeper
        result = self.result
        task = running_task()
        try:
            with result.scope, budget_scope(), limited(self._limits), retried(self._retries):
                async with backend as nursery, self._turn as ctx:
                    if validation_backend is None:
                        await self._answer(nursery, nursery, ctx)
                    else:
                        async with validation_backend as judges:
                            await self._answer(nursery, judges, ctx)
        except BaseException as error:  # noqa: ASYNC103 - what failure_of() does not know is raised
            failure = failure_of(error, "a stream", task)
            if failure is None:
                raise
            result.error = failure
        finally:
            self._end()
        if (
            result.error is not None
            and keeper is not None
            and keeper.on_error == "cancel"
            and self._held is not None
            and not self._dismissed
        ):
            raise_unchanged(result.error)

    def on_never_started(self) -> None:
        """Its task was cancelled before its first step."""
        self._turn.give_up()
        self._end()

    async def _answer(self, nursery: Nursery, judges: Nursery, ctx: Context) -> None:
        if not self._preconditions:
            await self._attempt(nursery, judges, ctx)
            return
        async with task_group() as tasks:
            tasks.start_soon(self._check_input, judges, ctx, name="preconditions")
            with stray_cancellation_as("an attempt"):
                await self._attempt(nursery, judges, ctx)

    async def _check_input(self, judges: Nursery, ctx: Context) -> None:
        with stray_cancellation_as("a precondition"):
            async with opened_scope(judges, started=self._input_judge_began) as backend:
                verdicts = await check_input(
                    self._preconditions, self._action, backend, ctx, timeout=self._input_timeout
                )
            judged = list(zip(self._preconditions, verdicts, strict=True))
            self._unmet = [
                (one, PartialValidationResult("fail", reason=verdict.reason, score=verdict.score))
                for one, verdict in judged
                if is_rejected(one, verdict)
            ]
            self._gate.events.write(InputCheckEvent(not self._unmet, verdicts))
            raise_if_unmet(judged)
        self._gate.unlock()

    def _input_judge_began(self, thunk: ModelOutputThunk) -> None:
        self._input_judges.append((thunk, clock()()))

    async def _attempt(self, nursery: Nursery, judges: Nursery, ctx: Context) -> None:
        choice = await self._conductor.run(self._action, ctx, nursery, judges)
        chosen = self._conductor.chosen(choice)
        showing = self._gate.showing
        was_live = showing is not None and not self._gate.hold_back
        if not choice.success and showing is not None and self._gate.hold_back < math.inf:
            # what was shown stays, whichever attempt the strategy finds the least bad
            chosen = self._conductor.chosen(Choice(showing.number, success=False))
        if chosen.completed and (choice.success or was_live):
            await self._gate.accept(chosen.number, nursery.valves)
            answer = chosen.thunk()
            answer.name = describe(self._action)
            read_meaning(answer, self._action, self._format)
            warn_of_misfit(answer)
            self._answered = answer
            self.result.completed = True
            self._turn.commit(ctx.add(self._action).add(answer))
        else:
            self._gate.reject(chosen.number)
        self._chosen = chosen

    def _end(self) -> None:
        """Say how it went."""
        result, conductor = self.result, self._conductor
        attempt = self._shown_attempt()
        if result.error is not None:
            if self._keeper is not None:
                self._held = self._keeper.hold(result.error, self.started_at)
            if self._dismissed:
                self._let_go()
        result.streaming_failures = self._unmet
        if attempt is not None and not self._unmet:
            result.streaming_failures = attempt.failures
            result.recorded_failures = attempt.noted
            result.final_validations = attempt.validations
        if result.error is not None:
            result.completed = False
            result.cancelled = isinstance(result.error, BudgetExceeded)
            name = type(result.error).__name__
            self._gate.events.write(ErrorEvent(name, _message_of(result.error)))
        elif self._chosen is None and not result.streaming_failures:
            result.completed = False
            result.cancelled = True
        attempts = max(1, len(conductor.attempts))
        self._gate.events.write(CompletedEvent(result.completed, result.full_text, attempts))
        result.ended.set()
        self._gate.close()

    # --- what its result asks --------------------------------------------------------------------

    @property
    def attempts(self) -> Sequence[AttemptResult]:
        """The attempts that have ended, in the order of their ends."""
        return self._conductor.results

    def released_text(self) -> str:
        """What was released of the attempt that is shown."""
        attempt, showing = self._shown_attempt(), self._gate.showing
        if attempt is None or showing is None:
            return ""
        if self.result.completed:
            return attempt.text
        return attempt.edited[: showing.position]

    def thunk(self) -> ModelOutputThunk:
        """What was released, as a computed thunk."""
        thunk = ModelOutputThunk.computed(self.released_text(), generation=self.generation())
        if self._answered is not None:
            thunk.parsed_repr = self._answered.parsed_repr
            thunk.format_error = self._answered.format_error
        elif self._format is not None:
            read_meaning(thunk, self._action, self._format)
        return thunk

    def reasoning(self) -> str:
        """What the model thinks, in the attempt that is shown; nothing before one may be."""
        attempt = self._shown_attempt()
        return attempt.reasoning if attempt is not None and self._gate.is_showing else ""

    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that the model wants to have made, in the attempt that is shown; none before one may be."""
        attempt = self._shown_attempt()
        return attempt.tool_calls if attempt is not None and self._gate.is_showing else ()

    def generation(self) -> GenerationInfo:
        """What is known of the attempt that is shown, with the usage and the time of all."""
        attempt = self._shown_attempt()
        if attempt is None:
            return GenerationInfo()
        known = attempt.generation
        if not self._gate.is_showing:
            known = attrs.evolve(known, reasoning="", tool_calls=())
        return known.summed_over([one.generation for one in self._conductor.attempts])

    def trace(self) -> Trace:
        """The story so far."""
        result, chosen = self.result, self._chosen
        accepted = chosen.number if chosen is not None and result.completed else None
        cause: Cause | None = None
        for unmet, verdict in self._unmet:
            cause = Cause(kind="precondition", who=named(unmet), reason=verdict.reason)
        if not result.ended.is_set():
            outcome = "running"
        elif result.error is not None and not isinstance(result.error, PreconditionFailed):
            outcome, cause = "failed", cause_of_error(result.error, None)
        elif result.cancelled:
            outcome, cause = "cancelled", Cause(kind="cancel", reason=result.cancel_reason)
        elif accepted is None:
            outcome = "rejected"
        else:
            outcome = "accepted" if all(result.final_validations) else "completed, not valid"
        return self._conductor.trace(
            self._action,
            outcome,
            accepted=accepted,
            released=self._gate.characters_shown(),
            cause=cause,
            judges=self._input_judges,
        )

    def was_observed(self) -> None:
        """Somebody has been told of the error."""
        call_in(self._loop, self.observed.set)
        if self._held is not None:
            self._held.observed()

    def dismiss(self) -> None:
        """Nobody will ask for an error: one that nobody was told of is logged."""
        self._dismissed = True
        if self.result.ended.is_set():
            self._let_go()

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.let_go()
        elif self._keeper is None and self.result.error is not None and not self.observed.is_set():
            self.observed.set()
            log_unobserved("a stream without a session", [self.result.error])

    def _shown_attempt(self) -> Attempt | None:
        """The attempt that was chosen, or is shown, or began last."""
        attempts, showing = self._conductor.attempts, self._gate.showing
        if self._chosen is not None:
            return attempts[self._chosen.number - 1]
        if showing is not None and showing.number <= len(attempts):
            return attempts[showing.number - 1]
        return attempts[-1] if attempts else None

    def error_to_raise(self) -> Exception | None:
        """The error that ended the run, once: for who has come to the end of the chunks."""
        return self.result.error_to_raise()


def _message_of(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error of somebody's that cannot say its message
        return "(its message cannot be read)"
