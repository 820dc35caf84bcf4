"""What a running text may show: verdicts in, RELEASE / HOLD / CANCEL out. No tasks, no I/O.

The text is a line of positions, counted in characters. The main chunking cuts it into *chunks*, each
with a place ``[start, end)``; every lane judges pieces of the same text, cut by the main chunking or by
its own, in order. A lane that has passed a piece has passed the text up to the end of that piece.

The rules:

1. A chunk is releasable when every lane has passed the text up to the chunk's end, and every chunk
   before it is releasable. Without lanes that is at once.
2. A verdict of ``"pass"`` or ``"unknown"`` passes a piece.
3. The first ``"fail"`` makes the ledger CANCEL: nothing becomes releasable any more, whatever arrives
   later. Later fails are still written down, for they are known.
4. A lane whose text has ended has passed all of it.
5. Each chunk comes with one verdict per lane: that on the piece which covers the chunk's end.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Final

import attrs

from mellea_sc.core.requirement import PartialValidationResult

__all__ = ["Chunk", "Failure", "Ledger", "Move"]

UNKNOWN: Final = PartialValidationResult("unknown")


class Move(Enum):
    """What to do now."""

    HOLD = "hold"
    RELEASE = "release"
    CANCEL = "cancel"


@attrs.frozen
class Chunk:
    """A piece of the text, and where it stands in it."""

    text: str
    start: int
    end: int


@attrs.frozen
class Failure:
    """A lane's fail: which lane, the verdict, and the index of the chunk in which the piece begins."""

    lane: int
    verdict: PartialValidationResult
    chunk_index: int


class Ledger:
    """The verdicts on one running text.

    Args:
        lanes: How many lanes judge it; they are numbered from 0.
    """

    __slots__ = (
        "_ends",
        "_failures",
        "_frontier",
        "_passed",
        "_verdicts",
        "lanes",
        "releasable",
    )

    releasable: int
    """How many chunks, from the first one on, may be shown."""

    def __init__(self, lanes: int) -> None:
        self.lanes: int = lanes
        self.releasable = 0
        self._ends: list[int] = []
        self._passed: list[float] = [0] * lanes
        self._frontier: float = 0 if lanes else math.inf
        self._verdicts: list[deque[tuple[int, PartialValidationResult]]] = [
            deque() for _ in range(lanes)
        ]
        self._failures: dict[int, Failure] = {}

    @property
    def failed(self) -> bool:
        """Whether a lane has failed."""
        return bool(self._failures)

    @property
    def failures(self) -> Sequence[Failure]:
        """Every fail that is known, in the order of the lanes."""
        return [self._failures[lane] for lane in sorted(self._failures)]

    def cut(self, chunk: Chunk) -> Move:
        """The main chunking has cut the next chunk."""
        self._ends.append(chunk.end)
        return self._advance()

    def judged(self, lane: int, piece: Chunk, verdict: PartialValidationResult) -> Move:
        """A lane has a verdict on the next piece of its own."""
        if verdict.success == "fail":
            if lane not in self._failures:
                index = bisect_right(self._ends, piece.start)
                self._failures[lane] = Failure(lane, verdict, index)
            return Move.CANCEL
        self._verdicts[lane].append((piece.end, verdict))
        return self._pass(lane, piece.end)

    def ended(self, lane: int) -> Move:
        """A lane has judged its last piece."""
        return self._pass(lane, math.inf)

    def verdicts_on(self, index: int) -> list[PartialValidationResult]:
        """One verdict per lane on a releasable chunk; to be asked once for each, in order."""
        end = self._ends[index]
        return [self._covering(verdicts, end) for verdicts in self._verdicts]

    def verdicts_on_failure(self) -> list[PartialValidationResult]:
        """One verdict per lane on the chunk that failed: ``"unknown"`` where a lane has not got that far."""
        first = min(self._failures.values(), key=lambda failure: failure.chunk_index)
        end = self._ends[first.chunk_index] if first.chunk_index < len(self._ends) else math.inf
        return [
            self._failures[lane].verdict
            if lane in self._failures
            else next((v for at, v in verdicts if at >= end), UNKNOWN)
            for lane, verdicts in enumerate(self._verdicts)
        ]

    def _covering(
        self, verdicts: deque[tuple[int, PartialValidationResult]], end: int
    ) -> PartialValidationResult:
        last = UNKNOWN
        while verdicts:
            at, last = verdicts[0]
            if at >= end:
                break
            verdicts.popleft()
        return last

    def _pass(self, lane: int, position: float) -> Move:
        before = self._passed[lane]
        self._passed[lane] = position
        if before > self._frontier:
            return Move.CANCEL if self._failures else Move.HOLD
        self._frontier = min(self._passed)
        return self._advance()

    def _advance(self) -> Move:
        if self._failures:
            return Move.CANCEL
        before = self.releasable
        ends, frontier = self._ends, self._frontier
        while self.releasable < len(ends) and ends[self.releasable] <= frontier:
            self.releasable += 1
        return Move.RELEASE if self.releasable > before else Move.HOLD
