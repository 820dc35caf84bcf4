"""Who owns tasks: one session's tasks in one event loop.

A nursery holds two task groups, one inside the other::

    hosts                     what tasks need: the backend's connections, and the watch over how long is
      │                       waited for deltas and verdicts; each from its first use on
      └─ tasks                the generations, runs and validations, each in a cancel scope of its own

Leaving it normally *joins*: producers that wait for a reader are let go, every task runs to its end,
then the connections are closed. Leaving it by an exception or a cancellation *cancels* the tasks and
waits for their cleanup; the connections are closed after that, shielded and bounded in time, so that
a task that is closing its response still has them.

A nursery may have guests: nurseries of clones of its session, whose tasks are started in a task of its hosts. They
are cancelled with its tasks, and joined after these, which may use them to the end.

A task's error belongs to the thunk or run that the task computes. Those report here what nobody has
observed yet, and what is left of that when the nursery is left is raised in one group.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import Context, ContextVar, Token, copy_context
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar, TypeVarTuple

import anyio
import anyio.abc
import anyio.lowlevel
import attrs

from mellea_sc.core.backend import Backend, Format, schema_of
from mellea_sc.core.errors import (
    BackendError,
    BudgetExceeded,
    GenerationCancelled,
    SessionClosed,
)
from mellea_sc.core.model_options import ModelOptions, merge_options
from mellea_sc.runtime.deadlines import DeadlineTimer, WaitTimeout
from mellea_sc.runtime.failures import (
    failure_of,
    leaves_of,
    raise_unchanged,
    stray_cancellation_as,
)
from mellea_sc.runtime.loops.current import (
    check_loop,
    checkpoint_before_error,
    current_loop,
    has_ended,
    running_loop,
    running_task,
    tell_if_never_started,
)
from mellea_sc.runtime.loops.notebook import hear_interrupts
from mellea_sc.runtime.pacing import Slot, Slots, Valves
from mellea_sc.runtime.unobserved import OnError, OwnError, Unobserved, log_unobserved

if TYPE_CHECKING:
    from mellea_sc.runtime.adopted import AdoptedNursery

__all__ = [
    "CLEANUP_TIMEOUT",
    "Nursery",
    "current_nursery",
    "reraise_if_cancelled",
]

CLEANUP_TIMEOUT: Final = 5.0
"""Seconds that closing connections may take when a nursery is left."""

T = TypeVar("T")
PosArgs = TypeVarTuple("PosArgs")

_current: Final[ContextVar[Nursery | None]] = ContextVar("mellea_sc_current_nursery", default=None)


def current_nursery() -> Nursery | None:
    """The nursery of the innermost open session of the calling task, in this event loop."""
    nursery, here = _current.get(), running_loop()
    while nursery is not None and not (nursery.is_open and nursery.loop is here):
        nursery = nursery.outer
    return nursery


def _as_it_is(format: Format | None) -> Format | None:
    schema_of(format)
    return format


@attrs.define(eq=False)
class _Link:
    """A backend's connections: being opened, open, or failed."""

    own_error: OwnError
    settled: anyio.Event = attrs.field(factory=anyio.Event)
    given_up: anyio.Event = attrs.field(factory=anyio.Event)
    scope: anyio.CancelScope = attrs.field(factory=lambda: anyio.CancelScope(shield=True))
    backend: Backend | None = None


class Nursery:
    """One session's tasks in one event loop; an async context manager, entered once.

    Args:
        backend: What generations of this nursery are made with.
        options: Model options that every generation starts from, on top of the backend's own.
        on_error: ``"hold"``: a failure belongs to its thunk; ``"cancel"``: the first one cancels all;
            ``"log"``: as ``"hold"``, and what nobody observed is logged instead of kept and raised.
        max_concurrency: At most so many requests are in flight at the same time.
        check_format: Makes of a ``format=`` one that answers are held against, or raises.
        inside: The nursery that has the task in which this one is entered, if any: when that one is left, the
            producers of this one do not wait for readers any more.
        name: For people.
    """

    tasks: anyio.abc.TaskGroup
    _hosts: anyio.abc.TaskGroup
    _context: Context
    _groups: AbstractAsyncContextManager[None]
    _token: Token[Nursery | None]

    def __init__(
        self,
        backend: Backend,
        *,
        options: ModelOptions | None = None,
        on_error: OnError = "hold",
        max_concurrency: int | None = None,
        check_format: Callable[[Format | None], Format | None] = _as_it_is,
        inside: Nursery | None = None,
        name: str = "a session",
    ) -> None:
        self.backend = backend
        self.check_format: Callable[[Format | None], Format | None] = check_format
        self.own_options: ModelOptions = options or {}
        self.options: ModelOptions = merge_options(backend.model_options, options)
        self.on_error: OnError = on_error
        self.name = name
        self.loop: object = current_loop()
        self.cancel_reason: str | None = None
        self.is_open: bool = False
        self.outer: Nursery | None = None
        self._link: _Link | None = None
        self._guests: set[AdoptedNursery] = set()
        self.unobserved: Unobserved = Unobserved(name, on_error)
        self._cancelled = False
        self._is_inside = inside is not None
        self.valves: Valves = Valves() if inside is None else inside.valves
        self._slots = None if max_concurrency is None else Slots(max_concurrency, self.valves)
        self._watch = DeadlineTimer()
        self.now: Callable[[], float] = self._watch.now
        """The clock of its event loop."""

    # --- its life -------------------------------------------------------------------------

    @asynccontextmanager
    async def _task_groups(self) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as self._hosts:
            try:
                async with anyio.create_task_group() as self.tasks:
                    self.is_open = True
                    if self._cancelled:
                        self.tasks.cancel_scope.cancel(self.cancel_reason)
                    yield
                    if not self._is_inside:
                        self.valves.drain()
                # not before: until now, what runs here may start something there
                for guest in list(self._guests):
                    guest.leave()
            finally:
                self.is_open = False
                self._close_link()

    async def __aenter__(self) -> Self:
        hear_interrupts()
        self._context = copy_context()
        self._groups = self._task_groups()
        await self._groups.__aenter__()
        self.outer = current_nursery()
        self._token = _current.set(self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        with suppress(ValueError):  # left in another context than it was entered in, as fixtures do
            _current.reset(self._token)
        swallowed: bool | None = False
        own = [] if exc is None else leaves_of(exc)
        errors: list[BaseException] = []
        try:
            swallowed = await self._groups.__aexit__(exc_type, exc, tb)  # noqa: ASYNC102 - it joins
        except BaseExceptionGroup as group:
            errors = leaves_of(group)
            if exc is not None:
                exc.__traceback__ = tb  # without the frames through which it came into the group
        except anyio.get_cancelled_exc_class():  # noqa: ASYNC103 - errors go before, as in a task group
            errors.extend(self.unobserved.take())
            if not errors and not own:
                raise
        known = {id(error): error for error in [*errors, *self.unobserved.take()]}
        errors = [error for error in known.values() if all(error is not one for one in own)]
        if isinstance(exc, KeyboardInterrupt | SystemExit | GeneratorExit):
            log_unobserved(self.name, errors)
            return False
        interrupts = [error for error in errors if isinstance(error, KeyboardInterrupt)]
        if (
            interrupts and not own
        ):  # Ctrl-C while it joined: as itself, as Python ends a program by it
            log_unobserved(self.name, [error for error in errors if error not in interrupts])
            raise_unchanged(interrupts[0])
        if errors:
            what = f"errors in {self.name} that nobody observed"
            if own and exc is not None:
                errors.insert(0, exc)
                what = f"its block was left by an error, and there are {what}"
            await checkpoint_before_error()  # noqa: ASYNC102 - one step
            raise_unchanged(BaseExceptionGroup(what, errors))
        return bool(swallowed)

    def cancel(self, reason: str | None = None) -> None:
        """Cancel every task, and whoever is inside the block; without effect after it was left.

        Raises:
            WrongEventLoop: it belongs to another event loop.
        """
        check_loop(self.loop, self.name)
        self.cancel_reason = reason
        self._cancelled = True
        if self.is_open:
            self.tasks.cancel_scope.cancel(reason)
        for guest in list(self._guests):
            guest.nursery.cancel(reason)

    # --- its tasks ------------------------------------------------------------------------

    def start(
        self,
        function: Callable[[*tuple[*PosArgs]], Coroutine[object, object, None]],
        *args: *PosArgs,
        name: str,
        on_never_started: Callable[[], None],
        tasks: anyio.abc.TaskGroup | None = None,
    ) -> None:
        """Start a task in this nursery.

        Args:
            function: What the task runs.
            args: Its arguments.
            name: For people.
            on_never_started: Called if the task was dropped before its first step.
            tasks: A task group inside this nursery, where the task goes instead.

        Raises:
            SessionClosed: it has been left or cancelled.
            WrongEventLoop: it belongs to another event loop.
        """
        self.check_usable()
        (tasks or self.tasks).start_soon(
            tell_if_never_started(partial(function, *args), on_never_started), name=name
        )

    async def call(
        self,
        function: Callable[[*tuple[*PosArgs]], Awaitable[T]],
        *args: *PosArgs,
        name: str,
    ) -> T:
        """Run a function in a task of this nursery, and return what it returns.

        Raises:
            SessionClosed: the nursery has been left or cancelled.
            GenerationCancelled: it was cancelled meanwhile.
            Exception: as the function raised it.

        Cancellation: the task is cancelled too, and its cleanup is waited for.
        """
        ended = anyio.Event()
        scope = anyio.CancelScope()
        outcome: list[T] = []
        own_error = OwnError(self.unobserved)

        async def run() -> None:
            task = running_task()
            try:
                with scope:
                    outcome.append(await function(*args))
            except BaseException as error:  # noqa: ASYNC103 - what failure_of() does not know is raised
                if (failure := failure_of(error, name, task)) is None:
                    raise
                own_error.fail(failure)
            finally:
                ended.set()

        self.start(run, name=name, on_never_started=ended.set)
        try:
            await ended.wait()
        except BaseException:
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await ended.wait()
            raise
        if own_error.error is not None:
            raise own_error.to_raise()
        if not outcome:
            # Whoever is cancelled together with it is cancelled, and sees no failure.
            await anyio.lowlevel.checkpoint()
            raise GenerationCancelled(self.cancel_reason)
        return outcome[0]

    @property
    def is_cancelled(self) -> bool:
        """Whether its tasks are being cancelled, or were."""
        return self.is_open and self.tasks.cancel_scope.cancel_called

    def check_usable(self) -> None:
        """Raise unless a task could be started here now."""
        check_loop(self.loop, self.name)
        if not self.is_open or self.is_cancelled or has_ended(self.tasks):
            why = f" ({self.cancel_reason})" if self.cancel_reason else ""
            raise SessionClosed(f"{self.name} has ended{why}: nothing can be started in it")

    # --- nurseries of others that live in this one --------------------------------------------

    def admit(self, guest: AdoptedNursery) -> None:
        """Hold another nursery: it is cancelled with this one, or joined after the tasks of this one.

        Raises:
            SessionClosed: this one has been left or cancelled.
            WrongEventLoop: it belongs to another event loop.
        """
        self.check_usable()
        self._start_host(guest.run, name=guest.name, on_never_started=guest.has_left)
        self._guests.add(guest)

    def dismiss(self, guest: AdoptedNursery) -> None:
        """A guest has ended."""
        self._guests.discard(guest)

    # --- what generations need --------------------------------------------------------------

    def slot(self, limit: WaitTimeout | None = None) -> Slot:
        """A place among the ``max_concurrency`` requests in flight, to be entered; see :class:`Slot`."""
        return Slot(self._slots, limit)

    def limit(self, seconds: float, scope: anyio.CancelScope | None = None) -> WaitTimeout:
        """A bound on each of the waits within a block; see :class:`WaitTimeout`."""
        if not self._watch.is_running:
            self._start_watch()
        return WaitTimeout(self._watch, seconds, scope)

    def _start_watch(self) -> None:
        self._watch.is_running = True
        self._start_host(self._watch.run, name=f"watch of {self.name}")

    def _start_host(
        self,
        function: Callable[[], Coroutine[object, object, None]],
        *,
        name: str,
        on_never_started: Callable[[], None] = lambda: None,
    ) -> None:
        # in the nursery's own context: in that of who asked first, the task would keep all of it alive
        begin = tell_if_never_started(function, on_never_started)
        self._context.run(partial(self._hosts.start_soon, begin, name=name))

    async def connection(self) -> Backend:
        """The backend with its connections open; they are opened by the first who asks.

        Raises:
            Exception: as the backend raised it on opening; the next who asks tries again.

        Cancellation: the connections go on being opened, for others.
        """
        link = self.connect()
        if link.backend is None:
            await link.settled.wait()
        if link.backend is None:
            raise link.own_error.to_raise()
        return link.backend

    def connect(self) -> _Link:
        """Begin to open the connections, if nobody has: for a :meth:`connection` that will be asked for."""
        if self._link is None:
            # not later: what asyncio starts just before it ends has no first step
            if not self._watch.is_running:
                self._start_watch()
            self._link = _Link(OwnError(self.unobserved))
            self._start_host(partial(self._host, self._link), name=f"connections of {self.name}")
        return self._link

    async def _host(self, link: _Link) -> None:
        backend, task = self.backend, running_task()
        name = f"{backend.provider} ({backend.model_id})"
        try:
            with link.scope, stray_cancellation_as(name, BackendError):
                async with backend.connected() as link.backend:
                    link.settled.set()
                    await link.given_up.wait()
        except BaseException as raised:  # noqa: ASYNC103 - what failure_of() does not know is raised
            if (error := failure_of(raised, name, task)) is None:
                raise
            link.own_error.fail(error)
            if (
                link.backend is None
            ):  # it is raised to who waits for the connections; the next one tries again
                self._link = None
        finally:
            if link.backend is None and link.own_error.error is None:
                closed = SessionClosed(f"{self.name} has ended: its connections were not opened")
                link.own_error.fail(closed)
                link.own_error.mark_raised()  # only who waits for them is to know
            link.settled.set()

    def _close_link(self) -> None:
        self._watch.close()
        if (link := self._link) is not None:
            link.given_up.set()
            if link.settled.is_set():
                link.scope.deadline = anyio.current_time() + CLEANUP_TIMEOUT
            else:
                link.scope.cancel()


async def reraise_if_cancelled(error: Exception) -> None:
    """If the caller is being cancelled, raise that instead of an error that may only tell of it.

    Who is cancelled together with its session, or by a limit, is cancelled and sees no error.
    """
    if isinstance(error, SessionClosed | BudgetExceeded):
        await anyio.lowlevel.checkpoint_if_cancelled()
