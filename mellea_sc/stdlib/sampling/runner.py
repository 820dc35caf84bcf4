"""Makes and runs the attempts that a plan asks for, until the plan chooses one.

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

import copy
import logging
import math
from collections.abc import Sequence
from typing import Final, NoReturn, Protocol

import anyio
import anyio.abc
import attrs

from mellea_sc.core.backend import ModelOption, ModelOptions, merge_options
from mellea_sc.core.base import Context
from mellea_sc.core.errors import BackendError, InvalidOption
from mellea_sc.core.question import Question, StreamOptions
from mellea_sc.core.requirement import Requirement
from mellea_sc.runtime.checks.attempt import Attempt
from mellea_sc.runtime.checks.chunks import Chunk, Cutter, Grouped, Ledger, Rule
from mellea_sc.runtime.checks.editors import NO_EDITS, PASSES, Editor, Edits
from mellea_sc.runtime.checks.interfaces import View
from mellea_sc.runtime.checks.lanes import Lane, Lanes
from mellea_sc.runtime.checks.memory import Findings, LaneCheckpoint, Memory, Resumed, ResumePoint
from mellea_sc.runtime.failures import (
    raise_unchanged,
    stray_cancellation_as,
    task_group,
    without_internals,
)
from mellea_sc.runtime.generation.bound import opened_scope
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.stdlib.chunking import resolve_chunking
from mellea_sc.stdlib.requirements.scanned import Scanner
from mellea_sc.stdlib.sampling.plan import Ask, Choice, Plan, continuation_of
from mellea_sc.stdlib.sampling.results import AttemptResult, result_of

log: Final = logging.getLogger("mellea_sc")


class Once(Plan):
    """One attempt, which is kept in any case."""

    asks_anew = False

    def after(self, past: Sequence[AttemptResult], running: int) -> Choice:
        """Keep the only attempt."""
        return Choice(past[-1].number, past[-1].valid)


class Stage(Protocol):
    """Shows attempts to the readers."""

    def begin_attempt(self, number: int, ask: Ask, ledger: Ledger, edits: Edits) -> View:
        """Begin to show an attempt; returns its view."""
        ...

    def end_attempt(self, number: int, attempt: Attempt) -> int:
        """End the view of an attempt; returns the number of its chunks that were shown, 1 for white space alone."""
        ...


class AttemptFactory:
    """Makes the attempts of one call; each has its own copies of the requirements.

    Args:
        question: The arguments of the call.
        options: The options for checking attempts.
        stage: Shows the attempts; ``None``: nobody does.
        remembers: Whether an attempt may continue from a chunk of an earlier one.

    Raises:
        InvalidOption: a chunking is not known.
        Exception: as a requirement's ``__copy__`` raises it.
    """

    def __init__(
        self, question: Question, options: StreamOptions, stage: Stage | None, *, remembers: bool
    ) -> None:
        self._question = question
        self._options = options
        self._stage = stage
        self._remembers = remembers
        self._rules: list[Rule] = []
        self._judging: set[int] = set()  # the requirements that look at running text at all
        self._editing: list[int] = []  # and those that change it before it is shown
        resolve_chunking(options.chunking)
        for index, requirement in enumerate(question.requirements):
            wants_edits, blocking = requirement.on_fail in ("filter", "fix"), requirement.blocking
            # an advisory requirement's text may have been shown before its verdict: too late to edit
            records = requirement.on_fail == "noop" or (wants_edits and not blocking)
            self._rules.append(Rule("record" if records else "cancel", blocking))
            if type(requirement).stream_validate is not Requirement.stream_validate:
                self._judging.add(index)
                if wants_edits and blocking:
                    self._editing.append(index)
            self._own_cutter(index, requirement)
        # Copied here, and not with the first attempt: a __copy__ that raises must raise before anything is started.
        self._copies: list[Requirement] | None = list(map(copy.copy, question.requirements))

    def begin(self, number: int, ask: Ask, kept: ResumePoint | None, nursery: Nursery) -> Attempt:
        """Make an attempt, which is not running yet.

        Args:
            number: Its number.
            ask: The plan's request.
            kept: The text that it begins with, if it continues an earlier attempt.
            nursery: The nursery whose backend generates.
        """
        question, action, context = self._question, ask.action, ask.context
        options = question.model_options
        if kept is None:
            copies, self._copies = self._copies, None
            copies = copies or list(map(copy.copy, question.requirements))
            known = [LaneCheckpoint(0, requirement) for requirement in copies]
            noted = []
        else:
            known = self._known(kept)
            noted = [fail for fail in kept.noted if fail.end <= known[fail.lane].judged]
            begun = ModelOutputThunk.computed(kept.text)
            action, context = continuation_of(
                action, context, begun, prefills=nursery.backend.prefills
            )
        if number > 1 or kept is not None:
            options = self._model_options(number, nursery.options, kept)
        found: dict[int, Findings] = {}
        edits, editors = self._editors(known, found, kept) if self._editing else (NO_EDITS, ())
        ledger = Ledger(len(known), self._rules, noted=noted)
        lanes: list[Lane] = []
        for index, one in enumerate(known):
            if index in self._judging:
                lanes.append(self._lane(index, one, found, remembers=self._remembers))
            ledger.passed(index, one.judged if index in self._judging else math.inf)
        stage, main = self._stage, Cutter(resolve_chunking(self._options.chunking))
        view = None if stage is None else stage.begin_attempt(number, ask, ledger, edits)
        if kept is not None and (shown := kept.chunks[: ledger.shown]):
            main = Cutter(Resumed(resolve_chunking(self._options.chunking), shown))
        return Attempt(
            attrs.evolve(question, action=action, model_options=options),
            context,
            Lanes(main, lanes, ledger, view, remembers=self._remembers),
            view,
            asked=ask.context.add(ask.action),
            copies=[one.requirement for one in known],
            editors=editors,
            edits=edits,
            timeout=self._options.validator_timeout,
            kept=kept,
        )

    def _editors(
        self, known: Sequence[LaneCheckpoint], found: dict[int, Findings], kept: ResumePoint | None
    ) -> tuple[Edits, list[Editor]]:
        edits = Edits(PASSES * len(self._editing), () if kept is None else kept.edits)
        editors: list[Editor] = []
        for number, index in enumerate(self._editing * PASSES):
            requirement = known[index].requirement
            own = attrs.evolve(known[index], requirement=copy.copy(requirement))
            lane = self._lane(index, own, found, later=True)
            cutter = lane.cutter or Cutter(resolve_chunking(self._options.chunking))
            replaces, text = requirement.on_fail == "fix", "" if kept is None else kept.text
            editors.append(Editor(number, lane, cutter, edits, replaces=replaces, kept=text))
        return edits, editors

    def _model_options(
        self, number: int, defaults: ModelOptions, kept: ResumePoint | None
    ) -> ModelOptions | None:
        given = self._question.model_options
        known = merge_options(defaults, given)
        seed, most = known.get(ModelOption.SEED), known.get(ModelOption.MAX_NEW_TOKENS)
        if number > 1 and isinstance(seed, int):
            given = merge_options(given, {ModelOption.SEED: seed + number - 1})
        if kept is not None and isinstance(most, int):
            # The kept text is a part of the answer, so its tokens count. A delta has at least one token.
            rest = max(1, most - len(kept.deltas))
            given = merge_options(given, {ModelOption.MAX_NEW_TOKENS: rest})
        return given

    def _known(self, kept: ResumePoint) -> list[LaneCheckpoint]:
        """For each requirement, a copy with the state at the end of the kept text.

        A piece at the end of the kept text counts only if the kept text alone determines where it ends. A piece that
        ended there because of the text after it may be longer now, and is validated again.
        """
        known: list[LaneCheckpoint] = []
        for index, known_at in enumerate(kept.known):
            cutter = self._own_cutter(index, self._question.requirements[index])
            cut: Sequence[Chunk] = kept.chunks
            if cutter is not None:
                cut = [piece for text in kept.pieces() for piece in cutter.feed(text)]
            known.append(known_at(cut[-1].end if cut else 0))
        return known

    def _lane(
        self,
        index: int,
        known: LaneCheckpoint,
        found: dict[int, Findings],
        *,
        later: bool = False,
        remembers: bool = False,
    ) -> Lane:
        """A lane. A requirement that edits has several passes, and each takes over the state of the one before."""
        requirement, options = known.requirement, self._options
        earlier = found.pop(index, None)
        # The pieces of a scanner carry their verdicts: there is no expensive validator call to save.
        if later and not isinstance(requirement.chunking, Scanner):
            found[index] = Findings()
        given_on = found.get(index)
        memory = None
        if remembers or earlier is not None or given_on is not None:
            memory = Memory(known, remembers=remembers, earlier=earlier, later=given_on)
        return Lane(
            index,
            requirement,
            self._own_cutter(index, requirement),
            timeout=requirement.timeout or options.validator_timeout,
            buffer=options.lane_buffer,
            records=self._rules[index].on_fail == "record",
            judged=known.judged,
            memory=memory,
        )

    def _own_cutter(self, index: int, requirement: Requirement) -> Cutter | None:
        main, chunking = self._options.chunking, requirement.chunking
        if chunking is None and main is None and index in self._editing:
            # With raw deltas the edits would depend on where the model cuts the text, which they must not.
            chunking = "sentence"
        if chunking is None and requirement.every == 1 and not requirement.window:
            return None
        strategy = resolve_chunking(main if chunking is None else chunking)
        if requirement.every > 1:
            strategy = Grouped(strategy, requirement.every)
        return Cutter(strategy, requirement.window)


class AttemptRunner:
    """The attempts of one call.

    Args:
        plan: Decides what to ask.
        question: The arguments of the call.
        options: The options for checking attempts.
        stage: Shows attempts to the readers; ``None``: there are none.

    Raises:
        InvalidOption: a chunking is not known.
        Exception: as a requirement's ``__copy__`` raises it.
    """

    def __init__(
        self, plan: Plan, question: Question, options: StreamOptions, stage: Stage | None = None
    ) -> None:
        self.results: list[AttemptResult] = []
        """The results that the plan has seen or will see, in the order in which the attempts ended."""
        self.attempts: list[Attempt] = []
        """The attempts in the order in which they began: number 1 is the first."""
        self.asks: list[Ask] = []
        """The request for each attempt, in the same order."""
        self._plan = plan
        self._question = question
        self._factory = AttemptFactory(question, options, stage, remembers=plan.goes_on)
        self._stage = stage
        self._next: list[Ask] = []
        self._starting = 0
        self._running: dict[int, Attempt] = {}
        self._weighing: set[anyio.CancelScope] = set()
        self._errors: list[BackendError] = []
        self._choice: Choice | None = None
        self._plan_failed = False

    async def run(self, ctx: Context, generating: Nursery, judging: Nursery) -> Choice:
        """Run attempts until the plan has made its choice.

        Args:
            ctx: The conversation before the question.
            generating: The nursery whose backend generates.
            judging: The nursery whose backend the validators use; the same one, unless they have another backend.

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
                await self._run_attempt(self._next.pop(), generating, judging)
            return self._choice
        try:
            async with task_group() as tasks:
                self._start_all(tasks, generating, judging)
        finally:
            for error in self._errors:
                told = without_internals(error)
                log.warning("an attempt failed, and others went on", exc_info=told)
        assert self._choice is not None
        return self._choice

    def result(self, number: int) -> AttemptResult:
        """The result of an attempt that has ended."""
        return next(result for result in self.results if result.number == number)

    def _start_all(self, tasks: anyio.abc.TaskGroup, generating: Nursery, judging: Nursery) -> None:
        async def run(ask: Ask) -> None:
            self._starting -= 1
            if self._choice is not None:
                return
            with stray_cancellation_as("an attempt"):
                await self._run_attempt(ask, generating, judging)
                self._start_all(tasks, generating, judging)

        asks, self._next = self._next, []
        self._starting += len(asks)
        for ask in asks:
            tasks.start_soon(run, ask, name=f"an attempt of {ask.chain}")

    async def _run_attempt(self, ask: Ask, generating: Nursery, judging: Nursery) -> None:
        kept = self.attempts[ask.of - 1].kept(ask.keep) if ask.keep else None
        number = len(self.attempts) + 1
        attempt = self._factory.begin(number, ask, kept, generating)
        self.attempts.append(attempt)
        self.asks.append(ask)
        self._running[number] = attempt
        score: float | None = None
        try:
            await attempt.run(generating, judging)
            if attempt.end == "completed" and self._plan.weighs:
                so_far = result_of(
                    number, ask, attempt, self._question, len(self.attempts) + self._starting
                )
                score = await self._weigh(attempt, so_far, judging)
        except BackendError as error:
            if not self._plan.concurrent:
                raise
            attempt.end = "error"
            self._errors.append(error)
        finally:
            del self._running[number]
            released = 0 if self._stage is None else self._stage.end_attempt(number, attempt)
            begun = len(self.attempts) + self._starting
            result = result_of(
                number, ask, attempt, self._question, begun, released=released, score=score
            )
            self.results.append(result)
        if self._choice is None:
            self._decide(result)

    async def _weigh(
        self, attempt: Attempt, result: AttemptResult, nursery: Nursery
    ) -> float | None:
        """The plan's score of a completed attempt; ``None`` if another one was chosen meanwhile."""
        with anyio.CancelScope() as scope:
            self._weighing.add(scope)
            try:
                async with opened_scope(nursery, started=attempt.judge_began) as backend:
                    return await self._plan.weigh(result, backend)
            except Exception as error:
                if self._ends_call(error):
                    raise
            finally:
                self._weighing.discard(scope)
        return None

    def _ends_call(self, error: Exception) -> bool:
        """Whether an error of the plan's own code is to be raised: only the first one is.

        Otherwise attempts that end at the same moment would each raise the same error.
        """
        if isinstance(error, BackendError):
            # from a judge that the plan has asked: it counts as an error of the attempt
            return True
        is_first, self._plan_failed = not self._plan_failed, True
        return is_first

    # --- the next decision -------------------------------------------------------------------------

    def _decide(self, result: AttemptResult) -> None:
        """Ask the plan what to do after the end of an attempt."""
        # Plans decide by answers, and an attempt that ended by an error has none. While others are running, one of
        # them may still be good, so the plan is not asked. After the last one it must be decided all the same, and
        # only an earlier attempt that is good can make up for the errors.
        past = [one for one in self.results if one.end != "error"]
        running = len(self._running) + self._starting
        is_error = result.end == "error"
        if is_error and running:
            return
        try:
            step = self._plan.after(past, running) if past or not is_error else ()
            if is_error and not (isinstance(step, Choice) and step.success):
                self._raise_errors()
            if not isinstance(step, Choice):
                if not step and not running:
                    raise InvalidOption(f"{self._plan!r} asks nothing more and chooses nothing")
                self._next.extend(step)
                return
            if all(one.number != step.number for one in past):
                raise InvalidOption(
                    f"{self._plan!r} chose attempt {step.number}, which is not there"
                )
            self._choice = step
            self._next.clear()
            for scope in self._weighing:
                scope.cancel("another attempt was chosen")
            for other in self._running.values():
                other.stop(f"attempt {step.number} was chosen")
            if self._errors and not step.success:
                # No answer is good, and perhaps the good one was lost by an error: the error tells the user more.
                self._raise_errors()
        except Exception as error:
            if self._ends_call(error):
                raise

    def _raise_errors(self) -> NoReturn:
        errors, self._errors = self._errors, []
        if len(errors) == 1:
            raise_unchanged(errors[0])
        raise_unchanged(ExceptionGroup("several attempts failed", errors))
