"""A scanner that searches only those parts of a text that may contain a secret or personal data.

Most text cannot contain any: a word needs a digit, an ``@`` or a long run of letters for that. So text is released
word by word up to the first *trigger*. From the beginning of that word on, text is held back as long as an occurrence
could go on: a *region*. A region is searched as a whole, by rules that also see some text before it::

    text    │ released │ context of a region │ region: waits for its end │

The limits of a region depend only on the text. A region that is longer than the window is searched window by window,
and the second half of each window a second time, with the text that follows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import attrs

from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.stdlib.requirements.kinds.kind import Follow, Kind
from mellea_sc.stdlib.requirements.kinds.plain import Plain
from mellea_sc.stdlib.requirements.scanned import Piece, PieceList, Scanner

__all__ = ["Places", "RegionScanner"]

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
