"""The thread of blocking calls: how it fails to begin, and how it is ended."""

from __future__ import annotations

import threading
from contextvars import copy_context

import anyio
import anyio.to_thread
import pytest

from mellea_sc import SessionClosed
from mellea_sc.runtime.loop_thread import Job, LoopThread
from mellea_sc.runtime.portal import _end


@pytest.mark.parametrize("ending", [True, False], ids=["at the interpreter's end", "before"])
def test_a_loop_that_cannot_begin_is_an_error_of_who_starts_its_thread(
    ending: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> None:
        raise AttributeError("a module that is only half imported")

    thread = LoopThread("never begun")
    monkeypatch.setattr("mellea_sc.runtime.loop_thread.anyio.run", run)
    monkeypatch.setattr("mellea_sc.runtime.loop_thread.interpreter_is_ending", lambda: ending)
    with pytest.raises(SessionClosed if ending else AttributeError):
        thread.start()
    assert not thread.is_running


@pytest.mark.anyio
async def test_a_thread_of_blocking_calls_collected_in_an_event_loop_is_not_waited_for() -> None:
    called: list[str] = []

    class Watched(LoopThread):
        def stop(self, *, cancel: bool = False) -> None:
            called.append("stop")

        def join(self, timeout: float) -> None:
            called.append("join")

    thread = Watched("never started")
    _end(thread)
    assert called == ["stop"]
    await anyio.to_thread.run_sync(_end, thread)
    assert called == ["stop", "stop", "join"]


@pytest.mark.parametrize("ended_by", ["the call", "the thread"])
def test_a_job_that_is_cancelled_before_its_first_step_does_not_run_and_ends(
    ended_by: str,
) -> None:
    thread = LoopThread("busy")
    thread.start()
    busy, go_on, ran = threading.Event(), threading.Event(), threading.Event()

    async def block() -> None:
        busy.set()
        go_on.wait(60)  # noqa: ASYNC251 - the loop stands still

    async def late() -> None:
        ran.set()

    job = Job(late, copy_context())
    thread.submit(Job(block, copy_context()))
    assert busy.wait(60)
    thread.submit(job)
    if ended_by == "the call":
        thread.give_up(job)
    else:
        thread.stop(cancel=True)
    go_on.set()  # only now the loop hears of both
    thread.wait(job.ended, 60)
    thread.end()
    assert job.ended.is_set
    assert not job.returned
    assert not ran.is_set()
