"""How a kind of secret or personal data is found: in the plain form of a text, region by region.

In the plain form, typographic spaces and hyphens are plain ones, wide forms and the digits of other scripts are those of
ASCII, and invisible characters are left out. So none of these can hide an address or a number.

A scanner searches only those parts of a text that may contain one. Most text cannot: a word needs a digit, an ``@`` or a
long run of letters for that. So text is released word by word up to the first *trigger*. From the beginning of that word
on, text is held back as long as an occurrence could go on: a *region*. A region is searched as a whole, by rules that
also see some text before it::

    text    │ released │ context of a region │ region: waits for its end │

The limits of a region depend only on the text. A region that is longer than the window is searched window by window,
and the second half of each window a second time, with the text that follows it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

import attrs

from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.stdlib.requirements.scanned import Piece, PieceList, Scanner

Find: TypeAlias = Callable[[str, int, int], Iterable[tuple[int, int]]]
"""Finds occurrences in a plain text between two positions; returns their beginnings and ends."""

Follow: TypeAlias = Callable[[str, int, bool], tuple[int, bool]]
"""Follows an occurrence that was found up to a position.

It gets the text, the position, and whether the text has ended. It returns the end of the occurrence, and whether the
occurrence may go on with the text that comes next.
"""


@attrs.frozen
class Kind:
    """A kind.

    Args:
        label: Its name, for people.
        find: Finds its occurrences.
        follow: Follows an occurrence that is longer than the window that is searched; ``None``: none is longer.
        always: Whether every occurrence is followed, and not only those that are longer than the window.
    """

    label: str
    find: Find
    follow: Follow | None = None
    always: bool = False


def matching(
    pattern: re.Pattern[str], accept: Callable[[re.Match[str]], bool] | None = None
) -> Find:
    """A function that finds the matches of a pattern.

    Args:
        pattern: The pattern. If it has a group ``it``, only that group is found.
        accept: Decides whether a match counts.
    """
    group = "it" if "it" in pattern.groupindex else 0

    def find(text: str, start: int, end: int) -> Iterable[tuple[int, int]]:
        for match in pattern.finditer(text, start, end):
            if accept is None or accept(match):
                yield match.span(group)

    return find


def following(pattern: re.Pattern[str]) -> Follow:
    """A function that follows an occurrence through the characters that a pattern ``[...]*`` matches."""

    def follow(text: str, at: int, ended: bool) -> tuple[int, bool]:
        match = pattern.match(text, at)
        end = at if match is None else match.end()
        return end, end == len(text) and not ended

    return follow


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
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u115e\u1161-\u11ff\u1780-\u17b3\u17b6-\u17ff\u3001-\u3163\u3165-\u9fff"
    "\ua000-\ua4cf\uac00-\ud7ff\uf900-\ufaff\uff61-\uff9f\uffa1-\uffef\U00020000-\U0003ffff"
)
"""Scripts that put no spaces between words, and their punctuation, as the content of a character class."""

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


CONTEXT: Final = 64
"""The number of characters before a region that rules may see."""

WINDOW: Final = 256
"""The number of characters that are searched at a time. An occurrence can only be longer if it is followed."""

LONGEST_TRIGGER: Final = 32


@attrs.frozen
class Places:
    """Patterns that find the regions of a text.

    Args:
        trigger: Matches in every occurrence; at most 32 characters, with a look-ahead of at most one.
        cut: Matches the single character before a word. No occurrence goes across such a character, unless
            ``region`` does.
        region: Matches from the beginning of a word to the end of an occurrence that begins in it.
        joint: Matches from the end of a region to the end of the known text if the text that comes next may
            belong to the region.
    """

    trigger: re.Pattern[str]
    cut: re.Pattern[str]
    region: re.Pattern[str]
    joint: re.Pattern[str]
    last_cut: re.Pattern[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        last = re.compile(f"(?s:.*)(?:{self.cut.pattern})", self.cut.flags)
        object.__setattr__(self, "last_cut", last)

    def word(self, text: str, start: int, end: int) -> int:
        """The beginning of the word that goes on at ``end``."""
        last = self.last_cut.match(text, start, end)
        return start if last is None else last.end()


class RegionScanner(Scanner):
    """Cuts a text into occurrences of kinds, which fail, and the text between them.

    ``_text`` is the known text, from ``CONTEXT`` characters before the first one that has not been returned, which
    is at ``_at``.

    Args:
        places: Finds regions.
        kinds: The kinds, with the verdict on each; ``None``: it is harmless. Where two occurrences overlap, the one
            of the first kind counts.
    """

    def __init__(
        self, places: Places, kinds: Sequence[tuple[Kind, PartialValidationResult | None]]
    ) -> None:
        self._places = places
        self._kinds = kinds
        self._text = ""
        self._at = 0
        self._follow: tuple[Follow, PartialValidationResult] | None = None

    def fresh(self) -> RegionScanner:
        """A new scanner with the same settings."""
        return RegionScanner(self._places, self._kinds)

    def feed(self, delta: str) -> Sequence[Piece]:
        """The pieces that are decided by this delta."""
        self._text += delta
        return self._judge(ended=False)

    def flush(self) -> Sequence[Piece]:
        """The rest of the pieces; the text has ended."""
        return self._judge(ended=True)

    def _judge(self, *, ended: bool) -> Sequence[Piece]:
        pieces = PieceList()
        size = len(self._text)
        passed = self._at
        while self._at < size:
            if self._follow is not None:
                goes_on = self._go_on(pieces, ended=ended)
                passed = self._at
                if goes_on:
                    break
                continue
            region = self._region(ended=ended)
            if region is None:
                break
            passed = self._find(*region, passed, pieces)
        pieces.add(self._text[passed : self._at])
        forgotten = max(0, self._at - CONTEXT)
        self._text = self._text[forgotten:]
        self._at -= forgotten
        return pieces

    def _go_on(self, pieces: PieceList, *, ended: bool) -> bool:
        """Follow an occurrence; returns whether it may go on with the text that comes next."""
        assert self._follow is not None
        follow, verdict = self._follow
        end, goes_on = follow(self._text, self._at, ended)
        pieces.add(self._text[self._at : end], verdict)
        self._at = end
        if not goes_on:
            self._follow = None
        return goes_on

    def _region(self, *, ended: bool) -> tuple[int, int] | None:
        """The next region, if its end is known; passes the text before it, or all that can be passed."""
        text, places, size = self._text, self._places, len(self._text)
        while True:
            hit = places.trigger.search(text, self._at)
            word = places.word(text, self._at, size if hit is None else hit.start())
            if hit is None and ended:
                self._at = size
                return None
            # A word may be endless: half a window of it is passed when a whole window has no trigger.
            over = size - LONGEST_TRIGGER if hit is None else hit.start()
            self._at = word + max(0, (over - word) // (WINDOW // 2) - 1) * (WINDOW // 2)
            if hit is None:
                return None
            stop = self._at + WINDOW
            match = places.region.match(text, self._at, stop)
            end = max(hit.start() + 1, self._at if match is None else match.end())
            if end >= stop or ended or not places.joint.match(text, end):
                return self._at, min(end, stop)
            return None

    def _find(self, start: int, end: int, passed: int, pieces: PieceList) -> int:
        """Search a region; returns the end of the last piece."""
        text = self._text
        context = max(0, start - CONTEXT)
        plain = Plain.of(text[context:end])
        is_cut_off = end - start >= WINDOW
        half = start + WINDOW // 2 if is_cut_off else end
        self._at = half
        for first, last, kind, verdict in self._occurrences(plain.text, plain.at(start - context)):
            begins, ends = (context + place for place in plain.span(first, last))
            if begins >= half:
                break
            if verdict is None:
                continue
            pieces.add(text[passed:begins])
            pieces.add(text[begins:ends], verdict)
            passed = ends
            self._at = max(half, ends)
            if kind.follow is None:
                continue
            if kind.always or (is_cut_off and kind.follow(text[:end], ends, False)[1]):
                self._follow = kind.follow, attrs.evolve(verdict, replacement="")
                self._at = ends
                break
        return passed

    def _occurrences(
        self, text: str, start: int
    ) -> list[tuple[int, int, Kind, PartialValidationResult | None]]:
        """The occurrences of all kinds in a plain text from a position on, in the order of the text."""
        found: list[tuple[int, int, Kind, PartialValidationResult | None]] = []
        for kind, verdict in self._kinds:
            for first, last in kind.find(text, start, len(text)):
                if all(last <= other[0] or other[1] <= first for other in found):
                    found.append((first, last, kind, verdict))
        return sorted(found, key=lambda one: one[0])
