"""Keeps what a run has released for its readers: the chunks on one tape, the events on another.

A chunk is the same entry on both tapes. Its events are made from it only when they are read, because most programs
read only the chunks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import attrs

from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.runtime.pacing import Valve
from mellea_sc.runtime.tape import Tape
from mellea_sc.stdlib.stream.events import (
    ChunkEvent,
    QuickCheckEvent,
    RetractEvent,
    StreamEvent,
)

__all__ = ["Readers", "ReleasedChunk"]


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

    def write(self, event: StreamEvent) -> None:
        """Write another event."""
        self._events.write(event)

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
        if self.lookahead is None:
            self.lookahead = lookahead
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
