"""How fast producers may go: back-pressure, and a limit of requests in flight at the same time.

A producer waits at a :class:`Valve` while its consumer is full. A request waits for one of the :class:`Slots`.
Both together could deadlock: a producer holds a slot and waits for its judge, and the judge's own request
waits for a slot. So a request that has to wait for a slot opens every valve at which a producer waits. The
producer then runs ahead of its consumer, into memory, and gives its slot back at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Self

import anyio
import attrs

from mellea_sc.core.errors import BackendError
from mellea_sc.core.retries import InFlight, in_flight
from mellea_sc.runtime.deadlines import WaitTimeout
from mellea_sc.runtime.loops.current import clock


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
