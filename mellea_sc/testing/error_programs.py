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

from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

from mellea_sc.runtime.unobserved import OnError
from mellea_sc.testing._error_run import lost_errors
from mellea_sc.testing._error_values import (
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


def _rarely(values: st.SearchStrategy[ErrorKind]) -> st.SearchStrategy[ErrorKind | None]:
    return st.one_of(st.none(), st.none(), st.none(), values)


def _answers() -> st.SearchStrategy[Answering]:
    delta = st.sampled_from(["One. ", "Two. ", "Good. ", "Three, ", "and four. ", 0.0, 1.0, 2.0])
    return st.builds(
        Answering,
        deltas=st.lists(delta, max_size=6).map(tuple),
        error=st.one_of(st.none(), st.sampled_from(_RAISED)),
        at=st.integers(-1, 6),
        untidy=_rarely(st.sampled_from(_UNTIDY)),
    )


def _judges() -> st.SearchStrategy[Judging]:
    return st.builds(
        Judging,
        delay=pauses(),
        fails_at=st.sampled_from([None, None, 0, 1, 2]),
        passes=st.sampled_from([True, True, False]),
        error=_rarely(st.sampled_from(_RAISED)),
        at=st.integers(-1, 2),
        untidy=_rarely(st.sampled_from(_UNTIDY)),
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
        preconditions=st.one_of(
            st.just(()), st.just(()), st.lists(_judges(), max_size=1).map(tuple)
        ),
        strategy=st.sampled_from(strategies),
        streamed=st.booleans(),
        needs=st.one_of(st.just(()), st.lists(st.integers(0, 3), max_size=1).map(tuple)),
    )


def _steps(works: int) -> st.SearchStrategy[Step]:
    kinds: Sequence[StepKind] = (
        *(
            "wait",
            "wait",
            "wait briefly",
            "read",
            "read events",
            "cancel",
            "cancel",
            "sleep",
            "sleep",
        ),
        *("enter", "forget", "wait for all", "cancel session"),
    )
    return st.builds(
        Step,
        st.sampled_from(kinds),
        st.integers(0, works - 1),
        st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    )


@st.composite
def error_programs(draw: st.DrawFn) -> ErrorProgram:
    """Programs in which errors are raised, often several at the same moment."""
    works = draw(st.lists(_works(), min_size=1, max_size=4))
    steps: list[Step] = []
    for number in range(len(works)):
        steps.append(Step("start", number))
        steps += draw(st.lists(_steps(number + 1), max_size=3))
    on_error: Sequence[OnError] = ("hold", "hold", "hold", "log", "cancel")
    endings: Sequence[Ending] = ("join", "join", "join", "error", "cancel")
    return ErrorProgram(
        works=works,
        steps=steps,
        ending=draw(st.sampled_from(endings)),
        answers=draw(st.lists(_answers(), min_size=1, max_size=4)),
        connecting=draw(_rarely(_rarely(st.sampled_from(_RAISED)))),  # type: ignore[arg-type]
        disconnecting=draw(_rarely(_rarely(st.sampled_from(_RAISED)))),  # type: ignore[arg-type]
        on_error=draw(st.sampled_from(on_error)),
        bare=draw(st.sampled_from([False, False, True])),
        chat=draw(st.sampled_from([False, False, True])),
        max_concurrency=draw(st.sampled_from([None, None, 1, 2])),
        seed=draw(st.integers(0, 2**16)),
    )
