"""Reads the next line of a conversation, from a person or a pipe.

It is read in the thread of the event loop, which is blocked meanwhile. That does no harm between two answers. A
separate thread that reads could not be stopped, and would have no line editing. During the read Ctrl-C belongs to the
line, and not to the event loop.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import Final, TextIO, TypeVar

__all__ = ["Interrupted", "Prompt"]

T = TypeVar("T")

PROMPT: Final = "> "
TICK: Final = 0.1
"""Seconds between two wake-ups of a read. Python handles a signal only after a system call. Without these wake-ups, a
signal that comes just before the call begins would be noticed only at the next key."""


class Interrupted(Exception):
    """A signal came before the line did.

    Args:
        number: The number of the signal.
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
                import_module("readline")  # input() has history and editing then
        elif callable(reconfigure := getattr(self._file, "reconfigure", None)):
            reconfigure(errors="replace")

    def read(self) -> str | None:
        """The next line; ``None``: there is none.

        Raises:
            Interrupted: SIGINT or SIGTERM came.
        """
        return _interruptible(self._read)

    def _read(self) -> str | None:
        if self.is_terminal and sys.stdout.isatty():
            try:
                return input(PROMPT)
            except EOFError:
                print()
                return None
        if self.is_terminal:
            print(PROMPT, end="", file=sys.stderr, flush=True)
        return self._file.readline() or None


def _nothing(_: int, __: FrameType | None) -> None:
    pass


def _interruptible(read: Callable[[], T]) -> T:
    """Call a function so that the first SIGINT or SIGTERM raises Interrupted, and the event loop gets no signal."""
    waits = False
    came: int | None = None

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal waits, came
        came = number
        if waits:
            waits = False
            raise Interrupted(number)

    handlers: dict[int, Callable[[int, FrameType | None], None]] = {
        signal.SIGINT: interrupt,
        signal.SIGTERM: interrupt,
    }
    ticks = sys.platform != "win32"
    if ticks:
        handlers[signal.SIGALRM] = _nothing
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    wakeup = signal.set_wakeup_fd(-1)  # otherwise asyncio's loop would handle the signal later
    try:
        try:
            if ticks:
                signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
            waits = True
            if came is not None:
                raise Interrupted(came)
            line = read()
        finally:
            waits = False  # from here on the handler does not raise, so the cleanup below is always completed
    finally:
        if ticks:
            signal.setitimer(signal.ITIMER_REAL, 0)
        # Without a warning if the pipe is full, as both loops set it: one byte in it is enough to wake the loop.
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number, handler in before.items():
            signal.signal(number, handler)
    if came is not None:  # the signal came together with the line
        raise Interrupted(came)
    return line
