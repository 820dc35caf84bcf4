"""Sentences as a reader sees them: abbreviations, initials, decimals and list numbers end none.

The package sentencex, which knows the abbreviations of many languages, decides whether a mark ends a sentence. It
takes whole texts, and text that comes later could change its result. So it is asked about each mark once, when the
word after the mark is known, with a limited part of the text::

    text      … the sentence so far   .   the next word │ not given
    given     └── at most CONTEXT ──┘ ↑ └─ at most AHEAD ┘

That part depends only on the text, not on the deltas; so the sentences do too, and the work for a mark is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, cast

from mellea_sc.core.chunking import BoundaryChunking
from mellea_sc.core.errors import InvalidOption
from mellea_sc.stdlib.chunking.sentence_marks import CLOSERS, GREEK_QUESTION, STOPS

__all__ = ["SentencesChunker"]

CONTEXT: Final = 120
"""The maximum number of characters before a mark that are given to the package."""

AHEAD: Final = 48
"""The maximum number of characters after a mark, for the next word."""

_LONGEST_MARK: Final = 40

_MARK: Final = re.compile(
    # before white space, any quotation mark closes
    rf"(?P<point>[.!?\u2026]{{1,16}}+(?:[ \u00a0\u202f]\u00bb|[{CLOSERS}\u201c\u2018\u00ab*_]{{0,16}}+)(?=\s))"
    rf"|(?P<stop>[{STOPS}][{STOPS}.!?\u2026{CLOSERS}*_]{{0,16}}+|{GREEK_QUESTION})"
    r"|(?P<line>\n)"
)
_NEXT_WORD: Final = re.compile(r"\s+\S+(?=\s)")
_BLANK_LINE: Final = re.compile(r"\s*?\n[^\S\n]*\n")
_EMPHATIC: Final = re.compile(r"[!?]{2}")
_GOES_ON: Final = re.compile(rf"[{STOPS}.!?\u2026{CLOSERS},;:\u060c\u061b\u3001\uff0c\uff1a\uff1b]")
_LIST_NUMBER: Final = re.compile(r"\(?(?:\d{1,3}|[A-Za-z]|[ivx]{2,4})[.)]{1,2}")
_LINE_BEGINS: Final = re.compile(
    r"[^\S\n]{0,12}(?:(?P<boundary>\n|(?:[-*+\u2022\u2013]|\(?\d{1,3}[.)]{1,2})[^\S\n])"
    r"|(?P<unknown>(?:[-*+\u2022\u2013]|\(?\d{0,3}[.)]{0,2})\Z))"
)


class SentencesChunker(BoundaryChunking):
    """Sentences by a segmenter that knows abbreviations; list items and blank lines also end a sentence.

    Marks that have no other use in their script, like ``。`` or ``।``, end a sentence as in ``"sentence"``, except
    before a comma. A sentence is returned when the word after it is known.

    Args:
        language: The ISO 639 code of the language, as ``"en"`` or ``"de"``. If the segmenter does not know it, it
            uses a related language.

    Raises:
        InvalidOption: the language is not a string, or empty.
        MissingExtra: the package ``sentencex``, of the extra ``sentences``, is not installed.
    """

    def __init__(self, language: str = "en") -> None:
        from mellea_sc.stdlib.requirements.scanned import import_extra

        if not isinstance(language, str) or not language:
            raise InvalidOption(f'language must be a code like "en", not {language!r}')
        module = import_extra("sentencex", "sentences", 'chunking="sentences"')
        self.language = language
        self._segment = cast("Callable[[str, str], list[str]]", module.segment)
        super().__init__()

    def _forget(self) -> None:
        self._near = ""
        self._began = 0  # the beginning of the sentence in _near
        self._at = 0  # the position up to which all marks are decided

    def find(self, delta: str) -> Sequence[int]:
        """The boundaries that a delta makes certain."""
        self._near += delta
        return self._boundaries(ended=False)

    def find_last(self) -> Sequence[int]:
        """The boundaries that are certain only because the text has ended."""
        return self._boundaries(ended=True)

    def _boundaries(self, *, ended: bool) -> Sequence[int]:
        size = len(self._near)
        found: list[int] = []
        while (mark := _MARK.search(self._near, self._at)) is not None:
            ends = self._ends_at(mark, ended=ended)
            if ends is None:
                self._at = mark.start()
                break
            self._at = mark.end()
            if ends:
                self._began = mark.end()
                found.append(size - mark.end())
        else:
            self._at = max(self._at, size - _LONGEST_MARK)
        forgotten = max(0, self._at - CONTEXT - _LONGEST_MARK)
        self._near = self._near[forgotten:]
        self._at -= forgotten
        self._began = max(0, self._began - forgotten)
        return found

    def _ends_at(self, mark: re.Match[str], *, ended: bool) -> bool | None:
        """Whether a sentence ends with a mark; ``None`` if that is not known yet."""
        after = mark.end()
        ahead = self._near[after : after + AHEAD]
        is_known = ended or len(ahead) == AHEAD
        if mark["stop"]:
            return not _GOES_ON.match(ahead) if ahead or ended else None
        if mark["line"]:
            begins = _LINE_BEGINS.match(ahead)
            if begins is None:
                return False if ahead.strip() or is_known else None
            return True if begins["boundary"] else False if is_known else None
        if _BLANK_LINE.match(ahead):
            return True
        next_word = _NEXT_WORD.match(ahead)
        if next_word is None and not is_known:
            return None
        if _LIST_NUMBER.fullmatch(self._near[self._began : after].strip()):
            return False
        if _EMPHATIC.match(mark[0]):
            return not ahead.lstrip()[:1].islower()
        start = max(self._began, after - CONTEXT)
        given = self._near[start : after + (next_word.end() if next_word else AHEAD)]
        return self._is_boundary(given, after - start)

    def _is_boundary(self, text: str, position: int) -> bool:
        end = 0
        for sentence in self._segment(self.language, text):
            end += len(sentence)
            if end >= position:
                return end - len(sentence) < position == len(text[:end].rstrip())
        return False
