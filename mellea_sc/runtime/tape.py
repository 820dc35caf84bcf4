"""What a run has to say, kept for one reader who may come early, late, or not at all.

A tape is written without waiting. Its reader takes what is there without a task switch and waits only
when there is nothing. What has been read is forgotten.
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
    """A queue without bound that is iterated once, and until its end only in the event loop it is made in.

    Args:
        name: For the error of a second iteration.
        on_read: Called after the reader has taken an item.
        error: Gives what is raised to the reader who has come to the end, instead of ending the iteration.
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
        """Nothing more will be written."""
        self._ended = True
        if self._wake is not None:
            self._wake.set()

    @property
    def has_reader(self) -> bool:
        """Whether it is being iterated, or was."""
        return self._reader is not None

    def check_loop(self) -> None:
        """Raise unless it can be read here.

        Raises:
            WrongEventLoop: it is being written in another event loop.
        """
        if not self._ended:
            check_loop(self._loop, f"the run behind {self._name}")

    def reader(self, pick: Callable[[T], R]) -> AsyncIterator[R]:
        """An iteration of what is picked of the items; the first one that takes a step is the reader.

        Args:
            pick: What the reader gets of an item; one of which that is empty is passed over.
        """
        return _TapeReader(self, pick)

    async def next(self, reader: object, pick: Callable[[T], R]) -> R:
        """What is picked of the next item, for the one reader: the first who asks."""
        if self._reader is None:
            self.check_loop()
            self._reader = reader
        if self._reader is not reader or self._wake is not None:
            raise StreamConsumed(self._name)
        while True:
            while not self._items:
                if self._ended:
                    if self._error is not None and (error := self._error()) is not None:
                        with shortened():
                            raise error
                    raise StopAsyncIteration
                # here and at the first step only: for each item, checking would be half of the work
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
