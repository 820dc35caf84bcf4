"""Handles Ctrl-C and SIGTERM while an answer is generated; ``prompt.py`` handles them between answers."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.abc

__all__ = ["Interruption"]


class Interruption:
    """Waits for the signals that ask a process to end, and calls :attr:`stop` with the reason.

    Args:
        once: After the first signal they have their usual effect again: a second one ends the process.
    """

    def __init__(self, *, once: bool) -> None:
        self._once = once
        self.signal: int | None = None
        """The last signal."""
        self.stop: Callable[[str], None] = nothing
        """The function that stops the running answer; called with the reason."""

    @asynccontextmanager
    async def watched(self) -> AsyncGenerator[None]:
        """A block in which the signals are handled; on Windows Ctrl-C stays a KeyboardInterrupt.

        Cancellation: the signals have their usual effect again.
        """
        async with anyio.create_task_group() as tasks:
            if sys.platform != "win32":
                await tasks.start(self._watch)
            yield
            tasks.cancel_scope.cancel()

    async def _watch(  # noqa: ASYNC114 - started with start()
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                self.signal = number
                if self._once:
                    break
                self._stop()
        if self.signal is not None:
            self._stop()

    def _stop(self) -> None:
        assert self.signal is not None
        self.stop(f"by {signal.Signals(self.signal).name}")


def nothing(_: str) -> None:
    """There is nothing to stop."""
