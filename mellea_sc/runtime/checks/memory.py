"""What a requirement knew after each piece of a text, and what it said: for another text, or another pass.

Another attempt may go on from inside this text (*checkpoints*). And a requirement that edits is given the
text more than once: as long as nothing was edited, its next pass judges the same pieces, and has the same
verdicts without a call (*findings*).
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import attrs

from mellea_sc.core.requirement import PartialValidationResult, Requirement
from mellea_sc.runtime.checks.edits import Placed
from mellea_sc.runtime.checks.ledger import Chunk, Failure

__all__ = ["Findings", "LaneCheckpoint", "Memory", "ResumePoint"]


@attrs.frozen
class LaneCheckpoint:
    """What a requirement knows about the beginning of a text.

    Args:
        judged: Up to where in the text it has judged.
        requirement: A copy that knows it.
        past: What it knew before that, likewise, for a text that goes on from further back.
    """

    judged: int
    requirement: Requirement
    past: Sequence[tuple[int, Requirement]] = ()


@attrs.define
class Finding:
    """A verdict on a piece, and a copy of the requirement from after it. A value, though not frozen.

    Args:
        text: The piece.
        window: What the requirement was given of the text before it.
        verdict: The verdict.
        requirement: The copy.
    """

    text: str
    window: str
    verdict: PartialValidationResult
    requirement: Requirement

    def is_on(self, piece: Chunk) -> bool:
        """Whether the requirement was given the same."""
        return self.text == piece.text and self.window == piece.window


Findings: TypeAlias = deque[Finding]
"""What one pass of a requirement over the text has found, for its next pass to take over."""


@attrs.frozen(kw_only=True)
class ResumePoint:
    """The good beginning of a text as it is shown, for another attempt to go on from.

    Args:
        text: The beginning, with the white space after its last chunk.
        chunks: Its chunks.
        edits: What was edited in it.
        noted: The fails in it that stopped nothing.
        known: For each requirement, given a position: what it knew about the text up to there.
        deltas: Where in the text each delta ends of which it was made.
    """

    text: str
    chunks: Sequence[Chunk]
    edits: Sequence[Placed]
    noted: Sequence[Failure]
    known: Sequence[Callable[[int], LaneCheckpoint]]
    deltas: Sequence[int] = ()

    def pieces(self) -> Iterator[str]:
        """The text in pieces that end where its chunks do."""
        at = 0
        for end in [*(chunk.end for chunk in self.chunks), len(self.text)]:
            yield self.text[at:end]
            at = end


class Memory:
    """The requirement of one lane, and what it knew before.

    Args:
        known: The requirement, and up to where it has judged this text.
        remembers: Whether another text may go on from here.
        earlier: What an earlier pass of the requirement has found.
        later: Where what this pass finds is kept for a later one.
    """

    __slots__ = (
        "_earlier",
        "_later",
        "_past",
        "_state",
        "judged",
        "keeps",
        "remembers",
        "requirement",
    )

    def __init__(
        self,
        known: LaneCheckpoint,
        *,
        remembers: bool = False,
        earlier: Findings | None = None,
        later: Findings | None = None,
    ) -> None:
        self.judged: int = known.judged
        self.requirement: Requirement = known.requirement
        """The copy that judges, or has judged."""
        self.remembers: bool = remembers
        self.keeps: bool = remembers or later is not None
        """Whether :meth:`keep` has anything to do."""
        self._past = [*known.past]
        if remembers:
            self._past.append((known.judged, copy.copy(known.requirement)))
        self._state: Requirement | None = None
        self._earlier = earlier
        self._later = later

    @property
    def takes_over(self) -> bool:
        """Whether all that this pass was given is what the pass before was given."""
        return self._earlier is not None

    def known_at(self, position: int) -> LaneCheckpoint:
        """What the requirement knew about the text up to a position; of one that remembers."""
        past = self._past[: bisect_right(self._past, position, key=_place_of)]
        judged, requirement = past.pop()
        return LaneCheckpoint(judged, copy.copy(requirement), past)

    def keep(self, piece: Chunk, verdict: PartialValidationResult) -> None:
        """Keep what the requirement knows now."""
        state = self._state = _snapshot(self.requirement, self._state)
        if self._later is not None:
            self._later.append(Finding(piece.text, piece.window, verdict, state))
        if self.remembers:
            self._past.append((piece.end, state))

    def next_verdict(self, piece: Chunk) -> PartialValidationResult | None:
        """The verdict of the pass before, if all that this one was given was the same until now."""
        assert self._earlier is not None
        found = self._earlier.popleft() if self._earlier else None
        if found is None or not found.is_on(piece):
            self.requirement = copy.copy(self.requirement)
            self._earlier = None
            return None
        self.requirement = found.requirement
        if self._later is not None:
            self._later.append(found)
        if self.remembers:
            self._past.append((piece.end, found.requirement))
        return found.verdict

    def passed_before(self, pieces: Sequence[Chunk]) -> int:
        """How many of the next pieces the pass before has passed: they are judged with that."""
        count, earlier = 0, self._earlier
        if not earlier or self._later is None or self.remembers:
            return 0
        for piece in pieces:
            if not earlier or not earlier[0].is_on(piece) or earlier[0].verdict.success == "fail":
                break
            found = earlier.popleft()
            self._later.append(found)
            self.requirement = found.requirement
            count += 1
        return count

    def end(self) -> None:
        """The text has ended: what the requirement knows is a copy that others may go on from."""
        if self._earlier is not None:
            self.requirement = copy.copy(self.requirement)


def _snapshot(requirement: Requirement, last: Requirement | None) -> Requirement:
    """A copy of the requirement; the last one, if the requirement has not changed since."""
    if last is not None:
        try:
            if requirement.__getstate__() == last.__getstate__():
                return last
        except Exception:  # noqa: BLE001 - what cannot be compared is copied
            pass
    return copy.copy(requirement)


def _place_of(state: tuple[int, Requirement]) -> int:
    return state[0]
