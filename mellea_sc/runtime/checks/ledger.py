"""What a running text may show: chunks and verdicts in, "release", "hold" or "cancel" out. No tasks, no I/O.

The text is a line of positions, counted in characters. The main chunking cuts it into *chunks*, each
with a place ``[start, end)``; every lane judges pieces of the same text, cut by the main chunking or by
its own, in order. A lane that has passed a piece has passed the text up to the end of that piece.

The rules:

1. A chunk is releasable when every lane that blocks has passed the text up to the chunk's end, and
   every chunk before it is releasable. Without such lanes that is at once.
2. A verdict of ``"pass"`` or ``"unknown"`` passes a piece.
3. A ``"fail"`` makes the ledger say "cancel", unless the lane's rule says otherwise: nothing becomes
   releasable any more, whatever arrives later. Later fails are still written down, for they are known.
4. A ``"fail"`` that by its lane's rule is only recorded passes the piece, and is noted.
5. A lane whose text has ended has passed all of it.
6. Each chunk comes with one verdict per lane: that on the piece which covers the chunk's end.
7. An advisory lane, one that does not block, is late by right: where it has no verdict yet, its
   verdict is ``"unknown"``.

The text is the one that is shown. What was edited on its way here is no business of the ledger's: the
requirements that edit judge the outcome like all others.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, Literal, TypeAlias

import attrs

from mellea_sc.core.requirement import PartialValidationResult

__all__ = ["Chunk", "Failure", "Ledger", "Move", "OnPiece", "Rule"]

UNKNOWN: Final = PartialValidationResult("unknown")
PLAIN: Final = {"unknown": UNKNOWN, "pass": PartialValidationResult("pass")}


Move: TypeAlias = Literal["hold", "release", "cancel"]
"""What to do now."""


OnPiece: TypeAlias = Literal["cancel", "record"]
"""What a lane's fail does."""


@attrs.frozen
class Rule:
    """What a lane is for.

    Args:
        on_fail: What its fail does.
        blocking: Whether text waits for its verdicts.
    """

    on_fail: OnPiece = "cancel"
    blocking: bool = True


@attrs.define
class Chunk:
    """A piece of the text, and where it stands in it.

    A value, though not frozen, for one may be made for each token.

    Args:
        text: The piece.
        start: Where it begins.
        end: Where it ends.
        before: What stands between the piece before and this one: white space, mostly.
        window: The text before this piece, as much of it as was asked for.
    """

    text: str
    start: int
    end: int
    before: str = ""
    window: str = ""


@attrs.frozen
class Failure:
    """A lane's fail.

    Args:
        lane: Which lane.
        verdict: The verdict.
        chunk_index: The index of the chunk in which the piece begins.
        end: Where in the text the piece ends.
    """

    lane: int
    verdict: PartialValidationResult
    chunk_index: int
    end: int = attrs.field(default=0, eq=False)


class Ledger:
    """The chunks of one running text, and the verdicts on them.

    Args:
        lanes: How many lanes judge it; they are numbered from 0.
        rules: What each of them is for; by default all of them block and cancel.
        noted: What was noted already of a text that goes on where another one was good.
    """

    __slots__ = (
        "_chunks",
        "_ends",
        "_frontier",
        "_passed",
        "_rules",
        "_shown",
        "_verdicts",
        "failures",
        "lanes",
        "noted",
        "releasable",
    )

    releasable: int
    """How many chunks, from the first one on, may be shown."""
    failures: list[Failure]
    """The fails that stop the text, at most one for each lane, in the order of the lanes."""
    noted: list[Failure]
    """The fails that did not stop anything, in the order in which they came."""

    def __init__(
        self,
        lanes: int,
        rules: Sequence[Rule] | None = None,
        *,
        noted: Sequence[Failure] = (),
    ) -> None:
        self.lanes: int = lanes
        self.releasable = 0
        self.failures = []
        self.noted = list(noted)
        self._rules: Sequence[Rule] = rules if rules is not None else [Rule()] * lanes
        self._chunks: deque[Chunk] = deque()  # those that were not taken yet
        self._ends: list[int] = []
        self._shown = 0
        self._passed: list[float] = [0 if rule.blocking else math.inf for rule in self._rules]
        self._frontier: float = min(self._passed, default=math.inf)
        self._verdicts: list[deque[tuple[int, PartialValidationResult]]] = [
            deque() for _ in range(lanes)
        ]

    def skip(self, shown: int) -> None:
        """The first chunks, so many of them, are not to be taken: they have been shown by an attempt before."""
        self._shown = shown

    @property
    def position(self) -> int:
        """Where the last chunk ends that may be shown."""
        return self.end_of(self.releasable)

    def end_of(self, count: int) -> int:
        """Where so many chunks end, from the first one on; if not so many have come yet, those that have."""
        return self._ends[min(count, len(self._ends)) - 1] if count and self._ends else 0

    def cut(self, chunk: Chunk) -> Move:
        """The main chunking has cut the next chunk."""
        if len(self._ends) >= self._shown:
            self._chunks.append(chunk)
        self._ends.append(chunk.end)
        if self.failures:
            return "cancel"
        if chunk.end > self._frontier:
            return "hold"
        self.releasable += 1  # all before it are: they end where it does, or before
        return "release"

    def judged(self, lane: int, piece: Chunk, verdict: PartialValidationResult) -> Move:
        """A lane has a verdict on the next piece of its own."""
        if verdict.success == "fail":
            failure = Failure(lane, verdict, bisect_right(self._ends, piece.start), piece.end)
            if self._rules[lane].on_fail == "cancel":
                if all(known.lane != lane for known in self.failures):
                    insort(self.failures, failure, key=attrgetter("lane"))
                return "cancel"
            self.noted.append(failure)
        if (
            verdict.reason is None
            and verdict.score is None
            and verdict.replacement is None
            and type(verdict) is PartialValidationResult
        ):
            # one object for all that say nothing more: events keep one verdict per lane and chunk
            verdict = PLAIN.get(verdict.success, verdict)
        self._verdicts[lane].append((piece.end, verdict))
        return self.passed(lane, piece.end)

    def passed(self, lane: int, position: float) -> Move:
        """A lane has passed the text up to a position; ``math.inf``: all of it, however it goes on."""
        if self.failures:
            return "cancel"
        if not self._rules[lane].blocking:
            return "hold"
        before, self._passed[lane] = self._passed[lane], position
        if before > self._frontier or (frontier := min(self._passed)) == before:
            return "hold"  # another lane has not come so far
        self._frontier = frontier
        ends, releasable = self._ends, self.releasable
        while releasable < len(ends) and ends[releasable] <= frontier:
            releasable += 1
        if releasable == self.releasable:
            return "hold"
        self.releasable = releasable
        return "release"

    def take(self) -> tuple[Chunk, list[PartialValidationResult]]:
        """Take the next chunk, which must be releasable, with one verdict per lane; both are forgotten here."""
        chunk = self._chunks.popleft()
        end = chunk.end
        taken: list[PartialValidationResult] = []
        for rule, verdicts in zip(self._rules, self._verdicts, strict=True):
            last = UNKNOWN
            while verdicts:
                at, last = verdicts[0]
                if at >= end:
                    break
                verdicts.popleft()
            else:
                if not rule.blocking:
                    last = UNKNOWN
            taken.append(last)
        return chunk, taken

    def verdicts_on_failure(self) -> list[PartialValidationResult]:
        """One verdict per lane on the chunk that failed: ``"unknown"`` where a lane has not got that far."""
        first = min(failure.chunk_index for failure in self.failures)
        end = self._ends[first] if first < len(self._ends) else math.inf
        failed = {failure.lane: failure.verdict for failure in self.failures}
        return [
            failed[lane] if lane in failed else next((v for at, v in told if at >= end), UNKNOWN)
            for lane, told in enumerate(self._verdicts)
        ]
