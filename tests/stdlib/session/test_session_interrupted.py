"""Ctrl-C at every line of a blocking call's way, and at many pairs of lines: never a hang, never a thread left."""

from __future__ import annotations

import gc
import linecache
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import mellea_sc
from mellea_sc import MelleaSession, SessionClosed, start_session
from mellea_sc.runtime.loop_thread import LoopThread
from mellea_sc.testing import ScriptedBackend, Stall

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
THREAD = "mellea_sc sync calls"
OURS = str(Path(mellea_sc.__file__).parent)
ROOMS = [
    f"{OURS}/runtime/loop_thread",
    f"{OURS}/runtime/portal",
    f"{OURS}/stdlib/session",
    "/asyncio/base_events",
    "/asyncio/selector_events",
]
"""Whose lines Ctrl-C hits. CPython itself crashes, or keeps what was raised, where a trace function raises in
some others."""


def raise_interrupt() -> None:
    raise KeyboardInterrupt


class CtrlC:
    """Raises KeyboardInterrupt at some of the lines that this thread comes to, counted from 1.

    Args:
        moments: At which of them.
        handler: Called instead, as the handler of another signal would be.
    """

    def __init__(self, *moments: int, handler: Callable[[], None] = raise_interrupt) -> None:
        self._moments = moments
        self._handler = handler
        self.lines = 0
        self.where: list[str] = []

    def __enter__(self) -> CtrlC:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if event == "call":
            is_meant = any(room in code.co_filename for room in ROOMS) or code.co_name in PROGRAMS
            return self._trace if is_meant else None
        # between the last line of a `with` block and its exit, where no signal can come
        if event == "line" and "with self._lock" in linecache.getline(
            code.co_filename, frame.f_lineno
        ):
            return self._trace
        self.lines += 1
        if self.lines in self._moments:
            self.where.append(f"{Path(code.co_filename).name}:{frame.f_lineno} {event}")
            self._handler()
        return self._trace


def block() -> None:
    with start_session(backend=ScriptedBackend(lambda _: "done")) as m:
        m.instruct("?")
        m.instruct("?")


def bare() -> None:
    m = start_session(backend=ScriptedBackend(lambda _: "done"))
    try:
        m.instruct("?")
    finally:
        m.close()


PROGRAMS = {"block": block, "bare": bare}


def interrupted(program: Callable[[], None], *moments: int) -> None:
    """Run a program with Ctrl-C at those moments; afterwards its thread has ended."""
    ctrl_c = CtrlC(*moments)
    try:
        with ctrl_c:
            program()
    except KeyboardInterrupt:
        pass
    until = time.monotonic() + 20
    while any(thread.name == THREAD and thread.ident for thread in threading.enumerate()):
        assert time.monotonic() < until, f"Ctrl-C at {ctrl_c.where} leaves a thread"
        gc.collect()
        time.sleep(0.001)


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> tuple[Callable[[], None], int]:
    """A program and how many lines it has, of those that count."""
    run = PROGRAMS[request.param]
    run()
    with CtrlC() as counted:
        run()
    return run, counted.lines


pytestmark = [
    # Ctrl-C in a finalizer is ignored by Python; one before `close` leaves the session unclosed
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.timeout(900),
]


def test_ctrl_c_at_any_line_neither_hangs_nor_leaves_a_thread(
    program: tuple[Callable[[], None], int],
) -> None:
    run, lines = program
    assert lines > 100
    for moment in range(1, lines, 1 if NIGHTLY else 3):
        interrupted(run, moment)


def test_ctrl_c_twice_at_any_lines_neither_hangs_nor_leaves_a_thread(
    program: tuple[Callable[[], None], int],
) -> None:
    run, lines = program
    chance = random.Random(None if NIGHTLY else 1)
    for _ in range(3000 if NIGHTLY else 60):
        first = chance.randrange(1, lines)
        interrupted(run, first, first + 1 + int(chance.expovariate(1 / 25)))


def test_a_handler_that_calls_at_any_line_of_a_call_gets_its_answer() -> None:
    said: list[str] = []

    def call() -> None:
        try:
            said.append(m.instruct("handler").value)
        except SessionClosed as error:
            said.append(type(error).__name__)

    def program() -> str:
        answers = [m.instruct("?").value, m.instruct("?").value]
        m.close()
        return "".join(answers)

    def session() -> MelleaSession:
        return start_session(backend=ScriptedBackend(lambda _: "done"))

    m = session()
    with CtrlC() as counted:
        program()
    assert counted.lines > 100
    for moment in range(1, counted.lines, 1 if NIGHTLY else 3):
        m = session()
        with CtrlC(moment, handler=call) as handled:
            assert program() == "donedone", handled.where
        assert said.pop() in ("done", "SessionClosed"), handled.where
        assert not [one for one in threading.enumerate() if one.name == THREAD], handled.where


@pytest.mark.timeout(20)
def test_signals_in_quick_succession_leave_no_call_behind_that_close_would_wait_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def leave(*_: object) -> None:
        raise SystemExit(3)

    backend = ScriptedBackend(lambda _: ["some ", Stall()])
    monkeypatch.setattr(LoopThread, "give_up", leave)  # the second one comes as the first is taken
    before = signal.signal(signal.SIGTERM, leave)
    m = start_session(backend=backend)
    sending = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    sending.start()
    try:
        with pytest.raises(SystemExit):
            m.instruct("?")
        m.close()
    finally:
        signal.signal(signal.SIGTERM, before)
        sending.join()
    assert [call.outcome for call in backend.calls] == ["cancelled"]
