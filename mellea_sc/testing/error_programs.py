"""Random programs into which errors are put: each of them has to reach somebody.

A program starts generations, streams and validations in a session, waits for them, reads, cancels and leaves;
the backend, the requirements and the program itself raise errors on the way, also while they are being cancelled.
Whatever happens, an error that was raised is raised to the program, or is in the log: as itself, or inside
another one (in its group, as its cause, or in a note).

Imports hypothesis: import this module itself, ``mellea_sc.testing`` does not::

    from hypothesis import given
    from mellea_sc.testing.error_programs import error_programs, lost_errors

    @given(program=error_programs())
    def test_no_error_is_lost(program):
        assert lost_errors(program, "asyncio") == []
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

from mellea_sc.runtime.unobserved import OnError
from mellea_sc.testing._errors.run import lost_errors
from mellea_sc.testing._errors.values import (
    Answering,
    Ending,
    ErrorKind,
    ErrorProgram,
    Judging,
    Step,
    StepKind,
    Strategy,
    Work,
    WorkKind,
)
from mellea_sc.testing.strategies import pauses

__all__ = [
    "Answering",
    "ErrorProgram",
    "Judging",
    "Step",
    "Work",
    "error_programs",
    "lost_errors",
]

_RAISED: Final[Sequence[ErrorKind]] = (
    *("plain", "plain", "backend", "backend"),
    *("end of iteration", "stop iteration", "closing", "cancellation"),
)
_UNTIDY: Final[Sequence[ErrorKind]] = ("plain", "backend", "end of iteration")


def _seldom(kinds: Sequence[ErrorKind], once_in: int) -> st.SearchStrategy[ErrorKind | None]:
    nothing: list[ErrorKind | None] = [None] * (len(kinds) * (once_in - 1))
    return st.sampled_from([*nothing, *kinds])


def _answers() -> st.SearchStrategy[Answering]:
    delta = st.sampled_from(["One. ", "Two. ", "Good. ", "Three, ", "and four. ", 0.0, 1.0, 2.0])
    return st.builds(
        Answering,
        deltas=st.lists(delta, max_size=6).map(tuple),
        error=_seldom(_RAISED, 2),
        at=st.integers(-1, 6),
        untidy=_seldom(_UNTIDY, 4),
    )


def _judges() -> st.SearchStrategy[Judging]:
    return st.builds(
        Judging,
        delay=pauses(),
        fails_at=st.sampled_from([None, None, 0, 1, 2]),
        passes=st.sampled_from([True, True, False]),
        error=_seldom(_RAISED, 4),
        at=st.integers(-1, 2),
        untidy=_seldom(_UNTIDY, 4),
        asks=st.sampled_from([False, False, False, True]),
        fail_open=st.sampled_from([False, False, False, True]),
        blocking=st.sampled_from([True, True, True, False]),
    )


def _works() -> st.SearchStrategy[Work]:
    kinds: Sequence[WorkKind] = (
        *("thunk", "thunk", "thunk", "stream", "stream", "stream of its own", "validation"),
    )
    strategies: Sequence[Strategy] = (
        *("none", "none", "reject", "two series", "repair", "race", "best", "vote"),
    )
    return st.builds(
        Work,
        kind=st.sampled_from(kinds),
        judges=st.lists(_judges(), max_size=2).map(tuple),
        preconditions=st.just(()) | st.lists(_judges(), max_size=1).map(tuple),
        strategy=st.sampled_from(strategies),
        streamed=st.booleans(),
        needs=st.lists(st.integers(0, 3), max_size=1).map(tuple),
    )


@functools.cache
def _steps(works: int) -> st.SearchStrategy[list[Step]]:
    kinds: Sequence[StepKind] = (
        *("wait", "wait", "wait briefly", "read", "read events", "cancel", "cancel"),
        *("sleep", "sleep", "enter", "forget", "wait for all", "cancel session"),
    )
    step = st.builds(
        Step,
        st.sampled_from(kinds),
        st.integers(0, works - 1),
        st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    )
    return st.lists(step, max_size=3)


# made once: making them takes longer than drawing from them
_WORKS: Final = st.lists(_works(), min_size=1, max_size=4)
_ANSWERS: Final = st.lists(_answers(), min_size=1, max_size=4)
_CONNECTING: Final = _seldom(_RAISED, 10)
_ON_ERROR: Final[st.SearchStrategy[OnError]] = st.sampled_from(
    ["hold", "hold", "hold", "log", "cancel"]
)
_ENDING: Final[st.SearchStrategy[Ending]] = st.sampled_from(
    ["join", "join", "join", "error", "cancel"]
)
_ONCE_IN_THREE: Final = st.sampled_from([False, False, True])
_CONCURRENCY: Final = st.sampled_from([None, None, 1, 2])
_SEED: Final = st.integers(0, 2**16)


@st.composite
def error_programs(draw: st.DrawFn) -> ErrorProgram:
    """Programs in which errors are raised, often several at the same moment."""
    works = draw(_WORKS)
    steps: list[Step] = []
    for number in range(len(works)):
        steps.append(Step("start", number))
        steps += draw(_steps(number + 1))
    return ErrorProgram(
        works=works,
        steps=steps,
        ending=draw(_ENDING),
        answers=draw(_ANSWERS),
        connecting=draw(_CONNECTING),
        disconnecting=draw(_CONNECTING),
        on_error=draw(_ON_ERROR),
        bare=draw(_ONCE_IN_THREE),
        chat=draw(_ONCE_IN_THREE),
        max_concurrency=draw(_CONCURRENCY),
        seed=draw(_SEED),
    )
