"""A text as its characters are meant.

Typographic spaces and hyphens become plain ones, wide forms and the digits of other scripts those of
ASCII, and characters that are not seen at all are gone: none of them can hide an address or a number.
"""

from __future__ import annotations

import unicodedata
from typing import Final

import attrs

__all__ = ["DASHES", "LETTER", "SPACELESS", "SPACES", "UNSEEN", "Plain"]

UNSEEN: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff"
)
"""Characters that are not seen, as the inside of a class."""

SPACES: Final = " \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
"""Spaces within a line, as the inside of a class."""

DASHES: Final = "\\-\u2010-\u2015\u2043\u2212\ufe58\ufe63\uff0d"
"""Hyphens and dashes, as the inside of a class."""

SPACELESS: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u115e\u1161-\u11ff\u1780-\u17b3\u17b6-\u17ff\u3001-\u3163\u3165-\u9fff"
    "\ua000-\ua4cf\uac00-\ud7ff\uf900-\ufaff\uff61-\uff9f\uffa1-\uffef\U00020000-\U0003ffff"
)
"""Scripts that put no spaces between words, and their punctuation, as the inside of a class."""

LETTER: Final = rf"[^\W_{SPACELESS}]"
"""A letter or digit that a word of other scripts may go on with."""

_MEANT: Final = {
    **dict.fromkeys([0xA0, 0x1680, 0x202F, 0x205F, 0x3000, *range(0x2000, 0x200B)], " "),
    **dict.fromkeys([*range(0x2010, 0x2016), 0x2043, 0x2212, 0xFE58, 0xFE63], "-"),
    **dict.fromkeys([0xB7, 0x2024, 0x2027, 0x2219, 0xFF61, 0xFE52], "."),
    0xFE6B: "@",
    0x2044: "/",
    0x2215: "/",
    0xFE62: "+",
    **{0xFF01 + n: chr(0x21 + n) for n in range(0x5E)},
}


def _unseen() -> frozenset[str]:
    chars: list[str] = []
    at = 0
    while at < len(UNSEEN):
        last = UNSEEN[at + 2] if UNSEEN[at + 1 : at + 2] == "-" else UNSEEN[at]
        chars += map(chr, range(ord(UNSEEN[at]), ord(last) + 1))
        at += 3 if last != UNSEEN[at] else 1
    return frozenset(chars)


_GONE: Final = _unseen()


@attrs.frozen
class Plain:
    """A text, and where its characters stand in the one that it was made of.

    Args:
        text: The plain text.
        places: For each of its characters the place in the original; ``None``: the same.
        size: How long the original is.
    """

    text: str
    places: list[int] | None
    size: int

    @classmethod
    def of(cls, original: str) -> Plain:
        """Make one."""
        if original.isascii():
            return cls(original, None, len(original))
        chars: list[str] = []
        places: list[int] = []
        for place, char in enumerate(original):
            if char in _GONE:
                continue
            chars.append(_plain(char))
            places.append(place)
        return cls("".join(chars), places, len(original))

    def at(self, place: int) -> int:
        """Where in the plain text the character stands, or else the next one, that is at a place."""
        if self.places is None:
            return place
        return next((n for n, at in enumerate(self.places) if at >= place), len(self.places))

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The part of the original that a part of the plain text was made of."""
        if self.places is None:
            return start, end
        return self.places[start], self.places[end - 1] + 1


def _plain(char: str) -> str:
    if char < "\x80":
        return char
    if (meant := _MEANT.get(ord(char))) is not None:
        return meant
    if (digit := unicodedata.decimal(char, None)) is not None:
        return str(digit)
    return char
