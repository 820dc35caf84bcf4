"""Pieces of a text that carry verdicts, and how a text is cut into them while it comes."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Final

import attrs

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.requirement import PartialValidationResult

__all__ = ["LONGEST", "UNKNOWN", "Found", "Next", "Piece", "Scanner", "SpanScanner"]

UNKNOWN: Final = PartialValidationResult("unknown")

LONGEST: Final = 1 << 16
"""Characters up to which a match is followed that is longer than its window."""


class Piece(str):
    """A piece of the text with the verdict on it."""

    __slots__ = ("verdict",)

    verdict: PartialValidationResult

    @classmethod
    def of(cls, text: str, verdict: PartialValidationResult = UNKNOWN) -> Piece:
        """The text as a piece."""
        piece = cls(text)
        piece.verdict = verdict
        return piece


class Scanner(ChunkingStrategy):
    """Cuts a text into pieces that carry verdicts; joined they are the whole text."""

    @abc.abstractmethod
    def feed(self, delta: str) -> Sequence[Piece]:
        """The pieces on which this delta decides."""

    @abc.abstractmethod
    def flush(self) -> Sequence[Piece]:
        """The rest: the text has ended."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held back, and nothing of what came goes on; never known of some."""
        return False

    def passes(self, delta: str) -> bool:
        """Take a delta if it passes as a whole, and nothing is held back: the short way of :meth:`feed`.

        Where that is not so, or not known so quickly, nothing is done.
        """
        del delta
        return False

    def lets_go(self, ends: Sequence[str]) -> bool:
        """Whether all that is held back passes, if the text goes on in one of these ways."""
        del ends
        return False

    def let_go(self) -> Sequence[Piece]:
        """All that is held back, which passes: what comes next has been looked at."""
        return ()

    def pieces_of(self, text: str) -> list[Piece]:
        """A whole text in pieces; this scanner itself is not fed."""
        scanner = self.fresh()
        return [*scanner.feed(text), *scanner.flush()]

    @abc.abstractmethod
    def fresh(self) -> Scanner:
        """A scanner like this one that has seen no text."""


@attrs.frozen
class Found:
    """A span that must not be there: where it ends, and the verdict on it."""

    end: int
    verdict: PartialValidationResult


@attrs.frozen
class Next:
    """What comes next in a text.

    Args:
        begin: Up to here nothing begins that must not be there.
        found: What begins there; ``None``: nothing is known beyond.
        filled: Whether the span fills all that was looked at, and may go on.
    """

    begin: int
    found: Found | None = None
    filled: bool = False


class SpanScanner(Scanner):
    """Cuts a text into what must not be there and what lies between, each as soon as it is certain.

    A span that fills its window may be longer than that: it is followed, as a match from the same
    beginning in a window twice as long, and so on. Its first piece is given away at once; the later
    ones fail too, with nothing as their replacement.

    ``_known`` is the end of the text, from ``behind`` characters before the first position that has not
    been judged, which is at ``_judged``; what came after it waits in ``_waiting`` until it is enough.

    Args:
        window: How many characters are looked at from the beginning of a span, at first.
        behind: How many are remembered from before it.
    """

    def __init__(self, window: int, behind: int) -> None:
        self._window = window
        self._behind = behind
        self._known = ""
        self._judged = 0
        self._waiting: list[str] = []
        self._length = 0
        self._enough = 0
        self._open: _Open | None = None

    @abc.abstractmethod
    def next_in(self, text: str, at: int, *, ended: bool) -> Next:
        """What comes next from a position on; the text goes on unless it has ended."""

    @abc.abstractmethod
    def end_of(self, text: str, began: int, stop: int) -> int:
        """Where a span ends that has begun, in a text that ends at ``stop``; 0: there is none."""

    def look_again_at(self, text: str, held: int) -> int:
        """How long the text must be before it is looked at again, if it is held from a position on."""
        del text, held
        return 0

    @property
    def is_idle(self) -> bool:
        """Whether all is judged that came, and no span is followed."""
        return self._open is None and self._judged == self._length

    def feed(self, delta: str) -> Sequence[Piece]:
        """The pieces on which this delta decides."""
        self._waiting.append(delta)
        self._length += len(delta)
        return self._judge(ended=False) if self._length >= self._enough else ()

    def flush(self) -> Sequence[Piece]:
        """The rest: the text has ended, and no window will be filled any more."""
        return self._judge(ended=True)

    def _judge(self, *, ended: bool) -> Sequence[Piece]:
        text = "".join((self._known, *self._waiting))
        size = len(text)
        pieces: list[Piece] = []
        at = passed = self._judged
        while at < size:
            if self._open is not None:
                if self._open.reach > size and not ended:
                    break
                end = self.end_of(text, self._open.began, self._open.reach)
                if end > at:
                    pieces.append(Piece.of(text[at:end], self._open.rest))
                    at = passed = end
                    self._open = self._open.longer(at)
                else:
                    self._open = None
                continue
            following = self.next_in(text, at, ended=ended)
            at, found = following.begin, following.found
            if found is None:
                break
            if at > passed:
                pieces.append(Piece.of(text[passed:at]))
            passed = max(found.end, at + 1)
            pieces.append(Piece.of(text[at:passed], found.verdict))
            if following.filled:
                self._open = _Open(at, at + 2 * self._window, found.verdict)
            at = passed
        if at > passed:
            pieces.append(Piece.of(text[passed:at]))
        self._keep(text, at)
        return pieces

    def _keep(self, text: str, at: int) -> None:
        span = self._open
        forgotten = max(0, (at if span is None else span.began) - self._behind)
        self._known = text[forgotten:]
        self._judged = at - forgotten
        self._waiting = []
        self._length = len(self._known)
        if span is not None:
            self._open = attrs.evolve(
                span, began=span.began - forgotten, reach=span.reach - forgotten
            )
            self._enough = self._open.reach
        elif at < len(text):
            self._enough = self.look_again_at(text, at) - forgotten
        else:
            self._enough = 0


@attrs.frozen
class _Open:
    """A span that has filled what was known of it, and is looked for up to ``reach``."""

    began: int
    reach: int
    verdict: PartialValidationResult

    @property
    def rest(self) -> PartialValidationResult:
        return attrs.evolve(self.verdict, replacement="")

    def longer(self, end: int) -> _Open | None:
        looked_at = self.reach - self.began
        if end < self.reach or looked_at >= LONGEST:
            return None
        return attrs.evolve(self, reach=self.began + 2 * looked_at)
