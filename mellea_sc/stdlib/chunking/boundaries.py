"""Boundaries that a pattern finds, looking only where new text is: the work per delta does not grow."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mellea_sc.core.chunking import BoundaryChunking

__all__ = ["PatternChunker"]


class PatternChunker(BoundaryChunking):
    """Chunks that end where a pattern matches.

    ``_tail`` is the end of the text in which a match could still begin: ``_reach`` characters. A match
    that lies wholly in the tail has been seen before the delta.
    """

    _end: re.Pattern[str]
    _reach: int

    def _forget(self) -> None:
        self._tail = ""

    def find(self, delta: str) -> Sequence[int]:
        """The boundaries that a delta makes certain."""
        window = self._tail + delta
        if self._end.search(window) is None:
            self._tail = window[-self._reach :]
            return ()
        ends = [boundary.end() for boundary in self._end.finditer(window)]
        self._tail = window[ends[-1] :][-self._reach :]
        return [len(window) - end for end in ends]
