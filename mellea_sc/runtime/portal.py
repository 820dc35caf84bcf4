"""Blocking calls: one event-loop thread that a session owns and ends.

A blocking call runs its async half in that thread and waits for it. Ctrl-C in the waiting thread
cancels the async half, waits for its cleanup, and then is raised.
"""

from __future__ import annotations

import concurrent.futures
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Final, TypeVar

import anyio

from mellea_sc.core.errors import SessionClosed, SyncCallInEventLoop
from mellea_sc.runtime.loop_thread import (
    POLL_INTERVAL,
    THREAD_TIMEOUT,
    Job,
    LoopThread,
    ThreadEvent,
)
from mellea_sc.runtime.loops.current import call_soon_in, current_loop, running_loop
from mellea_sc.runtime.loops.forks import tell_of_forks
from mellea_sc.runtime.loops.notebook import in_cell
from mellea_sc.runtime.unobserved import log_unobserved

T = TypeVar("T")

_is_blocking_call: Final[ContextVar[bool]] = ContextVar("mellea_sc_blocking_call", default=False)


def is_blocking_call() -> bool:
    """Whether a thread waits for what the calling task does, in a blocking call."""
    return _is_blocking_call.get()


def refuse_in_event_loop(what: str, instead: str) -> None:
    """Raise if a blocking call would block a running event loop. That of a notebook stands still during a cell anyway.

    Raises:
        SyncCallInEventLoop: an event loop runs in this thread.
    """
    if running_loop() is not None and not in_cell():
        raise SyncCallInEventLoop(
            f"{what} would block the event loop that runs here: use `{instead}` instead"
        )


class SyncPortal:
    """The event-loop thread of one session; started by the first call.

    The thread ends at the latest when the portal is garbage collected, or the interpreter exits.

    A signal's handler and a finalizer may make a call in the middle of another one, in the same thread.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._thread: LoopThread | None = None
        self._is_closed = False
        tell_of_forks(self)

    @property
    def is_running(self) -> bool:
        """Whether the thread has been started and not ended."""
        return self._thread is not None and self._thread.is_running

    @property
    def loop(self) -> object | None:
        """The event loop of the thread, if that is running."""
        thread = self._thread
        return thread.loop if thread is not None and thread.is_running else None

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an async function in the thread and wait for what it returns.

        Raises:
            Exception: as the function raised it.
            SystemExit: raised in the function or beside it; the thread has ended.
            SessionClosed: the thread was ended before the function, or cannot be started any more.
            concurrent.futures.CancelledError: the function has cancelled its own task.
            KeyboardInterrupt: Ctrl-C; the function has been cancelled and has cleaned up, unless Ctrl-C
                came again. What it has raised itself is logged.
        """
        with self._lock:
            thread = self._usable_thread()
        context = copy_context()
        context.run(_is_blocking_call.set, True)
        job = Job(function, context)
        try:
            # Ctrl-C may come in here as well, when the function is running already
            thread.submit(job)
            thread.wait(job.ended)
        except BaseException:
            # Without a call, in which the next signal may come: the loop sees it at the latest when it is asked for more.
            job.is_given_up = True
            if not job.ended.is_set:
                thread.give_up(job)
                thread.wait(job.ended, THREAD_TIMEOUT)
            log_unobserved("an interrupted call", job.failure)
            raise
        return _result_of(job, thread)

    def _usable_thread(self) -> LoopThread:
        if self._is_closed:
            raise SessionClosed("the session has ended: start another one")
        if sys.is_finalizing():  # before Python 3.12 a thread could be started, and would never run
            raise SessionClosed("the interpreter is ending: make blocking calls before that")
        thread = self._thread
        if thread is None or thread.has_ended or thread.is_cancelled:
            made = LoopThread("mellea_sc sync calls")
            # One line without a call, where no signal comes in between: a handler that calls may have made one.
            self._thread = made if self._thread is thread else self._thread
            if self._thread is made:
                # at the interpreter's exit, the threads end themselves
                weakref.finalize(self, _end, made).atexit = False
            thread = self._thread
        assert thread is not None
        if not thread.is_running:
            thread.start()  # also where this is such a handler, in the middle of its start
        return thread

    def submit(self, function: Callable[[], Coroutine[object, object, None]]) -> None:
        """Have the thread run an async function, if it is running; without waiting for that."""
        if (thread := self._thread) is not None and thread.is_running:
            thread.submit(Job(function, copy_context()))

    def close(self, *, cancel: bool = False) -> None:
        """End the thread, for good, and wait for that; its event loop cancels and joins what is left in it.

        Args:
            cancel: Do not wait for the calls of other threads: cancel them, which raise ``SessionClosed``.
        """
        with self._lock:
            thread, self._is_closed = self._thread, True
        if thread is not None:
            thread.end(cancel=cancel)

    async def aclose(self, *, cancel: bool) -> None:
        """End the thread, if it is running, while the caller's event loop goes on.

        In the thread itself: have it end after its last call.

        Args:
            cancel: As of :meth:`close`.

        Cancellation: the calls are cancelled too, and the thread's end is waited for, a bounded time.
        """
        if (thread := self._thread) is None or not thread.is_running:
            return
        if thread.loop is current_loop():
            # The caller is one of the calls, for whose end the thread waits.
            self._is_closed = True
            thread.stop()
            return
        ended = anyio.Event()
        tell = partial(call_soon_in, current_loop(), ended.set)
        # Not a worker thread of anyio's: if Ctrl-C breaks off the loop, nobody ends those, and the interpreter
        # waits for them. Nor a timeout of the loop's: the thread counts the seconds, also where time is virtual.
        closing = threading.Thread(target=self._close_and_tell, args=(cancel, tell), daemon=True)
        closing.start()
        try:
            with anyio.CancelScope(shield=cancel):
                await ended.wait()
        except BaseException:
            if not cancel:
                await self.aclose(cancel=True)  # noqa: ASYNC102, ASYNC120 - shields itself
            raise
        closing.join()  # it has told, and ends

    def _close_and_tell(self, cancel: bool, tell: Callable[[], None]) -> None:
        try:
            self.close(cancel=cancel)
        finally:
            tell()

    def forked(self) -> None:
        """The child's first call starts a thread anew."""
        self._lock = threading.RLock()
        self._thread = None


def _result_of(job: Job[T], thread: LoopThread) -> T:
    """Return what a job has returned, or raise what it has raised, in the thread that has waited."""
    if job.failure:
        raise job.failure.pop()
    if job.returned:
        return job.returned[0]
    # it was cancelled: perhaps because the loop is ending
    if not thread.is_cancelled:
        thread.wait(ThreadEvent(), POLL_INTERVAL)
    if thread.failure is not None:
        raise thread.failure
    if thread.is_cancelled or thread.has_ended:
        raise SessionClosed("the session's thread of blocking calls has ended meanwhile")
    raise concurrent.futures.CancelledError


def _end(thread: LoopThread) -> None:
    try:
        thread.stop(cancel=True)
    except BaseException:
        thread.stop(cancel=True)  # Python ignores what a finalizer raises, Ctrl-C too
        raise
    # collected inside an event loop, perhaps the very one that is to end, it must not wait
    if running_loop() is None and not sys.is_finalizing():
        thread.join(THREAD_TIMEOUT)
