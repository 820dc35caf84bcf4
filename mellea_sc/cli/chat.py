"""``mellea-sc chat``: a conversation, with the lines of a person or a pipe. Imports the library.

A line is read in the thread of the event loop, which is blocked meanwhile. That does no harm between two answers. A
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

import anyio.lowlevel

from mellea_sc.cli.asking import Asking, Interruption, nothing
from mellea_sc.cli.commands import Settings
from mellea_sc.cli.ending import VALID, tell
from mellea_sc.cli.lines import say
from mellea_sc.core.errors import BackendError, RunError
from mellea_sc.core.plain_text import harmless
from mellea_sc.runtime.failures import sole_error
from mellea_sc.stdlib.session import MelleaSession

QUIT: Final = "/quit"
HOW_TO_END: Final = f"Ctrl-C again, Ctrl-D or {QUIT} ends the conversation"


async def chat(settings: Settings) -> int:
    """Answer the lines of standard input, one after the other; returns the exit status.

    SIGINT stops the running answer, and the conversation goes on without that turn; between answers it drops the line
    that is being written. A second SIGINT before the next line ends the conversation, like ``/quit`` and the end of
    the input. SIGTERM ends it at any time.

    On a terminal, an error is printed and the conversation goes on. If the lines come from a file or a pipe, an error
    ends the command, and a failed check or an answer that was cut off determines the exit status.

    Args:
        settings: The settings of the command line.

    Raises:
        MelleaError: a setting is not usable; or an answer ended with an error, and the input is no terminal.
    """
    asking = Asking(settings, in_chat=True)
    prompt = Prompt()
    interruption = Interruption(once=False)
    if prompt.is_terminal:
        name = harmless(f"{asking.backend.model_id} ({asking.backend.provider})")
        say(f"{name}. Ctrl-C stops an answer, Ctrl-D or {QUIT} ends the conversation.", "dim")
    with sole_error():
        async with interruption.watched(), asking.session() as m:
            return await _converse(m, asking, prompt, interruption)


async def _converse(
    m: MelleaSession, asking: Asking, prompt: Prompt, interruption: Interruption
) -> int:
    statuses = {VALID}
    was_interrupted = False
    while True:
        await _forget_late(interruption)
        if interruption.signal is not None:
            return 128 + interruption.signal
        try:
            line = prompt.read()
        except Interrupted as interrupted:
            if interrupted.number != signal.SIGINT or was_interrupted:
                return 128 + interrupted.number
            was_interrupted = True
            say(f"\n{HOW_TO_END}", "dim")
            continue
        if line is None or line.strip() == QUIT:
            return VALID if prompt.is_terminal else min(statuses - {VALID}, default=VALID)
        if not line.strip():
            continue
        await _forget_late(interruption)
        try:
            outcome = await asking.answer(m, line.rstrip("\r\n"), interruption)
        except (BackendError, RunError) as error:
            if not prompt.is_terminal:
                raise
            tell(error)
        else:
            if interruption.signal is None:
                statuses.add(outcome.status)
        finally:
            interruption.stop = nothing
        was_interrupted = interruption.signal is not None


async def _forget_late(interruption: Interruption) -> None:
    """Ignore a Ctrl-C that came just after the end of an answer; SIGTERM is never ignored."""
    # the maximum number of loop steps from a signal to the task that waits for it
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
    if interruption.signal == signal.SIGINT:
        interruption.signal = None


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
