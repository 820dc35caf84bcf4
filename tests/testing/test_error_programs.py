"""No error is lost, whatever a program does; and a lost one is found."""

from __future__ import annotations

import gc
import os

import attrs
import pytest
from hypothesis import HealthCheck, given, settings

from mellea_sc.runtime.checks.attempt import Attempt
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.unobserved import OwnError, Unobserved
from mellea_sc.testing._errors.values import Strategy
from mellea_sc.testing.clock import LoopName
from mellea_sc.testing.error_programs import (
    Answering,
    ErrorProgram,
    Judging,
    Step,
    Work,
    error_programs,
    lost_errors,
)

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])
PROGRAMS = {"ci": 500, "nightly": 20_000}.get(os.environ.get("HYPOTHESIS_PROFILE", "ci"), 25)


@LOOPS
@settings(max_examples=PROGRAMS, suppress_health_check=[HealthCheck.too_slow])
@given(program=error_programs())
def test_1_4_whatever_a_program_does_no_error_is_lost(
    loop: LoopName, program: ErrorProgram
) -> None:
    assert lost_errors(program, loop) == []


# --- that it would find one ---------------------------------------------------------------------------------

SLOW = Judging(
    delay=5,
    fails_at=None,
    passes=True,
    error=None,
    at=0,
    untidy=None,
    asks=False,
    fail_open=False,
    blocking=True,
)
WORK = Work(
    kind="thunk", judges=(SLOW,), preconditions=(), strategy="reject", streamed=False, needs=()
)
PROGRAM = ErrorProgram(
    works=(WORK,),
    steps=(Step("start"), Step("sleep", seconds=1), Step("cancel"), Step("wait")),
    ending="join",
    answers=(Answering(deltas=("One. ",), error="plain", at=1, untidy=None),),
    connecting=None,
    disconnecting=None,
    on_error="hold",
    bare=False,
    chat=False,
    max_concurrency=None,
    seed=1,
)
LOST = ["PutInError('number 0, before delta 1 of request 1')"]


@LOOPS
def test_an_error_that_waits_for_a_judge_while_its_thunk_is_cancelled_is_told(
    loop: LoopName,
) -> None:
    assert lost_errors(PROGRAM, loop) == []


@LOOPS
def test_it_finds_an_error_that_an_attempt_forgets(
    loop: LoopName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Attempt, "error", None)
    assert LOST[0] in lost_errors(PROGRAM, loop)


@LOOPS
@pytest.mark.parametrize("on_error", ["hold", "log"])
def test_it_finds_an_error_that_a_session_forgets(
    loop: LoopName, on_error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = (Step("start"), Step("sleep", seconds=5), Step("sleep", seconds=5))
    program = attrs.evolve(PROGRAM, steps=steps, on_error=on_error)
    assert lost_errors(program, loop) == []
    monkeypatch.setattr(Unobserved, "add", lambda *_: None)
    monkeypatch.setattr(OwnError, "is_pending", property(lambda _: False, lambda *_: None))
    assert lost_errors(program, loop) == LOST
    gc.collect()  # while it is so: what was made now has no other one


@LOOPS
def test_it_finds_an_error_that_is_not_raised_when_the_session_is_left(
    loop: LoopName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Unobserved, "take", lambda _: [])
    program = attrs.evolve(PROGRAM, steps=(Step("start"), Step("sleep", seconds=5)))
    assert lost_errors(program, loop) == LOST


@LOOPS
def test_a_program_that_is_told_of_an_error_that_nobody_put_in_is_found(
    loop: LoopName, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(_: Nursery) -> None:
        raise RuntimeError("not one of ours")

    monkeypatch.setattr(Nursery, "check_usable", check)
    assert "unexpected: RuntimeError('not one of ours')" in lost_errors(PROGRAM, loop)


# --- at the end of asyncio's loop ----------------------------------------------------------------------------

FAILS = attrs.evolve(SLOW, delay=None, fails_at=0)
UNTIDY = attrs.evolve(SLOW, delay=0, untidy="plain")


@LOOPS
@pytest.mark.parametrize("strategy", ["none", "two series"])
@pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited"
)  # asyncio drops what it has not begun
def test_an_error_on_its_way_when_the_loop_ends_is_logged(
    loop: LoopName, strategy: Strategy
) -> None:
    """A stream without a session, whose second judge raises when the first one cancels it."""
    work = attrs.evolve(WORK, kind="stream of its own", judges=(FAILS, UNTIDY), strategy=strategy)
    answer = Answering(deltas=("One. ", "One. "), error=None, at=0, untidy=None)
    program = attrs.evolve(PROGRAM, works=(work,), answers=(answer,), bare=True)
    ends_after = [
        attrs.evolve(program, steps=(Step("start"), *[Step("sleep")] * turns), seed=seed)
        for turns in range(9)
        for seed in range(5)
    ]
    assert [lost for one in ends_after if (lost := lost_errors(one, loop))] == []
