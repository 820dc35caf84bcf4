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
from typing import Generic, TypeVar

import anyio

from mellea_sc.core.errors import SessionClosed, SyncCallInEventLoop
from mellea_sc.runtime.budget import covered
from mellea_sc.runtime.loop_thread import LOOK_AGAIN, PATIENCE, LoopThread
from mellea_sc.runtime.loops import running_loop
from mellea_sc.runtime.unobserved import log_unobserved

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
            SessionClosed: the thread was ended before the function.
            concurrent.futures.CancelledError: the function has cancelled its own task.
            KeyboardInterrupt: Ctrl-C; the function has been cancelled and has cleaned up. What it has
                raised itself is logged.
        """
        with self._lock:
            thread = self._thread
            if thread is None or thread.ended.done():
                thread = self._start()
        call = _Call(function)
        try:
            # Ctrl-C may come in here as well, when the function is running already
            thread.submit(call.run)
            thread.wait(call.ended)
        except BaseException:
            if not call.ended.is_set():
                call.is_given_up = True
                thread.submit(call.give_up)
                thread.wait(call.ended, PATIENCE)
            log_unobserved("an interrupted call", call.failure)
            raise
        return call.result(thread)

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


class _Call(Generic[T]):
    """One call, on its way from the thread that waits for it to the event loop and back."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._scope: anyio.CancelScope | None = None
        self._returned: list[T] = []
        self.failure: list[BaseException] = []
        self.ended = threading.Event()
        self.is_given_up = False

    async def run(self) -> None:
        """Do it, in the event loop. An exit goes through, ends the loop, and thus the wait for it."""
        try:
            with anyio.CancelScope() as self._scope, covered():
                if self.is_given_up:
                    self._scope.cancel("the call was interrupted")
                self._returned.append(await self._function())
        except Exception as error:  # noqa: BLE001 # raised in the thread that waits
            self.failure.append(error)
        except anyio.get_cancelled_exc_class():
            self._end()
            raise
        self._end()

    def _end(self) -> None:
        # who waits may forget the session at once, and this task is not over yet: it must not hold it
        del self._function
        self.ended.set()

    async def give_up(self) -> None:  # noqa: ASYNC124 - a task of its own
        """Cancel it, in the event loop, after the first step of :meth:`run` if that was submitted at all."""
        if self._scope is None:
            self.ended.set()
        else:
            self._scope.cancel("the call was interrupted")

    def result(self, thread: LoopThread) -> T:
        """What has come of it, in the thread that has waited."""
        if self.failure:
            raise self.failure.pop()  # a call that held its error would be held by the error's frames
        if self._returned:
            return self._returned[0]
        with suppress(TimeoutError):  # it was cancelled: perhaps because the loop is ending
            thread.ended.result(LOOK_AGAIN)
            raise SessionClosed("the session's thread of blocking calls has ended meanwhile")
        raise concurrent.futures.CancelledError


def _end(thread: LoopThread) -> None:
    if running_loop() is None:
        thread.end()
    else:
        # collected inside an event loop, perhaps the very one that is to end: it must not wait here
        threading.Thread(target=thread.end, daemon=True).start()
