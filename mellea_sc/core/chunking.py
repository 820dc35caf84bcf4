"""The contract of a chunking strategy; those of the library are in ``stdlib/chunking.py``."""

from __future__ import annotations

import abc
import copy
from collections.abc import Sequence

__all__ = ["ChunkingStrategy"]


class ChunkingStrategy(abc.ABC):
    """Cuts a text that comes in deltas into chunks.

    One object serves one text. The chunks are pieces of the text, in its order and without overlap;
    what lies between them (white space, usually) belongs to no chunk. They depend on the text
    alone, never on where its deltas were cut.
    """

    bare: bool = False
    """Whether its chunks never begin with white space: then what stands after one need not wait for
    the next to be known not to belong to it."""

    @abc.abstractmethod
    def feed(self, delta: str) -> Sequence[str]:
        """The chunks that this delta finishes, oldest first. The work may not grow with the text seen."""

    @abc.abstractmethod
    def flush(self) -> Sequence[str]:
        """The trailing fragment, if there is one: the text has ended."""

    def fresh(self) -> ChunkingStrategy:
        """A strategy like this one for another text: a deep copy, made before this one is fed."""
        return copy.deepcopy(self)
