"""Cutting a text that comes in deltas into sentences, words, paragraphs, or not at all.

Every strategy keeps what it has not given away in a list of deltas and joins it only when a boundary
was found, and it looks for boundaries only where new text is: the work per delta does not grow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import InvalidOption

__all__ = [
    "ChunkingName",
    "ChunkingStrategy",
    "ParagraphChunker",
    "RawChunker",
    "SentenceChunker",
    "WordChunker",
    "resolve_chunking",
]

ChunkingName: TypeAlias = Literal["sentence", "word", "paragraph"]

_SENTENCE_END: Final = re.compile(r"[.!?][\"'\u201d\u2019)]?(?=\s)")
_WORD_END: Final = re.compile(r"\S(?=\s)")
_PARAGRAPH_END: Final = re.compile(r"\n\n")


class _BoundaryChunker(ChunkingStrategy):
    """Chunks that end where a pattern matches, without white space around them.

    ``_tail`` is the end of the pending text in which a match could still begin: ``_reach``
    characters. A match that lies wholly in the tail has been seen before the delta.
    """

    bare = True
    _end: re.Pattern[str]
    _reach: int

    def __init__(self) -> None:
        self._pending: list[str] = []
        self._tail = ""

    def feed(self, delta: str) -> Sequence[str]:
        """The chunks that this delta finishes."""
        if not delta:
            return ()
        window = self._tail + delta
        self._pending.append(delta)
        boundary = self._end.search(window)
        if boundary is None:
            self._tail = window[-self._reach :]
            return ()
        text = "".join(self._pending)
        before = len(text) - len(window)  # text ends with window, and no boundary lies before it
        chunks: list[str] = []
        start = 0
        while boundary is not None:
            end = before + boundary.end()
            if chunk := text[start:end].strip():
                chunks.append(chunk)
            start = end
            boundary = self._end.search(window, boundary.end())
        rest = text[start:]
        self._pending = [rest] if rest else []
        self._tail = rest[-self._reach :]
        return chunks

    def flush(self) -> Sequence[str]:
        """The trailing fragment."""
        rest = "".join(self._pending).strip()
        self._pending = []
        self._tail = ""
        return (rest,) if rest else ()


class SentenceChunker(_BoundaryChunker):
    """Sentences: up to one of ``.!?``, then at most one closing quote or parenthesis, then white space."""

    _end = _SENTENCE_END
    _reach = 2


class WordChunker(_BoundaryChunker):
    """Words: runs of what is not white space."""

    _end = _WORD_END
    _reach = 1


class ParagraphChunker(_BoundaryChunker):
    """Paragraphs: separated by two or more newlines."""

    _end = _PARAGRAPH_END
    _reach = 1


class RawChunker(ChunkingStrategy):
    """Every delta is a chunk, as it came."""

    def feed(self, delta: str) -> Sequence[str]:
        """The delta."""
        return (delta,) if delta else ()

    def flush(self) -> Sequence[str]:
        """Nothing: no delta waits for another."""
        return ()


_STRATEGIES: Final[dict[str | None, Callable[[], ChunkingStrategy]]] = {
    "sentence": SentenceChunker,
    "word": WordChunker,
    "paragraph": ParagraphChunker,
    None: RawChunker,
}


def resolve_chunking(chunking: str | ChunkingStrategy | None) -> ChunkingStrategy:
    """A strategy that has seen no text.

    Args:
        chunking: ``"sentence"``, ``"word"``, ``"paragraph"``, ``None`` for raw deltas, or a strategy
            that has not been fed, of which a copy is given.

    Raises:
        InvalidOption: there is no strategy of that name.
    """
    if isinstance(chunking, ChunkingStrategy):
        return chunking.fresh()
    if (chunking is not None and not isinstance(chunking, str)) or chunking not in _STRATEGIES:
        known = ", ".join(repr(name) for name in _STRATEGIES)
        raise InvalidOption(
            f"chunking must be one of {known} or a ChunkingStrategy, not {chunking!r}"
        )
    return _STRATEGIES[chunking]()
