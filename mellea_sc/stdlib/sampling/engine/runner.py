"""Runs the attempts that a plan asks for, until the plan chooses one.

::

    plan.begin() ──Ask──> Attempt (race, lanes, final validation) ──AttemptResult──┐
         ^                                                                         │
         └──Ask── plan.after() <───────────────────────────────────────────────────┘
                     └──Choice──> every attempt that still runs is cancelled, with its connection and validators

Attempts that run one after the other run in the caller's task. Attempts that run at the same time have a task group,
which has ended when :meth:`AttemptRunner.run` returns. One of several attempts may fail by a :class:`BackendError`
without ending the others. If another attempt is chosen, the error is logged and kept in its attempt; if none is
chosen, the error is raised.
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
    """The nurseries for the requests of a call.

    Args:
        generating: The nursery whose backend generates.
        judging: The nursery whose backend the validators use; the same one, unless they have another backend.
    """

    generating: Nursery
    judging: Nursery


class AttemptRunner:
    """The attempts of one call.

    Args:
        plan: Decides what to ask.
        question: The arguments of the call.
        options: The options for checking attempts.
        stage: Shows attempts to the readers.

    Raises:
        InvalidOption: a chunking is not known.
        Exception: as a requirement's ``__copy__`` raises it.
    """

    def __init__(
        self, plan: Plan, question: Question, options: StreamOptions, stage: Stage
    ) -> None:
        self.results: list[AttemptResult] = []
        """The results that the plan has seen or will see, in the order in which the attempts ended."""
        self.attempts: list[Attempt] = []
        """The attempts in the order in which they began: number 1 is the first."""
        self.asks: list[Ask] = []
        """The request for each attempt, in the same order."""
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
        """Run attempts until the plan has made its choice.

        Args:
            ctx: The conversation before the question.
            nurseries: The nurseries for the requests.

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
        """The result of an attempt that has ended."""
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
        kept = self.attempts[ask.of - 1].kept(ask.keep) if ask.keep else None
        number = len(self.attempts) + 1
        attempt = self._factory.begin(number, ask, kept, nurseries.generating, self._stage)
        self.attempts.append(attempt)
        self.asks.append(ask)
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

    async def _weigh(self, attempt: Attempt, number: int, nursery: Nursery) -> float | None:
        """The plan's score of a completed attempt; ``None`` if another one was chosen meanwhile."""
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
        """A block around the plan's own code: its first error ends the call, and later ones are suppressed.

        Otherwise attempts that end at the same moment would each raise the same error.
        """
        try:
            yield
        except BackendError:
            raise  # from a judge that the plan has asked: it counts as an error of the attempt
        except Exception:
            if not self._plan_failed:
                self._plan_failed = True
                raise

    def _result(
        self, number: int, *, score: float | None = None, released: int = 0
    ) -> AttemptResult:
        attempt, ask = self.attempts[number - 1], self.asks[number - 1]
        requirements, failures = self._question.requirements, attempt.ledger.failures
        generation, text = attempt.record.info(), attempt.text
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
            begun=len(self.attempts) + self._starting,
        )

    # --- the next decision -------------------------------------------------------------------------

    def _decide(self, result: AttemptResult) -> None:
        """Ask the plan what to do after the end of an attempt."""
        # Plans decide by answers, and an attempt that ended by an error has none. While others are running, one of
        # them may still be good, so the plan is not asked. After the last one it must be decided all the same.
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
        """Choose an earlier attempt if the plan finds one good, else raise the errors; the last attempt has failed."""
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
            # No answer is good, and perhaps the good one was lost by an error: the error tells the user more.
            self._raise_errors()

    def _raise_errors(self) -> NoReturn:
        errors, self._errors = self._errors, []
        if len(errors) == 1:
            raise_unchanged(errors[0])
        raise_unchanged(ExceptionGroup("several attempts failed", errors))
