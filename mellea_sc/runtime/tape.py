"""An unbounded queue between a run and its one reader, who may come early, late, or not at all.

Writing never waits. Reading takes an item without a task switch, and waits only if there is none. Items that were
read are dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Generic, TypeVar

import anyio

from mellea_sc.core.errors import StreamConsumed
from mellea_sc.runtime.failures import shortened
from mellea_sc.runtime.loops.current import check_loop, current_loop, loop_getter

__all__ = ["Tape"]

T = TypeVar("T")
R = TypeVar("R")


class Tape(Generic[T]):
    """An unbounded queue that can be iterated once; until its end only in the event loop that has made it.

    Args:
        name: The name for the error of a second iteration.
        on_read: Called after the reader has taken an item.
        error: Returns the error to raise at the end, instead of ending the iteration, if there is one.
    """

    __slots__ = (
        "_ended",
        "_error",
        "_items",
        "_loop",
        "_name",
        "_on_read",
        "_reader",
        "_running_loop",
        "_wake",
        "taken",
    )

    def __init__(
        self,
        name: str,
        *,
        on_read: Callable[[], None] | None = None,
        error: Callable[[], Exception | None] | None = None,
    ) -> None:
        self.taken: int = 0
        """How many items the reader has taken."""
        self._name = name
        self._loop = current_loop()
        self._running_loop = loop_getter()
        self._on_read = on_read
        self._error = error
        self._items: deque[T] = deque()
        self._ended = False
        self._reader: object | None = None
        self._wake: anyio.Event | None = None

    def write(self, item: T) -> None:
        """Add an item."""
        self._items.append(item)
        if self._wake is not None:
            self._wake.set()

    def end(self) -> None:
        """End the tape: nothing more will be written."""
        self._ended = True
        if self._wake is not None:
            self._wake.set()

    @property
    def has_reader(self) -> bool:
        """Whether somebody has begun to iterate it."""
        return self._reader is not None

    def check_loop(self) -> None:
        """Raise unless it can be read here.

        Raises:
            WrongEventLoop: it is being written in another event loop.
        """
        if not self._ended:
            check_loop(self._loop, f"the run behind {self._name}")

    def reader(self, pick: Callable[[T], R]) -> AsyncIterator[R]:
        """An iterator over the items; the first iterator that takes a step becomes the reader.

        Args:
            pick: Makes of an item what the reader gets; items for which it returns something empty are skipped.
        """
        return _TapeReader(self, pick)

    async def next(self, reader: object, pick: Callable[[T], R]) -> R:
        """The next item as the reader gets it; see :meth:`reader`."""
        if self._reader is None:
            self.check_loop()
            self._reader = reader
        # also raised for the same iterator in two tasks at once: the second would take the first one's wake-up
        if self._reader is not reader or self._wake is not None:
            raise StreamConsumed(self._name)
        while True:
            while not self._items:
                if self._ended:
                    if self._error is not None and (error := self._error()) is not None:
                        # only after all items: text that was released before the error is not lost
                        with shortened():
                            raise error
                    raise StopAsyncIteration
                # Checked only at the first step and before a wait: for each item it would be half of the work.
                if self._running_loop() is not self._loop:
                    self.check_loop()
                self._wake = anyio.Event()
                try:
                    await self._wake.wait()
                finally:
                    self._wake = None
            picked = pick(self._items.popleft())
            self.taken += 1
            if self._on_read is not None:
                self._on_read()
            if picked:
                return picked


class _TapeReader(Generic[T, R]):
    """One iteration of a tape. A plain object: leaving its loop early leaves nothing to clean up."""

    __slots__ = ("_pick", "_tape")

    def __init__(self, tape: Tape[T], pick: Callable[[T], R]) -> None:
        self._tape = tape
        self._pick = pick

    def __aiter__(self) -> _TapeReader[T, R]:
        return self

    def __anext__(self) -> Coroutine[object, object, R]:
        return self._tape.next(self, self._pick)
