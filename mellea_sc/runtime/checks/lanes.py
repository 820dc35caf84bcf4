"""Cuts the text that is shown, gives the pieces to the lanes, and their verdicts to the ledger.

::

    feed(delta) ──> Cutter ──chunk──> ledger.cut()                       the main chunking
                      │
                      ├──chunk──> lane 0 ──verdict──┐
                      └──chunk──> lane 1 ──verdict──┤
        own Cutter ────piece──> lane 2 ──verdict──┴──> ledger ──> view.advance(), or cancel()
        (a requirement with its own chunking)

Lanes do not wait for one another: one may be as many pieces ahead of another as its buffer is long. While more
pieces wait for a lane than its buffer holds, the producer waits in :meth:`Lanes.room`. Only the pieces of one delta
can exceed the buffer, unless the valve was opened. A lane that does not block (an advisory one) never makes the
producer wait.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from mellea_sc.core.requirement import PartialValidationResult, ValidationResult
from mellea_sc.runtime.checks.cutter import Cutter
from mellea_sc.runtime.checks.lane import Lane, WhatNext
from mellea_sc.runtime.checks.ledger import Chunk, Ledger
from mellea_sc.runtime.pacing import Valve, Valves

__all__ = ["Lanes", "View"]


class View(Protocol):
    """Shows an attempt while it runs."""

    @property
    def is_full(self) -> bool:
        """Whether the producer should wait for the reader."""
        ...

    def advance(self) -> None:
        """Show what may be shown now; called when the ledger has released something."""
        ...

    async def room(self, valves: Valves) -> None:
        """Wait until the reader has room."""
        ...

    def reasoned(self, text: str) -> None:
        """Take new reasoning of the model."""
        ...

    def generated(self, text: str) -> None:
        """Take the whole text, at its natural end."""
        ...

    def validated(self, validations: Sequence[ValidationResult]) -> None:
        """Take the verdicts on the whole text."""
        ...


class Lanes:
    """The lanes of one text.

    Args:
        main: The chunking that the reader sees.
        lanes: One for each requirement that validates running text.
        ledger: Decides what may be shown.
        view: Shows it.
        cancel: Called when a requirement has failed.
        remembers: Whether its chunks are kept.
    """

    def __init__(
        self,
        main: Cutter,
        lanes: Sequence[Lane],
        ledger: Ledger,
        view: View,
        *,
        cancel: Callable[[], None],
        remembers: bool,
    ) -> None:
        self.parts: list[str] = []
        """The text, in the pieces in which it came."""
        self.chunks: list[Chunk] = []
        """Its chunks, if they are kept."""
        self._main = main
        self._lanes = lanes
        self._on_chunk = [lane for lane in lanes if lane.cutter is None]
        self._on_own = [(lane, lane.cutter) for lane in lanes if lane.cutter is not None]
        self._ledger = ledger
        self._view = view
        self._cancel = cancel
        self._remembers = remembers
        # Whether a chunking is at work, or has raised. While it is set, the text is not known to be cut to its end.
        self._is_cutting = False
        self._valve = Valve(self._is_behind, for_reader=False)
        for lane in lanes:
            lane.connect(self)

    # --- the producer's side ------------------------------------------------------------------

    def feed(self, text: str) -> bool:
        """Cut the text and give the pieces to the lanes; true if the producer should wait for a lane or the reader."""
        full = False
        self.parts.append(text)
        self._is_cutting = True
        for chunk in self._main.feed(text):
            full |= self._take(chunk, self._on_chunk)
        for lane, cutter in self._on_own:
            for piece in cutter.feed(text):
                full |= lane.offer(piece)
        self._is_cutting = False
        return (full and not self._valve.is_open) or self._view.is_full

    def end(self) -> None:
        """End the text: give the lanes its trailing fragments, unless a chunking has raised."""
        try:
            if not self._is_cutting:
                self._is_cutting = True
                for chunk in self._main.flush():
                    self._take(chunk, self._on_chunk)
                for lane, cutter in self._on_own:
                    for piece in cutter.flush():
                        lane.offer(piece)
                self._is_cutting = False
        finally:
            for lane in self._lanes:
                lane.end()

    def finish(self) -> None:
        """Add what stands after the last chunk, after all of the text was validated."""
        if rest := self._main.rest():
            self._take(rest, ())

    def _take(self, chunk: Chunk, lanes: Sequence[Lane]) -> bool:
        full = False
        if self._remembers:
            self.chunks.append(chunk)
        # Not for "cancel": the lane that has failed has called cancel() already.
        if self._ledger.cut(chunk) == "release":
            self._view.advance()
        for lane in lanes:
            full |= lane.offer(chunk)
        return full

    def _is_behind(self) -> bool:
        return any(lane.is_behind for lane in self._lanes if lane.requirement.blocking)

    async def room(self, valves: Valves) -> None:
        """Wait until no lane that blocks is behind, and then for the reader."""
        await self._valve.wait(valves)
        await self._view.room(valves)

    # --- the lanes' side ------------------------------------------------------------------------

    def judged(self, lane: int, piece: Chunk, verdict: PartialValidationResult) -> WhatNext:
        """Take a lane's verdict on its next piece."""
        move = self._ledger.judged(lane, piece, verdict)
        if move == "release":
            self._view.advance()
        elif move == "cancel":
            self._cancel()
            return "stop"
        return "go on"

    def caught_up(self) -> None:
        """Wake the producer: a lane has room again."""
        self._valve.look()

    def ended(self, lane: int) -> None:
        """Take notice that a lane has validated all of its pieces: of all the text, if that was cut to its end."""
        if not self._is_cutting and self._ledger.passed(lane, math.inf) == "release":
            self._view.advance()
