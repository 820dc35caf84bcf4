"""A session's life: from the first task to the last, in whichever event loops it is used, and in blocking calls.

::

    SessionLife ──> a Nursery per event loop     the block's (``async with session:``), or one that the running
        │                                        loop hosts (a bare session; ``runtime/adopted.py``)
        └─────────> a SyncPortal                 the session's own thread, for blocking calls

A session and its conversations share one life. A clone has one inside it, which may end before.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar, get_args

from mellea_sc.core.backend import Backend, ModelOptions, merge_options
from mellea_sc.core.errors import InvalidOption, SessionClosed, WrongEventLoop
from mellea_sc.core.question import check_count
from mellea_sc.runtime.adopted import AdoptedNursery
from mellea_sc.runtime.enclosing import enclosing_tasks, waits_for_itself
from mellea_sc.runtime.failures import shorten
from mellea_sc.runtime.generation.bound import SpawnTarget
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.loops.current import current_loop, is_closed, may_run, running_loop
from mellea_sc.runtime.loops.forks import tell_of_forks
from mellea_sc.runtime.nursery import Nursery, reraise_if_cancelled
from mellea_sc.runtime.portal import SyncPortal, refuse_in_event_loop
from mellea_sc.runtime.unobserved import OnError

if TYPE_CHECKING:
    from mellea_sc.stdlib.conversation import Conversation

P = ParamSpec("P")
T = TypeVar("T")


class SessionLife:
    """Says where a session's tasks go, in every event loop that it is used in, and ends them.

    Args:
        backend: What generates.
        model_options: For every generation.
        on_error: Whether a failure is held for its thunk, cancels all, or is logged when nobody observed it.
        max_concurrency: At most so many requests are in flight at the same time, in each event loop.
        around: The life that this one is inside of: it owns what is started here, and ends at the same time or later.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        model_options: ModelOptions | None,
        on_error: OnError,
        max_concurrency: int | None,
        around: SessionLife | None = None,
    ) -> None:
        if on_error not in get_args(OnError):
            raise InvalidOption(f'on_error must be "hold", "cancel" or "log", not {on_error!r}')
        check_count("max_concurrency", max_concurrency, or_none=True)
        self.backend: Backend = backend
        self.options: ModelOptions = merge_options(model_options)
        self.on_error: OnError = on_error
        self.portal: SyncPortal = SyncPortal() if around is None else around.portal
        self._max_concurrency = max_concurrency
        self._around = around
        self._block: Nursery | None = None
        self._is_hosted = False
        self._adopted: dict[object, AdoptedNursery] = {}  # by event loop
        self._lock = threading.Lock()
        self._ended: str | None = None
        tell_of_forks(self)

    def inner(self) -> SessionLife:
        """Another life, with the same settings, inside this one.

        Raises:
            SessionClosed: the session has ended.
        """
        self.check_open()
        return SessionLife(
            self.backend,
            model_options=self.options,
            on_error=self.on_error,
            max_concurrency=self._max_concurrency,
            around=self,
        )

    def __repr__(self) -> str:
        state = f"ended: {self._ended}" if self._ended else "open"
        return f"<MelleaSession of {self.backend!r}, {state}>"

    def __del__(self) -> None:
        if not getattr(self, "_ended", True) and self._adopted and self._around is None:
            warnings.warn(
                f"unclosed session {self!r}: use it as a block, or end it by `await m.aclose()` "
                "(after blocking calls by `m.close()`)",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def forked(self) -> None:
        """The child uses the session anew: what was running is in the parent."""
        self._lock = threading.Lock()
        self._block = None
        self._adopted.clear()

    # --- where its tasks go -------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise if nothing can be started any more.

        Raises:
            SessionClosed: the session has ended.
        """
        if self._around is not None:
            self._around.check_open()
        if self._ended:
            raise SessionClosed(f"the session has ended ({self._ended}): start another one")

    async def nursery(self) -> Nursery:
        """The nursery of the running event loop, which adopts the session if it has to.

        Raises:
            SessionClosed: the session has ended.
        """
        loop = running_loop()
        if self._block is not None and self._block.loop is loop:
            try:
                self._block.check_usable()
            except SessionClosed as error:
                await reraise_if_cancelled(error)  # noqa: ASYNC120 - that is the point
                raise
            return self._block
        self.check_open()
        if (adopted := self._adopted.get(loop)) is not None and adopted.nursery.is_open:
            return adopted.nursery
        host = None if self._around is None else await self._around.nursery()
        self._forget_closed_loops()
        with self._lock:
            adopted = self._adopted.get(loop)
            if adopted is None:
                ended = [other for other, one in self._adopted.items() if one.has_ended]
                for other in ended:
                    del self._adopted[other]
                adopted = self._adopted[loop] = AdoptedNursery(self._make_nursery(), host)
        return await adopted.ready()

    def _forget_closed_loops(self) -> None:
        for loop, adopted in self._adopted.copy().items():
            # In this order: in another thread, the tasks may end and the loop be closed between the two.
            if is_closed(loop) and not adopted.has_ended:
                self._adopted.pop(loop, None)
                # Nothing can be run in a closed loop, and asyncio has no other way to close a connection.
                warnings.warn(
                    f"{self!r} was used in an event loop that was closed before its tasks were cancelled, so its "
                    "connections stay open. Use asyncio.run() or asyncio.Runner(), which cancel them",
                    ResourceWarning,
                    stacklevel=2,
                    source=self,
                )

    def _make_nursery(self) -> Nursery:
        return Nursery(
            self.backend,
            options=self.options,
            on_error=self.on_error,
            max_concurrency=self._max_concurrency,
            name="the session",
        )

    async def place(self) -> SpawnTarget:
        """Where tasks go that are started in the running event loop now.

        Raises:
            SessionClosed: the session has ended.
        """
        nursery = await self.nursery()
        return SpawnTarget(nursery, nursery.tasks)

    def run_blocking(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an async function in the session's own thread and wait for it; see ``Conversation.run_blocking``."""
        refuse_in_event_loop("a blocking call", "await")
        self.check_open()
        return self.portal.call(function)

    # --- its block ----------------------------------------------------------------------------------

    async def enter(self, *, is_hosted: bool) -> None:
        """Its tasks go into the block of the caller from now on.

        Args:
            is_hosted: Whether the event loop hosts them instead, because the block may be left in another task.

        Raises:
            SessionClosed: the session has been used before, or has ended.
        """
        if self._ended or self._block is not None or self._adopted:
            raise SessionClosed("a session is entered once, before it is used: start another one")
        if is_hosted:
            self._is_hosted = True
            await self.nursery()
            return
        nursery = self._make_nursery()
        await nursery.__aenter__()
        self._block = nursery

    async def leave(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        """Join or cancel what is running, and end, as ``MelleaSession.__aexit__``.

        Returns:
            Whether the block's exception is swallowed, because it is the session's own cancellation.
        """
        if self._is_hosted:
            if exc is not None:
                self._cancel_here("its block raised an exception")
            await self.aclose()  # noqa: ASYNC102 - it joins
            return False
        if self._block is None:  # in a forked child
            if exc is not None:
                return False
            raise WrongEventLoop("the session's block belongs to the process that was forked")
        try:
            return await self._block.__aexit__(exc_type, exc, tb)  # noqa: ASYNC102 - it joins
        finally:
            self._ended = self._ended or "its block was left"
            await self._end_thread(cancel=exc is not None)  # noqa: ASYNC102 - bounded where it has to be

    # --- its ends -----------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Wait for what is running in this event loop and for blocking calls, and end; see ``MelleaSession.aclose``."""
        self.check_outside()
        self.check_runs_here()
        try:
            await self._end_here()
        except BaseException as error:
            cancel = not isinstance(error, Exception)
            await self._end_thread(cancel=cancel)  # noqa: ASYNC102, ASYNC120 - bounded then
            raise
        await self._end_thread(cancel=False)

    def close(self, *, cancel: str | None = None) -> None:
        """End what blocking calls have started, and their thread; see ``MelleaSession.close``.

        Args:
            cancel: Why it is cancelled, instead of waiting for it.

        Raises:
            SyncCallInEventLoop: an event loop runs in this thread.
        """

        async def end() -> None:
            if cancel is not None:
                self._cancel_here(cancel)
            await self._end_here()

        if self.portal.is_running:
            refuse_in_event_loop("m.close()", "await m.aclose()")
        self._ended = self._ended or "it was closed"
        if not self.portal.is_running:
            return
        try:
            with suppress(SessionClosed):  # it is being ended elsewhere, too
                self.portal.call(end)
        finally:
            if self._around is None:
                self.portal.close()

    def cancel(self, reason: str | None = None) -> None:
        """Cancel everything that is running, and end; see ``MelleaSession.cancel``."""
        self.check_runs_here()
        self._ended = f"it was cancelled{f': {reason}' if reason else ''}"
        here = running_loop()
        if here is not None:
            self._cancel_here(reason)
        if self.portal.loop is not here:

            async def cancel() -> None:  # noqa: ASYNC124 - the portal wants one
                self._cancel_here(reason)

            self.portal.submit(cancel)

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

    def _cancel_here(self, reason: str | None) -> None:
        loop = current_loop()
        if (adopted := self._adopted.get(loop)) is not None:
            adopted.nursery.cancel(reason)
        elif self._block is not None and self._block.loop is loop:
            self._block.cancel(reason)

    async def _end_thread(self, *, cancel: bool) -> None:
        if self._around is None:
            await self.portal.aclose(cancel=cancel)

    def check_outside(self) -> None:
        """Raise if the calling task is a part of what the session has to wait for at its end.

        Raises:
            UsageError: it is.
        """
        nurseries = [adopted.nursery for adopted in self._adopted.copy().values()]
        if self._block is not None:
            nurseries.append(self._block)
        if any(nursery.joins(task) for task in enclosing_tasks.get() for nursery in nurseries):
            raise waits_for_itself("the session", "To end it, call `m.cancel()`")

    def check_runs_here(self) -> None:
        """Raise if it is running in event loops of which none runs here; its own thread is here.

        Raises:
            WrongEventLoop: it is.
        """
        here, own = running_loop(), self.portal.loop
        loops: list[object] = []
        if self._block is not None and self._block.is_open:
            loops.append(self._block.loop)
        # a copy and no lock: a signal's handler that calls would wait, with the lock, for a thread that wants it
        adopted = self._adopted.copy()
        loops += [loop for loop, nursery in adopted.items() if not nursery.has_ended]
        loops = [loop for loop in loops if loop is not own and (loop is here or may_run(loop))]
        if loops and all(loop is not here for loop in loops):
            raise WrongEventLoop("the session is running in another event loop: end it there")


def blocking_half(
    method: Callable[Concatenate[Conversation, P], Coroutine[object, object, T]],
) -> Callable[Concatenate[Conversation, P], T]:
    """The blocking half of an a-method: same arguments, same result, which is computed on return."""
    name = method.__name__
    what, instead = f"m.{name[1:]}()", f"await m.{name}(…)"

    @wraps(method)
    def call(self: Conversation, /, *args: P.args, **kwargs: P.kwargs) -> T:
        async def until_computed() -> T:
            result = await method(self, *args, **kwargs)
            if isinstance(result, ModelOutputThunk):
                async with result:
                    await result.avalue()
            return result

        refuse_in_event_loop(what, instead)
        try:
            return self.run_blocking(until_computed)
        except (Exception, BaseExceptionGroup) as error:
            shorten(error)
            raise

    call.__name__ = name[1:]
    call.__qualname__ = method.__qualname__.replace(name, name[1:])
    call.__doc__ = (
        f"Like :meth:`{name}`, and waits until the result is computed.\n\n"
        "Runs in the session's own event-loop thread; Ctrl-C cancels what it started.\n\n"
        "Raises:\n    SyncCallInEventLoop: an event loop runs in this thread; the error names the a-method.\n"
        "    Exception: as awaiting the result raises it.\n"
    )
    return call
