"""Who judges an attempt, and who edits it.

A requirement that looks at a running text has a lane. One that edits (``on_fail="filter"`` or ``"fix"``, if text
waits for it) has an editor for each pass before that, and its lane judges what comes out of them all.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Final

import attrs

from mellea_sc.core.backend import Format
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.model_options import ModelOptions
from mellea_sc.core.requirement import Requirement
from mellea_sc.runtime.checks.attempt import Judging, ResumePoint
from mellea_sc.runtime.checks.cutter import Cutter, Grouped
from mellea_sc.runtime.checks.editors import PASSES, Editor
from mellea_sc.runtime.checks.edits import Edits
from mellea_sc.runtime.checks.lanes import Findings, Lane, LaneCheckpoint
from mellea_sc.runtime.checks.ledger import Ledger, Rule
from mellea_sc.stdlib.chunking import resolve_chunking
from mellea_sc.stdlib.requirements.watching import Watch

__all__ = ["AttemptSettings", "check_chunkings", "judging_of", "known_at_end_of"]

DEFAULT_LANE_BUFFER: Final = 16


@attrs.frozen(kw_only=True)
class AttemptSettings:
    """How attempts are made, whatever they generate.

    Args:
        chunking: The chunking that the reader sees, and requirements that have none of their own.
        lane_buffer: How many chunks one lane may be ahead of another.
        validator_timeout: Seconds for one call of a validator.
        format: What the answer has to fit.
        model_options: For the generations.
    """

    chunking: str | ChunkingStrategy | None = "sentence"
    lane_buffer: int = DEFAULT_LANE_BUFFER
    validator_timeout: float = math.inf
    format: Format | None = None
    model_options: ModelOptions | None = None


def check_chunkings(requirements: Sequence[Requirement], settings: AttemptSettings) -> None:
    """Check the names of chunkings, the requirements' own among them.

    Raises:
        InvalidOption: there is no such chunking.
    """
    resolve_chunking(settings.chunking)
    for requirement in requirements:
        _own_cutter(requirement, settings)


def known_at_end_of(
    kept: ResumePoint, requirements: Sequence[Requirement], settings: AttemptSettings
) -> list[LaneCheckpoint]:
    """What each requirement knows about a beginning that is kept.

    A piece counts only if the beginning alone is enough to cut it: one that ended where it did because
    of what came next may go on otherwise now.
    """
    known: list[LaneCheckpoint] = []
    for requirement, known_at in zip(requirements, kept.known, strict=True):
        cutter = _own_cutter(requirement, settings)
        cut = kept.chunks if cutter is None else [p for t in kept.pieces() for p in cutter.feed(t)]
        known.append(known_at(cut[-1].end if cut else 0))
    return known


def judging_of(
    known: Sequence[LaneCheckpoint],
    settings: AttemptSettings,
    *,
    kept: ResumePoint | None,
    remembers: bool,
) -> Judging:
    """The judges of one attempt.

    Args:
        known: The copies that judge it, each with what it knows already.
        settings: How it is made.
        kept: What it begins with.
        remembers: Whether another attempt may go on from inside this one.
    """
    requirements = [one.requirement for one in known]
    editing = [index for index, one in enumerate(requirements) if _edits(one)]
    edits = Edits(PASSES * len(editing), () if kept is None else kept.edits)
    found: dict[int, Findings] = {}
    editors: list[Editor] = []
    for number, index in enumerate(editing * PASSES):
        copied = attrs.evolve(known[index], requirement=copy.copy(requirements[index]))
        lane = _lane(index, copied, settings, found, later=True)
        cutter = lane.cutter or Cutter(resolve_chunking(settings.chunking))
        begun = "" if kept is None else kept.text
        replaces = requirements[index].on_fail == "fix"
        editors.append(Editor(number, lane, cutter, edits, replaces=replaces, kept=begun))
    lanes = [
        _lane(index, one, settings, found, remembers=remembers)
        for index, one in enumerate(known)
        if _looks_at_running_text(one.requirement)
    ]
    ledger = Ledger(
        len(requirements),
        [_rule(requirement) for requirement in requirements],
        noted=() if kept is None else [f for f in kept.noted if f.end <= known[f.lane].judged],
    )
    return Judging(
        requirements=requirements,
        main=Cutter(resolve_chunking(settings.chunking)),
        lanes=lanes,
        editors=editors,
        edits=edits,
        ledger=ledger,
        timeout=settings.validator_timeout,
    )


def _edits(requirement: Requirement) -> bool:
    # what is advisory may have been shown when it is judged
    return (
        requirement.on_fail in ("filter", "fix")
        and requirement.blocking
        and _looks_at_running_text(requirement)
    )


def _rule(requirement: Requirement) -> Rule:
    records = requirement.on_fail == "noop" or (
        requirement.on_fail in ("filter", "fix") and not requirement.blocking
    )
    return Rule("record" if records else "cancel", requirement.blocking)


def _lane(
    index: int,
    known: LaneCheckpoint,
    settings: AttemptSettings,
    found: dict[int, Findings],
    *,
    later: bool = False,
    remembers: bool = False,
) -> Lane:
    """One lane; of a requirement that edits each takes over what the one before has found."""
    requirement = known.requirement
    cutter = _own_cutter(requirement, settings)
    earlier = found.pop(index, None)
    # a watch's pieces carry their verdicts: there is nothing to be saved
    if later and not isinstance(requirement.chunking, Watch):
        found[index] = Findings()
    return Lane(
        index,
        known,
        cutter,
        settings.validator_timeout if requirement.timeout is None else requirement.timeout,
        settings.lane_buffer,
        remembers=remembers,
        earlier=earlier,
        later=found.get(index),
    )


def _looks_at_running_text(requirement: Requirement) -> bool:
    return type(requirement).stream_validate is not Requirement.stream_validate


def _own_cutter(requirement: Requirement, settings: AttemptSettings) -> Cutter | None:
    chunking = requirement.chunking
    if chunking is None and settings.chunking is None and _edits(requirement):
        # what stands in the text may not depend on where the model cut its deltas
        chunking = "sentence"
    if chunking is None and requirement.every == 1 and not requirement.window:
        return None
    strategy = resolve_chunking(settings.chunking if chunking is None else chunking)
    if requirement.every > 1:
        strategy = Grouped(strategy, requirement.every)
    return Cutter(strategy, requirement.window)
