"""Base classes of the library's chunkers: they keep undecided text, and cut it at boundaries.

A chunker keeps the text that it has not returned in a list of deltas, and joins them only at a boundary. It searches
for boundaries only in new text. So the work per delta does not grow with the text.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Sequence

from mellea_sc.core.chunking import ChunkingStrategy

__all__ = ["BoundaryChunker", "PatternChunker"]


class BoundaryChunker(ChunkingStrategy):
    """Chunks that end at boundaries, without white space around them."""

    bare: bool = True

    def __init__(self) -> None:
        self._pending: list[str] = []
        self._forget()

    @abc.abstractmethod
    def _forget(self) -> None:
        """Reset to the state before the first delta."""

    def flush(self) -> Sequence[str]:
        """The remaining chunks; the last one may be incomplete."""
        if not self._pending:
            return ()
        chunks = self._cut([*self._last_boundaries(), 0])
        self._forget()
        return chunks

    def _last_boundaries(self) -> Sequence[int]:
        """Boundaries in the rest of the text that are certain only because it has ended; as for ``_cut``."""
        return ()

    def _cut(self, boundaries: Sequence[int]) -> list[str]:
        """The chunks up to the boundaries, each given as the number of known characters after it."""
        text = "".join(self._pending)
        size = len(text)
        chunks: list[str] = []
        start = 0
        for after in boundaries:
            if chunk := text[start : size - after].strip():
                chunks.append(chunk)
            start = size - after
        self._pending = [text[start:]] if start < size else []
        return chunks


class PatternChunker(BoundaryChunker):
    """Chunks that end where a pattern matches.

    ``_tail`` is the end of the text, ``_reach`` characters, in which a match could still begin. A match that lies
    completely in the tail has been found with an earlier delta.
    """

    _end: re.Pattern[str]
    _reach: int

    def _forget(self) -> None:
        self._tail = ""

    def feed(self, delta: str) -> Sequence[str]:
        """The chunks that this delta finishes."""
        if not delta:
            return ()
        self._pending.append(delta)
        window = self._tail + delta
        boundary = self._end.search(window)
        if boundary is None:
            self._tail = window[-self._reach :]
            return ()
        return self._cut_at(boundary, window)

    def _cut_at(self, boundary: re.Match[str] | None, window: str) -> Sequence[str]:
        """The chunks that end in a window, of which the first boundary is known."""
        text = "".join(self._pending)
        before = len(text) - len(window)  # text ends with window, and no boundary lies before it
        chunks: list[str] = []
        start = end = 0
        while boundary is not None:
            end = boundary.end()
            if chunk := text[start : before + end].strip():
                chunks.append(chunk)
            start = before + end
            boundary = self._end.search(window, end)
        rest = text[start:]
        self._pending = [rest] if rest else []
        self._tail = rest[-self._reach :]
        return chunks
