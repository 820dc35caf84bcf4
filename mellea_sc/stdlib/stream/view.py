"""What the readers of a checked stream are shown, and when.

::

    Attempt ──cut──> AttemptView: chunks in waiting ──advance()──> Readers: chunks, events
                        │  held until the ledger releases them        │
                        │  held back until the attempt is accepted    │ with ``lookahead``: until
                        └─ all held back until the input is checked   └─ the reader has room

Releasing never waits: whoever makes it possible (a lane with its verdict, a reader with its reading, a
precondition that is met, the end of an attempt) calls :meth:`AttemptView.advance`.

A :class:`Gate` knows all attempts of a run and shows one of them at a time; an :class:`AttemptView` knows
one attempt and how much of it may be shown.
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
from mellea_sc.runtime.pacing import Valves
from mellea_sc.stdlib.sampling.plan import Ask
from mellea_sc.stdlib.stream.events import (
    EditEvent,
    FullValidationEvent,
    QuickCheckEvent,
    ReasoningEvent,
    RetryEvent,
    StreamingDoneEvent,
)
from mellea_sc.stdlib.stream.readers import Readers, ReleasedChunk

__all__ = ["AttemptView", "Gate"]


class AttemptView:
    """What is shown of one attempt.

    Args:
        number: The attempt's.
        ledger: Says what its requirements have passed.
        edits: What was edited in it.
        readers: Whom it is shown to.
        shown: How many of its first chunks an earlier attempt has shown already.
    """

    def __init__(
        self, number: int, ledger: Ledger, edits: Edits, readers: Readers, *, shown: int
    ) -> None:
        self.number: int = number
        self.released: int = shown
        """How many entries were released: its chunks, and white space that ends the text."""
        self.position: int = 0
        """Up to where its text is shown."""
        self._ledger = ledger
        self._edits = edits
        self._readers = readers
        # how many chunks that have passed are not shown yet: none is, until show() says so
        self._held_back: float = math.inf
        self._waiting: deque[Chunk] = deque()
        self._shown_before = shown
        self._began_at = 0
        self._ends_in_space = False
        self._thoughts: list[ReasoningEvent] = []
        self._full_text: str | None = None
        self._validations: Sequence[ValidationResult] | None = None

    @property
    def chunks_released(self) -> int:
        """How many chunks have been released: white space that ends the text is none."""
        return self.released - self._ends_in_space

    @property
    def characters(self) -> int:
        """How much has been shown of what it generated itself."""
        return self._edits.source(self.position) - self._began_at

    @property
    def is_shown(self) -> bool:
        """Whether anything of it may be shown now, be it text or not."""
        return self._held_back < math.inf

    # --- from its attempt ----------------------------------------------------------------------------

    def cut(self, chunk: Chunk) -> None:
        """Take the next chunk of the main chunking."""
        if self._shown_before:
            self._shown_before -= 1
            self.position = self._began_at = chunk.end
        else:
            self._waiting.append(chunk)

    def advance(self) -> None:
        """Show what may be shown now.

        It is called by everything that might allow for more, and most of these calls find that something else
        still forbids it; so it looks at all conditions anew, and none of its callers has to know the others.
        """
        readers, ledger = self._readers, self._ledger
        if readers.have_ended:
            return
        if self._thoughts:
            self._write_reasoning()
        allowed = ledger.releasable - self._held_back
        is_bounded = readers.lookahead is not None
        while self.released < allowed and not (is_bounded and readers.is_behind):
            chunk = self._waiting.popleft()
            if self._edits.untold:
                self._write_edits(chunk.end)
            verdicts = ledger.take_verdicts(self.released) if ledger.lanes else None
            readers.release(
                ReleasedChunk(chunk.text, chunk.before, self.released, self.number, verdicts)
            )
            self.released += 1
            self.position = chunk.end
            self._ends_in_space = not chunk.text
        if readers.valve.wake is not None and not self.is_full:
            readers.valve.look()

    @property
    def is_full(self) -> bool:
        """Whether a chunk that may be shown waits for the readers."""
        allowed = self._ledger.releasable - self._held_back
        return self.released < allowed and self._readers.is_behind

    async def room(self, valves: Valves) -> None:
        """Wait until no chunk waits for the readers."""
        if self.is_full:
            await self._readers.valve.wait(valves)
            self.advance()  # the valve may have been opened, though no reader has made room

    def reasoned(self, text: str) -> None:
        """The model has thought on: said at once, where its attempt may be shown before it has ended."""
        self._thoughts.append(ReasoningEvent(text, self.number))
        self._write_reasoning()

    def generated(self, text: str) -> None:
        """The text has come to its natural end."""
        self._full_text = text
        if not self._held_back:
            self._write_end()

    def validated(self, validations: Sequence[ValidationResult]) -> None:
        """The whole text has been judged."""
        self._validations = validations
        if not self._held_back and self._full_text is None:
            self.write_validation()

    # --- from its gate -------------------------------------------------------------------------------

    def show(self, held_back: float) -> None:
        """Show it from now on, but for so many of the last chunks that have passed."""
        self._held_back = held_back
        self.advance()

    def hold(self) -> None:
        """Show no more of it."""
        self._held_back = math.inf

    def finish(self) -> None:
        """It is accepted, and all of it is shown: say how it ended."""
        self._readers.settle()
        self._write_end()
        self.write_validation()

    def write_validation(self) -> None:
        """Say how the whole text was judged, if that has not been said."""
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
        """Say what was edited before a position of the text; it stands before the next chunk's events."""
        for edit in self._edits.take(position):
            self._readers.write(EditEvent(self.released, self.number, edit.lane, edit.verdict))

    def _write_end(self) -> None:
        if self._full_text is not None:
            self._write_edits(math.inf)
            self._readers.write(StreamingDoneEvent(self.number, self._full_text))
            self._full_text = None


class Gate:
    """Says which attempt of a run is shown, and from when on.

    Args:
        lookahead: How many released chunks may wait unread; ``None``: any number.
        hold_back: How many chunks that have passed are not shown until their attempt is accepted;
            ``math.inf``: all of them.
        may_retract: Whether an attempt may take the place of text that an earlier one has shown.
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
        self.view: AttemptView | None = None
        """That of the attempt that is shown, or will be."""
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

    # --- a stage for attempts --------------------------------------------------------------------

    def begin_attempt(self, number: int, ask: Ask, ledger: Ledger, edits: Edits) -> AttemptView:
        """An attempt begins: it goes on where the one before was good, and what else was shown is retracted."""
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
        """An attempt has ended; gives how many of its chunks have been shown."""
        if failures := attempt.ledger.failures:
            index = min(failure.chunk_index for failure in failures)
            verdicts = attempt.ledger.verdicts_on_failure()
            self.readers.write(QuickCheckEvent(index, number, False, verdicts))
        return self._views[number].chunks_released

    async def accept(self, number: int, valves: Valves) -> None:
        """An attempt is accepted: all that is held back is shown, as the readers have room.

        Cancellation: what was not released by then never is.
        """
        if self._locked:
            await self._unlocked.wait()
        view = self.view = self._views[number]
        view.show(0)
        await view.room(valves)
        view.finish()

    def reject(self, number: int) -> None:
        """No attempt is accepted; this one comes nearest, and is as far shown as it was."""
        view = self._views[number]
        view.write_validation()
        if self._concurrent:
            self.view = view

    def unlock(self) -> None:
        """The input is good."""
        self._locked = False
        self._unlocked.set()
        if self.view is not None:
            self.view.show(self.hold_back)

    def characters_shown(self) -> dict[int, int]:
        """How many characters of its own each attempt has shown, by the attempts' numbers."""
        return {number: view.characters for number, view in self._views.items()}

    # --- the readers -----------------------------------------------------------------------------

    def stop_throttling(self) -> None:
        """Wait for the readers no more."""
        self.readers.valve.open_for_good()
        self._advance()

    def _is_full(self) -> bool:
        return self.view is not None and self.view.is_full

    def _advance(self) -> None:
        if self.view is not None:
            self.view.advance()
