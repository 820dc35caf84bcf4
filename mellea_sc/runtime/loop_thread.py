"""An event loop in a thread of its own, which survives Ctrl-C, a fork and the interpreter's exit at any moment.

It waits on bare locks only. ``threading.Event`` and ``concurrent.futures.Future`` are written in Python around a
lock: Ctrl-C just after they have taken it, and before their ``with`` block begins, leaves it locked, and the other
thread waits for ever.
"""

from __future__ import annotations

import _thread
import atexit
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, Final, TypeAlias
from weakref import WeakSet

import anyio
import anyio.abc

from mellea_sc.core.errors import SessionClosed
from mellea_sc.runtime.loops.current import (
    call_soon_in,
    interpreter_is_ending,
    loop_options,
    running_loop,
)
from mellea_sc.runtime.loops.forks import tell_of_forks
from mellea_sc.runtime.nursery import CLEANUP_TIMEOUT

__all__ = ["POLL_INTERVAL", "THREAD_TIMEOUT", "Job", "LoopThread", "ThreadEvent"]

Function: TypeAlias = Callable[[], Coroutine[Any, Any, object]]

THREAD_TIMEOUT: Final = 2 * CLEANUP_TIMEOUT
"""Seconds to wait for the cleanup of an interrupted call, or of the whole thread."""

POLL_INTERVAL: Final = 0.5
"""Seconds after which a wait begins anew: a signal that comes just before a wait does not interrupt that one."""


class ThreadEvent:
    """An event that one thread waits for; see the top of this file for why it is not ``threading.Event``."""

    __slots__ = ("_lock", "is_set")

    def __init__(self) -> None:
        self.is_set: bool = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake who waits."""
        self.is_set = True
        with suppress(RuntimeError):  # it has been set before
            self._lock.release()

    def wait(self, timeout: float) -> None:
        """Wait until it is set, or for so many seconds; Ctrl-C ends the wait."""
        if not self.is_set:
            self._lock.acquire(timeout=timeout)


class Job:
    """A function for a loop to run, once.

    Args:
        function: An exception that it raises ends the loop.
    """

    def __init__(self, function: Function) -> None:
        self.ended: ThreadEvent = ThreadEvent()
        self.is_given_up: bool = False
        self._function = function
        self._context: Context | None = copy_context()
        self._scope: anyio.CancelScope | None = None

    def start(self, tasks: anyio.abc.TaskGroup, running: set[Job]) -> None:
        """Run it, once, in a task of its own, in the context of the thread that asked for it."""
        context, self._context = self._context, None
        if context is not None:
            from mellea_sc.runtime.loops import asyncio_loop  # as late as everything of asyncio's

            asyncio_loop.claim(context)
            running.add(self)
            context.run(tasks.start_soon, self._run, running)

    async def _run(self, running: set[Job]) -> None:
        try:
            with anyio.CancelScope() as self._scope:
                if not self.is_given_up:
                    await self._function()
        except (Exception, anyio.get_cancelled_exc_class()):
            self._end(running)
            raise
        # an exit goes through, ends the loop, and thus the wait for the job
        self._end(running)

    def _end(self, running: set[Job]) -> None:
        # who waits may forget the function's owner at once, and this task is not over yet: it must not hold it
        del self._function
        running.discard(self)
        self.ended.set()

    def cancel_if_given_up(self) -> None:
        """Nobody waits for it any more: cancel it, in its loop."""
        if self.is_given_up and self._scope is not None:
            self._scope.cancel("the call was interrupted")


class LoopThread:
    """A thread that runs an asyncio loop, and runs functions in it for other threads.

    Unlike anyio's ``start_blocking_portal``, which waits for ever for a thread that Ctrl-C has hit at its start, and
    whose callers wait twice: until their task has been made, and for its result.

    At the interpreter's exit, what runs in it is cancelled. In a forked child it has ended.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self.loop: object = None
        self.has_ended: bool = False
        self.failure: BaseException | None = None
        """What ended the loop, if that was an exit in one of its tasks."""
        self.is_cancelled: bool = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._tasks: anyio.abc.TaskGroup
        self._submitted: deque[Job] = deque()
        self._running: set[Job] = set()
        self._came: anyio.Event
        self._started = ThreadEvent()
        self._to_launch = [self._thread]
        self._is_launched = False
        self._wanted = True
        self._waited_for: set[ThreadEvent] = set()
        tell_of_forks(self)

    @property
    def is_running(self) -> bool:
        """Whether its loop has begun and not ended."""
        return self._started.is_set and not self.has_ended

    def start(self) -> None:
        """Start the thread, unless it has been, and wait for its loop.

        Raises:
            SessionClosed: the interpreter is ending, and starts no more threads.
            KeyboardInterrupt: Ctrl-C; the thread has ended.
        """
        try:
            _alive.add(self)
            if not self._is_launched:
                _thread.start_new_thread(self._launch, ())
                self._is_launched = True
            self.wait(self._started)
        except RuntimeError as error:
            self._end(error)
        except BaseException:
            self.end(cancel=True)
            raise
        # not whether it is marked as started: its end sets every mark that is waited for
        if self.loop is None and self.failure is not None:
            if isinstance(self.failure, Exception) and interpreter_is_ending():
                raise SessionClosed(
                    "the interpreter is ending and starts no more threads: make blocking calls before that"
                ) from self.failure
            raise self.failure

    def _launch(self) -> None:
        # Thread.start() waits for an Event: it is called where no signal comes
        try:
            # nothing to pop: a call inside of start(), from a signal's handler, was faster
            with suppress(IndexError):
                self._to_launch.pop().start()
        except BaseException as error:  # noqa: ASYNC103, BLE001 # raised where it is waited for
            self._end(error)

    def submit(self, job: Job) -> None:
        """Have the loop run a job, once.

        Jobs take their first steps in the order in which they were submitted. What is submitted to a loop
        that is ending does not run.
        """
        self._submitted.append(job)
        self._call(self._wake)

    def give_up(self, job: Job) -> None:
        """Have the loop cancel a job, now or when it is about to begin."""
        job.is_given_up = True
        self.submit(job)  # again: Ctrl-C may have come before it was

    def wait(self, mark: ThreadEvent, timeout: float = math.inf) -> None:
        """Wait until a task of the loop has set the mark, or the loop has ended; Ctrl-C ends the wait."""
        until = time.monotonic() + timeout
        self._waited_for.add(mark)
        try:
            while not (mark.is_set or self.has_ended) and (left := until - time.monotonic()) > 0:
                mark.wait(min(left, POLL_INTERVAL))
        finally:
            self._waited_for.discard(mark)

    def stop(self, *, cancel: bool = False) -> None:
        """Have the loop end, when what was submitted has ended or is cancelled; without waiting for that."""
        self.is_cancelled = self.is_cancelled or cancel
        self._wanted = False
        self._call(self._wake)

    def end(self, *, cancel: bool = False) -> None:
        """Stop it, and wait for the thread; after a cancel for :data:`THREAD_TIMEOUT` at most.

        Raises:
            KeyboardInterrupt: Ctrl-C; what was running has been cancelled.
        """
        try:
            self.stop(cancel=cancel)
            self.join(THREAD_TIMEOUT if cancel else math.inf)
        except BaseException:
            self.stop(cancel=True)
            self.join(THREAD_TIMEOUT)
            raise

    def join(self, timeout: float) -> None:
        """Wait for the thread, for so many seconds at most."""
        until = time.monotonic() + timeout
        if self._is_launched:
            self.wait(ThreadEvent(), timeout)
        while self._thread.is_alive() and (left := until - time.monotonic()) > 0:
            self._thread.join(min(left, POLL_INTERVAL))

    def forked(self) -> None:
        """The thread is in the parent."""
        self.has_ended = True
        self._submitted.clear()
        _alive.discard(self)

    # --- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            anyio.run(self._main, backend_options=loop_options())
        except BaseException as error:  # noqa: ASYNC103, BLE001 # raised where it is waited for
            self._end(error)
        else:
            self._end(None)

    def _end(self, failure: BaseException | None) -> None:
        self.failure = failure
        self.has_ended = True
        _alive.discard(self)
        for mark in tuple(self._waited_for):
            mark.set()

    async def _main(self) -> None:
        self.loop = running_loop()
        async with anyio.create_task_group() as self._tasks:
            while True:
                # made before looking: several wake-ups may have become one, and one that comes
                # after the look is for this event
                self._came = anyio.Event()
                self._started.set()
                while self._submitted:
                    self._start_next()
                if not self._wanted:
                    break
                await self._came.wait()
            self._wake()  # it may have been cancelled before it began

    def _start_next(self) -> None:
        # a function of its own: a job must not be held while the thread waits for more
        self._submitted.popleft().start(self._tasks, self._running)

    def _wake(self) -> None:
        self._came.set()
        for job in tuple(self._running):
            job.cancel_if_given_up()
        if self.is_cancelled:
            self._tasks.cancel_scope.cancel("its thread is ending")

    def _call(self, function: Callable[[], None]) -> None:
        if self.is_running:
            call_soon_in(self.loop, function)


_alive: Final[WeakSet[LoopThread]] = WeakSet()


def _exit() -> None:
    """Cancel what daemon threads and forgotten sessions still run, all at once, and wait for its cleanup."""
    threads = list(_alive)
    for thread in threads:
        thread.stop(cancel=True)
    until = time.monotonic() + THREAD_TIMEOUT
    for thread in threads:
        thread.join(until - time.monotonic())


atexit.register(_exit)
