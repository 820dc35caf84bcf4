"""The plain form of a text, in which addresses and numbers are searched.

Typographic spaces and hyphens become plain ones. Wide forms, and the digits of other scripts, become those of ASCII.
Invisible characters are removed. So none of these can hide an address or a number.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

import attrs

__all__ = ["DASHES", "LETTER", "SPACELESS", "SPACES", "UNSEEN", "Plain"]

UNSEEN: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff"
)
"""Invisible characters, as the content of a character class."""

SPACES: Final = " \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
"""Spaces within a line, as the content of a character class."""

DASHES: Final = "\\-\u2010-\u2015\u2043\u2212\ufe58\ufe63\uff0d"
"""Hyphens and dashes, as the content of a character class."""

SPACELESS: Final = (
    "\u0e00-\u0e4f\u0e5a-\u0ecf\u0eda-\u0eff\u1000-\u103f\u104a-\u108f\u109a-\u109f\u1100-\u115e"
    "\u1161-\u11ff\u1780-\u17b3\u17b6-\u17df\u17ea-\u17ff\u3001-\u3163\u3165-\u9fff"
    "\ua000-\ua4cf\uac00-\ud7ff\uf900-\ufaff\uff61-\uff9f\uffa1-\uffef\U00020000-\U0003ffff"
)
"""Scripts that put no spaces between words, and their punctuation, as the content of a character class.

Their digits are not in it, because a number is one word in these scripts too.
"""

LETTER: Final = rf"[^\W_{SPACELESS}]"
"""Matches a letter or digit of a script with spaces between words."""

_UNSEEN: Final = re.compile(f"[{UNSEEN}]")
_SPACE: Final = re.compile(f"[{SPACES}]")
_DASH: Final = re.compile(f"[{DASHES}]")
_PLAIN: Final = {
    **dict.fromkeys([0xB7, 0x2024, 0x2027, 0x2219, 0xFF61, 0xFE52], "."),
    0xFE6B: "@",
    0x2044: "/",
    0x2215: "/",
    0xFE62: "+",
    **{0xFF01 + n: chr(0x21 + n) for n in range(0x5E)},  # the wide forms of ASCII
}


@attrs.frozen
class Plain:
    """A plain text, and the positions of its characters in the original text.

    Args:
        text: The plain text.
        places: For each of its characters the position in the original; ``None``: the same.
    """

    text: str
    places: list[int] | None

    @classmethod
    def of(cls, original: str) -> Plain:
        """The plain form of a text."""
        if original.isascii():
            return cls(original, None)
        chars: list[str] = []
        places: list[int] = []
        for place, char in enumerate(original):
            if plain := _plain(char):
                chars.append(plain)
                places.append(place)
        return cls("".join(chars), places)

    def at(self, place: int) -> int:
        """The position in the plain text of the first character that is at a position of the original or after it."""
        if self.places is None:
            return place
        return next((n for n, at in enumerate(self.places) if at >= place), len(self.places))

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original for a span of the plain text."""
        if self.places is None:
            return start, end
        return self.places[start], self.places[end - 1] + 1


@lru_cache(maxsize=1 << 12)
def _plain(char: str) -> str:
    """The plain character for a character; empty if it is invisible."""
    if char.isascii():
        return char
    if _UNSEEN.match(char):
        return ""
    if _SPACE.match(char):
        return " "
    if _DASH.match(char):
        return "-"
    if (plain := _PLAIN.get(ord(char))) is not None:
        return plain
    digit = unicodedata.decimal(char, None)
    return char if digit is None else str(digit)
