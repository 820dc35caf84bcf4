"""At most so many requests in flight at the same time."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio

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
    """The place of one request, for a block; the request may leave it to others for a while.

    Args:
        slots: Where the place is.
    """

    __slots__ = ("_is_taken", "_slots")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._is_taken = False

    async def take(self) -> None:
        """Take the place; see :meth:`Slots.take`."""
        await self._slots.take()
        self._is_taken = True

    def give_back(self) -> None:
        """Leave it to somebody else, until it is taken again."""
        if self._is_taken:
            self._is_taken = False
            self._slots.give_back()

    async def __aenter__(self) -> Self:
        await self.take()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.give_back()
