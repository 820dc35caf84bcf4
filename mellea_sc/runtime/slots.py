"""At most so many requests in flight at the same time."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import anyio

__all__ = ["Slots"]


class Slots:
    """Places among the requests in flight: an async context manager that any number of tasks enter.

    While one of them waits for a place, producers that wait for slow readers are let go: they may be
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

    async def __aenter__(self) -> None:
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

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._places is not None:
            self._places.release()
