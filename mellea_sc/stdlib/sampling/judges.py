"""Who judges an attempt: a lane for each requirement that looks at a running text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import attrs

from mellea_sc.core.backend import Format
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.model_options import ModelOptions
from mellea_sc.core.requirement import OnFail, Requirement
from mellea_sc.runtime.attempt import Judging, Kept
from mellea_sc.runtime.cutter import Cutter, Grouped
from mellea_sc.runtime.lanes import Known, Lane
from mellea_sc.runtime.ledger import Ledger, OnPiece, Rule
from mellea_sc.stdlib.chunking import resolve_chunking

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


_ON_PIECE: Final[dict[OnFail | None, OnPiece]] = {
    "filter": "leave out",
    "fix": "replace",
    "noop": "record",
}


def check_chunkings(requirements: Sequence[Requirement], settings: AttemptSettings) -> None:
    """Check the names of chunkings, the requirements' own among them.

    Raises:
        InvalidOption: there is no such chunking.
    """
    resolve_chunking(settings.chunking)
    for requirement in requirements:
        _own_cutter(requirement, settings)


def known_at_end_of(
    kept: Kept, requirements: Sequence[Requirement], settings: AttemptSettings
) -> list[Known]:
    """What each requirement knows about a beginning that is kept.

    A piece counts only if the beginning alone is enough to cut it: one that ended where it did because
    of what came next may go on otherwise now.
    """
    known: list[Known] = []
    for requirement, known_at in zip(requirements, kept.known, strict=True):
        cutter = _own_cutter(requirement, settings)
        cut = kept.chunks if cutter is None else [p for t in kept.pieces() for p in cutter.feed(t)]
        known.append(known_at(cut[-1].end if cut else 0))
    return known


def judging_of(
    known: Sequence[Known],
    settings: AttemptSettings,
    *,
    kept: Kept | None,
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
    lanes = [
        Lane(
            index,
            one,
            _own_cutter(requirement, settings),
            settings.validator_timeout if requirement.timeout is None else requirement.timeout,
            settings.lane_buffer,
            remembers=remembers,
        )
        for index, (one, requirement) in enumerate(zip(known, requirements, strict=True))
        if _looks_at_running_text(requirement)
    ]
    ledger = Ledger(
        len(requirements),
        [
            Rule(_ON_PIECE.get(requirement.on_fail, "cancel"), requirement.blocking)
            for requirement in requirements
        ],
        edits=None if kept is None else kept.edits,
        noted=() if kept is None else [f for f in kept.noted if f.end <= known[f.lane].judged],
    )
    return Judging(
        requirements=requirements,
        main=Cutter(resolve_chunking(settings.chunking)),
        lanes=lanes,
        ledger=ledger,
        timeout=settings.validator_timeout,
    )


def _looks_at_running_text(requirement: Requirement) -> bool:
    return type(requirement).stream_validate is not Requirement.stream_validate


def _own_cutter(requirement: Requirement, settings: AttemptSettings) -> Cutter | None:
    if requirement.chunking is None and requirement.every == 1 and not requirement.window:
        return None
    strategy = resolve_chunking(
        settings.chunking if requirement.chunking is None else requirement.chunking
    )
    if requirement.every > 1:
        strategy = Grouped(strategy, requirement.every)
    return Cutter(strategy, requirement.window)
