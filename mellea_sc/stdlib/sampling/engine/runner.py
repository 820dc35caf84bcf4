"""Asking what a plan says: attempts that are judged while they run, until the plan chooses one.

::

    plan.begin() ──Ask──> Attempt (race, lanes, final validation) ──AttemptResult──┐
         ^                                                                         │
         └──Ask── plan.after() <───────────────────────────────────────────────────┘
                     └──Choice──> every attempt that still runs is stopped: connection, validators

Attempts that come one after the other run in the caller's task; several at once in a task group of
the runner's, which has ended when :meth:`AttemptRunner.run` returns. Of several at once one may fail by
a :class:`BackendError` without ending the others: if one of them is chosen, the error is logged and
stands in its attempt; if none is, it is raised.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

import anyio
import anyio.abc
import attrs

from mellea_sc.core.base import Context
from mellea_sc.core.errors import BackendError, InvalidOption
from mellea_sc.core.question import Question
from mellea_sc.runtime.checks.attempt import Attempt
from mellea_sc.runtime.failures import (
    raise_unchanged,
    stray_cancellation_as,
    task_group,
    without_internals,
)
from mellea_sc.runtime.generation.answers import misfit_of
from mellea_sc.runtime.generation.bound import opened_scope
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.stdlib.sampling.engine.factory import AttemptFactory, Stage
from mellea_sc.stdlib.sampling.engine.options import StreamOptions
from mellea_sc.stdlib.sampling.plan import Ask, AttemptResult, Choice, Plan

__all__ = ["AttemptRunner", "Nurseries"]

log: Final = logging.getLogger("mellea_sc")


@attrs.frozen
class Nurseries:
    """Where the requests of a call go.

    Args:
        generating: Its backend generates.
        judging: Its backend serves the validators; the same one, unless they have a backend of their own.
    """

    generating: Nursery
    judging: Nursery


class AttemptRunner:
    """The attempts of one call.

    Args:
        plan: Says what to ask.
        question: What the call asks.
        options: How attempts are checked.
        stage: Where they are shown.

    Raises:
        InvalidOption: a chunking is not known.
        Exception: as a requirement's ``__copy__`` raises it.
    """

    def __init__(
        self, plan: Plan, question: Question, options: StreamOptions, stage: Stage
    ) -> None:
        self.results: list[AttemptResult] = []
        """In the order of their ends: the last one is what a plan is told of."""
        self.attempts: list[Attempt] = []
        """In the order of their beginnings: that of number 1 is the first."""
        self.asks: list[Ask] = []
        """What each of them asks."""
        self._plan = plan
        self._question = question
        self._factory = AttemptFactory(question, options, remembers=plan.goes_on)
        self._stage = stage
        self._next: list[Ask] = []
        self._starting = 0
        self._running: dict[int, Attempt] = {}
        self._weighing: set[anyio.CancelScope] = set()
        self._errors: list[BackendError] = []
        self._choice: Choice | None = None
        self._plan_failed = False

    async def run(self, ctx: Context, nurseries: Nurseries) -> Choice:
        """Ask until the plan has made its choice.

        Args:
            ctx: The conversation before the question.
            nurseries: Where the requests go.

        Raises:
            Exception: the error that ended an attempt; several at once as an ``ExceptionGroup``.

        Cancellation: every attempt is cancelled and has ended.
        """
        plan = self._plan
        self._next.extend(plan.begin(self._question.action, ctx))
        if not self._next:
            raise InvalidOption(f"{plan!r} asks nothing to begin with")
        if not plan.concurrent:
            while self._choice is None:
                await self._run_attempt(self._next.pop(), nurseries)
            return self._choice
        try:
            async with task_group() as tasks:
                self._start_all(tasks, nurseries)
        finally:
            for error in self._errors:
                log.warning(
                    "an attempt failed, and others went on", exc_info=without_internals(error)
                )
        assert self._choice is not None
        return self._choice

    def result(self, number: int) -> AttemptResult:
        """What became of an attempt that has ended."""
        return next(result for result in self.results if result.number == number)

    def _start_all(self, tasks: anyio.abc.TaskGroup, nurseries: Nurseries) -> None:
        async def run(ask: Ask) -> None:
            self._starting -= 1
            if self._choice is not None:
                return
            with stray_cancellation_as("an attempt"):
                await self._run_attempt(ask, nurseries)
                self._start_all(tasks, nurseries)

        asks, self._next = self._next, []
        self._starting += len(asks)
        for ask in asks:
            tasks.start_soon(run, ask, name=f"an attempt of {ask.chain}")

    async def _run_attempt(self, ask: Ask, nurseries: Nurseries) -> None:
        attempt = self._begin(ask, nurseries.generating)
        number = len(self.attempts)
        self._running[number] = attempt
        score: float | None = None
        try:
            await attempt.run(nurseries.generating, nurseries.judging)
            if attempt.end == "completed" and self._plan.weighs:
                score = await self._weigh(attempt, number, nurseries.judging)
        except BackendError as error:
            if not self._plan.concurrent:
                raise
            attempt.end = "error"
            self._errors.append(error)
        finally:
            del self._running[number]
            released = self._stage.end_attempt(number, attempt)
            result = self._result(number, score=score, released=released)
            self.results.append(result)
        if self._choice is None:
            self._decide(result)

    def _begin(self, ask: Ask, nursery: Nursery) -> Attempt:
        kept = self.attempts[ask.of - 1].kept(ask.keep) if ask.keep else None
        number = len(self.attempts) + 1
        self.attempts.append(self._factory.begin(number, ask, kept, nursery, self._stage))
        self.asks.append(ask)
        return self.attempts[-1]

    async def _weigh(self, attempt: Attempt, number: int, nursery: Nursery) -> float | None:
        """What the plan finds a completed attempt worth; ``None`` where another one was chosen meanwhile."""
        with anyio.CancelScope() as scope:
            self._weighing.add(scope)
            try:
                async with opened_scope(nursery, started=attempt.judge_began) as backend:
                    with self._asking_the_plan():
                        return await self._plan.weigh(self._result(number), backend)
            finally:
                self._weighing.discard(scope)
        return None

    @contextmanager
    def _asking_the_plan(self) -> Generator[None]:
        """Around the plan's own code: its first error ends the call, and no other is raised.

        Attempts that end in the same moment would otherwise raise the same error once each.
        """
        try:
            yield
        except BackendError:
            raise  # of a judge that the plan has asked: the attempt's, as of any other generation
        except Exception:
            if not self._plan_failed:
                self._plan_failed = True
                raise

    def _result(
        self, number: int, *, score: float | None = None, released: int = 0
    ) -> AttemptResult:
        attempt, ask = self.attempts[number - 1], self.asks[number - 1]
        requirements, failures = self._question.requirements, attempt.ledger.failures
        generation, text = attempt.generation, attempt.text
        is_answer = attempt.end == "completed" and (attempt.has_text or not generation.tool_calls)
        if attempt.end in ("failed", "stopped"):
            generation = attrs.evolve(generation, finish_reason="aborted")
        return AttemptResult(
            number=number,
            ask=ask,
            end=attempt.end,
            text=text,
            generated=attempt.generated,
            failures=[(requirements[one.lane], one.verdict) for one in failures],
            validations=list(zip(requirements, attempt.validations, strict=False)),
            failed_at=min((one.chunk_index for one in failures), default=0),
            released=released,
            generation=generation,
            misfit=misfit_of(text, self._question.format) if is_answer else None,
            score=score,
        )

    # --- the choice of what comes next -------------------------------------------------------------

    def _decide(self, result: AttemptResult) -> None:
        """Ask the plan what follows from the end of an attempt, of which it has not heard before."""
        # a plan is told of answers. One that an error ended has none to be judged by, and while others run
        # one of them may still be good: so it is no news, until it is the last
        past = [one for one in self.results if one.end != "error"]
        running = len(self._running) + self._starting
        if result.end == "error":
            if not running:
                self._choose_despite_errors(past)
            return
        with self._asking_the_plan():
            step = self._plan.after(past, running)
            if isinstance(step, Choice):
                self._choose(step)
            elif step or running:
                self._next.extend(step)
            else:
                raise InvalidOption(f"{self._plan!r} asks nothing more and chooses nothing")

    def _choose_despite_errors(self, past: Sequence[AttemptResult]) -> None:
        """The last attempt failed: what has ended before it may be good enough, else the errors are raised."""
        step = self._plan.after(past, 0) if past else None
        if isinstance(step, Choice) and step.success:
            self._choose(step)
        else:
            self._raise_errors()

    def _choose(self, step: Choice) -> None:
        if all(one.number != step.number or one.end == "error" for one in self.results):
            raise InvalidOption(f"{self._plan!r} chose attempt {step.number}, which is not there")
        self._choice = step
        self._next.clear()
        for scope in self._weighing:
            scope.cancel("another attempt was chosen")
        for other in self._running.values():
            other.stop(f"attempt {step.number} was chosen")
        if self._errors and not step.success:
            self._raise_errors()  # no answer is good, and perhaps one was missing: the error says more

    def _raise_errors(self) -> NoReturn:
        errors, self._errors = self._errors, []
        if len(errors) == 1:
            raise_unchanged(errors[0])
        raise_unchanged(ExceptionGroup("several attempts failed", errors))
