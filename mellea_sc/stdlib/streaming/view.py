"""Decides what the readers of a checked stream are shown, and when.

::

    Ledger: its chunks ──AttemptView.advance()──> Readers: chunks, events
       │  held until every lane has passed them      │
       │  held back until the attempt is accepted    │ with ``lookahead``: until
       └─ all held back until the input is checked   └─ the reader has room

Releasing never waits. Everything that may make a release possible (a verdict of a lane, a reader that has read, a
precondition that is met, the end of an attempt) calls :meth:`AttemptView.advance`.

A :class:`Gate` chooses which attempt of a run is shown; an :class:`AttemptView` shows the chunks of one attempt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import anyio

from mellea_sc.core.requirement import ValidationResult
from mellea_sc.runtime.checks.attempt import Attempt
from mellea_sc.runtime.checks.edits import Edits
from mellea_sc.runtime.checks.ledger import Ledger
from mellea_sc.runtime.pacing import Valves
from mellea_sc.stdlib.sampling.plan import Ask
from mellea_sc.stdlib.streaming.events import (
    EditEvent,
    FullValidationEvent,
    QuickCheckEvent,
    ReasoningEvent,
    RetryEvent,
    StreamingDoneEvent,
)
from mellea_sc.stdlib.streaming.readers import Readers, ReleasedChunk

__all__ = ["AttemptView", "Gate"]


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


class Gate:
    """Decides which attempt of a run is shown, and from when on.

    Args:
        lookahead: The number of released chunks that may wait unread; ``None``: any number.
        hold_back: The number of passed chunks that are not shown until their attempt is accepted; ``math.inf``:
            all of them.
        may_retract: Whether an attempt may replace text that an earlier one has shown.
        concurrent: Whether several attempts may run at the same time: then none is shown before it is accepted.
        locked: Whether nothing is shown until :meth:`unlock`.
        error: Returns the run's error, if it has one that was not raised yet.
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
        self.view: AttemptView | None = None
        """The view of the attempt that is shown, or will be shown."""
        self.hold_back: float = math.inf if concurrent else hold_back
        self.readers: Readers = Readers(
            lookahead=lookahead,
            may_retract=may_retract and self.hold_back < math.inf,
            is_full=self._is_full,
            on_read=self._advance,
            error=error,
        )
        self._concurrent = concurrent
        self._views: dict[int, AttemptView] = {}
        self._locked = locked
        self._unlocked = anyio.Event()

    # --- the stage of attempts -------------------------------------------------------------------

    def begin_attempt(self, number: int, ask: Ask, ledger: Ledger, edits: Edits) -> AttemptView:
        """Begin to show an attempt; chunks of the previous one that it does not keep are retracted."""
        before, shown = self.view, 0
        if before is not None:
            before.write_validation()
            before.hold()
            if before.released > ask.keep:
                self.readers.retract(ask.keep, before.number)
            shown = min(before.released, ask.keep)
        view = self._views[number] = AttemptView(number, ledger, edits, self.readers, shown=shown)
        if not self._concurrent:
            self.view = view
            if not self._locked:
                view.show(self.hold_back)
        if ask.reason is not None:
            self.readers.write(RetryEvent(number, ask.reason))
        return view

    def end_attempt(self, number: int, attempt: Attempt) -> int:
        """End the view of an attempt; returns the number of its chunks that were shown, 1 for white space alone."""
        if attempt.ledger.failures:
            index, verdicts = attempt.ledger.failed_chunk()
            self.readers.write(QuickCheckEvent(index, number, False, verdicts))
        view = self._views[number]
        return max(view.chunks_released, min(view.released, 1))

    async def accept(self, number: int, valves: Valves) -> None:
        """Accept an attempt: show everything that is held back, as fast as the readers have room.

        Cancellation: chunks that were not released by then never are.
        """
        if self._locked:
            await self._unlocked.wait()
        view = self.view = self._views[number]
        view.show(0)
        await view.room(valves)
        view.finish()

    def reject(self, number: int) -> None:
        """End without an accepted attempt: this one is the best, and stays shown as far as it was."""
        view = self._views[number]
        view.write_validation()
        if self._concurrent:
            self.view = view

    def unlock(self) -> None:
        """Allow showing: the preconditions are met."""
        self._locked = False
        self._unlocked.set()
        if self.view is not None:
            self.view.show(self.hold_back)

    def characters_shown(self) -> dict[int, int]:
        """For each attempt's number, how many characters of its own it has shown."""
        return {number: view.characters for number, view in self._views.items()}

    # --- the readers -----------------------------------------------------------------------------

    def stop_throttling(self) -> None:
        """Stop the back-pressure by the readers."""
        self.readers.valve.open_for_good()
        self._advance()

    def _is_full(self) -> bool:
        return self.view is not None and self.view.is_full

    def _advance(self) -> None:
        if self.view is not None:
            self.view.advance()
