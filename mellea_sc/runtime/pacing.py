"""What a producer and a request wait for, and for how long at most: back-pressure, slots, timeouts.

A producer waits at a :class:`Valve` while its consumer is full. A request waits for one of the :class:`Slots`.
Both together could deadlock: a producer holds a slot and waits for its judge, and the judge's own request
waits for a slot. So a request that has to wait for a slot opens every valve at which a producer waits. The
producer then runs ahead of its consumer, into memory, and gives its slot back at its end.

The wait for a delta is bounded, and is restarted by every delta; the wait for a validator, by every piece that
it judges. A cancel scope with a deadline for each wait would cost a timer of the event loop each time. Here a wait
is restarted or paused by one assignment to :attr:`WaitTimeout.since`. One task for all the waits of a nursery sleeps
until the first timeout that could be due, cancels the waits that are, and sleeps on. So most waits never touch a timer
of the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from types import TracebackType
from typing import Final, Protocol, Self

import anyio
import attrs

from mellea_sc.core.errors import BackendError
from mellea_sc.core.retries import InFlight, in_flight
from mellea_sc.runtime.loops.current import clock

RESOLUTION: Final = 0.001
"""Seconds by which a timeout may fire early, so that timeouts that are due together need one wake-up."""

STOOD_STILL: Final = 0.05
"""Seconds after which a late wake-up of the timer means that the event loop stood still."""

LONGEST_GRACE: Final = 5.0
"""Seconds that those who wait have after that, at most: enough to connect."""


class Cancellable(Protocol):
    """What a timeout cancels: an :class:`anyio.CancelScope`, or something that has one."""

    @property
    def cancel_called(self) -> bool:
        """Whether it is being cancelled already."""
        ...

    def cancel(self, reason: str | None = None) -> None:
        """Cancel it."""
        ...


class DeadlineTimer:
    """The timeouts of one nursery, and the task that fires them."""

    def __init__(self) -> None:
        self.now: Callable[[], float] = clock()
        self.is_running: bool = False
        """Whether a task for :meth:`run` has been started."""
        self.wakes_at: float = math.inf
        """When its task looks at the timeouts again."""
        self.limits: set[WaitTimeout] = set()
        """The timeouts whose waits have begun."""
        self._context = copy_context()
        self._sleep_scope = anyio.CancelScope()
        self._run_scope = anyio.CancelScope()

    async def run(self) -> None:
        """Cancel the waits whose timeout is due, until :meth:`close`."""
        with self._run_scope:
            while True:
                soon = self.now() + RESOLUTION
                for limit in [*self.limits]:
                    if limit.since == math.inf:
                        # Paused: dropped until it is resumed. So a wait that is restarted by an assignment is always
                        # one that was considered for this sleep, and is due only after it. And a short timeout that
                        # is paused for long wakes this task only once.
                        limit.end()
                    elif limit.since + limit.seconds <= soon:
                        limit.exceed()
                dues = (limit.since + limit.seconds for limit in self.limits)
                self.wakes_at = min(dues, default=math.inf)
                with anyio.CancelScope(deadline=self.wakes_at) as self._sleep_scope:
                    await anyio.sleep_forever()
                late = self.now() - self._sleep_scope.deadline
                if late > STOOD_STILL:
                    # Something has blocked the event loop meanwhile. Those who wait could not go on, and what
                    # came for them is read only now.
                    await anyio.sleep(min(late, LONGEST_GRACE))

    def close(self) -> None:
        """End the task: no wait is bounded any more."""
        self._run_scope.cancel()

    def wake_at(self, due: float) -> None:
        """Look at the timeouts earlier than planned."""
        self.wakes_at = due
        # asyncio's timer handle keeps alive the context in which it is set: that must not be the caller's
        self._context.run(setattr, self._sleep_scope, "deadline", due)


@attrs.define(eq=False, repr=False, weakref_slot=False)
class WaitTimeout:
    """A timeout for each single wait within a block; a wait that takes longer is cancelled.

    Args:
        timer: The timer that fires it.
        seconds: How long each wait may take; may be infinite.
        scope: What it cancels; somebody else calls :meth:`resume` and :meth:`end` at the begin and end of the block,
            and can tell by :attr:`is_exceeded` whether this has cancelled it. Without one: a scope of its own, which
            is entered and left with this context manager.
    """

    _timer: DeadlineTimer
    seconds: float
    _scope: Cancellable = attrs.field(factory=anyio.CancelScope)
    since: float = attrs.field(default=math.inf, init=False)
    """When the wait began. Set it to restart the wait, or to ``math.inf`` to pause. After a pause, call
    :meth:`resume`, or set it again if it :attr:`is_watched` still."""
    is_watched: bool = attrs.field(default=False, init=False)
    """Whether it is registered at the timer: not before its first wait, nor after the timer has found it paused."""
    is_exceeded: bool = attrs.field(default=False, init=False)
    """Whether a wait has taken too long, and was cancelled."""

    @property
    def was_exceeded(self) -> bool:
        """Whether the block was ended by the timeout."""
        return isinstance(self._scope, anyio.CancelScope) and self._scope.cancelled_caught

    def __enter__(self) -> Self:
        assert isinstance(self._scope, anyio.CancelScope)
        self._scope.__enter__()
        self.resume()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        assert isinstance(self._scope, anyio.CancelScope)
        self.end()
        return self._scope.__exit__(exc_type, exc, tb)

    def pause(self) -> None:
        """Stop the clock: the next waits are not bounded."""
        self.since = math.inf

    def resume(self) -> None:
        """Start the clock for the next wait."""
        timer = self._timer
        self.since = timer.now()
        if not self.is_watched:
            self.is_watched = True
            timer.limits.add(self)
            if self.since + self.seconds < timer.wakes_at:
                timer.wake_at(self.since + self.seconds)

    def end(self) -> None:
        """End the block: unregister the timeout."""
        self.is_watched = False
        self._timer.limits.discard(self)

    def exceed(self) -> None:
        """Cancel the wait: it has taken too long."""
        self.end()
        # A block that is being cancelled for another reason may take long for its cleanup: that is not late.
        self.is_exceeded = not self._scope.cancel_called
        self._scope.cancel("it took too long")


@attrs.define(eq=False, repr=False, weakref_slot=False)
class Valve:
    """The place where one producer waits while its consumer is full.

    Args:
        is_full: Whether the producer should wait now.
        for_reader: Whether the consumer is a reader, who may never come: then the valve is opened when the
            session is left. Validators always go on by themselves, so a producer still waits for them.
    """

    _is_full: Callable[[], bool]
    for_reader: bool = attrs.field(kw_only=True)
    wake: anyio.Event | None = attrs.field(default=None, init=False)
    """Wakes the producer that waits here now; ``None``: none waits."""
    is_open: bool = attrs.field(default=False, init=False)
    """Whether the producer never waits here again, however full its consumer is."""

    @property
    def is_full(self) -> bool:
        """Whether the producer should :meth:`wait`."""
        return not self.is_open and self._is_full()

    async def wait(self, valves: Valves) -> None:
        """Wait until the consumer has room. One task at a time.

        Args:
            valves: Those of the session that the producer runs in.

        Cancellation: only the waiting ends.
        """
        valves.add(self)
        try:
            while self.is_full:
                self.wake = anyio.Event()
                await self.wake.wait()
        finally:
            self.wake = None
            valves.remove(self)

    def look(self) -> None:
        """Wake the producer, which checks again; called by whoever may have made room.

        The condition is not checked here: it may have changed again when the producer has its turn.
        """
        if self.wake is not None:
            self.wake.set()

    def open_for_good(self) -> None:
        """Have the producer never wait here again: what nobody takes is kept in memory."""
        self.is_open = True
        self.look()


@attrs.define(eq=False, repr=False, weakref_slot=False)
class Valves:
    """The valves of one session at which producers wait now."""

    _waited_at: set[Valve] = attrs.field(factory=set[Valve], init=False)
    _requests_without_slot: int = attrs.field(default=0, init=False)
    _is_drained: bool = attrs.field(default=False, init=False)

    def add(self, valve: Valve) -> None:
        """A producer begins to wait; the valve is opened at once if no producer may wait now."""
        self._waited_at.add(valve)
        if self._requests_without_slot or (self._is_drained and valve.for_reader):
            valve.open_for_good()

    def remove(self, valve: Valve) -> None:
        """The producer does not wait any more."""
        self._waited_at.discard(valve)

    def drain(self) -> None:
        """Open every valve that waits for a reader, now and later: the session is being left and joins the producers."""
        self._is_drained = True
        for valve in self._waited_at:
            if valve.for_reader:
                valve.open_for_good()

    @contextmanager
    def opened_for_request(self) -> Generator[None]:
        """A block in which a request waits for a slot, and no producer waits at a valve."""
        # a count, and not a flag: several requests may wait for a slot at the same time
        self._requests_without_slot += 1
        try:
            for valve in self._waited_at:
                valve.open_for_good()
            yield
        finally:
            self._requests_without_slot -= 1


class Slots:
    """Places among the requests in flight.

    Args:
        limit: How many places there are.
        valves: Opened while a request waits for a place.
    """

    __slots__ = ("_places", "_valves")

    def __init__(self, limit: int, valves: Valves) -> None:
        self._places = anyio.Semaphore(limit)
        self._valves = valves

    async def take(self) -> None:
        """Take a place.

        Cancellation: a waiting request gives up its turn and has cost nothing.
        """
        with suppress(anyio.WouldBlock):
            self._places.acquire_nowait()
            return
        # Outside of an "except WouldBlock": that would become the __context__ of the error that ends the wait.
        with self._valves.opened_for_request():
            await self._places.acquire()

    def give_back(self) -> None:
        """Give the place back."""
        self._places.release()


@attrs.define(eq=False, repr=False, weakref_slot=False)
class Slot:
    """The slot of one request, and the timeout of its deltas: both for its ``async with`` block.

    A request that waits for its next retry gives the slot to others meanwhile. A slot is an
    :class:`~mellea_sc.core.retries.InFlight`.

    Args:
        slots: The slots of the session; ``None``: any number of requests may be in flight.
        limit: The timeout.
    """

    _slots: Slots | None
    limit: WaitTimeout
    failure: BackendError | None = attrs.field(default=None, init=False)
    """The error of the previous attempt, if this one is a retry."""
    around: InFlight | None = attrs.field(default=None, init=False)
    """The request that the task was making already, when this one began."""
    _is_taken: bool = attrs.field(default=False, init=False)

    async def __aenter__(self) -> Self:
        if self._slots is not None:
            await self._slots.take()
            self._is_taken = True
        # instead of the token, which would keep the old context for as long as the request takes
        self.around = in_flight.get()
        in_flight.set(self)
        self.limit.resume()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.limit.end()
        if in_flight.get() is self:
            in_flight.set(self.around)
        # not taken if a cancellation came while wait() was waiting for it
        if self._slots is not None and self._is_taken:
            self._slots.give_back()

    async def wait(self, seconds: float, failure: BackendError) -> None:
        """Give the slot back, sleep, and wait for a slot again; the timeout of deltas does not run meanwhile."""
        self.failure = failure
        with self.untimed():
            if self._slots is not None:
                self._is_taken = False
                self._slots.give_back()
            await anyio.sleep(seconds)
            if self._slots is not None:
                await self._slots.take()
                self._is_taken = True

    @contextmanager
    def untimed(self) -> Generator[None]:
        """A block whose waits the timeout of deltas does not bound."""
        self.limit.pause()
        try:
            yield
        finally:
            self.limit.resume()

    def progressed(self) -> None:
        """Restart the wait for a delta."""
        self.limit.since = clock()()
