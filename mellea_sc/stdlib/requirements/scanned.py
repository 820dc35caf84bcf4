r"""Requirements whose chunking is a scanner: it cuts the text into pieces that carry their verdicts.

A :class:`Scanner` reads the text as it comes and returns it in pieces, each with its verdict. The lane then only
takes the verdict from each piece. A failing piece is exactly the span that must not be there, so ``on_fail="filter"``
and ``"fix"`` remove that span and no more. Verdicts belong to positions in the text, and do not depend on where the
deltas were cut.

At the end of an incomplete text it is not known whether a pattern matches: a match may have begun there, and ``cat``
is no match of ``\bcat\b`` if ``egory`` follows. Text that is not decided is held back::

    text      │ decided: no match begins here │ undecided │
    lane      │ passed, may be shown          │ held back │
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
    """A requirement with a scanner that validates the text while it streams.

    Args:
        description: The requirement in words.
        validation_fn: Validates the whole text.
        scanner: Cuts the text into pieces with verdicts; ``None``: only the whole text is validated.
        check_only: Leave the description out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`.
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
        """The verdict that a piece of the scanner carries; another text is scanned by itself."""
        if self._scanner is None:
            return UNKNOWN
        pieces = [chunk] if isinstance(chunk, Piece) else self._scanner.pieces_of(chunk)
        verdicts = [piece.verdict for piece in pieces]
        return next((verdict for verdict in verdicts if verdict.success == "fail"), UNKNOWN)


Find: TypeAlias = Callable[[str, int, int], Found | None]
"""Finds what begins at the first position of a text, which is taken to end at the second position."""


class WindowScanner(SpanScanner):
    """Decides a position when the window of characters that begins there is complete.

    Args:
        find: Finds what must not be there.
        window: The number of characters that it may need to see.
        grows: Whether a span may be longer than the window.
        barrier: Matches single characters that no span contains: text up to such a character can be decided before
            a window is complete. Looks back at most one character.
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
        """A new scanner with the same settings."""
        return WindowScanner(self._find, self._window, grows=self._grows, barrier=self._barrier)

    def next_in(self, text: str, at: int, *, ended: bool) -> Next:
        """The first position where something is found, or whose window is not full."""
        size = len(text)
        barrier = 0
        while at < size:
            # The expression sees nothing after the window. Otherwise the result would depend on how much of the
            # text happens to have arrived.
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
        """Where the span that began there ends, as far as the text is known."""
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
