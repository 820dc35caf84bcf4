"""Cuts a text that comes in deltas into chunks that know their positions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from mellea_sc.core.chunking import BoundaryChunking, ChunkingStrategy
from mellea_sc.core.errors import ChunkingError
from mellea_sc.runtime.checks.ledger import Chunk

__all__ = ["Cutter", "Grouped", "Resumed"]


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
        """
        pending = "".join(self._pending)
        chunks: list[Chunk] = []
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


class Resumed(ChunkingStrategy):
    """The chunks of a kept beginning, and then those of the text after it as if that began the text.

    For chunks that were shown: no text can be added to the last of them, also where its end was not certain.

    Args:
        strategy: A strategy that has seen no text.
        kept: The chunks of the beginning. Each of the first deltas ends where one of them ends.
    """

    def __init__(self, strategy: ChunkingStrategy, kept: Sequence[Chunk]) -> None:
        self.bare: bool = strategy.bare
        self._strategy = strategy
        self._kept = deque(kept)

    def feed(self, delta: str) -> Sequence[str]:
        """The next chunk of the beginning, or the chunks that this delta finishes."""
        return (self._kept.popleft().text,) if self._kept else self._strategy.feed(delta)

    def flush(self) -> Sequence[str]:
        """The trailing fragment."""
        return self._strategy.flush()


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
