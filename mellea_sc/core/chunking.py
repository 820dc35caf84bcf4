"""The contract of a chunking strategy; the library's own are in ``stdlib/chunking/``."""

from __future__ import annotations

import abc
import copy
from collections.abc import Sequence

__all__ = ["ChunkingStrategy"]


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
