"""Chunking strategies, which cut a text that comes in deltas: into sentences, words, paragraphs, or raw deltas.

words.py      words in every script
sentences.py  sentences by a segmenter that knows abbreviations; the marks that end a sentence

Sentences by their marks alone, paragraphs and raw deltas are here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from mellea_sc.core.chunking import BoundaryChunking, ChunkingStrategy
from mellea_sc.core.errors import InvalidOption
from mellea_sc.stdlib.chunking.sentences import CLOSERS, GREEK_QUESTION, STOPS, SentencesChunker
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
"""Quotation marks that open in English and close in German or Urdu. Before white space they close."""
_STOP: Final = rf"[{STOPS}](?:[{STOPS}!?\u2026{CLOSERS}]|[{_OPENERS}](?=\s|\Z))*+"

_ASCII_END: Final = re.compile(_POINT)
_SENTENCE_END: Final = re.compile(f"{_POINT}|{_STOP}|{GREEK_QUESTION}")
_STOP_MARK: Final = re.compile(f"[{STOPS}]")
_PERHAPS: Final = re.compile(f"[.!?;\u037e\U00010000-\U0010ffff{STOPS}]")
"""A fast pre-check for marks. The full pattern is slow, because ``re`` has tables only up to U+FFFF."""
_PARAGRAPH_END: Final = re.compile(r"\n\n")


_REACH: Final = 4
"""The number of characters at the end of a text in which a sentence's end may still begin."""


class SentenceChunker(BoundaryChunking):
    """Sentences, in every script, by their marks alone.

    A sentence ends after one of ``.!?`` and at most one closing quote or parenthesis, before white space. It also ends
    after the marks of other scripts (``STOPS`` in ``sentences.py``), like ``。`` or ``।``, and the marks, quotes
    and brackets that follow them, with or without white space; and in Greek after ``;``.
    """

    def _forget(self) -> None:
        self._tail = ""  # the end of the text, as far as a boundary may depend on it

    @property
    def undecided(self) -> int:
        """How many of the last characters may belong to this sentence or to the next one: 1 for a quotation mark that
        closes or opens, depending on the next character.
        """
        return int(self._tail[-1:] in _OPENERS and _STOP_MARK.match(self._tail) is not None)

    def find(self, delta: str) -> Sequence[int]:
        """The boundaries that a delta makes certain."""
        window = self._tail + delta
        pattern: re.Pattern[str] | None
        if window.isascii():
            pattern = _ASCII_END
        else:
            pattern = _SENTENCE_END if _PERHAPS.search(window) else None
        found: list[int] = []
        size, end = len(window), 0
        while pattern is not None and (boundary := pattern.search(window, end)) is not None:
            if boundary.end() == size:  # closing characters may follow
                break
            end = boundary.end()
            found.append(size - end)
        if pattern is _SENTENCE_END:
            self._tail = _kept(window[end:])
        else:
            self._tail = window[max(end, size - _REACH) :]
        return found


def _kept(rest: str) -> str:
    stop = _STOP_MARK.search(rest)
    if stop is None:
        return rest[-_REACH:]
    # The last mark is undecided, so only closing characters can follow it. Their number makes no difference, so
    # at most one is kept, and the work per delta stays bounded.
    return stop[0] + (rest[-1] if rest[-1] in _OPENERS else "")


class ParagraphChunker(BoundaryChunking):
    """Paragraphs: separated by two or more newlines."""

    def _forget(self) -> None:
        self._tail = ""

    def find(self, delta: str) -> Sequence[int]:
        """The boundaries that a delta makes certain."""
        window = self._tail + delta
        size, end = len(window), 0
        found: list[int] = []
        while (boundary := _PARAGRAPH_END.search(window, end)) is not None:
            end = boundary.end()
            found.append(size - end)
        self._tail = window[max(end, size - 1) :]
        return found


class RawChunker(ChunkingStrategy):
    """Every delta is a chunk, as it came."""

    def feed(self, delta: str) -> Sequence[str]:
        """The delta."""
        return (delta,) if delta else ()

    def flush(self) -> Sequence[str]:
        """Nothing: no text is held back."""
        return ()


SentenceChunking = SentenceChunker
WordChunking = WordChunker
ParagraphChunking = ParagraphChunker
"""Mellea's names of these three."""

_STRATEGIES: Final[dict[str | None, Callable[[], ChunkingStrategy]]] = {
    "sentence": SentenceChunker,
    "sentences": SentencesChunker,
    "word": WordChunker,
    "paragraph": ParagraphChunker,
    None: RawChunker,
}


def resolve_chunking(chunking: str | ChunkingStrategy | None) -> ChunkingStrategy:
    """Make an unused strategy.

    Args:
        chunking: ``"sentence"``, ``"sentences"`` (English; needs the extra ``sentences``), ``"word"``,
            ``"paragraph"``, ``None`` for raw deltas, or an unused strategy, which is copied.

    Raises:
        InvalidOption: the name is not known.
        MissingExtra: the strategy needs a package that is not installed.
    """
    if isinstance(chunking, ChunkingStrategy):
        return chunking.fresh()
    if (chunking is not None and not isinstance(chunking, str)) or chunking not in _STRATEGIES:
        known = ", ".join(repr(name) for name in _STRATEGIES)
        raise InvalidOption(
            f"chunking must be one of {known} or a ChunkingStrategy, not {chunking!r}"
        )
    return _STRATEGIES[chunking]()
