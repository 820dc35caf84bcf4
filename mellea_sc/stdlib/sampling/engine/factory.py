"""Makes the attempts of one call: their lanes, editors and requests.

A requirement that validates running text has a lane. A blocking requirement that edits (``on_fail="filter"`` or
``"fix"``) also has an editor in each pass before the lanes, and its lane validates the edited text.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Protocol

import attrs

from mellea_sc.core.model_options import ModelOption, ModelOptions, merge_options
from mellea_sc.core.question import Question
from mellea_sc.core.requirement import Requirement
from mellea_sc.runtime.checks.attempt import Attempt
from mellea_sc.runtime.checks.chunks import Cutter, Grouped, Ledger, Rule
from mellea_sc.runtime.checks.editors import PASSES, Editor
from mellea_sc.runtime.checks.edits import NO_EDITS, Edits
from mellea_sc.runtime.checks.interfaces import View
from mellea_sc.runtime.checks.lanes import Lane, Lanes
from mellea_sc.runtime.checks.memory import Findings, LaneCheckpoint, Memory, ResumePoint
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.stdlib.chunking import resolve_chunking
from mellea_sc.stdlib.components.feedback import continuation_of
from mellea_sc.stdlib.requirements.scanned import Scanner
from mellea_sc.stdlib.sampling.engine.options import StreamOptions
from mellea_sc.stdlib.sampling.plan import Ask

__all__ = ["AttemptFactory", "Stage"]


class Stage(Protocol):
    """Shows attempts to the readers."""

    def begin_attempt(self, number: int, ask: Ask, ledger: Ledger, edits: Edits) -> View:
        """Begin to show an attempt; returns its view."""
        ...

    def end_attempt(self, number: int, attempt: Attempt) -> int:
        """End the view of an attempt; returns the number of its chunks that were shown."""
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
        return edits, [
            self._editor(number, index, known[index], found, edits, kept)
            for number, index in enumerate(self._editing * PASSES)
        ]

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
            cut = (
                kept.chunks
                if cutter is None
                else [p for t in kept.pieces() for p in cutter.feed(t)]
            )
            known.append(known_at(cut[-1].end if cut else 0))
        return known

    def _editor(
        self,
        number: int,
        index: int,
        known: LaneCheckpoint,
        found: dict[int, Findings],
        edits: Edits,
        kept: ResumePoint | None,
    ) -> Editor:
        own = attrs.evolve(known, requirement=copy.copy(known.requirement))
        lane = self._lane(index, own, found, later=True)
        return Editor(
            number,
            lane,
            lane.cutter or Cutter(resolve_chunking(self._options.chunking)),
            edits,
            replaces=known.requirement.on_fail == "fix",
            kept="" if kept is None else kept.text,
        )

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
            timeout=options.validator_timeout
            if requirement.timeout is None
            else requirement.timeout,
            buffer=options.lane_buffer,
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
