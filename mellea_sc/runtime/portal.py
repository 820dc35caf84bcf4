"""Blocking calls: one event-loop thread that a session owns and ends.

A blocking call runs its async half in that thread and waits for it. Ctrl-C in the waiting thread
cancels the async half and waits for its cleanup before it is raised.
"""

from __future__ import annotations

import concurrent.futures
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Final, TypeVar

import anyio
import anyio.from_thread

from mellea_sc.core.errors import SyncCallInEventLoop
from mellea_sc.runtime.loops import running_loop
from mellea_sc.runtime.nursery import CLEANUP_TIMEOUT

__all__ = ["PATIENCE", "SyncPortal", "refuse_in_event_loop"]

T = TypeVar("T")

PATIENCE: Final = 2 * CLEANUP_TIMEOUT
"""Seconds to wait for the cleanup of an interrupted call's async half, or of the whole thread."""


def refuse_in_event_loop(what: str, instead: str) -> None:
    """Raise if a blocking call would block a running event loop.

    Raises:
        SyncCallInEventLoop: an event loop runs in this thread.
    """
    if running_loop() is not None:
        raise SyncCallInEventLoop(
            f"{what} would block the event loop that runs here: use `{instead}` instead"
        )


class SyncPortal:
    """The event-loop thread of one session; started by the first call.

    Args:
        owner: The thread ends at the latest when this object is gone, or the interpreter exits.
    """

    def __init__(self, owner: object) -> None:
        self._owner = weakref.ref(owner)
        self._lock = threading.Lock()
        self._portal: anyio.from_thread.BlockingPortal | None = None
        self._stop: Callable[[], object] = lambda: None

    @property
    def is_running(self) -> bool:
        """Whether the thread has been started and not ended."""
        return self._portal is not None

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an async function in the thread and wait for what it returns.

        Raises:
            Exception: as the function raised it.
            KeyboardInterrupt: Ctrl-C; the function has been cancelled and has cleaned up.
        """
        with self._lock:
            portal = self._portal or self._start()
        ended = threading.Event()
        scope: anyio.CancelScope | None = None
        given_up = False

        async def run() -> T:
            nonlocal scope
            with anyio.CancelScope() as scope:
                try:
                    if given_up:
                        scope.cancel("the call was interrupted")
                    return await function()
                finally:
                    ended.set()
            raise concurrent.futures.CancelledError

        async def give_up() -> None:  # noqa: ASYNC124 - the portal wants one
            # comes after the first step of run(), if that was submitted at all
            if scope is None:
                ended.set()
            else:
                scope.cancel("the call was interrupted")

        future: concurrent.futures.Future[T] | None = None
        try:
            # Ctrl-C may come in here as well, when the function is running already
            future = portal.start_task_soon(run)
            return future.result()
        except BaseException:
            if future is None or not future.done():
                given_up = True
                portal.start_task_soon(give_up)
                ended.wait(PATIENCE)
            raise

    def _start(self) -> anyio.from_thread.BlockingPortal:
        stack = ExitStack()
        self._portal = stack.enter_context(
            anyio.from_thread.start_blocking_portal(name="mellea_sc sync calls")
        )
        self._stop = weakref.finalize(self._owner(), _close, stack)
        return self._portal

    def close(self) -> None:
        """End the thread and wait for that; its event loop cancels and joins what is left in it."""
        with self._lock:
            self._portal = None
            stop = self._stop
        stop()


def _close(stack: ExitStack) -> None:
    if running_loop() is None:
        stack.close()
    else:
        # collected inside an event loop, perhaps the very one that is to end: it must not wait here
        threading.Thread(target=stack.close, daemon=True).start()
