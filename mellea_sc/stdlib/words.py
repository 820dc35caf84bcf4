"""Words in every script, of a text that comes in deltas.

Where a language puts spaces between its words, a word is what stands between white space. Chinese,
Japanese, Thai, Lao, Khmer, Burmese and others put none. There a word ends where Unicode's word
boundaries (UAX #29) say so without a dictionary: after each ideograph or syllable, with the marks on it,
and after each run of katakana. What is no letter and no digit belongs to the word before it, what opens
(brackets, quotes) to the word after it::

    我说OK。「今天」  →  我  说  OK。  「今  天」

The next character always decides, so nothing waits for more than that. A dictionary would find longer
words, and would have to see a whole phrase first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Final

from mellea_sc.stdlib.boundaries import BoundaryChunker
from mellea_sc.stdlib.sentence_marks import STOPS

if TYPE_CHECKING:
    import regex

__all__ = ["WordChunker"]


class _State(Enum):
    """What the chunk is like that has not ended."""

    EMPTY = "no letter or digit yet"
    SPACED = "a word of a script with spaces"
    KANA = "katakana, and more of it may come"
    CLOSED = "a word that takes no more letters"


_AFTER: Final[dict[_State, dict[str, _State]]] = {
    _State.EMPTY: {
        "letter": _State.SPACED,
        "kana": _State.KANA,
        "single": _State.CLOSED,
        "mark": _State.EMPTY,
        "wide": _State.EMPTY,
        "opens": _State.EMPTY,
        "wide_opens": _State.EMPTY,
    },
    _State.SPACED: {
        "letter": _State.SPACED,
        "mark": _State.SPACED,
        "opens": _State.SPACED,
        "wide": _State.CLOSED,
    },
    _State.KANA: {"kana": _State.KANA, "mark": _State.CLOSED, "wide": _State.CLOSED},
    _State.CLOSED: {"mark": _State.CLOSED, "wide": _State.CLOSED},
}
"""What a chunk is like after one more token; where a token is not named, another chunk begins with it."""

_SPACED_END: Final = re.compile(r"\S(?=\s)")
_LETTER: Final = re.compile(r"[^\W_]")
_UNUSUAL: Final = re.compile("[^\x00-\u0588\u1e00-\u203b\u20a0-\u218f]")
"""Beyond the letters and marks of Latin, Greek, Cyrillic and Armenian."""


@cache
def _tokens() -> regex.Pattern[str]:
    """What a text is made of; ``more`` belongs to the character before it, whatever that is.

    Loaded when it is needed: the package takes some time to import.
    """
    import regex

    kana = r"\p{WB=Katakana}"
    unspaced = (
        r"[[\p{Han}\p{Hiragana}\p{Bopomofo}\p{Yi}\p{Tangut}\p{Nushu}\p{Khitan_Small_Script}\p{LB=SA}]"
        r"&&[\p{L}\p{Nl}]]"
    )
    east = (
        r"[\u3001-\u303f\u30fb\ufe10-\ufe19\ufe30-\ufe6b\uff01-\uff65\uffe0-\uffe6"  # CJK
        rf"\u0f04-\u0f14\u0e2f\u0e5a\u0e5b\u104a-\u104f\u17d4-\u17da{STOPS}]"
    )
    return regex.compile(
        r"(?V1)(?P<space>[\s\x1c-\x1f]+)"
        r"|(?P<more>[[\p{M}\p{Cf}\p{GCB=Extend}\p{GCB=SpacingMark}\u200d]--\u200b]+"
        rf"|(?<=\p{{InCB=Linker}}){unspaced})"
        rf"|(?P<kana>{kana}+)"
        rf"|(?P<single>{unspaced})"
        r"|(?P<letter>(?:"
        rf"(?!{kana}|{unspaced})[\p{{L}}\p{{N}}])+)"
        rf"|(?P<wide_opens>[{east}&&[\p{{Ps}}\p{{Pi}}]]+)"
        rf"|(?P<wide>[{east}&&[\p{{P}}\p{{S}}]--[\p{{Ps}}\p{{Pi}}]]+)"
        r"|(?P<opens>[\p{Ps}\p{Pi}]+)"
        r"|(?P<mark>.)",
        regex.DOTALL,
    )


class WordChunker(BoundaryChunker):
    """Words: runs of what is not white space; where a script has no spaces, by Unicode's boundaries."""

    def _forget(self) -> None:
        self._last = ""
        self._state = _State.EMPTY

    def _boundaries(self, delta: str, *, ended: bool) -> Sequence[int]:
        window = self._last + delta
        if self._state in (_State.EMPTY, _State.SPACED) and not _UNUSUAL.search(window):
            found = self._spaced(window)
        else:
            found = self._tokenized(window)
        self._last = window[-1:]
        return found

    def _spaced(self, window: str) -> list[int]:
        size = len(window)
        end = 0
        found: list[int] = []
        for boundary in _SPACED_END.finditer(window):
            end = boundary.end()
            found.append(size - end)
        if found or self._state is _State.EMPTY:
            self._state = _State.SPACED if _LETTER.search(window, end) else _State.EMPTY
        return found

    def _tokenized(self, window: str) -> list[int]:
        size = len(window)
        state = self._state
        found: list[int] = []
        for token in _tokens().finditer(window, len(self._last)):
            kind = token.lastgroup or "mark"
            if kind == "more":
                continue
            if kind == "space":
                found.append(size - token.start())
                state = _State.EMPTY
                continue
            after = _AFTER[state].get(kind)
            if after is None:
                found.append(size - token.start())
                after = _AFTER[_State.EMPTY][kind]
            state = after
        self._state = state
        return found
