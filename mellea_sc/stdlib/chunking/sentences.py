"""Sentences as a reader sees them: abbreviations, initials, decimals and list numbers end none. And the marks that end one.

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

STOPS: Final = (
    "\u0589\u061d-\u061f\u06d4\u0700-\u0702\u07f9\u0837\u0839\u083d\u083e\u0964\u0965\u104b\u1362"
    "\u1367\u1368\u166e\u1735\u1736\u17d4\u17d5\u1803\u1809\u1944\u1945\u1aa8-\u1aab\u1b4e\u1b4f"
    "\u1b5a\u1b5b\u1b5e\u1b5f\u1b7d-\u1b7f\u1c3b\u1c3c\u1c7e\u1c7f\u203c\u203d\u2047-\u2049"
    "\u2cf9-\u2cfb\u2e2e\u2e3c\u2e53\u2e54\u2e60\u2e61\u3002\ua4ff\ua60e\ua60f\ua6f3\ua6f7\ua876\ua877\ua8ce"
    "\ua8cf\ua92f\ua9c8\ua9c9\uaa5d-\uaa5f\uaaf0\uaaf1\uabeb\ufe12\ufe15\ufe16\ufe56\ufe57\uff01"
    "\uff1f\uff61"
    "\U00010a56\U00010a57\U00010f55-\U00010f59\U00010f86-\U00010f89\U00011047\U00011048"
    "\U000110be-\U000110c1\U00011141-\U00011143\U000111c5\U000111c6\U000111cd\U000111de\U000111df"
    "\U00011238\U00011239\U0001123b\U0001123c\U000112a9\U000113d4\U000113d5\U0001144b\U0001144c"
    "\U000115c2\U000115c3\U000115c9-\U000115d7\U00011641\U00011642\U0001173c-\U0001173e\U00011944"
    "\U00011946\U00011a42\U00011a43\U00011a9b\U00011a9c\U00011c41\U00011c42\U00011ef7\U00011ef8"
    "\U00011f43\U00011f44\U00016a6e\U00016a6f\U00016af5\U00016b37\U00016b38\U00016b44\U00016d6e"
    "\U00016d6f\U00016e98\U0001bc9f\U0001da88"
)
"""The marks that end a sentence, as the content of a character class.

They are the characters with Unicode's ``Sentence_Break=STerm``, except those of ASCII, which also occur inside of
sentences, and U+104A, which is a comma in Burmese. Full stops that also occur in numbers and abbreviations
(``Sentence_Break=ATerm``) are not among them.
"""

CLOSERS: Final = (
    "\"')\\]}\u00bb\u2019\u201d\u203a\u2046\u207e\u208e\u2309\u230b\u232a\u2769\u276b\u276d\u276f"
    "\u2771\u2773\u2775\u27e7\u27e9\u27eb\u27ed\u27ef\u2984\u2986\u2988\u298a\u298c\u298e\u2990"
    "\u2992\u2994\u2996\u2998\u29d9\u29db\u29fd\u2e03\u2e05\u2e0a\u2e0d\u2e1d\u2e21\u2e23\u2e25"
    "\u2e27\u2e29\u3009\u300b\u300d\u300f\u3011\u3015\u3017\u3019\u301b\u301e\u301f\ufe18\ufe36"
    "\ufe38\ufe3a\ufe3c\ufe3e\ufe40\ufe42\ufe44\ufe48\ufe5a\ufe5c\ufe5e\uff02\uff07\uff09\uff3d"
    "\uff5d\uff60\uff63\u0f3b\u0f3d\u169c\u27c6\u2e56\u2e58\u2e5a\u2e5c\ufd3e"
    "\u061c\u200d\u200e\u200f\ufe0e\ufe0f"  # characters without width: direction, variants of emoji
)
"""Closing quotes and brackets (``Pe``, ``Pf``, and those that can also open)."""

GREEK_QUESTION: Final = (
    r"(?:(?<=[\u0370-\u03ff\u1f00-\u1fff]{2});|\u037e)[\"'\u201d\u2019)\u00bb]?(?=\s)"
)
"""A whole expression for ``;`` after a Greek word; not after a single letter, which is mathematics."""


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
