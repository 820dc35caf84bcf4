"""The thread of blocking calls: how it fails to begin, and how it is ended."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from mellea_sc import SessionClosed
from mellea_sc.runtime.loop_thread import LoopThread
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
