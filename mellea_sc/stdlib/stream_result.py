"""What a user sees of a streaming run: the released chunks, the events, and how it ended.

The gate is here. Chunks wait in it until the ledger releases them; with ``lookahead`` also until the
reader has room. Releasing never waits: whoever makes it possible (a lane with its verdict, a reader
with its reading) does it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

import anyio

from mellea_sc.core.errors import ThunkNotComputed
from mellea_sc.core.requirement import PartialValidationResult, Requirement, ValidationResult
from mellea_sc.runtime.ledger import Chunk, Ledger
from mellea_sc.runtime.tape import Tape
from mellea_sc.runtime.thunk import GenerationInfo, ModelOutputThunk
from mellea_sc.stdlib.events import ChunkEvent, QuickCheckEvent, StreamEvent

__all__ = ["Gate", "StreamChunkingResult"]

ATTEMPT: Final = 1


class Gate:
    """Lets chunks out in order, as far as the ledger and the reader allow.

    Args:
        ledger: Says what may be shown.
        lookahead: How many released chunks may wait unread; ``None``: any number.
        on_error: Raises the run's error, if it has one that was not raised yet.
    """

    def __init__(self, ledger: Ledger, lookahead: int | None, on_error: Callable[[], None]) -> None:
        self.chunks: Tape[str] = Tape("astream()", on_read=self._chunk_was_read, on_end=on_error)
        self.events: Tape[StreamEvent] = Tape("events()", on_read=self._event_was_read)
        self.position: int = 0
        self.released: int = 0
        self._ledger = ledger
        self._lookahead = lookahead
        self._waiting: deque[Chunk] = deque()
        self._closed = False
        self._chunks_read = 0
        self._chunk_events_read = 0
        self._room: anyio.Event | None = None

    def hold(self, chunk: Chunk) -> None:
        """Take the next chunk of the main chunking."""
        self._waiting.append(chunk)

    def release(self) -> None:
        """Let out what may be shown now."""
        ledger = self._ledger
        while self.released < ledger.releasable and self._has_reader_room() and not self._closed:
            chunk = self._waiting.popleft()
            index = self.released
            if ledger.lanes:
                verdicts = ledger.verdicts_on(index)
                self.events.write(QuickCheckEvent(index, ATTEMPT, True, verdicts))
            self.chunks.write(chunk.text)
            self.events.write(ChunkEvent(chunk.text, index, ATTEMPT))
            self.released += 1
            self.position = chunk.end
        if self._room is not None and not self.is_full:
            self._room.set()

    @property
    def is_full(self) -> bool:
        """Whether a chunk that may be shown waits for the reader."""
        return self.released < self._ledger.releasable and not self._has_reader_room()

    async def room(self) -> None:
        """Wait until no chunk waits for the reader."""
        while self.is_full:
            self._room = anyio.Event()
            await self._room.wait()
        self._room = None

    def close(self) -> None:
        """The run has ended: what was not released never is, whoever reads on."""
        self._closed = True
        self.chunks.end()
        self.events.end()

    def open(self) -> None:
        """Wait for the reader no more."""
        self._lookahead = None
        self.release()

    def _has_reader_room(self) -> bool:
        read = max(self._chunks_read, self._chunk_events_read)
        return self._lookahead is None or self.released - read < self._lookahead

    def _chunk_was_read(self, _: str) -> None:
        self._chunks_read += 1
        if self._lookahead is not None:
            self.release()

    def _event_was_read(self, event: StreamEvent) -> None:
        if self._lookahead is not None and isinstance(event, ChunkEvent):
            self._chunk_events_read += 1
            self.release()


class StreamChunkingResult:
    """A streaming run as its user sees it: made by ``stream_with_chunking`` and ``m.stream``.

    The released text can be read with :meth:`astream`, what happens with :meth:`events`; either, both
    or neither, in any order. The attributes below are final when :meth:`acomplete` has returned.
    """

    completed: bool
    """Whether the text came to its natural end: no check failed while it streamed, no error, no cancel."""
    final_validations: list[ValidationResult]
    """After a natural end: one verdict per requirement on the whole text, in their order."""
    streaming_failures: list[tuple[Requirement, PartialValidationResult]]
    """The requirements that failed while the text streamed (the copies that judged it), in order."""
    generation: GenerationInfo
    """Model, usage, finish reason and times, as far as they are known."""
    error: Exception | None
    """The error that ended the run. Reading it does not count as having observed it."""
    cancelled: bool
    """Whether the run was cancelled from outside: by :meth:`cancel`, its block or its session."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        lookahead: int | None,
        observed: Callable[[], None],
    ) -> None:
        self.completed = False
        self.cancelled = False
        self.final_validations = []
        self.streaming_failures = []
        self.generation = GenerationInfo()
        self.error = None
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self.gate: Gate = Gate(ledger, lookahead, self.raise_error)
        self.text_parts: list[str] = []
        self.ended: anyio.Event = anyio.Event()
        self._observed = observed
        self.error_was_raised: bool = False

    @property
    def full_text(self) -> str:
        """The released text: a prefix of the generated one, and after a natural end all of it."""
        text = "".join(self.text_parts)
        return text if self.completed else text[: self.gate.position]

    def astream(self) -> AsyncIterator[str]:
        """The released chunks, in order, as they are released.

        One reader: a second iteration raises :class:`~mellea_sc.StreamConsumed` at its first step.
        Ends when the run ends; after a failed check that is early, see :attr:`completed`.

        Raises:
            Exception: the error that ended the run, as itself, after the chunks that were released
                before it; raised here or by :meth:`acomplete`, once.

        Cancellation: only the waiting ends. Nothing is lost.
        """
        return self.gate.chunks.reader()

    def events(self) -> AsyncIterator[StreamEvent]:
        """What happens, in order; the last event is always a ``CompletedEvent``.

        One reader: a second iteration raises :class:`~mellea_sc.StreamConsumed` at its first step.
        An error comes as an ``ErrorEvent`` and is raised by :meth:`astream` or :meth:`acomplete`.

        Cancellation: only the waiting ends. Nothing is lost.
        """
        return self.gate.events.reader()

    async def acomplete(self) -> None:
        """Wait for the end of the run; a ``lookahead`` does not hold it up any more.

        Raises:
            Exception: the error that ended the run, as itself, unless :meth:`astream` has raised it.

        Cancellation: only the waiting ends; the run goes on.
        """
        self.gate.open()
        await self.ended.wait()
        self.raise_error()

    @property
    def as_thunk(self) -> ModelOutputThunk:
        """The released text as a computed thunk.

        Raises:
            ThunkNotComputed: the run has not ended.
        """
        if not self.ended.is_set():
            raise ThunkNotComputed("the run has not ended: `await result.acomplete()` first")
        return ModelOutputThunk.computed(self.full_text, generation=self.generation)

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the run: the connection is closed, every validator is cancelled."""
        self.scope.cancel(reason)

    def raise_error(self) -> None:
        """Raise the error that ended the run, if there is one and it has not been raised before."""
        if self.error is not None and not self.error_was_raised:
            self.error_was_raised = True
            self._observed()
            raise self.error

    def __repr__(self) -> str:
        if not self.ended.is_set():
            state = "running"
        elif self.completed:
            state = "completed"
        elif self.error is not None:
            state = "ended by an error"
        elif self.cancelled:
            state = "cancelled"
        else:
            state = "stopped by a failed check"
        return f"<StreamChunkingResult {state}, {self.gate.released} chunks released>"
