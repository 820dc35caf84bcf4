"""Corners of core and kernel that larger programs seldom come to."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mellea_sc import (
    InvalidOption,
    ModelOption,
    PartialValidationResult,
    Requirement,
    SessionClosed,
    ValidationResult,
    check,
    start_session,
)
from mellea_sc.core import TokenCount
from mellea_sc.core.base import Context
from mellea_sc.runtime.loop_thread import LoopThread
from mellea_sc.testing import ScriptedBackend
from mellea_sc.testing.scripted import Script

pytestmark = pytest.mark.anyio


class UsesAnEndedSession(Requirement):
    """Raises what a session that has ended raises."""

    def __init__(self, when: str) -> None:
        super().__init__("uses another session")
        self.when = when

    async def stream_validate(self, chunk: str, **given: Any) -> PartialValidationResult:
        if self.when == "streaming":
            raise SessionClosed("that one has ended")
        return PartialValidationResult("pass")

    async def validate(self, *args: Any, **given: Any) -> ValidationResult:
        raise SessionClosed("that one has ended")


@pytest.mark.parametrize("when", ["streaming", "at the end"])
async def test_a_validator_that_uses_an_ended_session_is_an_error_of_its_run(when: str) -> None:
    async with start_session(backend=ScriptedBackend("One. Two.")) as m:
        result = await m.stream("?", requirements=[UsesAnEndedSession(when)])
        with pytest.raises(SessionClosed, match="that one has ended"):
            await result.acomplete()
        assert not result.completed


@pytest.mark.parametrize("read", [True, False])
async def test_text_is_handed_out_when_the_input_is_found_good_whether_somebody_waits_or_not(
    read: bool,
) -> None:
    async def good(_: Context) -> ValidationResult:
        await anyio.sleep(0.02)
        return ValidationResult(True)

    backend = ScriptedBackend(Script("one two", delay=0.001))
    async with start_session(backend=backend, model_options={ModelOption.STREAM: True}) as m:
        thunk = await m.ainstruct("?", preconditions=[check("good", good)])
        if read:
            assert "".join([delta async for delta in thunk]) == "one two"
        else:
            assert await thunk == "one two"


@pytest.mark.parametrize("option", [{"on_fail": "ignore"}, {"window": -1}, {"every": 0}])
def test_a_requirement_refuses_what_it_cannot_mean(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(option))):
        Requirement("x", **option)


def test_a_count_says_only_what_there_is_to_say() -> None:
    assert str(TokenCount(generated=3)) == "3 tokens"
    assert str(TokenCount(generated=3, wasted=1, estimated=True)) == "about 3 tokens, 1 wasted"


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
