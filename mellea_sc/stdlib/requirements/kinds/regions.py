"""A scanner that searches only parts of a text where a secret or personal data may be.

Most text cannot contain any: a word needs a digit, an ``@`` or a long run of letters for that. So text is released
word by word up to the first *trigger*. From the beginning of that word on, text is held as long as the thing could
go on: a *region*. A region is searched as a whole, by rules that also see some text before it::

    text    │ released │ context of a region │ region: waits for its end │

Where a region begins and ends depends on the text alone. One that is longer than the window is judged
window by window, and each window's second half once more with what follows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import attrs

from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.stdlib.requirements.kinds.kind import Follow, Kind, claimed
from mellea_sc.stdlib.requirements.kinds.plain import Plain
from mellea_sc.stdlib.requirements.scanned import UNKNOWN, Piece, Scanner

__all__ = ["Places", "RegionScanner"]

CONTEXT: Final = 64
"""Characters that rules may see before a region."""

WINDOW: Final = 256
"""Characters that are looked at at once; nothing that is not followed is longer."""

LONGEST_TRIGGER: Final = 32


@attrs.frozen
class Places:
    """Where in a text something may be.

    Args:
        trigger: Matches in each thing that is looked for, at most 32 characters; looks at most one
            character farther than it matches.
        cut: A single character after which a word begins: things begin only there or inside of words,
            and reach over such a character only as ``region`` says.
        region: From the beginning of a word, as far as a thing may reach that begins in it.
        joint: Matches from the end of a region to the end of the known text where what comes next may
            still belong to it.
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
        """Where the word begins that is not yet over at ``end``."""
        last = self.last_cut.match(text, start, end)
        return start if last is None else last.end()


class RegionScanner(Scanner):
    """Cuts a text into things that must not be shown, and the text between them.

    ``_text`` is the known text, from ``CONTEXT`` characters before the first one that has not been returned, which
    is at ``_at``.

    Args:
        places: Finds regions.
        kinds: The kinds of things, with the verdict on each; the first kind has priority.
    """

    def __init__(
        self, places: Places, kinds: Sequence[tuple[Kind, PartialValidationResult]]
    ) -> None:
        self._places = places
        self._kinds = [kind for kind, _ in kinds]
        self._verdicts = {id(kind): verdict for kind, verdict in kinds}
        self._text = ""
        self._at = 0
        self._follow: tuple[Follow, PartialValidationResult] | None = None

    def fresh(self) -> RegionScanner:
        """A new scanner with the same settings."""
        return RegionScanner(
            self._places, [(kind, self._verdicts[id(kind)]) for kind in self._kinds]
        )

    def feed(self, delta: str) -> Sequence[Piece]:
        """What is certain now."""
        self._text += delta
        return self._judge(ended=False)

    def flush(self) -> Sequence[Piece]:
        """The rest: the text has ended."""
        return self._judge(ended=True)

    def _judge(self, *, ended: bool) -> Sequence[Piece]:
        pieces: list[Piece] = []
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
        _add(pieces, self._text[passed : self._at], UNKNOWN)
        forgotten = max(0, self._at - CONTEXT)
        self._text = self._text[forgotten:]
        self._at -= forgotten
        return pieces

    def _go_on(self, pieces: list[Piece], *, ended: bool) -> bool:
        assert self._follow is not None
        follow, verdict = self._follow
        end, goes_on = follow(self._text, self._at, ended)
        _add(pieces, self._text[self._at : end], verdict)
        self._at = end
        if not goes_on:
            self._follow = None
        return goes_on

    def _region(self, *, ended: bool) -> tuple[int, int] | None:
        """The next region whose end is known; passes what is before it, or all that can be passed."""
        text, places, size = self._text, self._places, len(self._text)
        while True:
            hit = places.trigger.search(text, self._at)
            word = places.word(text, self._at, size if hit is None else hit.start())
            if hit is None and ended:
                self._at = size
                return None
            # A word without an end: half a window of it is passed when a whole one has no trigger.
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

    def _find(self, start: int, end: int, passed: int, pieces: list[Piece]) -> int:
        """Judge a region; returns up to where pieces have been given away."""
        text = self._text
        context = max(0, start - CONTEXT)
        plain = Plain.of(text[context:end])
        is_cut_off = end - start >= WINDOW
        half = start + WINDOW // 2 if is_cut_off else end
        self._at = half
        for first, last, kind in claimed(
            self._kinds, plain.text, plain.at(start - context), len(plain.text)
        ):
            begins, ends = (context + place for place in plain.span(first, last))
            if begins >= half:
                break
            verdict = self._verdicts[id(kind)]
            _add(pieces, text[passed:begins], UNKNOWN)
            pieces.append(Piece.of(text[begins:ends], verdict))
            passed = ends
            self._at = max(half, ends)
            if kind.follow is None:
                continue
            if kind.always or (is_cut_off and kind.follow(text[:end], ends, False)[1]):
                self._follow = kind.follow, attrs.evolve(verdict, replacement="")
                self._at = ends
                break
        return passed


def _add(pieces: list[Piece], text: str, verdict: PartialValidationResult) -> None:
    if text:
        pieces.append(Piece.of(text, verdict))
