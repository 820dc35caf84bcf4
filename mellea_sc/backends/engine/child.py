"""Child processes that end when this process ends, in whichever way.

A child gets the reading end of a pipe as its standard input: the *lifeline*. This process holds the other end
and never writes to it. So the pipe closes when this process ends, also by a crash or ``SIGKILL``. On Linux the
kernel then kills the child (see ``_lifeline.py``); elsewhere the command itself has to read its standard input and
exit at its end. The child runs in its own process session, so that a terminal's Ctrl-C does not reach it: only
this process decides when it ends.

Nothing here belongs to an event loop or needs a thread. A child is polled, not awaited, so that any loop in any
thread can share it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import anyio

REAP_TIMEOUT: Final = 5.0
"""Seconds to wait for a killed process to be gone."""
_LAST_WORDS: Final = 2000
"""Bytes of the standard error that are quoted."""


class Child:
    """A running child process, and a private directory that goes with it.

    Args:
        command: The program and its arguments; the program by its path.
        directory: Holds the child's standard error; removed when the child is closed.
        environment: Variables to set beside our own.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self._is_ours = True
        with (directory / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                [*_tied_to_its_input(), *command],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                creationflags=_CREATION_FLAGS,
            )
        _living.add(self)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def how_it_ended(self) -> str:
        """The exit status or the signal, as text."""
        status = self._process.poll()
        if status is None:
            return "it is still running"
        if status >= 0:
            return f"exit status {status}"
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}"
        return f"killed by signal {-status}"

    def last_words(self) -> str:
        """The last lines of its standard error; may be empty."""
        try:
            with (self.directory / "stderr").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""

    def kill(self) -> None:
        """Kill the process and the processes that it has started, without waiting for their end."""
        if not self._is_ours or self.has_ended():
            return
        if sys.platform == "win32":
            self._process.kill()
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def wait(self, timeout: float) -> None:
        """Wait until the process has ended, for at most ``timeout`` seconds."""
        with anyio.move_on_after(timeout):
            while not self.has_ended():  # noqa: ASYNC110  # an event would belong to one event loop
                await anyio.sleep(0.002)

    async def aclose(self) -> None:
        """Kill the process, wait until it is gone, and remove its directory.

        Cancellation: shielded, and bounded in time.
        """
        self.kill()
        with anyio.CancelScope(shield=True):
            await self.wait(REAP_TIMEOUT)
        self._forget()

    def close(self) -> None:
        """The same as :meth:`aclose`, for when there is no event loop any more."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(REAP_TIMEOUT)
        self._forget()

    def _forget(self) -> None:
        _living.discard(self)
        self._drop_lifeline()
        if self._is_ours:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _drop_lifeline(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    def disown(self) -> None:
        """Drop it without killing it: this process is a fork, and the child belongs to its parent."""
        self._is_ours = False
        self._drop_lifeline()


_living: set[Child] = set()

if sys.platform == "win32":
    _CREATION_FLAGS = subprocess.CREATE_NEW_PROCESS_GROUP
else:
    _CREATION_FLAGS = 0


def _tied_to_its_input() -> list[str]:
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("_lifeline.py"))]


def _close_all() -> None:
    for child in tuple(_living):
        child.close()


def _disown_all() -> None:
    # A fork inherits the writing ends of the lifelines: open, they would keep the children alive after their
    # parent's end.
    for child in tuple(_living):
        child.disown()
    _living.clear()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
