"""An event loop in a thread of its own, which Ctrl-C can hit while it starts and while it ends."""

from __future__ import annotations

import concurrent.futures
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Final, TypeAlias

import anyio
import anyio.abc

from mellea_sc.runtime.loops import call_soon_in, running_loop
from mellea_sc.runtime.nursery import CLEANUP_TIMEOUT

__all__ = ["LOOK_AGAIN", "PATIENCE", "LoopThread"]

Function: TypeAlias = Callable[[], Coroutine[Any, Any, object]]

PATIENCE: Final = 2 * CLEANUP_TIMEOUT
"""Seconds to wait for the cleanup of an interrupted call's async half, or of the whole thread."""

LOOK_AGAIN: Final = 0.5
"""Seconds after which a wait begins anew: a signal just before it does not end it, but waits for the next."""


class LoopThread:
    """A thread that runs an asyncio loop, and runs functions in it for other threads.

    Like anyio's ``start_blocking_portal``, but that waits for ever for a thread that Ctrl-C has hit at its
    start, and has its callers wait twice: until their task is made, and for what comes of it.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._loop: object
        self._submitted: deque[tuple[Context, Function]] = deque()
        self._came: anyio.Event
        self._started = threading.Event()
        self._wanted = True
        self._waited_for: set[threading.Event] = set()
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        """Done when the loop has ended, with what ended it: an exit in one of its tasks, or nothing."""

    def start(self) -> None:
        """Start the thread and wait for its loop.

        Raises:
            KeyboardInterrupt: Ctrl-C; the thread has ended.
        """
        try:
            self._thread.start()
            self.wait(self._started)
            if not self._started.is_set():
                self.ended.result()
        except BaseException:
            self.end()
            raise

    def submit(self, function: Function) -> None:
        """Have the loop run a function in a task of its own, in the context of this thread.

        Tasks take their first steps in the order in which they were submitted. What is submitted to a loop
        that has ended does not run. An exception that comes out of the function ends the loop.
        """
        self._submitted.append((copy_context(), function))
        call_soon_in(self._loop, self._wake)

    def wait(self, event: threading.Event, timeout: float = math.inf) -> None:
        """Wait until a task of the loop has set the event, or the loop has ended; Ctrl-C ends the wait."""
        until = time.monotonic() + timeout
        self._waited_for.add(event)
        try:
            while time.monotonic() < until and not self.ended.done():
                if event.wait(LOOK_AGAIN):
                    break
        finally:
            self._waited_for.discard(event)

    def end(self) -> None:
        """Have the loop end when what was submitted has ended, and wait for the thread.

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
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)
        for event in tuple(self._waited_for):
            event.set()

    async def _main(self) -> None:
        self._loop = running_loop()
        self._came = anyio.Event()
        async with anyio.create_task_group() as tasks:
            self._started.set()
            while True:
                # made before looking: several wake-ups may have become one, and one that comes
                # after the look is for this event
                self._came = anyio.Event()
                while self._submitted:
                    self._start_next(tasks)
                if not self._wanted:
                    break
                await self._came.wait()

    def _start_next(self, tasks: anyio.abc.TaskGroup) -> None:
        # a function of its own: what was called must not be held while the thread waits for more
        context, function = self._submitted.popleft()
        context.run(tasks.start_soon, function)

    def _wake(self) -> None:
        self._came.set()

    def _stop(self) -> None:
        self._wanted = False
        if self._started.is_set():
            call_soon_in(self._loop, self._wake)

    def _join(self, timeout: float = math.inf) -> None:
        until = time.monotonic() + timeout
        while time.monotonic() < until and self._thread.is_alive():
            self._thread.join(LOOK_AGAIN)
