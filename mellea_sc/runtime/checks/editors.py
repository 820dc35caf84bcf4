"""Requirements that edit the text: a chain of editors, each of which gets the text that the one before has edited.

::

    deltas ──> editor 0 ──text──> editor 1 ──text──> … ──text──> Lanes: the text that is shown
                 │ cutter: cuts its text into pieces
                 │ lane: stream_validate, one piece after the other
                 └ a piece that fails is left out or replaced; the rest of the text is passed on unchanged

The text that comes out of the chain is the only one that is shown. It is cut into chunks, validated by every
requirement (also by those that edit, as copies that do not know what they have edited), released, and validated
at the end. So text that an edit has inserted or joined is validated like any other text.

Such text may fail once more. So each editor is in the chain once for each of two passes (:data:`PASSES`). A fail
after that stops the text.

The outcome of an editor depends only on its text. So what is shown depends neither on where the deltas were cut
nor on the order in which tasks run. The second pass takes over the verdicts of the first one
(:class:`~mellea_sc.runtime.checks.memory.Findings`) until something was edited, so it costs calls only from there on.

Each editor records where an edit stands in the text that it got and in the text that it passed on. From these,
:class:`Edits` computes where an edit stands in the shown text, and how much of the generated text a part of the shown
text was made of::

    generated ──editor 0──> ──editor 1──> … ──> shown          place():  from the text of an editor to the shown text
        <───────────────────────────────────────────           source(): back to the generated text
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Final

import anyio
import attrs

from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.runtime.checks.chunks import Chunk, Cutter
from mellea_sc.runtime.checks.interfaces import TextSink, WhatNext
from mellea_sc.runtime.checks.lanes import Lane, ValidatorCalls
from mellea_sc.runtime.generation.pump import LONGEST
from mellea_sc.runtime.pacing import Valve, Valves


@attrs.frozen
class Edit:
    """A span that one editor has replaced or left out.

    Args:
        lane: The number of the requirement that has failed it.
        verdict: Its verdict.
        start: Where the span begins, in the text that the editor got.
        end: Where the span ends there; if the verdict cuts the text off, the text after it is gone as well.
        at: Where the replacement begins, in the text that the editor passed on.
        until: Where the replacement ends there.
    """

    lane: int
    verdict: PartialValidationResult
    start: int
    end: int
    at: int
    until: int


@attrs.frozen
class Placed:
    """An edit, and its position in the shown text; infinite if a later editor has cut the text off before it."""

    position: float
    lane: int
    verdict: PartialValidationResult


class Edits:
    """The edits of one text.

    Args:
        editors: The number of editors.
        kept: The edits of the text that was kept of an earlier attempt.
    """

    __slots__ = ("_by_editor", "_kept", "_taken", "waiting")

    def __init__(self, editors: int = 0, kept: Sequence[Placed] = ()) -> None:
        self.waiting: int = 0
        """The number of edits that were not taken yet."""
        self._by_editor: list[list[Edit]] = [[] for _ in range(editors)]
        self._taken = [0] * editors
        self._kept = kept

    def add(self, editor: int, edit: Edit) -> None:
        """Add the next edit of an editor."""
        self._by_editor[editor].append(edit)
        self.waiting += 1

    def before(self, position: float) -> list[Placed]:
        """The edits before a position of the shown text, in its order."""
        kept = [one for one in self._kept if one.position < position]
        return kept + self._sorted(
            placed
            for editor, edits in enumerate(self._by_editor)
            for placed in self._placed(editor, edits)
            if placed.position < position
        )

    def take(self, position: float) -> list[Placed]:
        """Take the edits before a position of the shown text that were not taken yet, in its order."""
        news: list[Placed] = []
        for editor, edits in enumerate(self._by_editor):
            for placed in self._placed(editor, edits[self._taken[editor] :]):
                if placed.position >= position:
                    break
                self._taken[editor] += 1
                self.waiting -= 1
                news.append(placed)
        return self._sorted(news)

    def place(self, position: int, editor: int = 0) -> float:
        """The position in the shown text of a position in the text that an editor gets.

        Infinite if the text was cut off before it.
        """
        at = position
        for edits in self._by_editor[editor:]:
            number = bisect_right(edits, at, key=attrgetter("start")) - 1
            if number < 0:
                continue
            edit = edits[number]
            if edit.verdict.cuts_off and at > edit.start:
                return math.inf
            at = edit.at if at < edit.end else edit.until + at - edit.end
        return at

    def source(self, position: int) -> int:
        """The length of the generated text that the shown text up to a position was made of."""
        at = position
        for edits in reversed(self._by_editor):
            number = bisect_left(edits, at, key=attrgetter("at")) - 1
            if number >= 0:
                edit = edits[number]
                at = edit.start if at < edit.until else edit.end + at - edit.until
        return at

    def _placed(self, editor: int, edits: Sequence[Edit]) -> Iterator[Placed]:
        for edit in edits:
            yield Placed(self.place(edit.at, editor + 1), edit.lane, edit.verdict)

    @staticmethod
    def _sorted(placed: Iterator[Placed] | list[Placed]) -> list[Placed]:
        return sorted(placed, key=attrgetter("position"))


NO_EDITS: Final = Edits()
"""Those of all texts that are not edited."""


PASSES: Final = 2
"""How often each requirement that edits gets the text."""


class Editor:
    """One pass of a requirement that edits.

    Args:
        number: Its place in the chain.
        lane: Validates the text that it gets.
        cutter: Cuts that text for the lane.
        edits: Records its edits.
        replaces: Whether a piece that fails is replaced; otherwise it is left out.
        kept: The beginning of the text, if it was kept of an earlier attempt. It was shown, so it is not edited, and
            it is not passed on, because the rest of the chain has it already.
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
        """The verdict by which it has cut the text off; ``None``: it has not."""
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self._number = number
        self._cutter = cutter
        self._edits = edits
        self._replaces = replaces
        self._kept = len(kept)
        self._inbox: list[str] = []
        self._valve = Valve(self._is_behind, for_reader=False)
        self._space = ""  # the white space that is known to stand after the last piece
        self._space_given = (
            0  # how much of the white space after the last validated piece was passed on
        )
        self._given = 0  # how much text was passed on
        self._ended = self._flushed = False
        self.is_full: bool = False
        """Whether the next one in the chain has asked to wait for its :meth:`room`."""
        if kept:
            self.feed(kept)

    def connect(self, to: TextSink, ended: Callable[[Editor], None]) -> None:
        """Set the receiver of the edited text.

        Args:
            to: The next one in the chain.
            ended: Called when the editor has cut the text off.
        """
        self._to = to
        self._on_cut_off = ended

    # --- the writer's side -----------------------------------------------------------------------

    def feed(self, text: str) -> bool:
        """Take the text, which is cut when the lane is ready for it; true if the writer should wait."""
        if not self._inbox:
            if self.cut_off is not None:
                return False
            self.lane.wake()
        self._inbox.append(text)
        return self._valve.is_full

    def end(self) -> None:
        """End the text: the lane validates the rest of it."""
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
            calls: What the lane needs to call its validator.
            valves: The valves of the session that it runs in.

        Raises:
            Exception: as of :meth:`~mellea_sc.runtime.checks.lanes.Lane.run`.

        Cancellation: the validator is cancelled; text that it has not validated is not passed on.
        """
        self._valves = valves
        with self.scope:
            await self.lane.run(calls, self, self)

    def ended(self, lane: int) -> None:
        """Pass on the white space at the end of the text, and end the edited text."""
        if rest := self._cutter.rest():
            self._write(rest.before[self._space_given :])
        self._to.end()

    def take(self) -> Sequence[Chunk]:
        """The next pieces of the text that has come; at most :data:`LONGEST` characters at once, or one delta."""
        size = taken = 0
        for text in self._inbox:
            taken += 1
            size += len(text)
            if size >= LONGEST:
                break
        text = "".join(self._inbox[:taken])
        del self._inbox[:taken]
        if self._inbox and not self._ended:
            # the rest is taken at the next wake-up, after other tasks had their turn
            self.lane.wake()
        self._valve.look()
        return self._unjudged(self._cutter.feed(text))

    def rest(self) -> Sequence[Chunk] | None:
        """More pieces after the end of the text; the last ones are those that only the end has completed."""
        if self._inbox:
            return self.take()
        if self._flushed:
            return None
        self._flushed = True
        return self._unjudged(self._cutter.flush())

    def _unjudged(self, pieces: Sequence[Chunk]) -> Sequence[Chunk]:
        """The pieces that have to be validated. Those before them that are known to be good are passed on."""
        self._space = self._cutter.space() if pieces else self._space + self._cutter.space()
        good = bisect_right(pieces, self.lane.judged, key=attrgetter("end"))
        memory = self.lane.memory
        if memory is not None and (taken := memory.passed_before(pieces[good:])):
            self.lane.requirement = taken[-1].requirement
            good += len(taken)
        unjudged = pieces[good:]
        text = "".join([one.before + one.text for one in pieces[:good]])
        if good or not unjudged:
            after = unjudged[0].before if unjudged else self._space
            self._write((text + after)[self._space_given :])
            self._space_given = len(after)
        return unjudged

    def judged(self, lane: int, piece: Chunk, verdict: PartialValidationResult) -> WhatNext:
        """Pass the next piece on, or what replaces it."""
        # with the white space after it, as soon as that is known to belong to no piece
        after = self.lane.waiting[0].before if self.lane.waiting else self._space
        if verdict.success != "fail":
            self._give(piece, piece.text, after)
            return "wait" if self.is_full else "go on"
        replacement = verdict.replacement if self._replaces else ""
        stays = self._kept - piece.start  # how many of its characters were shown already
        if replacement is None or stays >= len(piece.text):
            # A fail that cannot be edited is passed on. The requirement's lane behind the chain fails it once more, and
            # that stops the text.
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
            self._to.end()
            return "stop"
        self._give(piece, piece.text[:stays] + replacement, after)
        return "wait" if self.is_full else "go on"

    async def wait(self) -> None:
        """Wait until the next one in the chain has room."""
        self.is_full = False
        await self._to.room(self._valves)

    def caught_up(self) -> None:
        """Wake the writer: the lane has room again."""
        self._valve.look()

    def _give(self, piece: Chunk, text: str, after: str) -> None:
        """Pass on a piece, or what replaces it, with the text between it and its neighbours."""
        self._write(f"{piece.before[self._space_given :]}{text}{after}")
        self._space_given = len(after)

    def _write(self, text: str) -> None:
        begun = self._given
        self._given = begun + len(text)
        if begun < self._kept:
            text = text[self._kept - begun :]
        if text and self._to.feed(text):
            self.is_full = True
