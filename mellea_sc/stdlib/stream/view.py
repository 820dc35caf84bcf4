"""What a reader of a checked stream is shown, and when.

::

    Attempt ──cut──> AttemptView: chunks in waiting ──advance()──> Gate: events, chunks ──> readers
                        │  held until the ledger releases them          │
                        │  held back until the attempt is accepted      │ with ``lookahead``: until
                        └─ locked until the input is checked            └─ the reader has room

Releasing never waits: whoever makes it possible (a lane with its verdict, a reader with its reading,
the end of an attempt) does it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

import anyio

from mellea_sc.core.requirement import ValidationResult
from mellea_sc.runtime.checks.attempt import Attempt
from mellea_sc.runtime.checks.edits import Edits
from mellea_sc.runtime.checks.ledger import Chunk, Ledger
from mellea_sc.runtime.pacing import Valve, Valves
from mellea_sc.runtime.tape import Tape
from mellea_sc.stdlib.sampling.plan import Ask
from mellea_sc.stdlib.stream.events import (
    EditEvent,
    FullValidationEvent,
    QuickCheckEvent,
    ReasoningEvent,
    RetractEvent,
    RetryEvent,
    StreamingDoneEvent,
)
from mellea_sc.stdlib.stream.tape import EventTape, Shown

__all__ = ["AttemptView", "Gate"]


class Gate:
    """The readers' side of a run: a stage for its attempts.

    Args:
        lookahead: How many released chunks may wait unread; ``None``: any number.
        hold_back: How many chunks that may be shown are not, until their attempt is accepted;
            ``math.inf``: all of them.
        may_retract: Whether released chunks may be retracted: then the tape of chunks, which cannot say
            so, has those of the last attempt only, at its end.
        concurrent: Whether several attempts may run at once: then none is shown before it is accepted.
        locked: Whether nothing is shown until :meth:`unlock`.
        error: Gives the run's error, if it has one that was not raised yet.
    """

    def __init__(
        self,
        *,
        lookahead: int | None,
        hold_back: float,
        may_retract: bool,
        concurrent: bool,
        locked: bool,
        error: Callable[[], Exception | None],
    ) -> None:
        self.chunks: Tape[Chunk] = Tape(
            "astream() or atext()", on_read=self._chunk_was_read, error=error
        )
        self.events: EventTape = EventTape(self._chunk_event_was_read)
        self.showing: AttemptView | None = None
        self.hold_back: float = math.inf if concurrent else hold_back
        self.may_retract: bool = may_retract and self.hold_back < math.inf
        self.closed: bool = False
        self.written: int = 0
        self._shows_several = concurrent
        self._all: dict[int, AttemptView] = {}
        self.lookahead: int | None = lookahead
        self.locked: bool = locked
        self.valve: Valve = Valve(self._is_full, for_reader=True)
        self._unlocked = anyio.Event()
        self._chunks_read = 0
        self._chunk_events_read = 0

    # --- a stage for attempts --------------------------------------------------------------------

    def enter(self, number: int, ask: Ask, ledger: Ledger, edits: Edits) -> AttemptView:
        """An attempt begins."""
        before = self.showing
        showing = self._all[number] = AttemptView(self, number, ledger, edits)
        if not self._shows_several:
            self.showing = showing
        if before is not None and not self._shows_several:
            showing.take_over(before, ask.keep)
        if ask.reason is not None:
            self.events.write(RetryEvent(number, ask.reason))
        return showing

    def leave(self, attempt: Attempt, number: int) -> int:
        """An attempt has ended; gives how many of its chunks have been shown."""
        showing = self._all[number]
        if attempt.ledger.failed:
            index = min(failure.chunk_index for failure in attempt.ledger.failures)
            verdicts = attempt.ledger.verdicts_on_failure()
            self.events.write(QuickCheckEvent(index, number, False, verdicts))
        return showing.chunks_released

    async def accept(self, number: int, valves: Valves) -> None:
        """An attempt is accepted: all that is held back is shown, as the reader has room.

        Cancellation: what was not released by then never is.
        """
        if self.locked:
            await self._unlocked.wait()
        showing = self.showing = self._all[number]
        self.hold_back = 0
        showing.advance()
        await showing.room(valves)
        showing.end()

    def reject(self, number: int) -> None:
        """No attempt is accepted; this one comes nearest, and is as far shown as it was."""
        showing = self._all[number]
        showing.write_validation()
        if self._shows_several:
            self.showing = showing

    @property
    def is_showing(self) -> bool:
        """Whether anything of an attempt may be shown now, be it text or not."""
        return self.showing is not None and not self.locked and self.hold_back < math.inf

    def unlock(self) -> None:
        """The input is good."""
        self.locked = False
        self._unlocked.set()
        self._go_on()

    def characters_shown(self) -> dict[int, int]:
        """How many characters of its own each attempt has shown, by the attempts' numbers."""
        return {number: showing.characters for number, showing in self._all.items()}

    # --- the readers -----------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Whether another chunk may be released, as far as the readers are concerned."""
        if self.lookahead is None or self.valve.is_open:
            return True
        if self.may_retract and not self.events.has_reader:
            return True
        read = max(self._chunks_read, self._chunk_events_read)
        return self.written - read < self.lookahead

    def open(self) -> None:
        """Wait for the readers no more."""
        self.valve.open_for_good()
        self._go_on()

    def _is_full(self) -> bool:
        return self.showing is not None and self.showing.is_full

    def close(self) -> None:
        """The run has ended: what was not released never is, whoever reads on."""
        self.closed = True
        if self.showing is not None:
            self.showing.settle()
        self.chunks.end()
        self.events.end()

    def _chunk_was_read(self, _: Chunk) -> None:
        self._chunks_read += 1
        if self.lookahead is not None:
            self._go_on()

    def _chunk_event_was_read(self) -> None:
        self._chunk_events_read += 1
        if self.lookahead is not None:
            self._go_on()

    def _go_on(self) -> None:
        if self.showing is not None:
            self.showing.advance()


class AttemptView:
    """What is shown of one attempt: its audience.

    Args:
        gate: Where it is shown.
        number: The attempt's.
        ledger: Says what may be shown.
        edits: What was edited in it.
    """

    def __init__(self, gate: Gate, number: int, ledger: Ledger, edits: Edits) -> None:
        self.number = number
        self.released: int = 0
        self.position: int = 0
        self._gate = gate
        self._ledger = ledger
        self._edits = edits
        self._waiting: deque[Chunk] = deque()
        self._thoughts: list[ReasoningEvent] = []
        self._shown_before = 0
        self._began_at = 0
        self._chunks: list[Chunk] = []
        self._ends_in_space = False
        self._full_text: str | None = None
        self._validations: Sequence[ValidationResult] | None = None

    def take_over(self, before: AttemptView, keep: int) -> None:
        """Go on where another attempt was good; what else was shown of it is retracted."""
        before.write_validation()
        if before.released > keep:
            self._gate.events.write(RetractEvent(keep, before.number))
        self.released = self._shown_before = min(before.released, keep)
        self._chunks = before._chunks[: self.released]

    @property
    def chunks_released(self) -> int:
        """How many chunks have been released: white space that ends the text is none."""
        return self.released - self._ends_in_space

    @property
    def characters(self) -> int:
        """How much has been shown of what it generated itself."""
        return self._edits.source(self.position) - self._began_at

    def cut(self, chunk: Chunk) -> None:
        """Take the next chunk of the main chunking."""
        if self._shown_before:
            self._shown_before -= 1
            self.position = self._began_at = chunk.end
        else:
            self._waiting.append(chunk)

    def reasoned(self, text: str) -> None:
        """The model has thought on: said at once, where its attempt may be shown before it has ended."""
        self._thoughts.append(ReasoningEvent(text, self.number))
        self._tell_thoughts()

    def _tell_thoughts(self) -> None:
        gate = self._gate
        if self is gate.showing and gate.is_showing:
            for thought in self._thoughts:
                gate.events.write(thought)
            self._thoughts.clear()

    def advance(self) -> None:
        """Let out what may be shown now."""
        gate = self._gate
        if self._thoughts:
            self._tell_thoughts()
        if self is gate.showing and not gate.locked:
            most = self._ledger.releasable - gate.hold_back
            unbounded = gate.lookahead is None
            while self.released < most and not gate.closed and (unbounded or gate.has_room()):
                self._release(self._waiting.popleft())
        if gate.valve.wake is not None and not self.is_full:
            gate.valve.look()

    def _release(self, chunk: Chunk) -> None:
        gate, ledger, index = self._gate, self._ledger, self.released
        if self._edits.untold:
            self._tell_edits(chunk.end)
        verdicts = ledger.verdicts_on(index) if ledger.lanes else None
        if gate.may_retract:
            self._chunks.append(chunk)
        else:
            gate.chunks.write(chunk)
        gate.events.write(Shown(chunk.text, chunk.before, index, self.number, verdicts))
        if chunk.text:
            gate.written += 1
        else:
            self._ends_in_space = True
        self.released += 1
        self.position = chunk.end

    def _tell_edits(self, position: float) -> None:
        """Say what was edited before a position of the text; it stands before the next chunk's events."""
        for edit in self._edits.take(position):
            event = EditEvent(self.released, self.number, edit.lane, edit.verdict)
            self._gate.events.write(event)

    @property
    def is_full(self) -> bool:
        """Whether a chunk that may be shown waits for the reader."""
        releasable = self._ledger.releasable
        if self.released >= releasable:
            return False
        gate = self._gate
        return (
            not gate.has_room()
            and self is gate.showing
            and not gate.locked
            and self.released < releasable - gate.hold_back
        )

    async def room(self, valves: Valves) -> None:
        """Wait until no chunk waits for the reader."""
        if self.is_full:
            await self._gate.valve.wait(valves)
            self.advance()  # it may have been opened without a reader who has made room

    def generated(self, text: str) -> None:
        """The text has come to its natural end."""
        self._full_text = text
        if self._is_live:
            self._write_done()

    def validated(self, validations: Sequence[ValidationResult]) -> None:
        """The whole text has been judged."""
        self._validations = validations
        if self._is_live and self._full_text is None:
            self.write_validation()

    @property
    def _is_live(self) -> bool:
        gate = self._gate
        return self is gate.showing and not gate.hold_back and not gate.locked

    def _write_done(self) -> None:
        if self._full_text is not None:
            self._tell_edits(math.inf)
            self._gate.events.write(StreamingDoneEvent(self.number, self._full_text))
            self._full_text = None

    def write_validation(self) -> None:
        """Say how the whole text was judged, if that has not been said."""
        if self._validations is not None:
            verdicts = list(self._validations)
            self._gate.events.write(FullValidationEvent(self.number, all(verdicts), verdicts))
            self._validations = None

    def end(self) -> None:
        """It is accepted, and all of it is shown."""
        self.settle()
        self._write_done()
        self.write_validation()

    def settle(self) -> None:
        """What has been shown is not retracted any more: those readers have it who cannot be told so."""
        chunks, self._chunks = self._chunks, []
        if self._gate.may_retract:
            for chunk in chunks:
                self._gate.chunks.write(chunk)
