"""The text that is shown, on its way to its lanes and its view.

::

    feed(delta) ──> Cutter ──chunk──> ledger.cut()                       the main chunking
                      │
                      ├──chunk──> lane 0 ──verdict──┐
                      └──chunk──> lane 1 ──verdict──┤
        own Cutter ────piece──> lane 2 ──verdict──┴──> ledger ──> view.advance(), or cancel()
        (a requirement with its own chunking)

Lanes do not wait for one another: one may be as far ahead of another as its buffer is long. While more
pieces wait for a lane than its buffer holds, the producer waits in :meth:`Lanes.room`. One delta can
bring many pieces at once; only they go beyond the buffer, unless the valve was opened. A lane that does not
block (an advisory one) never makes the producer wait.
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
    """What is shown of an attempt while it runs."""

    @property
    def is_full(self) -> bool:
        """Whether the producer should wait for the reader."""
        ...

    def advance(self) -> None:
        """The ledger lets more be shown."""
        ...

    async def room(self, valves: Valves) -> None:
        """Wait for the reader."""
        ...

    def reasoned(self, text: str) -> None:
        """The model has thought on."""
        ...

    def generated(self, text: str) -> None:
        """The text has come to its natural end."""
        ...

    def validated(self, validations: Sequence[ValidationResult]) -> None:
        """The whole text has been judged."""
        ...


class Lanes:
    """The end of a text's way: its lanes and its view.

    Args:
        main: The chunking that the reader sees.
        lanes: Those who judge; none is fine.
        ledger: For as many lanes.
        view: Where it is shown.
        cancel: Called when the text is not to go on.
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
        """The text, as it came."""
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
        self._cutting = False
        self._valve = Valve(self._is_behind, for_reader=False)
        for lane in lanes:
            lane.connect(self)

    # --- the producer's side ------------------------------------------------------------------

    def feed(self, text: str) -> bool:
        """Cut the text and give the pieces to the lanes; true when a lane or the reader is behind."""
        full = False
        self.parts.append(text)
        self._cutting = True
        for chunk in self._main.feed(text):
            full |= self._take(chunk, self._on_chunk)
        for lane, cutter in self._on_own:
            for piece in cutter.feed(text):
                full |= lane.offer(piece)
        self._cutting = False
        return (full and not self._valve.is_open) or self._view.is_full

    def end(self) -> None:
        """The text has ended: give the lanes its trailing fragments.

        After a chunking has raised, none is asked for one.
        """
        try:
            if not self._cutting:
                self._cutting = True
                for chunk in self._main.flush():
                    self._take(chunk, self._on_chunk)
                for lane, cutter in self._on_own:
                    for piece in cutter.flush():
                        lane.offer(piece)
                self._cutting = False
        finally:
            for lane in self._lanes:
                lane.end()

    def finish(self) -> None:
        """The text is whole and judged: what no chunk holds at its end may be shown as well."""
        if rest := self._main.rest():
            self._take(rest, ())

    def _take(self, chunk: Chunk, lanes: Sequence[Lane]) -> bool:
        full = False
        if self._remembers:
            self.chunks.append(chunk)
        if self._ledger.cut(chunk) == "release":  # the lane that failed has told of a "cancel"
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

    def close(self) -> None:
        """Forget what has not been judged."""
        for lane in self._lanes:
            lane.close()

    # --- the lanes' side ------------------------------------------------------------------------

    def judged(self, lane: int, piece: Chunk, verdict: PartialValidationResult) -> WhatNext:
        """A lane has a verdict on its next piece."""
        move = self._ledger.judged(lane, piece, verdict)
        if move == "release":
            self._view.advance()
        elif move == "cancel":
            self._cancel()
            return "stop"
        return "go on"

    def caught_up(self) -> None:
        """A lane is not behind any more."""
        self._valve.look()

    def ended(self, lane: int) -> None:
        """A lane judges no more: it has passed all of the text, if that was cut to its end."""
        if not self._cutting and self._ledger.passed(lane, math.inf) == "release":
            self._view.advance()
