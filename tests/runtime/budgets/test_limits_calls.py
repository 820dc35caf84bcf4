"""Limits of one call, and blocks around streams: what is cut, what is raised, and how often."""

from __future__ import annotations

import anyio
import pytest

from mellea_sc import (
    BudgetExceeded,
    InvalidOption,
    MelleaSession,
    RejectionSamplingStrategy,
    check,
    limits,
    simple_validate,
    start_session,
)
from mellea_sc.core import Limits
from mellea_sc.testing import ScriptedBackend, assert_no_leaks
from mellea_sc.testing.scripted import Script

pytestmark = pytest.mark.anyio

LONG = Script("one two three four five six seven eight", delay=1)


async def test_a_call_is_cut_at_its_own_limit_and_the_session_goes_on() -> None:
    backend = ScriptedBackend(LONG, LONG)
    async with assert_no_leaks(), start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", limits=Limits(tokens=4))
        with pytest.raises(BudgetExceeded) as caught:
            await thunk
        assert caught.value.partial_text == "one two three four"
        assert (thunk.cancelled, thunk.error) == (True, caught.value)
        assert await (await m.ainstruct("?")) == "one two three four five six seven eight"
    assert [call.outcome for call in backend.calls] == ["cancelled", "ended"]


async def test_a_calls_attempts_share_its_limit() -> None:
    never = check("never", simple_validate(lambda _: False))
    backend = ScriptedBackend(*["one two three"] * 5)
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct(
            "?",
            requirements=[never],
            strategy=RejectionSamplingStrategy(loop_budget=5),
            limits=Limits(requests=2),
        )
        with pytest.raises(BudgetExceeded, match="more than 2 requests"):
            await thunk
    assert len(backend.calls) == 2


async def test_an_exceeded_limit_that_nobody_awaits_is_raised_when_the_session_is_left() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=ScriptedBackend(LONG)) as m:
            await m.ainstruct("?", limits=Limits(seconds=2.5))
    assert [type(error) for error in caught.value.exceptions] == [BudgetExceeded]


@pytest.mark.parametrize("call", ["chat", "query", "transform", "act"])
async def test_every_call_takes_limits(call: str) -> None:
    async with start_session(backend=ScriptedBackend(LONG)) as m:

        async def ask() -> object:
            few = Limits(tokens=6)
            match call:
                case "chat":
                    return await m.achat("?", limits=few)
                case "query":
                    return await m.aquery("x", "?", limits=few, await_result=True)
                case "transform":
                    return await m.atransform("x", "?", limits=few, await_result=True)
                case _:
                    return await m.aact("?", limits=few, await_result=True)

        with pytest.raises(BudgetExceeded):
            await ask()


async def test_a_stream_is_cut_at_its_own_limit_and_counts_as_cancelled() -> None:
    async with start_session(backend=ScriptedBackend(LONG)) as m:
        result = await m.stream("?", chunking="word", limits=Limits(tokens=4))
        with pytest.raises(BudgetExceeded):
            await result.acomplete()
        assert (result.completed, result.cancelled) == (False, True)
        assert "one two three four".startswith(result.full_text)
        assert result.trace.cause is not None
        assert result.trace.cause.kind == "limit"


@pytest.mark.parametrize("on_error", ["hold", "cancel"])
async def test_a_block_around_a_stream_raises_once(on_error: str) -> None:
    backend = ScriptedBackend(LONG)

    async def program(m: MelleaSession) -> None:
        with limits(tokens=4):
            result = await m.stream("?", chunking="word")
            await result.wait_finished()

    session = start_session(backend=backend, on_error=on_error)  # type: ignore[arg-type]
    async with assert_no_leaks(), session as m:
        with pytest.raises(BudgetExceeded):
            await program(m)
        await anyio.sleep(1)
    assert backend.calls[0].outcome in ("cancelled", "closed")


async def test_what_is_no_limits_is_refused_before_anything_is_asked() -> None:
    backend = ScriptedBackend(LONG)
    async with start_session(backend=backend) as m:
        with pytest.raises(InvalidOption, match="limits must be"):
            await m.ainstruct("?", limits=3)  # type: ignore[call-overload]
        with pytest.raises(InvalidOption, match="limits must be"):
            await m.stream("?", limits=3)  # type: ignore[arg-type]
    assert not backend.calls
