"""Hypothesis strategies: texts, cuts of them, lanes that judge by a schedule, programs of thunks.

Imports hypothesis: import this module itself, ``mellea_sc.testing`` does not::

    from hypothesis import given, strategies as st
    from mellea_sc.testing.strategies import cuts, texts

    @given(data=st.data())
    def test_my_chunking(data):
        text = data.draw(texts())
        deltas = data.draw(cuts(text))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, cast

import anyio
import attrs
from hypothesis import strategies as st

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.core.requirement import PartialValidationResult, Requirement, ValidationResult

__all__ = [
    "Judgement",
    "Lane",
    "Outcome",
    "ScheduledError",
    "ScheduledRequirement",
    "ThunkStep",
    "cuts",
    "lanes",
    "pauses",
    "texts",
    "thunk_programs",
]

Outcome: TypeAlias = Literal["pass", "unknown", "fail", "error"]

_PIECES: Final = (
    *("Yes", "no", "a", "Dr", "3.14", "e.g.", "..."),
    *(".", "!", "?", ". ", "! ", '."', '." ', ".) ", "?\u201d ", "!\u2019\n", ".'' "),
    *(" ", "  ", "\t", "\n", "\n\n", "\n\n\n", " \n \n ", "\r\n\r\n", "\u00a0", "\u2003"),
    *("\u00e9", "e\u0301", "\U0001f469\u200d\U0001f52c", "\u4f60\u597d\u3002", "\ufeff", "\x1c"),
)

_OUTCOMES: Final[Sequence[Outcome]] = (
    *("pass", "pass", "pass", "pass", "pass", "pass"),
    *("unknown", "unknown", "unknown"),
    *("fail", "error"),
)


def texts(max_pieces: int = 40) -> st.SearchStrategy[str]:
    """Texts with all that makes it hard to find their sentences, words and paragraphs.

    Args:
        max_pieces: Of how many words, marks and spaces they are made at most.
    """
    piece = st.sampled_from(_PIECES) | st.text(max_size=3)
    return st.lists(piece, max_size=max_pieces).map("".join)


@st.composite
def cuts(draw: st.DrawFn, text: str, max_deltas: int | None = None) -> list[str]:
    """Ways to cut a text into deltas; joined they are the text. Some are empty.

    Args:
        draw: Given by hypothesis.
        text: What is cut.
        max_deltas: How many deltas there are at most.
    """
    most = len(text) + 3 if max_deltas is None else max_deltas - 1
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=most)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@attrs.frozen
class Judgement:
    """What one call of a validator does.

    Args:
        outcome: The verdict, or an error.
        delay: Seconds that it takes; ``None``: it returns without giving others a turn.
    """

    outcome: Outcome
    delay: float | None = None


@attrs.frozen(kw_only=True)
class Lane:
    """How one requirement judges: its calls in turn, then ``"pass"`` without a delay.

    Args:
        judgements: What its calls do.
        chunking: Its own chunking; ``None``: the run's.
        fail_open: Whether its errors count as ``"unknown"``.
        timeout: Seconds that one call may take.
        final: Whether the whole text passes.
    """

    judgements: Sequence[Judgement] = ()
    chunking: str | None = None
    fail_open: bool = False
    timeout: float | None = None
    final: bool = True

    def judgement(self, number: int) -> Judgement:
        """What the call of that number does, counted from 0."""
        return self.judgements[number] if number < len(self.judgements) else Judgement("pass")

    def requirement(self) -> ScheduledRequirement:
        """The requirement that judges so."""
        return ScheduledRequirement(self)


class ScheduledError(Exception):
    """What a scheduled requirement raises where its schedule says so."""


class ScheduledRequirement(Requirement):
    """A requirement that keeps to a schedule; made by :meth:`Lane.requirement`.

    Args:
        lane: The schedule.
    """

    def __init__(self, lane: Lane) -> None:
        super().__init__(
            "be as the schedule says",
            chunking=lane.chunking,
            fail_open=lane.fail_open,
            timeout=lane.timeout,
        )
        self._lane = lane
        self._calls = 0

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        """Judge a chunk as the schedule says."""
        number = self._calls
        self._calls += 1
        judgement = self._lane.judgement(number)
        if judgement.delay is not None:
            await anyio.sleep(judgement.delay)
        if judgement.outcome == "error":
            raise ScheduledError(f"call {number}, of {chunk!r}")
        return PartialValidationResult(judgement.outcome, reason=chunk)

    async def validate(
        self, backend: Backend, ctx: Context, **_options: object
    ) -> ValidationResult:
        """Judge the whole text as the schedule says."""
        return ValidationResult(self._lane.final)


def pauses() -> st.SearchStrategy[float | None]:
    """Seconds between two deltas, or that a validator takes: few values, so that they coincide."""
    return st.sampled_from([None, None, 0, 1, 1, 2, 3, 5])


def lanes(max_judgements: int = 8) -> st.SearchStrategy[Lane]:
    """Lanes: most pass, some fail or raise, some are slow, some cut the text in their own way.

    Args:
        max_judgements: How many calls have something else to do than to pass at once.
    """
    judgement = st.builds(Judgement, st.sampled_from(_OUTCOMES), pauses())
    return st.builds(
        Lane,
        judgements=st.lists(judgement, max_size=max_judgements).map(tuple),
        chunking=st.sampled_from([None, None, "sentence", "word", "paragraph"]),
        fail_open=st.booleans(),
        timeout=st.sampled_from([None, None, 2.5, 4.5]),
        final=st.booleans(),
    )


@attrs.frozen
class ThunkStep:
    """One step of a program of thunks.

    Args:
        kind: ``"start"`` a generation; ``"await"`` one, in several tasks at once; ``"read"`` one to its
            end; ``"cancel"`` one.
        thunk: Which: the number of its start, counted from zero.
        needs: For a start: the thunks that stand in its prompt.
        streamed: For a start: whether its deltas are handed out.
    """

    kind: Literal["start", "await", "read", "cancel"]
    thunk: int
    needs: tuple[int, ...] = ()
    streamed: bool = False


@st.composite
def thunk_programs(draw: st.DrawFn, max_steps: int = 12) -> list[ThunkStep]:
    """Programs of thunks that feed one another: started, awaited, read and cancelled in any order."""
    steps: list[ThunkStep] = []
    started = 0
    for _ in range(draw(st.integers(1, max_steps))):
        kinds = ["start"] if not started else ["start", "start", "await", "read", "cancel"]
        kind = draw(st.sampled_from(kinds))
        if kind == "start":
            needs = draw(
                st.lists(st.integers(0, max(0, started - 1)), max_size=min(2, started), unique=True)
            )
            steps.append(ThunkStep("start", started, tuple(needs), draw(st.booleans())))
            started += 1
        else:
            which = draw(st.integers(0, started - 1))
            steps.append(ThunkStep(cast("Literal['await', 'read', 'cancel']", kind), which))
    return steps
