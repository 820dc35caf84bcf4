"""The states of a requirement after each piece of a text, and its verdicts: for another attempt, or another pass.

Another attempt may begin with text of this one. Its chunks are those of that text (:class:`Resumed`), and its
requirements go on with the state that they had there (*checkpoints*). And a requirement that edits gets the text once
for each pass. As long as nothing was edited, a later pass gets the same pieces, and takes over the verdicts of the
earlier one instead of calling (*findings*).
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, TypeAlias

import attrs

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.requirement import PartialValidationResult, Requirement
from mellea_sc.runtime.checks.chunks import Chunk, Failure

if TYPE_CHECKING:
    from mellea_sc.runtime.checks.editors import Placed


@attrs.frozen
class LaneCheckpoint:
    """The state of a requirement after the beginning of a text.

    Args:
        judged: The position up to which it has validated the text.
        requirement: A copy with that state.
        past: Earlier positions and states, for an attempt that keeps less of the text.
    """

    judged: int
    requirement: Requirement
    past: Sequence[tuple[int, Requirement]] = ()


@attrs.define
class Finding:
    """A verdict on a piece, and the state of the requirement after it.

    A value; not frozen, only because one may be made for each token.

    Args:
        text: The piece.
        window: The text before it that the requirement was given.
        verdict: The verdict.
        requirement: A copy with the state.
    """

    text: str
    window: str
    verdict: PartialValidationResult
    requirement: Requirement

    def is_on(self, piece: Chunk) -> bool:
        """Whether the requirement would be given the same now."""
        return self.text == piece.text and self.window == piece.window


Findings: TypeAlias = deque[Finding]
"""The findings of one pass of a requirement, oldest first; its next pass takes them over."""


@attrs.frozen(kw_only=True)
class ResumePoint:
    """The beginning of a shown text, for another attempt to begin with.

    Args:
        text: The beginning, with the white space after its last chunk.
        chunks: Its chunks.
        edits: Its edits.
        noted: The fails in it that have not stopped it.
        known: For each requirement, a function from a position to the state of the requirement there.
        deltas: The positions in the text at which the deltas end that it was made of.
    """

    text: str
    chunks: Sequence[Chunk]
    edits: Sequence[Placed]
    noted: Sequence[Failure]
    known: Sequence[Callable[[int], LaneCheckpoint]]
    deltas: Sequence[int] = ()

    def pieces(self) -> Iterator[str]:
        """The text in pieces that end where its chunks end."""
        at = 0
        for end in [*(chunk.end for chunk in self.chunks), len(self.text)]:
            yield self.text[at:end]
            at = end


class Resumed(ChunkingStrategy):
    """The chunks of a kept beginning, and then those of the text after it as if that began the text.

    For chunks that were shown: no text can be added to the last of them, also where its end was not certain.

    Args:
        strategy: A strategy that has seen no text.
        kept: The chunks of the beginning. Each of the first deltas ends where one of them ends.
    """

    def __init__(self, strategy: ChunkingStrategy, kept: Sequence[Chunk]) -> None:
        self.bare: bool = strategy.bare
        self._strategy = strategy
        self._kept = deque(kept)

    def feed(self, delta: str) -> Sequence[str]:
        """The next chunk of the beginning, or the chunks that this delta finishes."""
        return (self._kept.popleft().text,) if self._kept else self._strategy.feed(delta)

    def flush(self) -> Sequence[str]:
        """The trailing fragment."""
        return self._strategy.flush()


class Memory:
    """The earlier states of the requirement of one lane, and its verdicts.

    Args:
        known: Its state at the beginning of this text.
        remembers: Whether another attempt may begin with text of this one.
        earlier: The findings of the pass before.
        later: Receives the findings of this pass, for the next one.
    """

    __slots__ = (
        "_earlier",
        "_later",
        "_past",
        "_remembers",
        "_state",
    )

    def __init__(
        self,
        known: LaneCheckpoint,
        *,
        remembers: bool = False,
        earlier: Findings | None = None,
        later: Findings | None = None,
    ) -> None:
        self._remembers = remembers
        self._past = [*known.past]
        if remembers:
            self._past.append((known.judged, copy.copy(known.requirement)))
        self._state: Requirement | None = None
        self._earlier = earlier
        self._later = later

    @property
    def takes_over(self) -> bool:
        """Whether this pass has got the same pieces as the one before, so far."""
        return self._earlier is not None

    def known_at(self, position: int) -> LaneCheckpoint:
        """The state of the requirement at a position; only for an attempt that remembers."""
        past = self._past[: bisect_right(self._past, position, key=itemgetter(0))]
        judged, requirement = past.pop()
        return LaneCheckpoint(judged, copy.copy(requirement), past)

    def keep(self, piece: Chunk, verdict: PartialValidationResult, after: Requirement) -> None:
        """Keep a verdict, and the state of the requirement after the piece."""
        if self._later is None and not self._remembers:
            return
        state = self._state = _snapshot(after, self._state)
        if self._later is not None:
            self._later.append(Finding(piece.text, piece.window, verdict, state))
        if self._remembers:
            self._past.append((piece.end, state))

    def next_finding(self, piece: Chunk) -> Finding | None:
        """Take over a finding of the pass before; ``None``: it was on another piece, and so may be all after it."""
        assert self._earlier is not None
        found = self._earlier.popleft() if self._earlier else None
        if found is None or not found.is_on(piece):
            self._earlier = None
            return None
        if self._later is not None:
            self._later.append(found)
        if self._remembers:
            self._past.append((piece.end, found.requirement))
        return found

    def passed_before(self, pieces: Sequence[Chunk]) -> Sequence[Finding]:
        """Take over the findings of the pass before on the next pieces, as far as it has passed them."""
        taken: list[Finding] = []
        earlier = self._earlier
        if not earlier or self._later is None or self._remembers:
            return taken
        for piece in pieces:
            if not earlier or not earlier[0].is_on(piece) or earlier[0].verdict.success == "fail":
                break
            taken.append(earlier.popleft())
        self._later.extend(taken)
        return taken


def _snapshot(requirement: Requirement, last: Requirement | None) -> Requirement:
    """A copy of the requirement; the last copy, if the requirement has not changed since."""
    if last is not None:
        try:
            if requirement.__getstate__() == last.__getstate__():
                return last
        except Exception:  # noqa: BLE001 - states of a user's class that cannot be compared: copy
            pass
    return copy.copy(requirement)
