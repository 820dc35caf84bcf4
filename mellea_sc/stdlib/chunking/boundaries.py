"""Boundaries that a pattern finds, looking only where new text is: the work per delta does not grow."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mellea_sc.core.chunking import BoundaryChunking

__all__ = ["PatternChunker"]


class PatternChunker(BoundaryChunking):
    """Chunks that end where a pattern matches.

    ``_tail`` is the end of the text, ``_reach`` characters, in which a match could still begin. A match that lies
    completely in the tail has been found with an earlier delta.
    """

    _end: re.Pattern[str]
    _reach: int

    def _forget(self) -> None:
        self._tail = ""

    def find(self, delta: str) -> Sequence[int]:
        """The boundaries that a delta makes certain."""
        window = self._tail + delta
        found: list[int] = []
        size, end = len(window), 0
        while (boundary := self._end.search(window, end)) is not None:
            end = boundary.end()
            found.append(size - end)
        self._tail = window[max(end, size - self._reach) :]
        return found
