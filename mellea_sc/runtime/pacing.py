"""At most so many requests in flight at the same time."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import anyio

from mellea_sc.core.errors import BackendError
from mellea_sc.runtime.deadlines import WaitTimeout
from mellea_sc.runtime.loops.current import clock

__all__ = ["Slot", "Slots"]


class Slots:
    """Places among the requests in flight.

    While a request waits for a place, producers that wait for slow readers are let go: they may be
    what holds the places, and their reader may be what waits here.

    Args:
        limit: How many places there are; ``None``: any number.
        relieve: Lets those producers go.
    """

    __slots__ = ("_places", "_relieve", "_waiting")

    def __init__(self, limit: int | None, relieve: Callable[[], None]) -> None:
        self._places = None if limit is None else anyio.Semaphore(limit)
        self._relieve = relieve
        self._waiting = 0

    @property
    def is_short(self) -> bool:
        """Whether somebody waits for a place."""
        return self._waiting > 0

    async def take(self) -> None:
        """Take a place.

        Cancellation: a waiting request gives up its turn and has cost nothing.
        """
        if self._places is None:
            return
        try:
            self._places.acquire_nowait()
        except anyio.WouldBlock:
            self._waiting += 1
            try:
                self._relieve()
                await self._places.acquire()
            finally:
                self._waiting -= 1

    def give_back(self) -> None:
        """Leave the place to somebody else."""
        if self._places is not None:
            self._places.release()


class Slot:
    """The place of one request, for a block. While it waits to be made again, others have it.

    It is a :class:`~mellea_sc.core.retries.InFlight`.

    Args:
        slots: Where the place is.
        limit: What bounds the wait for the request's deltas, if anything does.
    """

    __slots__ = ("_is_taken", "_limit", "_slots", "failure")

    failure: BackendError | None
    """Of the attempt before the one that is made now."""

    def __init__(self, slots: Slots, limit: WaitTimeout | None) -> None:
        self.failure = None
        self._slots = slots
        self._limit = limit
        self._is_taken = False

    async def wait(self, seconds: float, failure: BackendError) -> None:
        """Wait without the place, and then until there is one again, as long as that takes."""
        self.failure = failure
        with self.untimed():
            self._give_back()
            await anyio.sleep(seconds)
            await self._take()

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

    async def _take(self) -> None:
        await self._slots.take()
        self._is_taken = True

    def _give_back(self) -> None:
        if self._is_taken:
            self._is_taken = False
            self._slots.give_back()

    async def __aenter__(self) -> Self:
        await self._take()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._give_back()
