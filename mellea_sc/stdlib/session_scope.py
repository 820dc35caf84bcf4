"""A session's life: from the first task to the last, in whichever event loops it is used.

Its tasks live in a nursery (``runtime/nursery.py``), one per event loop: the block's
(``async with session:``), one that the running loop hosts (a bare session), or one in the session's own
thread (blocking calls, ``runtime/portal.py``).
"""

from __future__ import annotations

import inspect
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable
from functools import partial
from types import FrameType, TracebackType
from typing import Final, Self, TypeVar, get_args

import anyio
import anyio.lowlevel
import anyio.to_thread

from mellea_sc.core.backend import Backend
from mellea_sc.core.errors import InvalidOption, SessionClosed, WrongEventLoop
from mellea_sc.core.model_options import ModelOptions, merge_options
from mellea_sc.runtime.adopted import AdoptedNursery
from mellea_sc.runtime.failures import raise_unchanged, raises_briefly
from mellea_sc.runtime.generation.bound import BoundBackend, SpawnTarget
from mellea_sc.runtime.loop_thread import PATIENCE
from mellea_sc.runtime.loops.current import current_loop, may_run, running_loop
from mellea_sc.runtime.loops.forks import tell_of_forks
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.portal import SyncPortal, refuse_in_event_loop
from mellea_sc.runtime.unobserved import OnError, log_unobserved
from mellea_sc.stdlib.formats import checked

__all__ = ["SessionScope"]

T = TypeVar("T")


class SessionScope:
    """Owns the tasks that are started through it, in every event loop that it is used in.

    Args:
        backend: What generates.
        model_options: For every generation.
        on_error: Whether a failure is held for its thunk, cancels all, or is logged when nobody observed it.
        max_concurrency: At most so many requests are in flight at the same time, in each event loop.
        host: A session that owns what this one starts.
    """

    backend: BoundBackend
    """The backend, bound to this session: what is generated with it runs in the session's nursery."""

    def __init__(
        self,
        backend: Backend,
        *,
        model_options: ModelOptions | None,
        on_error: OnError,
        max_concurrency: int | None,
        host: SessionScope | None = None,
    ) -> None:
        if on_error not in get_args(OnError):
            raise InvalidOption(f'on_error must be "hold", "cancel" or "log", not {on_error!r}')
        if max_concurrency is not None and max_concurrency < 1:
            raise InvalidOption(f"max_concurrency must be at least 1, not {max_concurrency!r}")
        self._options = merge_options(model_options)
        self._on_error: OnError = on_error
        self._max_concurrency = max_concurrency
        self._raw = backend
        self._block: Nursery | None = None
        self._adopted: dict[object, AdoptedNursery] = {}
        self._lock = threading.Lock()
        self._ended: str | None = None
        self._host = host
        self._portal: SyncPortal = SyncPortal(self) if host is None else host._portal
        self.backend = BoundBackend(self._place, backend)
        tell_of_forks(self)

    def __repr__(self) -> str:
        state = f"ended: {self._ended}" if self._ended else "open"
        return f"<{type(self).__name__} of {self._raw!r}, {state}>"

    def _check_open(self) -> None:
        if self._host is not None:
            self._host._check_open()
        if self._ended:
            raise SessionClosed(f"the session has ended ({self._ended}): start another one")

    # --- its life ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._ended or self._block is not None or self._adopted:
            raise SessionClosed("a session is entered once, before it is used: start another one")
        _warn_in_generator(sys._getframe(1))
        nursery = self._make_nursery()
        await nursery.__aenter__()
        self._block = nursery
        return self

    @raises_briefly
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:  # a plain bool would tell type checkers that any exception may be swallowed
        """Join what is running, or cancel it when the block raised; then end.

        Raises:
            ExceptionGroup: of the errors that nobody observed.
        """
        if self._block is None:  # in a forked child
            if exc is not None:
                return False
            raise WrongEventLoop("the session's block belongs to the process that was forked")
        try:
            return await self._block.__aexit__(exc_type, exc, tb)  # noqa: ASYNC102 - it joins
        finally:
            self._ended = self._ended or "its block was left"
            await self._end_thread(cancel=exc is not None)  # noqa: ASYNC102 - bounded where it has to be

    def __enter__(self) -> Self:
        refuse_in_event_loop("with start_session()", "async with start_session() as m:")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if exc is None:
            self.close()
            return
        try:
            self._close(cancel="its block raised an exception")
        except ExceptionGroup as group:
            if isinstance(exc, Exception):
                what = f"its block was left by an error, and there are {group.message}"
                raise_unchanged(ExceptionGroup(what, [exc, *group.exceptions]))
            log_unobserved("the session", list(group.exceptions))

    @raises_briefly
    async def aclose(self) -> None:
        """Wait for what is running in this event loop and for blocking calls, and end the session.

        Raises:
            WrongEventLoop: the session is running in another event loop, and not in this one.
            ExceptionGroup: of the errors that nobody observed.

        Cancellation: what is running is cancelled too, and its cleanup is waited for; errors that nobody
        observed go before.
        """
        self._check_not_elsewhere()
        try:
            await self._end_here()
        except BaseException as error:
            cancel = not isinstance(error, Exception)
            await self._end_thread(cancel=cancel)  # noqa: ASYNC102, ASYNC120 - bounded then
            raise
        await self._end_thread(cancel=False)

    async def _end_here(self) -> None:
        self._ended = self._ended or "it was closed"
        loop = current_loop()
        adopted = self._adopted.get(loop)
        if adopted is not None:
            try:
                await adopted.aclose()
            finally:
                with self._lock:
                    self._adopted.pop(loop, None)

    async def _end_thread(self, *, cancel: bool) -> None:
        """End the thread of blocking calls, that other threads have made.

        Args:
            cancel: Cancel the calls, instead of waiting for them.

        Cancellation: the calls are cancelled too, and the thread's end is waited for, a bounded time.
        """
        if self._host is not None or not self._portal.is_running:
            return
        if not cancel:
            try:
                await anyio.to_thread.run_sync(self._portal.close, abandon_on_cancel=True)
            except BaseException:
                await self._end_thread(cancel=True)  # noqa: ASYNC102, ASYNC120 - shields itself
                raise
        else:
            with anyio.move_on_after(PATIENCE, shield=True):
                close = partial(self._portal.close, cancel=True)
                await anyio.to_thread.run_sync(close, abandon_on_cancel=True)

    def close(self) -> None:
        """The blocking half of :meth:`aclose`: ends what blocking calls have started, and their thread.

        Raises:
            WrongEventLoop: the session is running in another thread's event loop.
            ExceptionGroup: of the errors that nobody observed.
        """
        self._check_not_elsewhere()
        self._close(cancel=None)

    cleanup = close
    """Mellea's name for :meth:`close`."""

    def _close(self, cancel: str | None) -> None:
        async def close() -> None:
            if cancel is not None:
                self._cancel_here(cancel)
            await self._end_here()

        if self._portal.is_running:
            refuse_in_event_loop("m.close()", "await m.aclose()")
        self._ended = self._ended or "it was closed"
        if not self._portal.is_running:
            return
        try:
            self._portal.call(close)
        finally:
            if self._host is None:
                self._portal.close()

    def cancel(self, reason: str | None = None) -> None:
        """Cancel everything that the session runs, and end it.

        Inside its block, the block is cancelled too. Blocking calls are cancelled wherever this is called.

        Args:
            reason: Said in the errors of what is cancelled.

        Raises:
            WrongEventLoop: the session is running in another event loop, and not in this one; nothing is
                cancelled.
        """
        self._check_not_elsewhere()
        self._ended = f"it was cancelled{f': {reason}' if reason else ''}"
        here = running_loop()
        if here is not None:
            self._cancel_here(reason)
        if self._portal.is_running and self._portal.loop is not here:

            async def cancel() -> None:  # noqa: ASYNC124 - the portal wants one
                self._cancel_here(reason)

            self._portal.submit(cancel)

    def _cancel_here(self, reason: str | None) -> None:
        loop = current_loop()
        if (adopted := self._adopted.get(loop)) is not None:
            adopted.nursery.cancel(reason)
        elif self._block is not None and self._block.loop is loop:
            self._block.cancel(reason)

    def _check_not_elsewhere(self) -> None:
        """Raise if the session is running in event loops of which none runs here; its own thread is here."""
        here, own = running_loop(), self._portal.loop
        loops: list[object] = []
        if self._block is not None and self._block.is_open:
            loops.append(self._block.loop)
        # a copy and no lock: a signal's handler that calls would wait, with the lock, for a thread that wants it
        adopted = self._adopted.copy()
        loops += [loop for loop, nursery in adopted.items() if not nursery.has_ended]
        loops = [loop for loop in loops if loop is not own and (loop is here or may_run(loop))]
        if loops and all(loop is not here for loop in loops):
            raise WrongEventLoop("the session is running in another event loop: end it there")

    def forked(self) -> None:
        """The child uses the session anew: what was running is in the parent."""
        self._lock = threading.Lock()
        self._block = None
        self._adopted.clear()

    def __del__(self) -> None:
        if not getattr(self, "_ended", True) and self._adopted and self._host is None:
            warnings.warn(
                f"unclosed session {self!r}: use it as a block, or end it by `await m.aclose()` "
                "(after blocking calls by `m.close()`)",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def _make_nursery(self) -> Nursery:
        return Nursery(
            self._raw,
            options=self._options,
            on_error=self._on_error,
            max_concurrency=self._max_concurrency,
            check_format=checked,
            name="the session",
        )

    async def _nursery(self) -> Nursery:
        """The nursery of the running event loop, which adopts the session if it has to."""
        loop = current_loop()
        if self._block is not None and self._block.loop is loop:
            if self._block.is_cancelled:
                # who is cancelled with its session is cancelled, and sees no error
                await anyio.lowlevel.checkpoint_if_cancelled()
            self._block.check_usable()
            return self._block
        self._check_open()
        host = None if self._host is None else await self._host._nursery()
        with self._lock:
            adopted = self._adopted.get(loop)
            if adopted is None:
                ended = [other for other, one in self._adopted.items() if one.has_ended]
                for other in ended:
                    del self._adopted[other]
                adopted = self._adopted[loop] = AdoptedNursery(self._make_nursery(), host)
        return await adopted.ready()

    async def _place(self) -> SpawnTarget:
        nursery = await self._nursery()
        return SpawnTarget(nursery, nursery.tasks)

    def run_blocking(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an async function in the session's own event-loop thread and wait for it.

        Raises:
            SessionClosed: the session has ended, or the interpreter is ending and starts no more threads.
            SyncCallInEventLoop: an event loop runs in this thread.
        """
        refuse_in_event_loop("a blocking call", "await")
        self._check_open()
        return self._portal.call(function)


def _warn_in_generator(entering: FrameType) -> None:
    """Warn of a block inside an async generator, which may be ended in another task than it has begun in (PEP 789)."""
    if not entering.f_code.co_flags & inspect.CO_ASYNC_GENERATOR:
        return
    driver = entering.f_back
    if driver is not None and driver.f_globals.get("__name__", "").startswith(_ENDS_WHERE_IT_BEGAN):
        return
    warnings.warn(
        "a session is opened inside an async generator. If that is not read to its end, its session will end in "
        "another task, or never. Make the generator an @asynccontextmanager, open the session outside of it, or "
        "answer a web request with mellea_sc.asgi.SSEResponse",
        RuntimeWarning,
        stacklevel=3,
    )


_ENDS_WHERE_IT_BEGAN: Final = ("contextlib", "anyio.", "pytest_trio.")
"""Who drives async generators so that both happens in one task: context managers, and fixtures of tests."""
