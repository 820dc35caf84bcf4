"""Makes the attempts of one call: their lanes, editors and requests.

A requirement that validates running text has a lane. A blocking requirement that edits (``on_fail="filter"`` or
``"fix"``) also has an editor in each pass before the lanes, and its lane validates the edited text.
"""

from __future__ import annotations

import copy
from typing import Protocol

import attrs

from mellea_sc.core.model_options import ModelOption, ModelOptions, merge_options
from mellea_sc.core.question import Question
from mellea_sc.core.requirement import Requirement
from mellea_sc.runtime.checks.attempt import Attempt
from mellea_sc.runtime.checks.checks import Checks
from mellea_sc.runtime.checks.cutter import Cutter, Grouped, Resumed
from mellea_sc.runtime.checks.editors import PASSES, Editor
from mellea_sc.runtime.checks.edits import Edits
from mellea_sc.runtime.checks.lane import Lane
from mellea_sc.runtime.checks.lanes import View
from mellea_sc.runtime.checks.ledger import Ledger, Rule
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
        """End the view of an attempt; returns the number of its chunks that were shown, 1 for white space alone."""
        ...


class AttemptFactory:
    """Makes the attempts of one call; each has its own copies of the requirements.

    Args:
        question: The arguments of the call.
        options: The options for checking attempts.
        remembers: Whether an attempt may continue from a chunk of an earlier one.

    Raises:
        InvalidOption: a chunking is not known.
        Exception: as a requirement's ``__copy__`` raises it.
    """

    def __init__(self, question: Question, options: StreamOptions, *, remembers: bool) -> None:
        self._question = question
        self._options = options
        self._remembers = remembers
        self._roles = list(map(_role_of, question.requirements))
        resolve_chunking(options.chunking)
        for index, requirement in enumerate(question.requirements):
            self._own_cutter(index, requirement)
        # Copied here, and not with the first attempt: a __copy__ that raises must raise before anything is started.
        self._copies: list[Requirement] | None = list(map(copy.copy, question.requirements))

    def begin(
        self, number: int, ask: Ask, kept: ResumePoint | None, nursery: Nursery, stage: Stage
    ) -> Attempt:
        """Make an attempt, which is not running yet.

        Args:
            number: Its number.
            ask: The plan's request.
            kept: The text that it begins with, if it continues an earlier attempt.
            nursery: The nursery whose backend generates.
            stage: Shows the attempt.
        """
        checks = self._checks(kept)
        view = stage.begin_attempt(number, ask, checks.ledger, checks.edits)
        if kept is not None and checks.ledger.shown >= len(kept.chunks) > 0:
            resumed = Resumed(resolve_chunking(self._options.chunking), kept.chunks)
            checks = attrs.evolve(checks, main=Cutter(resumed))
        action, context = ask.action, ask.context
        if kept is not None:
            begun = ModelOutputThunk.computed(kept.text)
            action, context = continuation_of(
                action, context, begun, prefills=nursery.backend.prefills
            )
        options = self._question.model_options
        if number > 1 or kept is not None:
            options = self._model_options(number, nursery.options, kept)
        return Attempt(
            attrs.evolve(self._question, action=action, model_options=options),
            context,
            checks,
            view,
            asked=ask.context.add(ask.action),
            kept=kept,
            remembers=self._remembers,
        )

    def _checks(self, kept: ResumePoint | None) -> Checks:
        """The lanes and editors of the next attempt."""
        if kept is None:
            copies, self._copies = self._copies, None
            copies = copies or list(map(copy.copy, self._question.requirements))
            known = [LaneCheckpoint(0, requirement) for requirement in copies]
        else:
            known = self._known(kept)
        requirements = [one.requirement for one in known]
        found: dict[int, Findings] = {}
        editing = [index for index, role in enumerate(self._roles) if role.edits]
        edits = Edits(PASSES * len(editing), () if kept is None else kept.edits)
        editors = [
            self._editor(number, index, known[index], found, edits, kept)
            for number, index in enumerate(editing * PASSES)
        ]
        lanes = [
            self._lane(index, one, found, remembers=self._remembers)
            for index, one in enumerate(known)
            if self._roles[index].judges
        ]
        noted = () if kept is None else [f for f in kept.noted if f.end <= known[f.lane].judged]
        return Checks(
            copies=requirements,
            main=Cutter(resolve_chunking(self._options.chunking)),
            lanes=lanes,
            editors=editors,
            edits=edits,
            ledger=Ledger(len(requirements), [role.rule for role in self._roles], noted=noted),
            timeout=self._options.validator_timeout,
        )

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
        return Lane(
            index,
            Memory(known, remembers=remembers, earlier=earlier, later=found.get(index)),
            self._own_cutter(index, requirement),
            timeout=options.validator_timeout
            if requirement.timeout is None
            else requirement.timeout,
            buffer=options.lane_buffer,
        )

    def _own_cutter(self, index: int, requirement: Requirement) -> Cutter | None:
        main, chunking = self._options.chunking, requirement.chunking
        if chunking is None and main is None and self._roles[index].edits:
            # With raw deltas the edits would depend on where the model cuts the text, which they must not.
            chunking = "sentence"
        if chunking is None and requirement.every == 1 and not requirement.window:
            return None
        strategy = resolve_chunking(main if chunking is None else chunking)
        if requirement.every > 1:
            strategy = Grouped(strategy, requirement.every)
        return Cutter(strategy, requirement.window)


@attrs.frozen
class _Role:
    """What a requirement does to a text while it runs.

    Args:
        judges: Whether it looks at it at all.
        edits: Whether it changes it before it is shown.
        rule: What a fail leads to.
    """

    judges: bool
    edits: bool
    rule: Rule


def _role_of(requirement: Requirement) -> _Role:
    judges = type(requirement).stream_validate is not Requirement.stream_validate
    wants_edits = requirement.on_fail in ("filter", "fix")
    # an advisory requirement's text may have been shown before its verdict: too late to edit
    records = requirement.on_fail == "noop" or (wants_edits and not requirement.blocking)
    return _Role(
        judges,
        judges and wants_edits and requirement.blocking,
        Rule("record" if records else "cancel", requirement.blocking),
    )
