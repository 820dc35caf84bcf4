"""Blocking calls: one event-loop thread that a session owns and ends.

A blocking call runs its async half in that thread and waits for it. Ctrl-C in the waiting thread
cancels the async half and waits for its cleanup before it is raised.
"""

from __future__ import annotations

import concurrent.futures
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack, suppress
from contextvars import Context, copy_context
from typing import Final, Generic, TypeVar

import anyio
import anyio.abc
import anyio.from_thread

from mellea_sc.core.errors import SessionClosed, SyncCallInEventLoop
from mellea_sc.runtime._asyncio import from_other_threads
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
        self._desk: _Desk | None = None
        self._stop: Callable[[], object] = lambda: None

    @property
    def is_running(self) -> bool:
        """Whether the thread has been started and not ended."""
        return self._desk is not None

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an async function in the thread and wait for what it returns.

        Raises:
            Exception: as the function raised it.
            SessionClosed: the thread has been ended meanwhile.
            KeyboardInterrupt: Ctrl-C; the function has been cancelled and has cleaned up.
        """
        with self._lock:
            desk = self._desk or self._start()
        call = _Call(function)
        try:
            # Ctrl-C may come in here as well, when the function is running already
            desk.submit(call.run)
            call.ended.wait()
        except BaseException:
            if not call.ended.is_set():
                call.is_given_up = True
                with suppress(SessionClosed):
                    desk.submit(call.give_up)
                    call.ended.wait(PATIENCE)
            raise
        return call.result()

    def _start(self) -> _Desk:
        stack = ExitStack()
        portal = stack.enter_context(
            anyio.from_thread.start_blocking_portal(name="mellea_sc sync calls")
        )
        desk = self._desk = portal.call(_Desk)
        portal.start_task_soon(desk.serve)
        stack.callback(portal.call, desk.close)
        self._stop = weakref.finalize(self._owner(), _close, stack)
        return desk

    def close(self) -> None:
        """End the thread and wait for that; its event loop cancels and joins what is left in it."""
        with self._lock:
            self._desk = None
            stop = self._stop
        stop()


class _Desk:
    """Where the calls of other threads come in; made and served in the thread of the event loop.

    anyio's portal would have the caller wait twice for the loop: until its task is made, and for
    what comes of it.
    """

    def __init__(self) -> None:
        self._calls: deque[tuple[Context, Callable[[], Coroutine[object, object, None]]]] = deque()
        self._came = anyio.Event()
        self._wake = from_other_threads(lambda: self._came.set())
        self._lock = threading.Lock()
        self._is_open = True

    def submit(self, run: Callable[[], Coroutine[object, object, None]]) -> None:
        """Have the loop run a function that never raises, after those submitted before.

        Raises:
            SessionClosed: no calls are taken any more.
        """
        with self._lock:
            if not self._is_open:
                raise SessionClosed("the session's thread of blocking calls has ended")
            self._calls.append((copy_context(), run))
            self._wake()

    def close(self) -> None:
        """Take no more calls; those that have come are still made."""
        with self._lock:
            self._is_open = False
        self._came.set()

    async def serve(self) -> None:
        """Make the calls, each in a task of its own and in the context of its caller."""
        async with anyio.create_task_group() as tasks:
            while self._is_open or self._calls:
                while self._calls:
                    self._start_next(tasks)
                await self._came.wait()
                self._came = anyio.Event()

    def _start_next(self, tasks: anyio.abc.TaskGroup) -> None:
        context, run = self._calls.popleft()
        context.run(tasks.start_soon, run)


class _Call(Generic[T]):
    """One call, on its way from the thread that waits for it to the event loop and back."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._scope: anyio.CancelScope | None = None
        self._results: list[T] = []
        self._error: BaseException | None = None
        self.ended = threading.Event()
        self.is_given_up = False

    async def run(self) -> None:
        """Do it; in the event loop."""
        try:
            with anyio.CancelScope() as self._scope:
                if self.is_given_up:
                    self._scope.cancel("the call was interrupted")
                self._results.append(await self._function())
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 - raised by result()
            self._error = error
        finally:
            self.ended.set()

    async def give_up(self) -> None:  # noqa: ASYNC124 - the desk wants one
        """Cancel it; in the event loop, after the first step of :meth:`run` if that was submitted."""
        if self._scope is None:
            self.ended.set()
        else:
            self._scope.cancel("the call was interrupted")

    def result(self) -> T:
        """What has come of it, for the thread that has waited."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if not self._results:
            raise concurrent.futures.CancelledError
        return self._results[0]


def _close(stack: ExitStack) -> None:
    if running_loop() is None:
        stack.close()
    else:
        # collected inside an event loop, perhaps the very one that is to end: it must not wait here
        threading.Thread(target=stack.close, daemon=True).start()
