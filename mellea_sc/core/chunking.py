"""The contract of a chunking strategy; the library's own are in ``stdlib/chunking/``."""

from __future__ import annotations

import abc
import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from mellea_sc.core.errors import ChunkingError, InvalidOption


class ChunkingStrategy(abc.ABC):
    """Cuts a text that comes in deltas into chunks.

    One object is used for one text. The chunks are pieces of the text, in order and without overlap. Text between
    them (usually white space) belongs to no chunk. The chunks must depend only on the text, never on where the
    deltas were cut.

    A subclass has ``feed(delta)`` and ``flush()``. Or it has, as in Mellea, ``split(text)`` for the finished chunks of a
    text, and perhaps ``flush(text)`` for the fragment that is left of it at the end. Both are given the text after the
    last chunk, ``split`` for each delta: so the time for a chunk grows with the square of its length.
    """

    _splits: bool = False
    """Whether it has a ``split``, and its ``feed`` is made of that."""
    _unsplit: str = ""
    """The text after the last chunk, if so."""

    bare: bool = False
    """Whether its chunks never begin with white space. Then white space after a chunk is known to lie between
    chunks without waiting for the next one."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        own = vars(cls)
        cls._splits = "feed" not in own and ("split" in own or cls._splits)
        if cls._splits and ("split" in own or "flush" in own):
            _feed_by_split(cls)

    @abc.abstractmethod
    def feed(self, delta: str) -> Sequence[str]:
        """The chunks that this delta finishes, oldest first. The work must not grow with the text so far."""

    @abc.abstractmethod
    def flush(self) -> Sequence[str]:
        """The last chunk, which may be incomplete, if there is one; the text has ended."""

    def fresh(self) -> ChunkingStrategy:
        """A new strategy with the same settings for another text; by default a deep copy, made before any delta."""
        return copy.deepcopy(self)


class _SplitsText(Protocol):
    """What a strategy is in Mellea."""

    def split(self, text: str) -> Sequence[str]: ...


def _feed_by_split(cls: type[ChunkingStrategy]) -> None:
    """Give a class with ``split(text)`` a ``feed(delta)``, and a ``flush()`` that calls its ``flush(text)``.

    Raises:
        InvalidOption: its ``flush`` takes no text.
    """
    has_flush = cls.flush is not ChunkingStrategy.flush
    flush = cast("Callable[[ChunkingStrategy, str], Sequence[str]]", cls.flush)
    if has_flush and len(inspect.signature(flush).parameters) < 2:
        raise InvalidOption(
            f"{cls.__name__} must have either feed(delta) and flush(), or split(text) and flush(text)"
        )

    def feed_by_split(self: ChunkingStrategy, delta: str) -> Sequence[str]:
        self._unsplit += delta
        chunks = cast("_SplitsText", self).split(self._unsplit)
        self._unsplit = _rest(cls.__name__, self._unsplit, chunks)
        return chunks

    def flush_unsplit(self: ChunkingStrategy, text: str | None = None) -> Sequence[str]:
        # In Mellea, the fragment is in no chunk where there is no flush(text).
        return flush(self, self._unsplit if text is None else text) if has_flush else []

    cls.feed = feed_by_split  # type: ignore[method-assign]
    cls.flush = flush_unsplit  # type: ignore[method-assign]
    cls.bare = False


def _rest(name: str, text: str, chunks: object) -> str:
    """The text after the last chunk."""
    if not isinstance(chunks, Sequence) or isinstance(chunks, str):
        raise ChunkingError(f"split() of {name} must return a list of chunks, not {chunks!r}")
    end = 0
    for chunk in cast("Sequence[object]", chunks):
        start = text.find(chunk, end) if chunk and isinstance(chunk, str) else -1
        if start < 0 or not isinstance(chunk, str):
            raise ChunkingError(
                f"split() of {name} returned the chunk {chunk!r}, which is empty, or does not stand in the text after "
                "the chunk before it"
            )
        end = start + len(chunk)
    return text[end:]


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

    def split(self, text: str) -> Sequence[str]:
        """As in Mellea: the finished chunks of a text. For subclasses with a ``split`` of their own."""
        return list(BoundaryChunking.feed(copy.deepcopy(self), text))

    def flush(self, text: str | None = None) -> Sequence[str]:
        """The trailing fragment, and before it what only the end has made certain.

        Args:
            text: As in Mellea: a text whose fragment to return instead; the strategy has seen no other.
        """
        if text is not None:
            own = copy.deepcopy(self)
            BoundaryChunking.feed(own, text)
            return BoundaryChunking.flush(own)
        chunks = self._cut([*self.find_last(), 0]) if self._pending else ()
        self._forget()
        return chunks

    def _cut(self, boundaries: Sequence[int]) -> Sequence[str]:
        text = "".join(self._pending)
        ends = [len(text) - after for after in boundaries]
        chunks = [text[start:end].strip() for start, end in zip([0, *ends], ends, strict=False)]
        self._pending = [text[ends[-1] :]] if ends[-1] < len(text) else []
        return [chunk for chunk in chunks if chunk]
