"""Chunkings that are made from another one: groups of its chunks, and its chunks after a beginning that was kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.runtime.checks.chunks import Chunk, Cutter


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
