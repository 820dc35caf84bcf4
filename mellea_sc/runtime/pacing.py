"""How fast producers may go: back-pressure, and at most so many requests in flight at the same time.

A producer waits at a :class:`Valve` while somebody behind it is full. The two meet in one place: a request
that waits for a slot opens every valve at which a producer waits, because that producer holds a slot, and
what it waits for (a reader, a judge) may be what waits for the slot. Else one slot and one judge deadlock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import Token
from types import TracebackType
from typing import Self

import anyio

from mellea_sc.core.errors import BackendError
from mellea_sc.core.retries import InFlight, in_flight
from mellea_sc.runtime.deadlines import WaitTimeout
from mellea_sc.runtime.loops.current import clock

__all__ = ["Slot", "Slots", "Valve", "Valves"]


class Valve:
    """Where one producer waits while somebody behind it is full.

    Args:
        is_full: Whether the producer should wait now.
        for_reader: Whether it waits for a reader, who may never come: then it is opened when the session is
            left. Who waits for judges is not let go then, since judges go on by themselves.
    """

    __slots__ = ("_is_full", "for_reader", "is_open", "wake")

    def __init__(self, is_full: Callable[[], bool], *, for_reader: bool) -> None:
        self._is_full = is_full
        self.for_reader: bool = for_reader
        self.wake: anyio.Event | None = None
        """Wakes the producer, if one waits here now."""
        self.is_open: bool = False
        """Whether the producer never waits any more, however full it is behind it."""

    @property
    def is_full(self) -> bool:
        """Whether the producer should :meth:`wait`."""
        return not self.is_open and self._is_full()

    async def wait(self, valves: Valves) -> None:
        """Wait until there is room. One task at a time.

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
        """There may be room now: called by whoever makes some.

        It wakes the producer, who looks: when that has its turn, others may have made room as well.
        """
        if self.wake is not None:
            self.wake.set()

    def open_for_good(self) -> None:
        """The producer does not wait here any more: what nobody takes is kept."""
        self.is_open = True
        self.look()


class Valves:
    """The valves of one session at which producers wait now."""

    __slots__ = ("_is_drained", "_requests_without_slot", "_waited_at")

    def __init__(self) -> None:
        self._waited_at: set[Valve] = set()
        self._requests_without_slot = 0
        self._is_drained = False

    def add(self, valve: Valve) -> None:
        """A producer begins to wait; the valve is opened at once where nobody may wait now."""
        self._waited_at.add(valve)
        if self._requests_without_slot or (self._is_drained and valve.for_reader):
            valve.open_for_good()

    def remove(self, valve: Valve) -> None:
        """The producer goes on."""
        self._waited_at.discard(valve)

    def drain(self) -> None:
        """No producer waits for a reader any more: the session is left, and waits for the producers."""
        self._is_drained = True
        for valve in self._waited_at:
            if valve.for_reader:
                valve.open_for_good()

    @contextmanager
    def opened_for_request(self) -> Generator[None]:
        """A block in which a request waits for a slot, and thus no producer waits for anybody."""
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
        # not where that is handled: it would be in the context of what ends the wait
        with self._valves.opened_for_request():
            await self._places.acquire()

    def give_back(self) -> None:
        """Leave the place to somebody else."""
        self._places.release()


class Slot:
    """The place of one request: taken for an ``async with`` block, in which the request is made in a ``with`` block.

    While it waits to be made again, others have the place. It is an :class:`~mellea_sc.core.retries.InFlight`.

    Args:
        slots: Where the place is; ``None``: any number of requests may be in flight.
        limit: What bounds the wait for each of the request's deltas, if anything does.
    """

    __slots__ = ("_is_taken", "_limit", "_slots", "_token", "failure")

    failure: BackendError | None
    """Of the attempt before the one that is made now."""
    _token: Token[InFlight | None]

    def __init__(self, slots: Slots | None, limit: WaitTimeout | None) -> None:
        self.failure = None
        self._slots = slots
        self._limit = limit
        self._is_taken = False

    async def __aenter__(self) -> Self:
        if self._slots is not None:
            await self._slots.take()
            self._is_taken = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._slots is not None and self._is_taken:
            self._slots.give_back()

    def __enter__(self) -> None:
        self._token = in_flight.set(self)
        if self._limit is not None:
            self._limit.resume()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._limit is not None:
            self._limit.pause()
        in_flight.reset(self._token)

    async def wait(self, seconds: float, failure: BackendError) -> None:
        """Wait without the place, and then until there is one again, as long as that takes."""
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
        """A block whose waits are no waits for a delta."""
        if self._limit is None:
            yield
            return
        self._limit.pause()
        try:
            yield
        finally:
            self._limit.resume()

    def progressed(self) -> None:
        """The wait for a delta begins anew."""
        if self._limit is not None:
            self._limit.since = clock()()
