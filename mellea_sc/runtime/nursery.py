"""Who owns tasks: one session's tasks in one event loop.

A nursery holds two task groups, one inside the other::

    hosts                     services that tasks need: the backend's connections, and the timer that
      │                       bounds the waits for deltas and verdicts; each is started at its first use
      └─ tasks                generations, runs and validations, each in a cancel scope of its own

A normal exit *joins*: producers stop waiting for their readers, every task runs to its end, then the
connections are closed. An exit by an exception or a cancellation *cancels* the tasks and waits for their
cleanup. The connections are closed after that, shielded and bounded in time, so that a task that is closing
its response still has them.

A nursery may have guests: the nurseries of its session's clones. Each runs in a task of the host's ``hosts``
group. Guests are cancelled together with the host's tasks, but joined after them, because a task of the host
may use a clone until its own end.

A task's error belongs to the thunk or run that the task computes. Errors that nobody has observed are
collected here, and raised in one group when the nursery is left.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import Context, ContextVar, Token, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel

from mellea_sc.core.backend import Backend, ModelOptions, merge_options
from mellea_sc.core.errors import BudgetExceeded, GenerationCancelled, SessionClosed, UsageError
from mellea_sc.runtime.connections import Connections
from mellea_sc.runtime.enclosing import EnclosingTask, enclosing_tasks
from mellea_sc.runtime.failures import (
    failure_of,
    leaf_errors,
    raise_unchanged,
    set_unchecked,
)
from mellea_sc.runtime.loops.current import (
    LoopServices,
    check_loop,
    checkpoint_before_error,
    current_loop,
    loop_services,
    running_loop,
    running_task,
)
from mellea_sc.runtime.loops.notebook import wake_loop_on_interrupts
from mellea_sc.runtime.pacing import Cancellable, DeadlineTimer, Slot, Slots, Valves, WaitTimeout
from mellea_sc.runtime.unobserved import OnError, OwnError, Unobserved, log_unobserved

if TYPE_CHECKING:
    from mellea_sc.runtime.adopted import AdoptedNursery

T = TypeVar("T")

_current: Final[ContextVar[Nursery | None]] = ContextVar("mellea_sc_current_nursery", default=None)


def current_nursery() -> Nursery | None:
    """The nursery of the innermost open session of the calling task, in this event loop."""
    nursery, here = _current.get(), running_loop()
    while nursery is not None and not (nursery.is_open and nursery.loop is here):
        nursery = nursery.outer
    return nursery


class Nursery:
    """One session's tasks in one event loop; an async context manager, entered once.

    Args:
        backend: What generations of this nursery are made with.
        options: Model options that every generation starts from, on top of the backend's own.
        on_error: ``"hold"``: a failure belongs to its thunk; ``"cancel"``: the first one cancels all;
            ``"log"``: as ``"hold"``, and what nobody observed is logged instead of kept and raised.
        max_concurrency: At most so many requests are in flight at the same time.
        inside: The nursery in one of whose tasks this one is entered, if any. Both share their valves, so that
            leaving the outer one also stops the back-pressure by readers in this one.
        name: For people.
    """

    tasks: anyio.abc.TaskGroup
    _hosts: anyio.abc.TaskGroup
    _context: Context
    _groups: AbstractAsyncContextManager[None]
    _token: Token[Nursery | None]
    _task: object

    def __init__(
        self,
        backend: Backend,
        *,
        options: ModelOptions | None = None,
        on_error: OnError = "hold",
        max_concurrency: int | None = None,
        inside: Nursery | None = None,
        name: str = "a session",
    ) -> None:
        self.backend = backend
        self.own_options: ModelOptions = options or {}
        self.options: ModelOptions = merge_options(backend.model_options, options)
        self.on_error: OnError = on_error
        self.name = name
        self.loop: object = current_loop()
        self.loop_services: LoopServices = loop_services()
        self.cancel_reason: str | None = None
        self.is_open: bool = False
        self.outer: Nursery | None = None
        self._connections: Connections | None = None
        self._guests: set[AdoptedNursery] = set()
        self.unobserved: Unobserved = Unobserved(name, on_error)
        self._cancelled = False
        self._is_inside = inside is not None
        self.valves: Valves = Valves() if inside is None else inside.valves
        self._slots = None if max_concurrency is None else Slots(max_concurrency, self.valves)
        self._timer = DeadlineTimer()
        self.now: Callable[[], float] = self._timer.now
        """The clock of its event loop."""

    # --- its life -------------------------------------------------------------------------

    @asynccontextmanager
    async def _task_groups(self) -> AsyncGenerator[None]:
        # A generator, because only nested "async with" blocks leave both groups in the right order on every
        # path. The yield is inside of task groups: allowed here, in an @asynccontextmanager (PEP 789).
        async with anyio.create_task_group() as self._hosts:
            try:
                async with anyio.create_task_group() as self.tasks:
                    self.is_open = True
                    if self._cancelled:  # cancel() was called before the groups were there
                        self.tasks.cancel_scope.cancel(self.cancel_reason)
                    yield
                    # A reader may never come. Without this, joining would wait for a producer that waits
                    # for its reader. A nursery inside another one shares the outer one's valves, and must
                    # not open those of its siblings.
                    if not self._is_inside:
                        self.valves.drain()
                # Only now that all tasks have ended: until then they may start something in a guest.
                for guest in list(self._guests):
                    guest.leave()
            finally:
                # Inside of the hosts' block: the hosts end by this, and the group waits for them.
                self._close_services()

    def _close_services(self) -> None:
        self.is_open = False
        self._timer.close()
        if self._connections is not None:
            self._connections.close()

    async def __aenter__(self) -> Self:
        wake_loop_on_interrupts()
        self._context = copy_context()
        self._groups = self._task_groups()
        await self._groups.__aenter__()
        self.outer = current_nursery()
        self._token = _current.set(self)
        self._task = running_task()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        if (task := running_task()) is not None and task is not self._task:
            # A task group cannot be left there: what it runs is cancelled, and nobody can wait for it.
            self.cancel("it was left in another task than it was entered in")
            self._close_services()
            raise UsageError(
                f"{self.name} was left in another task than it was entered in, so what it ran was cancelled: leave it "
                "in the same task, or use it without a block and call `await m.aclose()`"
            )
        # A fixture may leave it in another context than it was entered in: then the variable was not changed here.
        with suppress(ValueError):
            _current.reset(self._token)
        swallowed: bool | None = False
        # The error that leaves the block is not "unobserved": whoever catches it gets it. It must not be
        # raised a second time in the group.
        own = [] if exc is None else leaf_errors(exc)
        errors: list[BaseException] = []
        try:
            swallowed = await self._groups.__aexit__(exc_type, exc, tb)  # noqa: ASYNC102 - it joins
        except BaseExceptionGroup as group:
            errors = leaf_errors(group)
            if exc is not None:
                # the task groups have added their own frames to it
                set_unchecked(exc, "__traceback__", tb)
        except anyio.get_cancelled_exc_class():  # noqa: ASYNC103 - errors have priority, as in a task group
            # Replaced only if there are errors to raise instead. A cancel scope around this block delivers its
            # cancellation again at the next checkpoint.
            errors.extend(self.unobserved.take())
            if not errors and not own:
                raise
        # A task that ended the group (on_error="cancel") has its error in both lists: by identity, each once.
        known = {id(error): error for error in [*errors, *self.unobserved.take()]}
        errors = [error for error in known.values() if all(error is not one for one in own)]
        if isinstance(exc, KeyboardInterrupt | SystemExit | GeneratorExit):
            # Python treats these three specially, and does not find them inside of a group. So they leave
            # unchanged, and the other errors can only be logged.
            log_unobserved(self.name, errors)
            return False
        exits = [error for error in errors if isinstance(error, KeyboardInterrupt | SystemExit)]
        if exits and not own:
            # Ctrl-C while it joined, or sys.exit() in a task: raised outside of a group, for the same reason.
            log_unobserved(self.name, [error for error in errors if error not in exits])
            raise_unchanged(exits[0])
        if errors:
            what = f"errors in {self.name} that nobody observed"
            if own and exc is not None:
                errors.insert(0, exc)
                what = f"its block was left by an error, and there are {what}"
            # Without this step the new group would be raised while a cancellation is still being thrown into
            # this coroutine, and Python would show that cancellation as the group's context.
            await checkpoint_before_error()  # noqa: ASYNC102 - one step
            raise_unchanged(BaseExceptionGroup(what, errors))
        return bool(swallowed)

    def cancel(self, reason: str | None = None) -> None:
        """Cancel every task, and the code inside the block; without effect after it was left.

        Raises:
            WrongEventLoop: it belongs to another event loop.
        """
        check_loop(self.loop, self.name)
        self.cancel_reason = reason
        self._cancelled = True  # remembered for _task_groups(), if it is not entered yet
        if self.is_open:
            self.tasks.cancel_scope.cancel(reason)
        for guest in list(self._guests):
            guest.nursery.cancel(reason)

    # --- its tasks ------------------------------------------------------------------------

    def start(
        self,
        function: Callable[[], Coroutine[object, object, None]],
        *,
        name: str,
        on_never_started: Callable[[], None],
        tasks: anyio.abc.TaskGroup | None = None,
    ) -> None:
        """Start a task in this nursery.

        Args:
            function: What the task runs.
            name: For people.
            on_never_started: Called if the task was dropped before its first step.
            tasks: A task group inside this nursery, to start the task in instead.

        Raises:
            SessionClosed: it has been left or cancelled.
            WrongEventLoop: it belongs to another event loop.
        """
        self.check_usable()
        self.loop_services.start_task(
            tasks or self.tasks, function(), name=name, on_never_started=on_never_started
        )

    async def call(self, function: Callable[[], Awaitable[T]], *, name: str) -> T:
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
        enclosing = EnclosingTask(self)

        async def run() -> None:
            task = self.loop_services.current_task()
            enclosing_tasks.set((*enclosing_tasks.get(), enclosing))
            try:
                with scope:
                    outcome.append(await function())
            except BaseException as error:  # noqa: ASYNC103 - what failure_of() does not know is raised
                if (failure := failure_of(error, name, task)) is None:
                    raise
                own_error.fail(failure)
            finally:
                enclosing.nursery = None
                ended.set()

        self.start(run, name=name, on_never_started=ended.set)
        try:
            await ended.wait()
        except BaseException:
            # Nobody else knows the task. Shielded: the caller is being cancelled, and without the shield this
            # wait would end at once and leave the task's cleanup running behind the caller's back.
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await ended.wait()
            raise
        if own_error.error is not None:
            raise own_error.to_raise()
        if not outcome:
            # If the caller is cancelled as well (the same session, an outer scope), this raises its own
            # cancellation, which must not be turned into an error.
            await anyio.lowlevel.checkpoint()
            raise GenerationCancelled(self.cancel_reason)
        return outcome[0]

    @property
    def is_cancelled(self) -> bool:
        """Whether its tasks have been cancelled."""
        return self.is_open and self.tasks.cancel_scope.cancel_called

    def check_usable(self) -> None:
        """Raise unless a task could be started here now."""
        check_loop(self.loop, self.name)
        tasks_end = not self.is_open or self.tasks.cancel_scope.cancel_called
        if tasks_end or self.loop_services.has_ended(self.tasks):
            why = f" ({self.cancel_reason})" if self.cancel_reason else ""
            raise SessionClosed(f"{self.name} has ended{why}: nothing can be started in it")

    # --- nurseries of others that live in this one --------------------------------------------

    def joins(self, task: EnclosingTask) -> bool:
        """Whether this nursery, or a guest of it, waits for a task at its end."""
        if task.nursery is self:
            return True
        return any(guest.nursery.joins(task) for guest in self._guests)

    def admit(self, guest: AdoptedNursery) -> None:
        """Run another nursery in this one: it is cancelled with this one, or joined after this one's tasks.

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

    def slot(self, seconds: float, scope: Cancellable) -> Slot:
        """A place among the ``max_concurrency`` requests in flight, to be entered; see :class:`Slot`.

        Args:
            seconds: How long the wait for each delta may take; may be infinite.
            scope: What is cancelled when one takes longer.
        """
        # connection() has started the timer
        return Slot(self._slots, WaitTimeout(self._timer, seconds, scope))

    def limit(self, seconds: float) -> WaitTimeout:
        """A bound on each of the waits within a block; see :class:`WaitTimeout`."""
        if not self._timer.is_running:
            self._start_timer()
        return WaitTimeout(self._timer, seconds)

    def _start_timer(self) -> None:
        self._timer.is_running = True
        self._start_host(self._timer.run, name=f"timer of {self.name}")

    def _start_host(
        self,
        function: Callable[[], Coroutine[object, object, None]],
        *,
        name: str,
        on_never_started: Callable[[], None] | None = None,
    ) -> None:
        # In the nursery's own context. A task keeps the context that it is started in alive, and that of the
        # first caller may hold large values, budgets and other sessions.
        self.loop_services.start_task(
            self._hosts,
            function(),
            name=name,
            on_never_started=on_never_started,
            context=self._context,
        )

    async def connection(self) -> Backend:
        """The backend with its connections open; the first caller has them opened.

        Raises:
            Exception: as the backend raised it on opening; the next caller tries again.

        Cancellation: only the waiting ends; the connections are still opened, for other callers.
        """
        connections = self._connections
        if connections is not None and connections.backend is not None:
            return connections.backend
        if connections is None or connections.have_failed:
            # Every request needs the timer. It is started here, and not at the first wait, because asyncio
            # drops a task that is started just before the loop ends, and then no wait would be bounded.
            if not self._timer.is_running:
                self._start_timer()
            connections = self._connections = Connections(self.backend, self.unobserved, self.name)
            self._start_host(connections.run, name=f"connections of {self.name}")
        return await connections.opened()


async def reraise_if_cancelled(error: Exception) -> None:
    """If the caller is being cancelled, raise that cancellation instead of ``error``.

    ``SessionClosed`` and ``BudgetExceeded`` may only be consequences of the cancellation that also hits the caller.
    Then the caller must see the cancellation, and no error.
    """
    if isinstance(error, SessionClosed | BudgetExceeded):
        await anyio.lowlevel.checkpoint_if_cancelled()
