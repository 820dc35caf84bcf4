"""An event loop in a thread of its own, which Ctrl-C can hit while it starts and while it ends."""

from __future__ import annotations

import concurrent.futures
import threading
from contextlib import suppress
from typing import Any, Final, TypeVar

import anyio
import anyio.from_thread

from mellea_sc.runtime.nursery import CLEANUP_TIMEOUT

__all__ = ["PATIENCE", "LoopThread"]

T = TypeVar("T")

PATIENCE: Final = 2 * CLEANUP_TIMEOUT
"""Seconds to wait for the cleanup of an interrupted call's async half, or of the whole thread."""


class LoopThread:
    """A thread that runs an asyncio loop, and the portal into it.

    As anyio's ``start_blocking_portal``, which waits for ever for a thread that Ctrl-C has hit at its start.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._portal: concurrent.futures.Future[anyio.from_thread.BlockingPortal]
        self._portal = concurrent.futures.Future()
        self._wanted = True
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        """Done when the loop has ended, with what ended it: an exit in one of its tasks, or nothing."""

    @property
    def portal(self) -> anyio.from_thread.BlockingPortal:
        """The way into the loop; there when it has started."""
        return self._portal.result()

    def start(self) -> None:
        """Start the thread and wait for its portal.

        Raises:
            KeyboardInterrupt: Ctrl-C; the thread has ended.
        """
        try:
            self._thread.start()
            self._portal.result()
        except BaseException:
            self.end()
            raise

    def result(self, future: concurrent.futures.Future[T]) -> T:
        """Wait for what a task of the loop is to set.

        Raises:
            SystemExit: a task has ended the loop; so with ``KeyboardInterrupt``.
            Exception: as the task raised it.
        """
        either: list[concurrent.futures.Future[Any]] = [future, self.ended]
        concurrent.futures.wait(either, return_when="FIRST_COMPLETED")
        if self.ended.done() and not future.done():
            self.ended.result()
        return future.result()

    def end(self) -> None:
        """Have the loop end, which cancels and joins what is left in it, and wait for the thread.

        Raises:
            KeyboardInterrupt: Ctrl-C; the thread has ended nevertheless.
        """
        try:
            self._stop()
            self._join()
        except BaseException:
            self._stop()
            self._join(PATIENCE)
            raise

    def _run(self) -> None:
        try:
            anyio.run(self._main)
        except BaseException as error:  # noqa: ASYNC103, BLE001 # raised where it is waited for
            if not self._portal.done():
                self._portal.set_exception(error)
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)

    async def _main(self) -> None:
        async with anyio.from_thread.BlockingPortal() as portal:
            self._portal.set_result(portal)
            if self._wanted:
                await portal.sleep_until_stopped()

    def _stop(self) -> None:
        self._wanted = False
        if self._portal.done() and self._portal.exception() is None:
            with suppress(RuntimeError):  # it has been stopped already
                self.portal.start_task_soon(self.portal.stop)

    def _join(self, timeout: float | None = None) -> None:
        if self._thread.is_alive():
            self._thread.join(timeout)
