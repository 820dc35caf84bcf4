"""Decides how much of an attempt the readers of a checked stream are shown, and when, and keeps it for them.

::

    Ledger: its chunks ──AttemptView.advance()──> Readers: a tape of chunks, one of events
       │  held until every lane has passed them      │
       │  held back until the attempt is accepted    │ with ``lookahead``: until
       └─ all held back until the input is checked   └─ the reader has room

Releasing never waits. Everything that may make a release possible (a verdict of a lane, a reader that has read, a
precondition that is met, the end of an attempt) calls :meth:`AttemptView.advance`.

A :class:`Tape` is read by one reader, who may come early, late, or not at all. A chunk is the same entry on both tapes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Generic, TypeVar

import anyio

from mellea_sc.core.errors import StreamConsumed
from mellea_sc.core.requirement import ValidationResult
from mellea_sc.runtime.checks.chunks import Ledger
from mellea_sc.runtime.checks.editors import Edits
from mellea_sc.runtime.failures import shorten
from mellea_sc.runtime.loops.current import check_loop, current_loop, loop_services
from mellea_sc.runtime.pacing import Valve, Valves
from mellea_sc.stdlib.streaming.events import (
    ChunkEvent,
    EditEvent,
    FullValidationEvent,
    ReasoningEvent,
    ReleasedChunk,
    RetractEvent,
    StreamEvent,
    StreamingDoneEvent,
)

T = TypeVar("T")
R = TypeVar("R")


class Tape(Generic[T]):
    """An unbounded queue that can be iterated once; until its end only in the event loop that has made it.

    Writing never waits. Reading takes an item without a task switch, and waits only if there is none.

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
        "_put_back",
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
        self._put_back = False
        self._ended = False
        self._reader: object | None = None
        self._wake: anyio.Event | None = None

    def write(self, item: T) -> None:
        """Add an item."""
        self._items.append(item)
        if self._wake is not None:
            self._wake.set()

    def put_back(self, items: Sequence[T]) -> None:
        """Have the reader take these next."""
        self._items.extendleft(reversed(items))
        self._put_back = bool(items)

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
                            shorten(error)
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
            if self._put_back:
                # The first of the events that an entry stands for was read, perhaps in another event loop.
                self.check_loop()
                self._put_back = False
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
        return self._events.reader(self._event_of)

    def _event_of(self, entry: StreamEvent | ReleasedChunk) -> StreamEvent:
        if isinstance(entry, ReleasedChunk):
            entry, *more = entry.events()
            self._events.put_back(more)
        if isinstance(entry, ChunkEvent):
            self._chunk_events_read += 1
            if self.lookahead is not None:
                self._on_read()
        return entry


class AttemptView:
    """Shows the chunks of one attempt to the readers.

    Args:
        number: The number of the attempt.
        ledger: Has its chunks, and knows which of them its requirements have passed.
        edits: The edits of its text.
        readers: The readers.
        shown: The number of its first chunks that an earlier attempt has shown already.
    """

    def __init__(
        self, number: int, ledger: Ledger, edits: Edits, readers: Readers, *, shown: int
    ) -> None:
        self.number: int = number
        self.released: int = shown
        """The number of released entries: chunks, and perhaps the white space at the end of the text."""
        self.is_full: bool = False
        """Whether a chunk that may be shown is waiting for room at the readers, as :meth:`advance` has found it."""
        self._ledger = ledger
        ledger.skip(shown)
        self._edits = edits
        self._readers = readers
        # The number of passed chunks that are held back. Infinite, so nothing is shown, until show() is called.
        self._held_back: float = math.inf
        self._shown_before = shown
        self._ends_in_space = False
        self._thoughts: list[ReasoningEvent] = []
        self._full_text: str | None = None
        self._validations: Sequence[ValidationResult] | None = None

    @property
    def chunks_released(self) -> int:
        """The number of released chunks, without white space at the end of the text."""
        return self.released - self._ends_in_space

    @property
    def position(self) -> int:
        """The position up to which its text is shown."""
        return self._ledger.end_of(self.released)

    @property
    def characters(self) -> int:
        """The number of characters shown that it has generated itself."""
        return self._edits.source(self.position) - self._ledger.end_of(self._shown_before)

    @property
    def is_shown(self) -> bool:
        """Whether anything of it, text or reasoning, may be shown now."""
        return self._held_back < math.inf

    # --- called by the attempt -----------------------------------------------------------------------

    def advance(self) -> None:
        """Release all chunks that may be shown now.

        Everything that may allow a release calls this, and most calls find that another condition is not met yet. It
        checks all conditions each time, so that no caller has to know the others.
        """
        readers, ledger = self._readers, self._ledger
        if readers.have_ended:
            return
        if self._thoughts:
            self._write_reasoning()
        allowed = ledger.releasable - self._held_back
        while self.released < allowed:
            if readers.lookahead is not None and readers.is_behind:
                self.is_full = True
                return
            chunk, verdicts = ledger.take()
            if self._edits.waiting:
                self._write_edits(chunk.end)
            told = verdicts if ledger.lanes else None
            readers.release(
                ReleasedChunk(chunk.text, chunk.before, self.released, self.number, told)
            )
            self.released += 1
            self._ends_in_space = not chunk.text
        self.is_full = False
        if readers.valve.wake is not None:
            readers.valve.look()

    async def room(self, valves: Valves) -> None:
        """Wait until no chunk is waiting for room at the readers."""
        if self.is_full:
            await self._readers.valve.wait(valves)
            # If the valve was opened (acomplete(), the end of the session), no reader has called advance().
            self.advance()

    def reasoned(self, text: str) -> None:
        """Add reasoning; it is shown at once if the attempt may be shown before its end."""
        self._thoughts.append(ReasoningEvent(text, self.number))
        self._write_reasoning()

    def generated(self, text: str) -> None:
        """Note that the text has come to its natural end."""
        self._full_text = text
        if not self._held_back:
            self._write_end()

    def validated(self, validations: Sequence[ValidationResult]) -> None:
        """Note the verdicts on the whole text."""
        self._validations = validations
        if not self._held_back and self._full_text is None:
            self.write_validation()

    # --- called by the gate --------------------------------------------------------------------------

    def show(self, held_back: float) -> None:
        """Show the attempt from now on, except for the last ``held_back`` passed chunks."""
        self._held_back = held_back
        self.advance()

    def hold(self) -> None:
        """Stop showing it."""
        self._held_back = math.inf
        self.is_full = False

    def finish(self) -> None:
        """Write the events of its end: it is accepted, and all of it was shown."""
        self._readers.settle()
        self._write_end()
        self.write_validation()

    def write_validation(self) -> None:
        """Write the event with the verdicts on the whole text, once."""
        if self._validations is not None:
            verdicts = list(self._validations)
            self._readers.write(FullValidationEvent(self.number, all(verdicts), verdicts))
            self._validations = None

    # --- events --------------------------------------------------------------------------------------

    def _write_reasoning(self) -> None:
        if self.is_shown:
            for thought in self._thoughts:
                self._readers.write(thought)
            self._thoughts.clear()

    def _write_edits(self, position: float) -> None:
        """Write the events of edits before a position; they come before the events of the next chunk."""
        for edit in self._edits.take(position):
            self._readers.write(EditEvent(self.released, self.number, edit.lane, edit.verdict))

    def _write_end(self) -> None:
        if self._full_text is not None:
            self._write_edits(math.inf)
            self._readers.write(StreamingDoneEvent(self.number, self._full_text))
            self._full_text = None
