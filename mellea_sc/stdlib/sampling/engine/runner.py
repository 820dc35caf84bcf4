"""Asking what a plan says: attempts in tasks of their own, judged while they run.

::

    plan.begin() ──Ask──> Attempt (race, lanes, final validation) ──AttemptResult──┐
         ^                                                                         │
         └──Ask── plan.after() <───────────────────────────────────────────────────┘
                     └──Choice──> every attempt that still runs is stopped: connection, validators

Attempts that come one after the other run in the caller's task; several at once in a task group of
the conductor's, which has ended when :meth:`AttemptRunner.run` returns. Of several at once one may fail by
a :class:`BackendError` without ending the others: if one of them is chosen, the error is logged and
stands in its attempt; if none is, it is raised.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn, Protocol

import anyio
import anyio.abc
import attrs

from mellea_sc.core.backend import Format
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.errors import BackendError, InvalidOption
from mellea_sc.core.model_options import ModelOption, ModelOptions, merge_options
from mellea_sc.core.requirement import Requirement, ValidationResult
from mellea_sc.core.sampling import SamplingResult
from mellea_sc.core.trace import Cause, Trace
from mellea_sc.runtime.checks.attempt import Asking, Attempt, Audience, ResumePoint
from mellea_sc.runtime.checks.edits import Edits
from mellea_sc.runtime.checks.lanes import LaneCheckpoint
from mellea_sc.runtime.checks.ledger import Chunk, Ledger
from mellea_sc.runtime.failures import raise_unchanged, stray_cancellation_as, task_group, tidied
from mellea_sc.runtime.generation.answers import misfit_of, read_meaning
from mellea_sc.runtime.generation.producer import BoundBackend, describe, opened_scope
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.pacing import Valves
from mellea_sc.stdlib.components.feedback import going_on
from mellea_sc.stdlib.formats import checked
from mellea_sc.stdlib.sampling.by_requirement import ByRequirement
from mellea_sc.stdlib.sampling.engine.judges import (
    AttemptSettings,
    check_chunkings,
    judging_of,
    known_at_end_of,
)
from mellea_sc.stdlib.sampling.engine.tracing import trace_of
from mellea_sc.stdlib.sampling.plan import Ask, AttemptResult, Choice, Plan

__all__ = ["AttemptRunner", "Stage", "sample"]

log: Final = logging.getLogger("mellea_sc")


class Stage(Protocol):
    """Where attempts are shown."""

    def enter(self, number: int, ask: Ask, ledger: Ledger, edits: Edits) -> Audience:
        """An attempt begins."""
        ...

    def leave(self, attempt: Attempt, number: int) -> int:
        """An attempt has ended; gives how many of its chunks have been shown."""
        ...


class AttemptRunner:
    """The attempts of one call.

    Args:
        strategy: Says what to ask.
        requirements: The originals; each attempt is judged by copies.
        settings: How attempts are made.
        stage: Where they are shown.

    Raises:
        InvalidOption: a chunking is not known.
        Exception: as a requirement's ``__copy__`` raises it.
    """

    def __init__(
        self,
        strategy: Plan,
        requirements: Sequence[Requirement],
        settings: AttemptSettings,
        stage: Stage,
    ) -> None:
        check_chunkings(requirements, settings)
        self.results: list[AttemptResult] = []
        self.attempts: list[Attempt] = []
        self.asks: list[Ask] = []
        self._strategy = strategy
        self._requirements = requirements
        self._settings = settings
        self._stage = stage
        self._first_copies: list[Requirement] | None = [copy.copy(one) for one in requirements]
        self._running: dict[int, Attempt] = {}
        self._asked = 0
        self._errors: list[BackendError] = []
        self._weighing: set[anyio.CancelScope] = set()
        self._choice: Choice | None = None
        self._next: list[Ask] = []

    async def run(
        self,
        action: Component | Span,
        ctx: Context,
        nursery: Nursery,
        judges: Nursery,
    ) -> Choice:
        """Ask until the strategy has made its choice.

        Args:
            action: What the user asks.
            ctx: The conversation before it.
            nursery: Its backend generates.
            judges: Its backend serves the validators.

        Raises:
            Exception: the error that ended an attempt; several at once as an ``ExceptionGroup``.

        Cancellation: every attempt is cancelled and has ended.
        """
        self._next.extend(self._strategy.begin(action, ctx))
        if not self._next:
            raise InvalidOption(f"{self._strategy!r} asks nothing to begin with")
        if not self._strategy.concurrent:
            while self._choice is None:
                await self._attend(self._next.pop(), nursery, judges)
            return self._choice
        try:
            async with task_group() as tasks:
                self._start_all(tasks, nursery, judges)
        finally:
            for error in self._errors:
                log.warning("an attempt failed, and others went on", exc_info=tidied(error))
        assert self._choice is not None
        return self._choice

    def chosen(self, choice: Choice) -> AttemptResult:
        """The attempt that was chosen."""
        return next(result for result in self.results if result.number == choice.number)

    def trace(
        self,
        action: Component | Span,
        outcome: str,
        *,
        accepted: int | None,
        released: Mapping[int, int] | None = None,
        cause: Cause | None = None,
        judges: Sequence[tuple[ModelOutputThunk, float]] = (),
    ) -> Trace:
        """The story so far.

        Args:
            action: What was asked.
            outcome: How it ended.
            accepted: The number of the attempt whose text is the call's.
            released: For each attempt's number, how many characters of its own a reader was shown.
            cause: What ended it, where that was none of its attempts.
            judges: Who has judged what was asked, and since when.
        """
        ends = [one.ended_at for one in self.attempts]
        return trace_of(
            describe(action),
            outcome,
            self.attempts,
            self.asks,
            accepted=accepted,
            released=released or {},
            now=max(ends, default=0.0),
            cause=cause,
            judges=judges,
        )

    def _start_all(
        self,
        tasks: anyio.abc.TaskGroup,
        nursery: Nursery,
        judges: Nursery,
    ) -> None:
        async def attend(ask: Ask) -> None:
            self._asked -= 1
            if self._choice is not None:
                return
            with stray_cancellation_as("an attempt"):
                await self._attend(ask, nursery, judges)
                self._start_all(tasks, nursery, judges)

        asks, self._next = self._next, []
        self._asked += len(asks)
        for ask in asks:
            tasks.start_soon(attend, ask, name=f"an attempt of {ask.chain}")

    async def _attend(self, ask: Ask, nursery: Nursery, judges: Nursery) -> None:
        attempt = self._make(ask, nursery)
        number = len(self.attempts)
        self._running[number] = attempt
        score: float | None = None
        try:
            await attempt.run(nursery, judges)
            if attempt.end == "completed" and self._strategy.weighs:
                score = await self._weigh(attempt, self._result(attempt, number, ask), judges)
        except BackendError as error:
            if not self._strategy.concurrent:
                raise
            attempt.end = "error"
            self._errors.append(error)
        finally:
            del self._running[number]
            released = self._stage.leave(attempt, number)
            result = self._result(attempt, number, ask, score=score, released=released)
            self.results.append(result)
        if self._choice is None:
            self._decide(result)

    async def _weigh(
        self, attempt: Attempt, result: AttemptResult, judges: Nursery
    ) -> float | None:
        with anyio.CancelScope() as scope:
            self._weighing.add(scope)
            try:
                async with opened_scope(judges, started=attempt.judge_began) as backend:
                    return await self._strategy.weigh(result, backend)
            finally:
                self._weighing.discard(scope)
        return None

    def _decide(self, result: AttemptResult) -> None:
        past = [one for one in self.results if one.end != "error"]
        running = len(self._running) + self._asked
        if result.end == "error":
            if not running:
                self._choose_in_spite_of_errors(past)
            return
        step = self._strategy.after(past, running)
        if not isinstance(step, Choice):
            if not step and not running:
                raise InvalidOption(f"{self._strategy!r} asks nothing more and chooses nothing")
            self._next.extend(step)
            return
        self._choose(step)

    def _choose_in_spite_of_errors(self, past: Sequence[AttemptResult]) -> None:
        """The last attempt failed: what has ended before it may be good enough."""
        step = self._strategy.after(past, 0) if past else None
        if isinstance(step, Choice) and step.success:
            self._choose(step)
        else:
            self._raise_errors()

    def _choose(self, step: Choice) -> None:
        if all(one.number != step.number or one.end == "error" for one in self.results):
            raise InvalidOption(
                f"{self._strategy!r} chose attempt {step.number}, which is not there"
            )
        self._choice = step
        self._next.clear()
        for scope in self._weighing:
            scope.cancel("another attempt was chosen")
        for other in self._running.values():
            other.stop(f"attempt {step.number} was chosen")
        if self._errors and not step.success:
            self._raise_errors()

    def _raise_errors(self) -> NoReturn:
        errors, self._errors = self._errors, []
        if len(errors) == 1:
            raise_unchanged(errors[0])
        raise_unchanged(ExceptionGroup("several attempts failed", errors))

    # --- one attempt -----------------------------------------------------------------------------

    def _make(self, ask: Ask, nursery: Nursery) -> Attempt:
        kept = self.attempts[ask.of - 1].kept(ask.keep) if ask.keep else None
        judging = judging_of(
            self._known(kept), self._settings, kept=kept, remembers=self._strategy.goes_on
        )
        number = len(self.attempts) + 1
        action, ctx = ask.action, ask.context
        if kept is not None:
            action, ctx = going_on(
                action,
                ctx,
                ModelOutputThunk.computed(kept.text),
                prefills=nursery.backend.prefills,
            )
        attempt = Attempt(
            Asking(
                action=action,
                ctx=ctx,
                asked=ask.context.add(ask.action),
                format=self._settings.format,
                model_options=self._options(number, nursery.options, kept),
            ),
            judging,
            self._stage.enter(number, ask, judging.ledger, judging.edits),
            kept=kept,
            remembers=self._strategy.goes_on,
        )
        self.attempts.append(attempt)
        self.asks.append(ask)
        return attempt

    def _known(self, kept: ResumePoint | None) -> list[LaneCheckpoint]:
        if kept is not None:
            return known_at_end_of(kept, self._requirements, self._settings)
        copies, self._first_copies = self._first_copies, None
        if copies is None:
            copies = [copy.copy(one) for one in self._requirements]
        return [LaneCheckpoint(0, requirement) for requirement in copies]

    def _options(
        self, number: int, defaults: ModelOptions, kept: ResumePoint | None
    ) -> ModelOptions | None:
        given = self._settings.model_options
        known = merge_options(defaults, given)
        seed, most = known.get(ModelOption.SEED), known.get(ModelOption.MAX_NEW_TOKENS)
        if number > 1 and isinstance(seed, int):
            given = merge_options(given, {ModelOption.SEED: seed + number - 1})
        if kept is not None and isinstance(most, int):
            # what is kept is a part of the answer; a delta has one token, or more
            rest = max(1, most - len(kept.deltas))
            given = merge_options(given, {ModelOption.MAX_NEW_TOKENS: rest})
        return given

    def _result(
        self,
        attempt: Attempt,
        number: int,
        ask: Ask,
        *,
        score: float | None = None,
        released: int = 0,
    ) -> AttemptResult:
        failures = attempt.ledger.failures
        generation, format = attempt.generation, self._settings.format
        is_answer = attempt.end == "completed" and (attempt.has_text or not generation.tool_calls)
        if attempt.end in ("failed", "stopped"):
            generation = attrs.evolve(generation, finish_reason="aborted")
        return AttemptResult(
            number=number,
            ask=ask,
            end=attempt.end,
            text=attempt.text,
            generated=attempt.generated,
            failures=[(self._requirements[one.lane], one.verdict) for one in failures],
            validations=list(zip(self._requirements, attempt.validations, strict=False)),
            failed_at=min((one.chunk_index for one in failures), default=0),
            released=released,
            generation=generation,
            misfit=misfit_of(attempt.text, format) if is_answer else None,
            score=score,
        )


class _Unseen:
    """The stage and the audience of attempts that nobody looks at while they run."""

    is_full = False

    def enter(self, number: int, ask: Ask, ledger: Ledger, edits: Edits) -> Audience:
        return self

    def leave(self, attempt: Attempt, number: int) -> int:
        return 0

    def cut(self, chunk: Chunk) -> None: ...

    def advance(self) -> None: ...

    async def room(self, valves: Valves) -> None: ...

    def reasoned(self, text: str) -> None: ...

    def generated(self, text: str) -> None: ...

    def validated(self, validations: Sequence[ValidationResult]) -> None: ...


async def sample(
    strategy: Plan,
    action: Component | Span,
    context: Context,
    backend: BoundBackend,
    requirements: Sequence[Requirement],
    *,
    format: Format | None,
    model_options: ModelOptions | None,
) -> SamplingResult:
    """A planned strategy's :meth:`~mellea_sc.SamplingStrategy.sample`.

    Cancellation: every attempt is cancelled and has ended.
    """
    nursery = (await backend.place()).nursery
    format = checked(format)
    settings = AttemptSettings(format=format, model_options=model_options)
    conductor = AttemptRunner(
        ByRequirement(strategy, requirements), requirements, settings, _Unseen()
    )
    choice = await conductor.run(action, context, nursery, nursery)
    tried = sorted(conductor.results, key=lambda one: one.number)
    answers = [one.thunk() for one in tried]
    for one, answer in zip(tried, answers, strict=True):
        read_meaning(answer, one.ask.action, format)
    return SamplingResult(
        result_index=next(i for i, one in enumerate(tried) if one.number == choice.number),
        success=choice.success,
        sample_generations=answers,
        sample_validations=[one.verdicts for one in tried],
        sample_actions=[one.ask.action for one in tried],
        sample_contexts=[
            one.ask.context.add(one.ask.action).add(answer)
            for one, answer in zip(tried, answers, strict=True)
        ],
        trace=conductor.trace(
            action,
            "accepted" if choice.success else "rejected",
            accepted=choice.number if choice.success else None,
        ),
    )
