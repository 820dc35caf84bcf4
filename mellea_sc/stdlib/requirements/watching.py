r"""Requirements that cut the text themselves: what judges is the cutting, and a piece carries its verdict.

A :class:`Watch` reads the text as it comes and gives it away in pieces that know what they are; the lane
then only reads the verdict off each piece. So a failing piece is exactly the span that must not be
there, and ``on_fail="filter"`` or ``"fix"`` takes away that and no more. Verdicts belong to positions of
the text: they do not depend on where the deltas were cut.

Whether a text that goes on holds a pattern is not known at its end: a match may have begun there, and
``cat`` is no match of ``\bcat\b`` when ``egory`` follows. So :class:`WindowWatch` judges a position when the
``window`` of characters that begins there is known, and only then a lane passes it::

    text      │ judged: no match begins here │ window: still open │
    lane      │ passed, may be shown         │ held back          │
"""

from __future__ import annotations

import abc
import importlib
import re
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Final, TypeAlias

import attrs

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import MissingExtra
from mellea_sc.core.requirement import (
    OnFail,
    PartialValidationResult,
    Requirement,
    ValidationFunction,
)

__all__ = ["UNKNOWN", "Find", "Found", "Piece", "Watch", "Watched", "WindowWatch", "import_extra"]

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


class Watch(ChunkingStrategy):
    """Cuts a text into pieces that carry verdicts; joined they are the whole text."""

    @abc.abstractmethod
    def feed(self, delta: str) -> Sequence[Piece]:
        """The pieces on which this delta decides."""

    @abc.abstractmethod
    def flush(self) -> Sequence[Piece]:
        """The rest: the text has ended."""

    def pieces_of(self, text: str) -> list[Piece]:
        """A whole text in pieces; this watch itself is not fed."""
        watch = self.fresh()
        return [*watch.feed(text), *watch.flush()]

    @abc.abstractmethod
    def fresh(self) -> Watch:
        """A watch like this one that has seen no text."""


class Watched(Requirement):
    """A requirement that is judged by its watch while the text streams.

    Args:
        description: What must hold, in words.
        validation_fn: Judges the whole text.
        watch: Cuts the text, and judges it; ``None``: only the end decides.
        check_only: The description stays out of the prompt.
        on_fail: What follows a fail, see :class:`Requirement`.
        blocking: Whether text waits for the verdict.
    """

    def __init__(
        self,
        description: str,
        validation_fn: ValidationFunction,
        watch: Watch | None,
        *,
        check_only: bool,
        on_fail: OnFail | None,
        blocking: bool,
    ) -> None:
        super().__init__(
            description,
            validation_fn,
            check_only=check_only,
            chunking=watch,
            on_fail=on_fail,
            blocking=blocking,
        )
        self._watch = watch

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        """The verdict that its own chunking has found on a piece.

        Called by hand with any other text, it judges that text alone.
        """
        if self._watch is None:
            return UNKNOWN
        pieces = [chunk] if isinstance(chunk, Piece) else self._watch.pieces_of(chunk)
        verdicts = [piece.verdict for piece in pieces]
        return next((verdict for verdict in verdicts if verdict.success == "fail"), UNKNOWN)


@attrs.frozen
class Found:
    """A span that must not be there: where it ends, and the verdict on it."""

    end: int
    verdict: PartialValidationResult


Find: TypeAlias = Callable[[str, int, int], Found | None]
"""What begins at a position of the text, which for this ends at the second position."""


class WindowWatch(Watch):
    """Cuts a text into what must not be there and what lies between, each as soon as it is certain.

    A span that fills its window may be longer than that: it is followed, as a match from the same
    beginning in a window twice as long, and so on. Its first piece is given away at once; the later
    ones fail too, with nothing as their replacement.

    ``_known`` is the end of the text, from one window before the first position that has not been
    judged, which is at ``_judged``; what came after it waits in ``_waiting`` until it is enough.

    Args:
        find: Finds what must not be there.
        window: How many characters it may need to see.
        grows: Whether a span may be longer than the window.
        barrier: Matches single characters over which nothing reaches that is looked for: up to there
            a text can be judged before a window is full. Looks back at most one character.
    """

    def __init__(
        self,
        find: Find,
        window: int,
        *,
        grows: bool = True,
        barrier: re.Pattern[str] | None = None,
    ) -> None:
        self._find = find
        self._window = window
        self._grows = grows
        self._barrier = barrier
        self._known = ""
        self._judged = 0
        self._waiting: list[str] = []
        self._length = 0
        self._enough = 0
        self._open: _Open | None = None

    def fresh(self) -> WindowWatch:
        """A watch like this one that has seen no text."""
        return WindowWatch(self._find, self._window, grows=self._grows, barrier=self._barrier)

    def feed(self, delta: str) -> Sequence[Piece]:
        """The pieces whose windows this delta fills."""
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
        barrier = 0
        while at < size:
            if self._open is not None:
                if self._open.reach > size and not ended:
                    break
                end = self._follow(self._open, text)
                if end > at:
                    pieces.append(Piece.of(text[at:end], self._open.rest))
                    at = passed = end
                    self._open = self._open.longer(at)
                else:
                    self._open = None
                continue
            # The window is the end of all that an expression sees: then it does not matter how much
            # of the text happens to be known.
            stop = at + self._window
            if self._barrier is not None:
                if barrier <= at:
                    ahead = self._barrier.search(text, at)
                    barrier = ahead.end() if ahead else size + self._window
                stop = min(stop, barrier)
            if stop > size and not ended:
                break
            found = self._find(text, at, stop)
            if found is None:
                at += 1
                continue
            if at > passed:
                pieces.append(Piece.of(text[passed:at]))
            passed = max(found.end, at + 1)
            pieces.append(Piece.of(text[at:passed], found.verdict))
            if self._grows and found.end >= stop:
                self._open = _Open(at, at + 2 * self._window, found.verdict)
            at = passed
        if at > passed:
            pieces.append(Piece.of(text[passed:at]))
        self._keep(text, at)
        return pieces

    def _follow(self, span: _Open, text: str) -> int:
        found = self._find(text, span.began, span.reach)
        return 0 if found is None else found.end

    def _keep(self, text: str, at: int) -> None:
        span = self._open
        forgotten = max(0, (at if span is None else span.began) - self._window)
        self._known = text[forgotten:]
        self._judged = at - forgotten
        self._waiting = []
        self._length = len(self._known)
        self._enough = 0
        if span is not None:
            self._open = attrs.evolve(
                span, began=span.began - forgotten, reach=span.reach - forgotten
            )
            self._enough = self._open.reach


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


def import_extra(module: str, extra: str, what: str) -> ModuleType:
    """A module of an optional package.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{what} needs the package {module}: pip install 'mellea_sc[{extra}]'"
        ) from error
