"""What the chunkers of the library share: what is kept, and how it is cut where a boundary is found.

A chunker keeps what it has not given away in a list of deltas and joins it only when there is a
boundary, and it looks for boundaries only where new text is: the work per delta does not grow.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Sequence

from mellea_sc.core.chunking import ChunkingStrategy

__all__ = ["BoundaryChunker", "PatternChunker"]


class BoundaryChunker(ChunkingStrategy):
    """Chunks that end at boundaries, without white space around them."""

    bare = True

    def __init__(self) -> None:
        self._pending: list[str] = []
        self._forget()

    @abc.abstractmethod
    def _boundaries(self, delta: str, *, ended: bool) -> Sequence[int]:
        """The boundaries that this delta makes certain, oldest first.

        Args:
            delta: What is new; nothing, when the text has ended.
            ended: Whether the text has ended.

        Returns:
            For each, how many characters of the text are known after it.
        """

    @abc.abstractmethod
    def _forget(self) -> None:
        """Be as before the first delta."""

    def feed(self, delta: str) -> Sequence[str]:
        """The chunks that this delta finishes."""
        if not delta:
            return ()
        self._pending.append(delta)
        boundaries = self._boundaries(delta, ended=False)
        return self._cut(boundaries) if boundaries else ()

    def flush(self) -> Sequence[str]:
        """The trailing fragment, and before it what only the end has made certain."""
        if not self._pending:
            return ()
        chunks = self._cut([*self._boundaries("", ended=True), 0])
        self._forget()
        return chunks

    def _cut(self, boundaries: Sequence[int]) -> list[str]:
        text = "".join(self._pending)
        chunks: list[str] = []
        start = 0
        for after in boundaries:
            end = len(text) - after
            if chunk := text[start:end].strip():
                chunks.append(chunk)
            start = end
        self._pending = [text[start:]] if start < len(text) else []
        return chunks


class PatternChunker(BoundaryChunker):
    """Chunks that end where a pattern matches.

    ``_tail`` is the end of the text in which a match could still begin: ``_reach`` characters. A match
    that lies wholly in the tail has been seen before the delta.
    """

    _end: re.Pattern[str]
    _reach: int

    def _forget(self) -> None:
        self._tail = ""

    def _next(self, window: str, start: int) -> int | None:
        """Where the first boundary after a position is, if one is certain."""
        boundary = self._end.search(window, start)
        return None if boundary is None else boundary.end()

    def _kept(self, rest: str) -> str:
        """What has to be known of the text after the last boundary to find the next."""
        return rest[-self._reach :]

    def _boundaries(self, delta: str, *, ended: bool) -> Sequence[int]:
        window = self._tail + delta
        end = self._next(window, 0)
        if end is None:
            self._tail = self._kept(window)
            return ()
        found: list[int] = []
        last = 0
        while end is not None:
            last = end
            found.append(len(window) - end)
            end = self._next(window, end)
        self._tail = self._kept(window[last:])
        return found
