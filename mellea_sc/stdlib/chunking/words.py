"""Words in every script, of a text that comes in deltas.

In languages with spaces between words, a word is a run of characters without white space. Chinese, Japanese, Thai,
Lao, Khmer, Burmese and others have no spaces. There Unicode's word boundaries (UAX #29) are used, without a
dictionary: a word ends after each ideograph or syllable, with the marks on it, and after each run of katakana.
Characters that are no letters or digits belong to the word before them, opening brackets and quotes to the word after
them::

    我说OK。「今天」  →  我  说  OK。  「今  天」

The next character always decides about a boundary. A dictionary would find longer words, but would have to see a whole
phrase first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from mellea_sc.core.chunking import BoundaryChunking
from mellea_sc.stdlib.chunking.sentences import STOPS

if TYPE_CHECKING:
    import regex

_State: TypeAlias = Literal["empty", "spaced", "kana", "closed"]
"""The state of the current chunk: without a letter or digit so far; a word of a script with spaces; katakana, of which
more may follow; a word to which no letter can be added."""

_AFTER: Final[dict[_State, dict[str, _State]]] = {
    "empty": {
        "letter": "spaced",
        "kana": "kana",
        "single": "closed",
        "mark": "empty",
        "wide": "empty",
        "opens": "empty",
        "wide_opens": "empty",
    },
    "spaced": {"letter": "spaced", "mark": "spaced", "opens": "spaced", "wide": "closed"},
    "kana": {"kana": "kana", "mark": "closed", "wide": "closed"},
    "closed": {"mark": "closed", "wide": "closed"},
}
"""The state after each kind of token. A token that is not in the table begins another chunk."""

_SPACED_END: Final = re.compile(r"\S(?=\s)")
_LETTER: Final = re.compile(r"[^\W_]")
_UNUSUAL: Final = re.compile("[^\x00-\u0588\u1e00-\u203b\u20a0-\u218f]")
"""Matches characters other than the letters and marks of Latin, Greek, Cyrillic and Armenian."""


@cache
def _tokens() -> regex.Pattern[str]:
    """The tokens of a text; the token ``more`` belongs to the character before it, whichever that is."""
    import regex  # here, because importing it takes some time

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
        r"|(?P<more>[[\p{M}\p{Cf}\p{GCB=Extend}\p{GCB=SpacingMark}\u200d]--[\u200b\p{L}]]+"
        # a vowel that is a letter of its own where there is nothing that it could belong to
        r"|(?<=[^\s\x1c-\x1f\p{GCB=Control}])[\p{L}&&\p{GCB=SpacingMark}]"
        rf"|(?<=\p{{InCB=Linker}}){unspaced})"
        rf"|(?P<kana>{kana}+)"
        rf"|(?P<single>{unspaced})"
        r"|(?P<letter>(?:"
        rf"(?!{kana}|{unspaced})[\p{{L}}\p{{N}}])+)"
        rf"|(?P<wide_opens>[{east}&&[\p{{Ps}}\p{{Pi}}]]+)"
        rf"|(?P<wide>[{east}&&[\p{{P}}\p{{S}}]--[\p{{Ps}}\p{{Pi}}]]+)"
        rf"|(?P<opens>[[\p{{Ps}}\p{{Pi}}]--{east}]+)"
        r"|(?P<mark>.)",
        regex.DOTALL,
    )


class WordChunker(BoundaryChunking):
    """Words: runs of characters without white space; in scripts without spaces, by Unicode's word boundaries."""

    def _forget(self) -> None:
        self._last = ""
        self._state: _State = "empty"

    def find(self, delta: str) -> Sequence[int]:
        """The boundaries that a delta makes certain."""
        state = self._state
        is_plain = delta.isascii() or not _UNUSUAL.search(delta)
        if not is_plain or state == "kana" or state == "closed":
            return self._tokenized(delta, state)
        window = self._last + delta
        self._last = delta[-1]
        found: list[int] = []
        size, end = len(window), 0
        while (boundary := _SPACED_END.search(window, end)) is not None:
            end = boundary.end()
            found.append(size - end)
            state = "empty"
        if state == "empty" and _LETTER.search(window, max(end, size - len(delta))):
            state = "spaced"
        self._state = state
        return found

    def _tokenized(self, delta: str, state: _State) -> Sequence[int]:
        window = self._last + delta
        size = len(window)
        found: list[int] = []
        for token in _tokens().finditer(window, len(self._last)):
            kind = token.lastgroup or "mark"
            if kind == "more":
                continue
            if kind == "space":
                found.append(size - token.start())
                state = "empty"
                continue
            after = _AFTER[state].get(kind)
            if after is None:
                found.append(size - token.start())
                after = _AFTER["empty"][kind]
            state = after
        self._state = state
        self._last = delta[-1]
        return found
