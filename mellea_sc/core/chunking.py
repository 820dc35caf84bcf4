"""The contract of a chunking strategy; the library's own are in ``stdlib/chunking/``."""

from __future__ import annotations

import abc
import copy
from collections.abc import Sequence


class ChunkingStrategy(abc.ABC):
    """Cuts a text that comes in deltas into chunks.

    One object is used for one text. The chunks are pieces of the text, in order and without overlap. Text between
    them (usually white space) belongs to no chunk. The chunks must depend only on the text, never on where the
    deltas were cut.
    """

    bare: bool = False
    """Whether its chunks never begin with white space. Then white space after a chunk is known to lie between
    chunks without waiting for the next one."""

    @abc.abstractmethod
    def feed(self, delta: str) -> Sequence[str]:
        """The chunks that this delta finishes, oldest first. The work must not grow with the text so far."""

    @abc.abstractmethod
    def flush(self) -> Sequence[str]:
        """The last chunk, which may be incomplete, if there is one; the text has ended."""

    def fresh(self) -> ChunkingStrategy:
        """A new strategy with the same settings for another text; by default a deep copy, made before any delta."""
        return copy.deepcopy(self)


class BoundaryChunking(ChunkingStrategy):
    """Chunks that end at boundaries, without white space around them.

    It finds the boundaries and keeps no more of the text than that takes. Whoever cuts there keeps the rest:
    :meth:`feed`, or a cutter that has to know where in the text the chunks stand.
    """

    bare: bool = True

    def __init__(self) -> None:
        self._pending: list[str] = []
        self._forget()

    @abc.abstractmethod
    def _forget(self) -> None:
        """Be as before the first delta."""

    @abc.abstractmethod
    def find(self, delta: str) -> Sequence[int]:
        """The boundaries that a delta makes certain: for each, how many characters are known after it.

        The delta is not empty. Between a boundary and the one before it there may be white space alone.
        """

    def find_last(self) -> Sequence[int]:
        """Those before the end that are certain only because the text has ended."""
        return ()

    def feed(self, delta: str) -> Sequence[str]:
        """The chunks that this delta finishes."""
        if not delta:
            return ()
        self._pending.append(delta)
        boundaries = self.find(delta)
        return self._cut(boundaries) if boundaries else ()

    def flush(self) -> Sequence[str]:
        """The trailing fragment, and before it what only the end has made certain."""
        chunks = self._cut([*self.find_last(), 0]) if self._pending else ()
        self._forget()
        return chunks

    def _cut(self, boundaries: Sequence[int]) -> Sequence[str]:
        text = "".join(self._pending)
        ends = [len(text) - after for after in boundaries]
        chunks = [text[start:end].strip() for start, end in zip([0, *ends], ends, strict=False)]
        self._pending = [text[ends[-1] :]] if ends[-1] < len(text) else []
        return [chunk for chunk in chunks if chunk]
