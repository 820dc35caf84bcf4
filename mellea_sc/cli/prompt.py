"""The next line of a conversation, from a person or a pipe.

It is read in the thread of the event loop, which stands still meanwhile: between two answers it has nothing to
do, a thread that reads cannot be stopped, and so a terminal gives what people expect of it, history and editing.
Ctrl-C is for the line then and not for the loop.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, TextIO

__all__ = ["Interrupted", "Prompt"]

PROMPT: Final = "> "


class Interrupted(Exception):
    """A signal came before the line did.

    Args:
        number: Which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number: int = number


class Prompt:
    """Reads lines from standard input; a person is shown where to write."""

    def __init__(self) -> None:
        self._file: TextIO = sys.stdin
        self.is_terminal: bool = self._file.isatty()
        if self.is_terminal:
            with suppress(ImportError):
                pass  # input() has history and editing then
        elif callable(reconfigure := getattr(self._file, "reconfigure", None)):
            reconfigure(errors="replace")

    def read(self) -> str | None:
        """The next line; ``None``: there is none.

        Raises:
            Interrupted: SIGINT or SIGTERM came.
        """
        with _signals_raise():
            if self.is_terminal and sys.stdout.isatty():
                try:
                    return input(PROMPT)
                except EOFError:
                    print()
                    return None
            if self.is_terminal:
                print(PROMPT, end="", file=sys.stderr, flush=True)
            return self._file.readline() or None


@contextmanager
def _signals_raise() -> Generator[None]:
    """In this block the first SIGINT or SIGTERM raises Interrupted, and the event loop hears of none."""
    waits = True
    came: int | None = None

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal waits, came
        came = number
        if waits:
            waits = False
            raise Interrupted(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, interrupt) for number in numbers]
    wakeup = signal.set_wakeup_fd(-1)  # by which asyncio's loop would hear of it later
    try:
        try:
            yield
        finally:
            waits = False  # from here on nothing can be raised, so all of the rest is done
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    if came is not None:  # with the line
        raise Interrupted(came)
