"""Requirements that change the text: a chain of editors, each of which is given what the one before gives away.

::

    deltas ──> editor 0 ──text──> editor 1 ──text──> … ──text──> Lanes: the text that is shown, and its judges
                 │ cutter: pieces
                 │ lane: stream_validate, piece by piece
                 └ a piece that fails is left out or replaced; all else goes on as it came

So there is one text: what comes out of the chain is cut into chunks, judged by every requirement (the
editing ones too, which know nothing of what they did before), released, and validated at the end. What
an edit puts together or puts in is text like any other.

What an edit brings about is edited again: each editor stands in the chain once for every pass
(:data:`PASSES`). What fails after that has not come to rest, and stops the text like any fail.

An editor depends on the text that it is given and on nothing else, so what is shown does not depend on
where the deltas were cut, or on which task had its turn first. Verdicts on pieces that a requirement has
judged already, in the pass before, are taken over (:class:`~mellea_sc.runtime.checks.memory.Findings`): a second
pass costs calls only where something was edited.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import anyio

from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.runtime.checks.cutter import Cutter
from mellea_sc.runtime.checks.edits import Edit, Edits
from mellea_sc.runtime.checks.lane import Lane, ValidatorCalls, WhatNext
from mellea_sc.runtime.checks.ledger import Chunk
from mellea_sc.runtime.generation.pump import LONGEST
from mellea_sc.runtime.pacing import Valve, Valves

__all__ = ["PASSES", "Editor", "TextSink"]

PASSES: Final = 2
"""How often each requirement that edits is given the text."""


class TextSink(Protocol):
    """What text is written to: an editor, or the lanes at the end of the chain."""

    def feed(self, text: str) -> bool:
        """Take the text; true when the writer should wait for :meth:`room`."""
        ...

    def end(self) -> None:
        """The text has ended."""
        ...

    async def room(self, valves: Valves) -> None:
        """Wait until there is room again."""
        ...


class Editor:
    """One requirement in one pass.

    Args:
        number: Its place in the chain.
        lane: Judges the text that it is given.
        cutter: Cuts that text for the lane.
        edits: Where what it does is written down.
        replaces: Whether a piece that fails is replaced, and not left out.
        kept: The beginning of the text, where it was shown by an attempt before: it stays, and those
            who come after the editor have it already.
    """

    def __init__(
        self,
        number: int,
        lane: Lane,
        cutter: Cutter,
        edits: Edits,
        *,
        replaces: bool,
        kept: str,
    ) -> None:
        self.lane: Lane = lane
        self.cut_off: PartialValidationResult | None = None
        """The verdict after which nothing can be shown any more."""
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self._number = number
        self._cutter = cutter
        self._edits = edits
        self._replaces = replaces
        self._kept = len(kept)
        self._inbox: list[str] = []
        self._valve = Valve(self._is_behind, for_reader=False)
        self._space = ""  # what is known to stand after the last piece
        self._space_given = 0  # so much of what stands after the last judged piece is given away
        self._given = 0
        self._ended = self._flushed = False
        self.is_full: bool = False
        """Whether the next in the chain is."""
        lane.connect(self, source=self)
        if kept:
            self.feed(kept)

    def connect(self, to: TextSink, ended: Callable[[Editor], None]) -> None:
        """Say where the text goes.

        Args:
            to: The next in the chain.
            ended: Called when the editor has cut off the text: nothing before it is needed any more.
        """
        self._to = to
        self._on_cut_off = ended

    # --- the writer's side -----------------------------------------------------------------------

    def feed(self, text: str) -> bool:
        """Take the text, to be cut when the lane is ready for it; true when the writer should wait."""
        if not self._inbox:
            if self.cut_off is not None:
                return False
            self.lane.wake()
        self._inbox.append(text)
        return self._valve.is_full

    def end(self) -> None:
        """The text has ended: the lane judges the rest of it."""
        self._ended = True
        self.lane.end()

    def _is_behind(self) -> bool:
        return len(self._inbox) + len(self.lane.waiting) > self.lane.buffer

    async def room(self, valves: Valves) -> None:
        """Wait until the lane is not behind any more."""
        await self._valve.wait(valves)

    # --- its task --------------------------------------------------------------------------------

    async def run(self, calls: ValidatorCalls, valves: Valves) -> None:
        """Edit the text to its end.

        Args:
            calls: How the validator is called.
            valves: Those of the session that it runs in.

        Raises:
            Exception: as :meth:`~mellea_sc.runtime.checks.lane.Lane.run`.

        Cancellation: the validator is cancelled; what it has not judged goes no further.
        """
        self._valves = valves
        with self.scope:
            await self.lane.run(calls)

    def ended(self, lane: int) -> None:
        """The text has ended, or was cut off: so has what comes of it."""
        if self.cut_off is None and (rest := self._cutter.rest()):
            self._write(rest.before[self._space_given :])
        self._to.end()

    def take(self) -> Sequence[Chunk]:
        """The pieces of what came, for the lane."""
        size = taken = 0
        for text in self._inbox:
            taken += 1
            size += len(text)
            if size >= LONGEST:
                break
        text = "".join(self._inbox[:taken])
        del self._inbox[:taken]
        if self._inbox and not self._ended:  # other tasks have a turn before the rest
            self.lane.wake()
        self._valve.look()
        return self._unjudged(self._cutter.feed(text))

    def rest(self) -> Sequence[Chunk] | None:
        """More pieces after the end of the text, and at last those that only the end has finished."""
        if self._inbox:
            return self.take()
        if self._flushed:
            return None
        self._flushed = True
        return self._unjudged(self._cutter.flush())

    def _unjudged(self, pieces: Sequence[Chunk]) -> Sequence[Chunk]:
        """The pieces that are to be judged; what is known to be good before them is given away."""
        self._space = self._cutter.space() if pieces else self._space + self._cutter.space()
        known = self.lane.memory.judged
        good = bisect_right(pieces, known, key=_end_of)
        good += self.lane.memory.passed_before(pieces[good:])
        unjudged = pieces[good:]
        text = "".join([one.before + one.text for one in pieces[:good]])
        if good or not unjudged:
            after = unjudged[0].before if unjudged else self._space
            self._write((text + after)[self._space_given :])
            self._space_given = len(after)
        return unjudged

    def judged(self, lane: int, piece: Chunk, verdict: PartialValidationResult) -> WhatNext:
        """The lane has judged the next piece."""
        # white space goes on as soon as it is known to belong to no piece
        after = self.lane.waiting[0].before if self.lane.waiting else self._space
        if verdict.success != "fail":
            self._give(piece, piece.text, after)
            return "wait" if self.is_full else "go on"
        replacement = verdict.replacement if self._replaces else ""
        stays = self._kept - piece.start  # so many of its characters were shown before
        if replacement is None or stays >= len(piece.text):
            # a fail that cannot be edited stops the text when it is judged behind the chain
            self._give(piece, piece.text, after)
            return "wait" if self.is_full else "go on"
        stays = max(0, stays)
        at = self._given + len(piece.before) - self._space_given + stays
        self._edits.add(
            self._number,
            Edit(lane, verdict, piece.start + stays, piece.end, at, at + len(replacement)),
        )
        if verdict.cuts_off:
            self._give(piece, piece.text[:stays] + replacement, "")
            self.cut_off = verdict
            self._on_cut_off(self)
            return "stop"
        self._give(piece, piece.text[:stays] + replacement, after)
        return "wait" if self.is_full else "go on"

    async def wait(self) -> None:
        """Wait until the next in the chain has room."""
        self.is_full = False
        await self._to.room(self._valves)

    def caught_up(self) -> None:
        """The lane is not behind any more."""
        self._valve.look()

    def _give(self, piece: Chunk, text: str, after: str) -> None:
        """Give a piece away, or what stands in its place, with what stands around it."""
        self._write(f"{piece.before[self._space_given :]}{text}{after}")
        self._space_given = len(after)

    def _write(self, text: str) -> None:
        begun = self._given
        self._given = begun + len(text)
        if begun < self._kept:
            text = text[self._kept - begun :]
        if text and self._to.feed(text):
            self.is_full = True


def _end_of(piece: Chunk) -> int:
    return piece.end
