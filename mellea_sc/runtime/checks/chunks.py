"""The chunks of a running text: where it is cut, and which of them may be shown. No tasks, no I/O.

::

    deltas ──> Cutter ──chunk──> Ledger ──> "release", "hold" or "cancel"
                 verdicts of the lanes ──^

Positions in the text are counted in characters. The main chunking cuts the text into *chunks*, each from a
position ``start`` to a position ``end``. Each lane validates *pieces* of the same text, in order; they are the chunks,
or are cut by a chunking of its own. A lane that has passed a piece has passed the text up to the end of that piece.

The rules of the :class:`Ledger`:

1. A chunk is releasable when every lane that blocks has passed the text up to the chunk's end. Without such lanes
   it is releasable at once. Chunks are released in order.
2. A verdict ``"pass"`` or ``"unknown"`` passes a piece.
3. After a ``"fail"`` nothing becomes releasable any more, whatever comes later. Later fails are recorded too.
4. A ``"fail"`` of a lane whose rule is "record" passes the piece, and is noted.
5. A lane that has validated all of the text has passed all of it.
6. Each chunk is shown with one verdict per lane: the one on the piece that covers the chunk's end.
7. An advisory lane, one that does not block, may be late: as long as it has no verdict on a chunk, its verdict
   is ``"unknown"``.

The text is the shown one. Edits are made before, and the requirements that edit validate the outcome like all others.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final, Literal, TypeAlias

import attrs

from mellea_sc.core.chunking import BoundaryChunking, ChunkingStrategy
from mellea_sc.core.errors import ChunkingError
from mellea_sc.core.requirement import PartialValidationResult


@attrs.define
class Chunk:
    """A chunk, or another piece of the text, and its position.

    A value; not frozen, only because one may be made for each token.

    Args:
        text: The piece.
        start: The position where it begins.
        end: The position where it ends.
        before: The text between the piece before and this one, mostly white space.
        window: The last characters before this piece, if the requirement has a ``window``.
    """

    text: str
    start: int
    end: int
    before: str = ""
    window: str = ""


class Cutter:
    """A chunking strategy, together with the positions of its chunks.

    Args:
        strategy: A strategy that has seen no text.
        window: The number of characters before it that each chunk comes with.
    """

    __slots__ = (
        "_boundaries",
        "_find",
        "_none_yet",
        "_pending",
        "_seen",
        "_space",
        "_start",
        "_strategy",
        "_window",
    )

    def __init__(self, strategy: ChunkingStrategy, window: int = 0) -> None:
        self._strategy = strategy
        # A strategy that cuts at boundaries is asked for these only. Otherwise both would keep the text that is not cut yet.
        self._boundaries = (
            strategy
            if isinstance(strategy, BoundaryChunking)
            and type(strategy).feed is BoundaryChunking.feed
            and type(strategy).flush is BoundaryChunking.flush
            else None
        )
        self._find: Callable[[str], Sequence[str | int]] = (
            strategy.feed if self._boundaries is None else self._boundaries.find
        )
        self._window = window
        self._seen = ""
        # How much of the white space at the beginning of the pending text was returned by space(). Negative: all that can
        # be known before the next chunk.
        self._space = self._none_yet = 0 if strategy.bare else -1
        self._pending: list[str] = []
        self._start = 0

    def feed(self, delta: str) -> Sequence[Chunk]:
        """The chunks that a delta completes.

        Raises:
            ChunkingError: one of them is not in the text after the one before.
        """
        self._pending.append(delta)
        if delta and (found := self._find(delta)):
            return self._cut(found)
        return ()

    def flush(self) -> Sequence[Chunk]:
        """The trailing fragment, if there is one."""
        if self._boundaries is None:
            return self._cut(self._strategy.flush())
        return self._cut([*self._boundaries.find_last(), 0])

    def space(self) -> str:
        """The white space that is known to stand before the next chunk, without the part that was returned before.

        So it can be passed on before that chunk, whose ``before`` contains all of it. Empty if chunks of the strategy
        may begin with white space.
        """
        if self._space < 0:
            return ""
        pending = "".join(self._pending)
        self._pending = [pending]
        end = len(pending) - len(pending.lstrip())
        space = pending[self._space : end]
        self._space = end if end == len(pending) else -1
        return space

    def rest(self) -> Chunk | None:
        """The text after the last chunk at the end of the text, as the ``before`` of an empty chunk."""
        rest = "".join(self._pending)
        end = self._start + len(rest)
        return Chunk("", end, end, rest) if rest else None

    def _cut(self, found: Sequence[str | int]) -> list[Chunk]:
        """Make the chunks.

        Args:
            found: The texts of the chunks; or for boundaries, the number of characters after each.

        Raises:
            ChunkingError: it is no list, or a text in it is not in the pending text.
        """
        pending = "".join(self._pending)
        chunks: list[Chunk] = []
        if isinstance(found, str | None):  # a str is a sequence of its letters
            raise ChunkingError(
                f"feed() and flush() of {type(self._strategy).__name__} must return a list of chunks, not {found!r}"
            )
        size, position = len(pending), 0
        for one in found:
            if isinstance(one, str):
                text, at = one, pending.find(one, position)
                if at < 0:
                    raise ChunkingError(
                        f"{type(self._strategy).__name__} returned the chunk {text!r}, which does not "
                        "stand in the text after the chunk before it"
                    )
            else:
                text = pending[position : size - one].lstrip()
                at = size - one - len(text)
                text = text.rstrip()
                if not text:
                    continue
            before, position = pending[position:at], at + len(text)
            chunk = Chunk(text, self._start + at, self._start + position, before)
            if self._window:
                chunk.window = self._before(pending, at)
            chunks.append(chunk)
        self._pending = [pending[position:]]
        self._start += position
        if chunks:
            self._space = self._none_yet
        if self._window:
            self._seen = self._before(pending, position)
        return chunks

    def _before(self, pending: str, position: int) -> str:
        missing = self._window - position
        if missing <= 0:
            return pending[position - self._window : position]
        return self._seen[-missing:] + pending[:position]


class Grouped(ChunkingStrategy):
    """Groups of chunks of another strategy, each with the text between its chunks.

    Args:
        strategy: A strategy that has seen no text.
        size: The number of chunks in a group; the last one may have fewer.
    """

    def __init__(self, strategy: ChunkingStrategy, size: int) -> None:
        self.bare: bool = strategy.bare
        self._cutter = Cutter(strategy)
        self._size = size
        self._text: list[str] = []
        self._start = 0
        self._group: list[Chunk] = []

    def feed(self, delta: str) -> Sequence[str]:
        """The groups that this delta completes."""
        self._text.append(delta)
        return self._gather(self._cutter.feed(delta), self._size)

    def flush(self) -> Sequence[str]:
        """The last groups, complete or not."""
        return [*self._gather(self._cutter.flush(), self._size), *self._gather((), 1)]

    def _gather(self, chunks: Sequence[Chunk], least: int) -> list[str]:
        self._group.extend(chunks)
        if len(self._group) < least:
            return []
        text = "".join(self._text)
        texts: list[str] = []
        taken = end = 0
        while len(self._group) - taken >= least:
            group = self._group[taken : taken + self._size]
            taken += len(group)
            end = group[-1].end - self._start
            texts.append(text[group[0].start - self._start : end])
        self._group = self._group[taken:]
        self._text = [text[end:]]
        self._start += end
        return texts


UNKNOWN: Final = PartialValidationResult("unknown")
PLAIN: Final = {"unknown": UNKNOWN, "pass": PartialValidationResult("pass")}


Move: TypeAlias = Literal["hold", "release", "cancel"]
"""What the caller has to do: nothing; show more; cancel the text."""


OnPiece: TypeAlias = Literal["cancel", "record"]
"""What a lane's fail does: it cancels the text, or is only recorded."""


@attrs.frozen
class Rule:
    """How the verdicts of a lane are used.

    Args:
        on_fail: What its fail does.
        blocking: Whether the text waits for its verdicts.
    """

    on_fail: OnPiece = "cancel"
    blocking: bool = True


@attrs.frozen
class Failure:
    """A fail of a lane.

    Args:
        lane: The number of the lane.
        verdict: The verdict.
        chunk_index: The index of the chunk in which the failed piece begins.
        end: The position where the piece ends.
        start: The position where it begins.
    """

    lane: int
    verdict: PartialValidationResult
    chunk_index: int
    end: int = attrs.field(default=0, eq=False)
    start: int = attrs.field(default=0, eq=False)


class Ledger:
    """The chunks of one running text, and the verdicts on them.

    Args:
        lanes: The number of lanes; they are numbered from 0.
        rules: The rule of each; by default all of them block and cancel.
        noted: The fails that were noted in the text that was kept of an earlier attempt.
    """

    __slots__ = (
        "_chunks",
        "_ends",
        "_frontier",
        "_passed",
        "_rules",
        "_verdicts",
        "failures",
        "lanes",
        "noted",
        "releasable",
        "shown",
    )

    releasable: int
    """The number of chunks, from the first one on, that may be shown."""
    failures: list[Failure]
    """The fails that stop the text, at most one for each lane, in the order of the lanes."""
    noted: list[Failure]
    """The fails that do not stop the text, in the order in which they came."""

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
        self.shown: int = 0
        """The number of its first chunks that an earlier attempt has shown."""
        self._passed: list[float] = [0 if rule.blocking else math.inf for rule in self._rules]
        # up to where every lane that blocks has passed the text
        self._frontier: float = min(self._passed, default=math.inf)
        self._verdicts: list[deque[tuple[int, PartialValidationResult]]] = [
            deque() for _ in range(lanes)
        ]

    def skip(self, shown: int) -> None:
        """Leave the first chunks out of :meth:`take`: an earlier attempt has shown them."""
        self.shown = shown

    @property
    def position(self) -> int:
        """The position where the last chunk ends that may be shown."""
        return self.end_of(self.releasable)

    def end_of(self, count: int) -> int:
        """The position where the first ``count`` chunks end; if there are not so many yet, where those end that there are."""
        return self._ends[min(count, len(self._ends)) - 1] if count and self._ends else 0

    def cut(self, chunk: Chunk) -> Move:
        """Add the next chunk of the main chunking."""
        ends = self._ends
        if len(ends) >= self.shown:
            self._chunks.append(chunk)
        ends.append(chunk.end)
        if self.failures:
            return "cancel"
        if chunk.end > self._frontier:
            return "hold"
        self.releasable += 1  # all chunks before it are releasable: none ends after it
        return "release"

    def judged(self, lane: int, piece: Chunk, verdict: PartialValidationResult) -> Move:
        """Add a lane's verdict on its next piece."""
        if verdict.success == "fail":
            index = bisect_right(self._ends, piece.start)
            failure = Failure(lane, verdict, index, piece.end, piece.start)
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
            # One object for all plain verdicts: an event keeps one verdict per lane, and there is one for each chunk.
            verdict = PLAIN.get(verdict.success, verdict)
        self._verdicts[lane].append((piece.end, verdict))
        return self.passed(lane, piece.end)

    def passed(self, lane: int, position: float) -> Move:
        """Note that a lane has passed the text up to a position; ``math.inf``: all of it."""
        if self.failures:
            return "cancel"
        if not self._rules[lane].blocking:
            return "hold"
        before, self._passed[lane] = self._passed[lane], position
        if before > self._frontier or (frontier := min(self._passed)) == before:
            return "hold"  # another lane has passed less
        self._frontier = frontier
        ends, releasable = self._ends, self.releasable
        while releasable < len(ends) and ends[releasable] <= frontier:
            releasable += 1
        if releasable == self.releasable:
            return "hold"
        self.releasable = releasable
        return "release"

    def take(self) -> tuple[Chunk, list[PartialValidationResult]]:
        """Take the next chunk, which must be releasable, and one verdict per lane; the ledger forgets both."""
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

    def failed_chunk(self) -> tuple[int, list[PartialValidationResult]]:
        """The index of the first chunk that has failed, and one verdict per lane on it.

        The verdict is ``"unknown"`` for lanes that have not come so far.
        """
        first = min(failure.chunk_index for failure in self.failures)
        end = self._ends[first] if first < len(self._ends) else math.inf
        failed = {failure.lane: failure.verdict for failure in self.failures}
        return first, [
            failed[lane] if lane in failed else next((v for at, v in told if at >= end), UNKNOWN)
            for lane, told in enumerate(self._verdicts)
        ]
