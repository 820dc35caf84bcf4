"""Cutting a text that comes in deltas into sentences, words, paragraphs, or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import InvalidOption
from mellea_sc.stdlib.chunking.boundaries import PatternChunker
from mellea_sc.stdlib.chunking.sentence_marks import CLOSERS, GREEK_QUESTION, STOPS
from mellea_sc.stdlib.chunking.sentences import SentencesChunker
from mellea_sc.stdlib.chunking.words import WordChunker

__all__ = [
    "ChunkingName",
    "ChunkingStrategy",
    "ParagraphChunker",
    "ParagraphChunking",
    "RawChunker",
    "SentenceChunker",
    "SentenceChunking",
    "SentencesChunker",
    "WordChunker",
    "WordChunking",
    "resolve_chunking",
]

ChunkingName: TypeAlias = Literal["sentence", "sentences", "word", "paragraph"]

_POINT: Final = r"[.!?][\"'\u201d\u2019)]?(?=\s)"
_OPENERS: Final = "\u201c\u2018\u00ab"
"""Quotation marks that open in English and close in German or Urdu; before white space they close."""
_STOP: Final = rf"[{STOPS}](?:[{STOPS}!?\u2026{CLOSERS}]|[{_OPENERS}](?=\s|\Z))*+"

_ASCII_END: Final = re.compile(_POINT)
_SENTENCE_END: Final = re.compile(f"{_POINT}|{_STOP}|{GREEK_QUESTION}")
_STOP_MARK: Final = re.compile(f"[{STOPS}]")
_PERHAPS: Final = re.compile(f"[.!?;\u037e\U00010000-\U0010ffff{STOPS}]")
"""A fast pre-check for marks. The full pattern is slow, because ``re`` has tables only up to U+FFFF."""
_PARAGRAPH_END: Final = re.compile(r"\n\n")


class SentenceChunker(PatternChunker):
    """Sentences, in every script, by their marks alone.

    A sentence ends after one of ``.!?``, then at most one closing quote or parenthesis, before white
    space; and after the marks of other scripts (``STOPS`` in ``sentence_marks.py``), as ``。`` or ``।``, with the
    marks, quotes and brackets that close it, white space or not. In Greek it ends after ``;``, too.
    """

    _end = _ASCII_END
    _reach = 4

    def find(self, delta: str) -> Sequence[int]:
        """The boundaries that a delta makes certain."""
        window = self._tail + delta
        pattern: re.Pattern[str] | None
        if window.isascii():
            pattern = self._end
        else:
            pattern = _SENTENCE_END if _PERHAPS.search(window) else None
        found: list[int] = []
        size, end = len(window), 0
        while pattern is not None and (boundary := pattern.search(window, end)) is not None:
            if boundary.end() == size:  # what closes it may still come
                break
            end = boundary.end()
            found.append(size - end)
        if pattern is _SENTENCE_END:
            self._tail = self._kept(window[end:])
        else:
            self._tail = window[max(end, size - self._reach) :]
        return found

    def _kept(self, rest: str) -> str:
        stop = _STOP_MARK.search(rest)
        if stop is None:
            return rest[-self._reach :]
        # The last mark is undecided, so only closing characters can follow it. Their number makes no difference, so
        # at most one is kept, and the work per delta stays bounded.
        return stop[0] + (rest[-1] if rest[-1] in _OPENERS else "")


class ParagraphChunker(PatternChunker):
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


SentenceChunking = SentenceChunker
WordChunking = WordChunker
ParagraphChunking = ParagraphChunker
"""Mellea's names for these three."""

_STRATEGIES: Final[dict[str | None, Callable[[], ChunkingStrategy]]] = {
    "sentence": SentenceChunker,
    "sentences": SentencesChunker,
    "word": WordChunker,
    "paragraph": ParagraphChunker,
    None: RawChunker,
}


def resolve_chunking(chunking: str | ChunkingStrategy | None) -> ChunkingStrategy:
    """A strategy that has seen no text.

    Args:
        chunking: ``"sentence"``, ``"sentences"`` (of English, with the extra of that name), ``"word"``,
            ``"paragraph"``, ``None`` for raw deltas, or a strategy that has not been fed, of which a copy
            is given.

    Raises:
        InvalidOption: there is no strategy of that name.
        MissingExtra: it needs a package that is not installed.
    """
    if isinstance(chunking, ChunkingStrategy):
        return chunking.fresh()
    if (chunking is not None and not isinstance(chunking, str)) or chunking not in _STRATEGIES:
        known = ", ".join(repr(name) for name in _STRATEGIES)
        raise InvalidOption(
            f"chunking must be one of {known} or a ChunkingStrategy, not {chunking!r}"
        )
    return _STRATEGIES[chunking]()
