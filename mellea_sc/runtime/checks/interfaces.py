"""The interfaces between the parts that check a text.

::

    text ──> TextSink   an editor, or the lanes: take text
    Lane ──> VerdictSink   whoever owns the lane: takes its verdicts
         <── PieceSource   an editor: gives its lane the pieces when the lane is ready
    Lanes ─> View   shows what may be shown
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

from mellea_sc.core.requirement import PartialValidationResult, ValidationResult
from mellea_sc.runtime.checks.chunks import Chunk
from mellea_sc.runtime.pacing import Valves

WhatNext: TypeAlias = Literal["go on", "wait", "stop"]
"""What a lane does after a verdict: validate the next piece at once; wait for :meth:`PieceSource.wait` first; end."""


class TextSink(Protocol):
    """Receives text: an editor, or the lanes at the end of the chain."""

    def feed(self, text: str) -> bool:
        """Take the text; true if the writer should wait for :meth:`room`."""
        ...

    def end(self) -> None:
        """End the text."""
        ...

    async def room(self, valves: Valves) -> None:
        """Wait until there is room again."""
        ...


class VerdictSink(Protocol):
    """Receives the verdicts of a lane."""

    def judged(self, lane: int, piece: Chunk, verdict: PartialValidationResult) -> WhatNext:
        """Take the verdict on the lane's next piece."""
        ...

    def caught_up(self) -> None:
        """Take notice that no more pieces wait for the lane than its buffer holds."""
        ...

    def ended(self, lane: int) -> None:
        """Take notice that the lane has validated all of the text."""
        ...


class PieceSource(Protocol):
    """Gives a lane its pieces when the lane is ready for them, instead of :meth:`Lane.offer`."""

    def take(self) -> Sequence[Chunk]:
        """The next pieces of the text that has come."""
        ...

    def rest(self) -> Sequence[Chunk] | None:
        """The next pieces after the end of the text; ``None``: there are no more."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether the lane should :meth:`wait` before it goes on."""
        ...

    async def wait(self) -> None:
        """Wait until whoever receives the source's own text has room for more."""
        ...


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
