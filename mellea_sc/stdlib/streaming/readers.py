"""Keeps what a run has released for its readers: the chunks on one tape, the events on another.

A tape is an unbounded queue with one reader, who may come early, late, or not at all. Writing never waits. Reading
takes an item without a task switch, and waits only if there is none. Items that were read are dropped.

A chunk is the same entry on both tapes. Its events are made from it only when they are read, because most programs
read only the chunks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Generic, TypeVar

import anyio
import attrs

from mellea_sc.core.errors import StreamConsumed
from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.runtime.failures import short_traceback
from mellea_sc.runtime.loops.current import check_loop, current_loop, loop_services
from mellea_sc.runtime.pacing import Valve
from mellea_sc.stdlib.streaming.events import (
    ChunkEvent,
    QuickCheckEvent,
    RetractEvent,
    StreamEvent,
)

__all__ = ["Readers", "ReleasedChunk", "Tape"]

T = TypeVar("T")
R = TypeVar("R")


@attrs.define
class ReleasedChunk:
    """A released chunk. A value; not frozen, only because one may be made for each token.

    Args:
        text: The chunk. Empty for white space at the end of the text.
        before: The text between the previous chunk and this one.
        chunk_index: Its index among the chunks.
        attempt: The attempt it belongs to.
        results: One verdict per requirement; ``None`` without requirements.
    """

    text: str
    before: str
    chunk_index: int
    attempt: int
    results: Sequence[PartialValidationResult] | None
    timestamp: float = attrs.field(factory=time.time, init=False)

    def events(self) -> Iterator[StreamEvent]:
        """The events that it stands for."""
        at, index, attempt = self.timestamp, self.chunk_index, self.attempt
        if self.results is not None:
            yield QuickCheckEvent(index, attempt, True, self.results, timestamp=at)
        yield ChunkEvent(self.text, index, attempt, before=self.before, timestamp=at)


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
        "_reader",
        "_running_loop",
        "_wake",
        "on_read",
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
        self._running_loop = loop_services().running_loop
        self.on_read: Callable[[], None] | None = on_read
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
                        try:
                            raise error
                        except Exception:
                            error.__traceback__ = short_traceback(error.__traceback__)
                            raise
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
            if self.on_read is not None:
                self.on_read()
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


class Readers:
    """The two tapes of a run, and how much may wait on them unread.

    Args:
        lookahead: The number of released chunks that may wait unread; ``None``: any number.
        may_retract: Whether released chunks may be retracted. The tape of chunks cannot express that, so it then
            gets chunks only when they are final.
        is_full: Returns whether the producer should wait for the readers.
        on_read: Called after a reader has taken something.
        error: Returns the run's error, if it has one that was not raised yet.
    """

    def __init__(
        self,
        *,
        lookahead: int | None,
        may_retract: bool,
        is_full: Callable[[], bool],
        on_read: Callable[[], None],
        error: Callable[[], Exception | None],
    ) -> None:
        self.valve: Valve = Valve(is_full, for_reader=True)
        """The valve at which the producer waits for the readers."""
        self._on_read = on_read
        self._chunks: Tape[ReleasedChunk] = Tape(
            "astream() or atext()", on_read=None if lookahead is None else on_read, error=error
        )
        self._events: Tape[StreamEvent | ReleasedChunk] = Tape("events()")
        self.write: Callable[[StreamEvent], None] = self._events.write
        """Write another event than those of a released chunk."""
        self.lookahead: int | None = lookahead
        self.have_ended: bool = False
        """Whether nothing will be released any more."""
        self._may_retract = may_retract
        self._not_final: list[ReleasedChunk] = []
        self._released = 0
        self._chunk_events_read = 0

    # --- for the run -------------------------------------------------------------------------------

    def release(self, chunk: ReleasedChunk) -> None:
        """Release a chunk to the readers."""
        if self._may_retract:
            self._not_final.append(chunk)
        else:
            self._chunks.write(chunk)
        self._events.write(chunk)
        if chunk.text:
            self._released += 1

    def retract(self, first: int, attempt: int) -> None:
        """Retract the chunks of an attempt from an index on."""
        del self._not_final[first:]
        self._events.write(RetractEvent(first, attempt))

    def settle(self) -> None:
        """Make the released chunks final: no other attempt can replace them."""
        for chunk in self._not_final:
            self._chunks.write(chunk)
        self._not_final.clear()

    def end(self) -> None:
        """End both tapes: nothing will be released any more."""
        self.have_ended = True
        if self._not_final:
            self.settle()
        self._chunks.end()
        self._events.end()

    @property
    def is_behind(self) -> bool:
        """Whether the maximum number of chunks is waiting unread."""
        if self.lookahead is None or self.valve.is_open:
            return False
        if self._may_retract and not self._events.has_reader:
            return False  # with retractable chunks there is nothing to read yet: waiting would be a deadlock
        read = max(self._chunks.taken, self._chunk_events_read)
        return self._released - read >= self.lookahead

    # --- for the readers ---------------------------------------------------------------------------

    def chunks(self, pick: Callable[[ReleasedChunk], str]) -> AsyncIterator[str]:
        """An iterator over the texts that ``pick`` makes of chunks; empty texts are skipped."""
        return self._chunks.reader(pick)

    def events(self, lookahead: int | None) -> AsyncIterator[StreamEvent]:
        """An iterator over the events.

        Args:
            lookahead: The number of released chunks that may wait unread, unless the run has its own limit.
        """
        if self.lookahead is None and lookahead is not None:
            self.lookahead = lookahead
            # the program may never iterate the events, and read the chunks instead
            self._chunks.on_read = self._on_read
        return _EventReader(self._events, self._chunk_event_was_read)

    def _chunk_event_was_read(self) -> None:
        self._chunk_events_read += 1
        if self.lookahead is not None:
            self._on_read()


class _EventReader:
    """One iteration of the events. A plain object: leaving its loop early leaves nothing to clean up."""

    __slots__ = ("_chunk_was_read", "_made", "_tape")

    def __init__(
        self, tape: Tape[StreamEvent | ReleasedChunk], chunk_was_read: Callable[[], None]
    ) -> None:
        self._tape = tape
        self._chunk_was_read = chunk_was_read
        self._made: deque[StreamEvent] = deque()

    def __aiter__(self) -> _EventReader:
        return self

    async def __anext__(self) -> StreamEvent:
        if self._made:
            self._tape.check_loop()
        else:
            self._made.extend(await self._tape.next(self, _events_of))
        event = self._made.popleft()
        if isinstance(event, ChunkEvent):
            self._chunk_was_read()
        return event


def _events_of(entry: StreamEvent | ReleasedChunk) -> Sequence[StreamEvent]:
    return (entry,) if isinstance(entry, StreamEvent) else tuple(entry.events())
