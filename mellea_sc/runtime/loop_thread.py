"""An event loop in a thread of its own, which survives Ctrl-C, a fork and the interpreter's exit at any moment.

It waits on bare locks only. ``threading.Event`` and ``concurrent.futures.Future`` are written in Python around a
lock: Ctrl-C just after they have taken it, and before their ``with`` block begins, leaves it locked, and the other
thread waits for ever.
"""

from __future__ import annotations

import _thread
import atexit
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar
from weakref import WeakSet

import anyio
import attrs

from mellea_sc.core.errors import SessionClosed
from mellea_sc.runtime.budgets.limits import budget_scope
from mellea_sc.runtime.connections import CLEANUP_TIMEOUT
from mellea_sc.runtime.loops.current import interpreter_is_ending, loop_options, running_loop
from mellea_sc.runtime.loops.forks import tell_of_forks

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

StartTask: TypeAlias = "Callable[[Coroutine[object, object, None], Context], asyncio.Task[None]]"

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
        try:
            self._lock.release()
        except RuntimeError:
            return  # it has been set before

    def wait(self, timeout: float) -> None:
        """Wait until it is set, or for so many seconds; Ctrl-C ends the wait."""
        if not self.is_set:
            self._lock.acquire(timeout=timeout)


@attrs.define(eq=False, repr=False)
class Job(Generic[T]):
    """A function for a loop to run once, in a task of its own, and its result for the thread that waits.

    Args:
        function: What to run. An exit that it raises ends the loop.
        context: What to run it in.
    """

    _function: Callable[[], Awaitable[T]]
    _context: Context
    ended: ThreadEvent = attrs.field(factory=ThreadEvent, init=False)
    is_given_up: bool = attrs.field(default=False, init=False)
    returned: list[T] = attrs.field(factory=list[T], init=False)
    failure: list[BaseException] = attrs.field(factory=list[BaseException], init=False)
    """What it has raised. A list, so that whoever raises it can take it out: the error's frames hold the job."""
    _task: asyncio.Task[None] | None = attrs.field(default=None, init=False)
    # Not before its first step: asyncio would drop the task, and who waits would never hear of it. Not twice: the
    # second time would cancel the cleanup.
    _may_be_cancelled: bool = attrs.field(default=False, init=False)

    def start(self, start_task: StartTask, on_end: Callable[[Job[T]], None]) -> None:
        """Start its task, in the loop."""
        self._task = start_task(self._run(on_end), self._context)

    async def _run(self, on_end: Callable[[Job[T]], None]) -> None:
        try:
            if not self.is_given_up:
                self._may_be_cancelled = True
                with budget_scope():
                    self.returned.append(await self._function())
        except (KeyboardInterrupt, SystemExit):
            # It ends the loop, and thus the wait for the job. asyncio would log it as an error that nobody has seen.
            assert self._task is not None
            self._task.add_done_callback(lambda task: task.exception())
            raise
        except anyio.get_cancelled_exc_class():
            self._end(on_end)
            raise
        except BaseException as error:  # noqa: BLE001 # raised in the thread that waits
            self.failure.append(error)
        self._end(on_end)

    def _end(self, on_end: Callable[[Job[T]], None]) -> None:
        # who waits may forget the function's owner at once, and this task is not over yet: it must not hold it
        del self._function
        on_end(self)
        self.ended.set()

    def cancel(self, reason: str) -> None:
        """Cancel its task, in the loop, once; also one that is about to begin, or that was never started."""
        self.is_given_up = True
        if self._task is None:
            self.ended.set()
        elif self._may_be_cancelled:
            self._may_be_cancelled = False
            self._task.cancel(reason)


class LoopThread:
    """A thread that runs an asyncio loop, and runs functions in it for other threads.

    Unlike anyio's ``start_blocking_portal``, which waits for ever for a thread that Ctrl-C has hit at its start, and
    whose callers wait twice: until their task has been made, and for its result. And a job's task is the loop's own,
    because a task in a task group takes half as long again as all the rest of handing a job over.

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
        self._submitted: deque[Job[Any]] = deque()
        self._running: set[Job[Any]] = set()
        self._takes_jobs = True
        self._over: anyio.Event
        self._call_soon_in: Callable[[object, Callable[[], object]], bool]
        self._start_task: StartTask
        self._started = ThreadEvent()
        self._to_launch = [self._thread]
        self._is_launched = False
        self._wanted = True
        self._waited_for: set[ThreadEvent] = set()
        tell_of_forks(self)

    @property
    def is_running(self) -> bool:
        """Whether its loop has begun and not ended."""
        # while the interpreter is finalized, only the main thread runs
        return self._started.is_set and not self.has_ended and not sys.is_finalizing()

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

    def submit(self, job: Job[Any]) -> None:
        """Have the loop run a job, once.

        Jobs take their first steps in the order in which they were submitted. What is submitted to a loop
        that is ending does not run.
        """
        self._submitted.append(job)
        self._wake_soon()

    def give_up(self, job: Job[Any]) -> None:
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
        self._wake_soon()

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
        # not imported before, so that a program under trio does not import asyncio
        from mellea_sc.runtime.loops import asyncio_loop

        self._call_soon_in = asyncio_loop.call_soon_in
        self._start_task = asyncio_loop.start_task_of_loop
        self.loop = running_loop()
        self._over = anyio.Event()
        self._started.set()
        self._wake()  # for what was asked before there was a loop to wake
        await self._over.wait()

    def _wake(self) -> None:
        # looked at first, because what was submitted before stop() was called is to run
        is_wanted = self._wanted
        while self._submitted:
            self._take_next()
        self._takes_jobs = is_wanted
        for job in tuple(self._running):
            if job.is_given_up:
                job.cancel("the call was interrupted")
            elif self.is_cancelled:
                job.cancel("its thread is ending")
        self._end_if_idle()

    def _take_next(self) -> None:
        # a function of its own: a job must not be held while the thread waits for more
        job = self._submitted.popleft()
        if job.is_given_up:
            job.cancel("the call was interrupted")
        elif self._takes_jobs:
            job.start(self._start_task, self._job_ended)
            self._running.add(job)

    def _job_ended(self, job: Job[Any]) -> None:
        self._running.discard(job)
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if not self._takes_jobs and not self._running:
            self._over.set()

    def _wake_soon(self) -> None:
        if self.is_running:
            self._call_soon_in(self.loop, self._wake)


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
