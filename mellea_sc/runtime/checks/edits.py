"""Which spans of a text were edited: where, by which requirement, and why. No tasks, no I/O.

Several editors change the text, one after the other. Each records where an edit stands in the text that it got and
in the text that it passed on. From these, this module computes where an edit stands in the shown text, and how much
of the generated text a part of the shown text was made of::

    generated ──editor 0──> ──editor 1──> … ──> shown          place():  from the text of an editor to the shown text
        <───────────────────────────────────────────           source(): back to the generated text
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final

import attrs

from mellea_sc.core.requirement import PartialValidationResult


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
