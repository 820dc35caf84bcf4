"""The events of a run, for one reader.

A chunk that is shown is one entry of the tape, and its events are made of it when they are read: most
programs read the chunks, and the events are kept for them all the same.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final

import attrs

from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.runtime.tape import Tape
from mellea_sc.stdlib.stream.events import ChunkEvent, QuickCheckEvent, StreamEvent

__all__ = ["EventTape", "Shown"]


@attrs.define
class Shown:
    """A chunk that was shown.

    Args:
        text: The chunk.
        before: What stands between the chunk before and this one.
        chunk_index: Its place among the chunks.
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
        """What it is to a reader."""
        at, index, attempt = self.timestamp, self.chunk_index, self.attempt
        if self.results is not None:
            yield QuickCheckEvent(index, attempt, True, self.results, timestamp=at)
        yield ChunkEvent(self.text, index, attempt, before=self.before, timestamp=at)


class EventTape:
    """A queue of events that is iterated once.

    Args:
        on_chunk_read: Called when the reader takes a chunk's event.
    """

    def __init__(self, on_chunk_read: Callable[[], None]) -> None:
        self._tape: Final[Tape[StreamEvent | Shown]] = Tape("events()")
        self._on_chunk_read = on_chunk_read
        self.write: Final = self._tape.write
        self.end: Final = self._tape.end

    @property
    def has_reader(self) -> bool:
        """Whether it is being iterated, or was."""
        return self._tape.has_reader

    def reader(self) -> AsyncIterator[StreamEvent]:
        """An iteration of the events; the first one that takes a step is the reader."""
        return _EventReader(self._tape, self._on_chunk_read)


class _EventReader:
    """One iteration. A plain object: leaving its loop early leaves nothing to clean up."""

    __slots__ = ("_made", "_on_chunk_read", "_tape")

    def __init__(self, tape: Tape[StreamEvent | Shown], on_chunk_read: Callable[[], None]) -> None:
        self._tape = tape
        self._on_chunk_read = on_chunk_read
        self._made: deque[StreamEvent] = deque()

    def __aiter__(self) -> _EventReader:
        return self

    async def __anext__(self) -> StreamEvent:
        if self._made:
            self._tape.check_loop()
        else:
            entry = await self._tape.next(self)
            if isinstance(entry, StreamEvent):
                return entry
            self._made.extend(entry.events())
        event = self._made.popleft()
        if isinstance(event, ChunkEvent):
            self._on_chunk_read()
        return event
