r"""Requirements that cut the text themselves: what judges is the cutting, and a piece carries its verdict.

A :class:`Scanner` reads the text as it comes and gives it away in pieces that know what they are; the lane
then only reads the verdict off each piece. So a failing piece is exactly the span that must not be
there, and ``on_fail="filter"`` or ``"fix"`` takes away that and no more. Verdicts belong to positions of
the text: they do not depend on where the deltas were cut.

Whether a text that goes on holds a pattern is not known at its end: a match may have begun there, and
``cat`` is no match of ``\bcat\b`` when ``egory`` follows. What is not certain is held back::

    text      │ judged: no match begins here │ still open │
    lane      │ passed, may be shown         │ held back  │
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from types import ModuleType
from typing import TypeAlias

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.core.errors import MissingExtra
from mellea_sc.core.requirement import (
    OnFail,
    PartialValidationResult,
    Requirement,
    ValidationFunction,
)
from mellea_sc.stdlib.requirements.pieces import UNKNOWN, Found, Next, Piece, Scanner, SpanScanner

__all__ = [
    "UNKNOWN",
    "Find",
    "Found",
    "Piece",
    "ScannedRequirement",
    "Scanner",
    "WindowScanner",
    "import_extra",
]


class ScannedRequirement(Requirement):
    """A requirement that is judged by its scanner while the text streams.

    Args:
        description: What must hold, in words.
        validation_fn: Judges the whole text.
        scanner: Cuts the text, and judges it; ``None``: only the end decides.
        check_only: The description stays out of the prompt.
        on_fail: What follows a fail, see :class:`Requirement`.
        blocking: Whether text waits for the verdict.
    """

    def __init__(
        self,
        description: str,
        validation_fn: ValidationFunction,
        scanner: Scanner | None,
        *,
        check_only: bool,
        on_fail: OnFail | None,
        blocking: bool,
    ) -> None:
        super().__init__(
            description,
            validation_fn,
            check_only=check_only,
            chunking=scanner,
            on_fail=on_fail,
            blocking=blocking,
        )
        self._scanner = scanner

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        """The verdict that its own chunking has found on a piece.

        Called by hand with any other text, it judges that text alone.
        """
        if self._scanner is None:
            return UNKNOWN
        pieces = [chunk] if isinstance(chunk, Piece) else self._scanner.pieces_of(chunk)
        verdicts = [piece.verdict for piece in pieces]
        return next((verdict for verdict in verdicts if verdict.success == "fail"), UNKNOWN)


Find: TypeAlias = Callable[[str, int, int], Found | None]
"""What begins at a position of the text, which for this ends at the second position."""


class WindowScanner(SpanScanner):
    """Judges a position when the window of characters that begins there is known.

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
        super().__init__(window, behind=window)
        self._find = find
        self._grows = grows
        self._barrier = barrier

    def fresh(self) -> WindowScanner:
        """A scanner like this one that has seen no text."""
        return WindowScanner(self._find, self._window, grows=self._grows, barrier=self._barrier)

    def next_in(self, text: str, at: int, *, ended: bool) -> Next:
        """The first position where something is found, or whose window is not full."""
        size = len(text)
        barrier = 0
        while at < size:
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
            if found is not None:
                return Next(at, found, filled=self._grows and found.end >= stop)
            at += 1
        return Next(at)

    def end_of(self, text: str, began: int, stop: int) -> int:
        """Where what began there ends, as far as it is found."""
        found = self._find(text, began, stop)
        return 0 if found is None else found.end


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
