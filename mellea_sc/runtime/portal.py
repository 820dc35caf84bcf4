"""Blocking calls: one event-loop thread that a session owns and ends.

A blocking call runs its async half in that thread and waits for it. Ctrl-C in the waiting thread
cancels the async half and waits for its cleanup before it is raised.
"""

from __future__ import annotations

import concurrent.futures
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import anyio

from mellea_sc.core.errors import SyncCallInEventLoop
from mellea_sc.runtime.budget import covered
from mellea_sc.runtime.loop_thread import PATIENCE, LoopThread
from mellea_sc.runtime.loops import running_loop
from mellea_sc.runtime.nursery import log_unobserved

__all__ = ["SyncPortal", "refuse_in_event_loop"]

T = TypeVar("T")


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
        self._thread: LoopThread | None = None
        self._stop: Callable[[], object] = lambda: None

    @property
    def is_running(self) -> bool:
        """Whether the thread has been started and not ended."""
        return self._thread is not None and not self._thread.ended.done()

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an async function in the thread and wait for what it returns.

        Raises:
            Exception: as the function raised it.
            SystemExit: raised in the function or beside it; the thread has ended.
            KeyboardInterrupt: Ctrl-C; the function has been cancelled and has cleaned up. What it has
                raised itself is logged.
        """
        with self._lock:
            thread = self._thread
            if thread is None or thread.ended.done():
                thread = self._start()
            portal = thread.portal
        ended = threading.Event()
        scope: anyio.CancelScope | None = None
        given_up = False
        failure: list[BaseException] = []

        async def run() -> T:
            nonlocal scope
            with anyio.CancelScope() as scope, covered():
                try:
                    if given_up:
                        scope.cancel("the call was interrupted")
                    return await function()
                except Exception as error:
                    failure.append(error)
                    raise
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
            return thread.result(future)
        except BaseException as error:
            if future is None or not future.done():
                given_up = True
                with suppress(RuntimeError):  # the loop has ended
                    portal.start_task_soon(give_up)
                    ended.wait(PATIENCE)
            if error not in failure:
                log_unobserved("an interrupted call", failure)
            raise

    def _start(self) -> LoopThread:
        thread = LoopThread("mellea_sc sync calls")
        try:
            thread.start()
            self._stop = weakref.finalize(self._owner(), _end, thread)
            self._thread = thread
        except BaseException:
            thread.end()
            raise
        return thread

    def close(self) -> None:
        """End the thread and wait for that; its event loop cancels and joins what is left in it."""
        with self._lock:
            self._thread = None
            stop = self._stop
        stop()


def _end(thread: LoopThread) -> None:
    if running_loop() is None:
        thread.end()
    else:
        # collected inside an event loop, perhaps the very one that is to end: it must not wait here
        threading.Thread(target=thread.end, daemon=True).start()
