"""Pieces of a text that carry verdicts, and the scanners that cut a text into them while it comes."""

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
"""The maximum length up to which a match that is longer than its window is followed."""


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
    """A chunking strategy whose chunks carry verdicts; joined, they are the whole text.

    The methods from :attr:`is_idle` to :meth:`let_go` are a fast path, which :class:`NormalizingScanner` needs to
    release a character before it is known whether a combining mark follows. A scanner may leave them out.
    """

    @abc.abstractmethod
    def feed(self, delta: str) -> Sequence[Piece]:
        """The pieces that are decided by this delta."""

    @abc.abstractmethod
    def flush(self) -> Sequence[Piece]:
        """The rest of the pieces; the text has ended."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held back and no span is open; false for scanners that do not know."""
        return False

    def passes(self, delta: str) -> bool:
        """The fast path of :meth:`feed`: take a delta and return true, if the whole delta passes and nothing is held
        back; otherwise, or if that is not known quickly, do nothing and return false.
        """
        del delta
        return False

    def lets_go(self, ends: Sequence[str]) -> bool:
        """Whether all held text passes, whichever of ``ends`` comes next."""
        del ends
        return False

    def let_go(self) -> Sequence[Piece]:
        """Release the held text as passed; the caller has asked :meth:`lets_go` before."""
        return ()

    def pieces_of(self, text: str) -> list[Piece]:
        """The pieces of a whole text; this scanner itself does not change."""
        scanner = self.fresh()
        return [*scanner.feed(text), *scanner.flush()]

    @abc.abstractmethod
    def fresh(self) -> Scanner:
        """A new scanner with the same settings."""


@attrs.frozen
class Found:
    """A span that must not be there: its end, and the verdict on it."""

    end: int
    verdict: PartialValidationResult


@attrs.frozen
class Next:
    """The next decision about a text.

    Args:
        begin: The position before which no span begins.
        found: The span that begins there; ``None``: the text from there on is undecided.
        filled: Whether the span reaches the end of the searched text, and may be longer.
    """

    begin: int
    found: Found | None = None
    filled: bool = False


class SpanScanner(Scanner):
    """Cuts a text into spans that must not be there and the text between them, each as soon as it is decided.

    A span that fills its window may be longer. It is then searched again from its beginning in a window of twice the
    size, and so on. Its first piece is returned at once; the later ones fail too, with an empty replacement.

    ``_known`` is the end of the text, from ``behind`` characters before the first undecided position, which is at
    ``_judged``. New text is collected in ``_waiting`` until there is enough to decide more.

    Args:
        window: The number of characters from the beginning of a span that are searched at first.
        behind: The number of characters before it that are kept.
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
        """The next decision from a position on; more text may come unless it has ended."""

    @abc.abstractmethod
    def end_of(self, text: str, began: int, stop: int) -> int:
        """The end of the span that begins at ``began``, in a text that ends at ``stop``; 0: there is none."""

    def look_again_at(self, text: str, held: int) -> int:
        """The length of the text from which on it is searched again, if it is held from a position on."""
        del text, held
        return 0

    @property
    def is_idle(self) -> bool:
        """Whether all text is decided, and no span is being followed."""
        return self._open is None and self._judged == self._length

    def feed(self, delta: str) -> Sequence[Piece]:
        """The pieces that are decided by this delta."""
        self._waiting.append(delta)
        self._length += len(delta)
        return self._judge(ended=False) if self._length >= self._enough else ()

    def flush(self) -> Sequence[Piece]:
        """The rest of the pieces; the text has ended, so windows are decided although they are not full."""
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
    """A span that has filled its window, and is searched again up to ``reach``."""

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
