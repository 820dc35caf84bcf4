"""4.3 and 4.4: one fail ends everything at once, and shows nothing that a lane has not passed."""

from __future__ import annotations

import contextlib

import anyio
import anyio.lowlevel
import pytest
from kit import (
    Check,
    always,
    ask,
    by_chunk,
    kinds,
    read_chunks,
    read_events,
    session,
)

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.core.errors import ValidatorTimeout
from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.stdlib.session import start_session
from mellea_sc.stdlib.streaming.events import CompletedEvent, QuickCheckEvent
from mellea_sc.testing.leaks import assert_no_leaks
from mellea_sc.testing.scripted import Pause, Script, ScriptedBackend, Stall

pytestmark = pytest.mark.anyio


async def test_4_3_a_stalled_stream_does_not_have_to_produce_another_token_before_a_fail() -> None:
    m, backend = session("One. ", Stall())
    async with assert_no_leaks(), m:
        result = await m.stream("?", requirements=[Check(always("fail", after=1))])
        await result.acomplete()
        assert anyio.current_time() == 1
        (call,) = backend.calls
        assert (call.outcome, call.ended_at, call.deltas_sent) == ("cancelled", 1, 1)
    assert not result.completed
    assert not result.cancelled


async def test_4_3_a_fail_cancels_a_sibling_in_the_middle_of_its_judge_call_with_that_call() -> (
    None
):
    async def ask_a_slow_model(chunk: str, backend: Backend, ctx: Context) -> str:
        return await ask(backend, ctx, f"judge {chunk}")

    backend = ScriptedBackend(
        lambda request: (
            [Pause(3600), "yes"] if "judge" in request.messages[-1].content else "One. Two. "
        )
    )
    slow, failing = Check(ask_a_slow_model), Check(by_chunk({"Two.": "fail"}, after={"Two.": 2}))
    async with assert_no_leaks(), start_session(backend=backend) as m:
        result = await m.stream("?", requirements=[slow, failing])
        await result.acomplete()
        assert anyio.current_time() == 2
        text, judging = backend.calls
        assert (text.outcome, judging.outcome, judging.ended_at) == ("ended", "cancelled", 2)
    assert slow.seen.cancelled == ["One."]
    assert slow.seen.validated == failing.seen.validated == []
    assert result.full_text == ""


async def test_4_3_a_fail_cancels_a_producer_that_waits_for_a_full_lane() -> None:
    backend = ScriptedBackend(f"{n}. " for n in range(1_000_000_000))
    stuck, failing = Check(always("pass", after=3600)), Check(always("fail", after=2))
    async with assert_no_leaks(), start_session(backend=backend) as m:
        result = await m.stream("?", requirements=[stuck, failing], lane_buffer=1)
        await result.acomplete()
        assert anyio.current_time() == 2
    assert backend.calls[0].outcome == "cancelled"
    assert backend.calls[0].deltas_sent <= 4
    assert stuck.seen.cancelled == ["0."]


async def test_4_3_everything_is_finished_before_the_consumer_learns_of_the_failure() -> None:
    finished_at = 0.0

    async def tidy_up_slowly(chunk: str, backend: Backend, ctx: Context) -> str:
        nonlocal finished_at
        try:
            await anyio.sleep(3600)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3)
            finished_at = anyio.current_time()
        return "pass"

    m, backend = session("One. ", Stall())
    async with m:
        result = await m.stream(
            "?", requirements=[Check(tidy_up_slowly), Check(always("fail", after=1))]
        )
        assert await read_chunks(result) == []
        assert finished_at == anyio.current_time() == 4
        assert backend.calls[0].ended_at == 1


async def test_4_3_a_fail_of_a_lane_that_is_far_ahead_stops_lanes_that_are_far_behind() -> None:
    behind, ahead = (
        Check(always("pass", after=10)),
        Check(by_chunk({"w4": "fail"}), chunking="word"),
    )
    m, _ = session("w0 ", "w1 ", "w2 ", "w3 ", "w4 ", Stall())
    async with m:
        result = await m.stream("?", requirements=[behind, ahead], chunking="word")
        await result.acomplete()
        assert anyio.current_time() == 0
    assert ahead.seen.finished == ["w0", "w1", "w2", "w3", "w4"]
    assert behind.seen.finished == []
    assert result.full_text == ""


async def test_4_3_what_validators_left_running_dies_with_the_run() -> None:
    async def start_and_forget(chunk: str, backend: Backend, ctx: Context) -> str:
        await backend.generate_from_context("forgotten", ctx.without_items())
        await anyio.sleep(1)
        return "fail" if chunk == "Two." else "pass"

    backend = ScriptedBackend(
        lambda request: [Stall()] if request.messages[-1].content == "forgotten" else "One. Two. "
    )
    async with assert_no_leaks(), start_session(backend=backend) as m:
        result = await m.stream("?", requirements=[Check(start_and_forget)])
        await result.acomplete()
        assert [call.outcome for call in backend.calls] == ["ended", "cancelled", "cancelled"]
        assert anyio.current_time() == 2


async def test_4_3_a_natural_end_ends_what_validators_left_running_too() -> None:
    async def start_and_forget(chunk: str, backend: Backend, ctx: Context) -> str:
        await backend.generate_from_context("forgotten", ctx.without_items())
        await anyio.lowlevel.checkpoint()
        return "pass"

    backend = ScriptedBackend(
        lambda request: [Stall()] if request.messages[-1].content == "forgotten" else "One."
    )
    async with assert_no_leaks(), start_session(backend=backend) as m:
        result = await m.stream("?", requirements=[Check(start_and_forget)])
        await result.acomplete()
        assert result.completed
        assert all(call.outcome in ("cancelled", "ended") for call in backend.calls)


async def test_4_4_full_text_is_exactly_the_released_prefix() -> None:
    slow = Check(by_chunk({"Three.": "fail"}, after=dict.fromkeys(["One.", "Two.", "Three."], 1)))
    text = "One.  Two.\n Three. Four. Five."
    m, _ = session(*text)
    async with m:
        result = await m.stream("?", requirements=[Check(), slow])
        chunks = await read_chunks(result)
        await result.acomplete()
    assert chunks == ["One.", "Two."]
    assert result.full_text == "One.  Two."
    assert repr(result) == "<StreamChunkingResult stopped by a failed check, 2 chunks released>"
    assert text.startswith(result.full_text)
    assert not result.completed
    ((requirement, verdict),) = result.streaming_failures
    assert isinstance(requirement, Check)
    assert requirement.seen is slow.seen
    assert verdict == PartialValidationResult("fail", reason="Three.")


async def test_4_4_a_chunk_waits_for_the_lane_that_has_not_passed_it() -> None:
    slow = Check(always("pass", after=1))
    m, _ = session("One. Two. Three. ")
    async with m:
        result = await m.stream("?", requirements=[Check(), slow])
        released: list[tuple[float, str]] = []
        async for chunk in result.astream():
            assert chunk in slow.seen.finished
            released.append((anyio.current_time(), chunk))
    assert released == [(1, "One."), (2, "Two."), (3, "Three.")]


async def test_4_4_a_lane_with_longer_pieces_holds_the_chunks_inside_them_back() -> None:
    paragraphs = Check(by_chunk({"c. d.": "fail"}), chunking="paragraph")
    m, _ = session("a. ", "b.", "\n\n", "c. ", Pause(1), "d.", "\n\n", "e.")
    async with m:
        result = await m.stream("?", requirements=[paragraphs])
        events = await read_events(result)
    assert result.full_text == "a. b."
    assert kinds(events) == ["QuickCheck", "Chunk"] * 2 + ["QuickCheck", "Completed"]
    assert [event.chunk_index for event in events if isinstance(event, QuickCheckEvent)] == [
        0,
        1,
        2,
    ]


async def test_4_4_two_fails_in_the_same_tick_are_both_known_in_the_order_of_requirements() -> None:
    now = anyio.Event()

    async def fail_now(chunk: str, backend: Backend, ctx: Context) -> str:
        await now.wait()
        return "fail"

    first, second = Check(fail_now), Check(fail_now)
    m, _ = session("One. ", Stall())
    async with m:
        result = await m.stream("?", requirements=[first, Check(), second])
        await anyio.sleep(1)
        now.set()
        await result.acomplete()
    assert [requirement.seen for requirement, _ in result.streaming_failures] == [  # type: ignore[attr-defined]
        first.seen,
        second.seen,
    ]


@pytest.mark.parametrize("steps", [["One. Two. Three."], ["One.", " Two.", " Three."]])
async def test_4_4_a_fail_that_is_only_recorded_holds_nothing_back(steps: list[str]) -> None:
    recording = Check(by_chunk({"One.": "fail"}), on_fail="noop")
    m, _ = session(*steps)
    async with m:
        result = await m.stream("?", requirements=[Check(by_chunk({"Two.": "fail"})), recording])
        assert await read_chunks(result) == ["One."]
    assert not result.completed


async def test_4_4_the_verdicts_on_the_failed_chunk_are_those_that_were_known() -> None:
    checks = [
        Check(always("fail", after=2)),
        Check(always("pass", after=1)),
        Check(always("pass", after=3)),
    ]
    m, _ = session("One. ", Stall())
    async with m:
        result = await m.stream("?", requirements=checks)
        quick, completed = await read_events(result)
    assert isinstance(quick, QuickCheckEvent)
    assert not quick.passed
    assert [verdict.success for verdict in quick.results] == ["fail", "pass", "unknown"]
    assert isinstance(completed, CompletedEvent)
    assert not completed.success


async def test_4_4_a_fail_in_the_tick_in_which_the_text_ends_counts() -> None:
    for order in ([Pause(1), "Two."], ["Two.", Pause(1)]):
        m, _ = session("One. ", *order)
        async with m:
            check = Check(by_chunk({"One.": "fail"}, after={"One.": 1}))
            result = await m.stream("?", requirements=[check, Check()])
            events = await read_events(result)
        assert kinds(events) == ["QuickCheck", "Completed"]
        assert result.full_text == ""
        assert check.seen.validated == []


async def test_4_5_a_fail_on_the_trailing_fragment_skips_the_final_validation() -> None:
    failing, sibling = Check(by_chunk({"and so": "fail"})), Check()
    m, _ = session("One. ", Pause(1), "and ", "so")
    async with m:
        result = await m.stream("?", requirements=[sibling, failing])
        events = await read_events(result)
    assert kinds(events) == ["QuickCheck", "Chunk", "QuickCheck", "Completed"]
    assert failing.seen.finished == ["One.", "and so"]
    assert failing.seen.validated == sibling.seen.validated == result.final_validations == []
    assert (result.completed, result.full_text) == (False, "One.")


async def test_4_3_a_validator_that_swallows_its_cancellation_does_not_hold_the_fail_up() -> None:
    async def deaf(chunk: str, backend: Backend, ctx: Context) -> str:
        with contextlib.suppress(BaseException):
            await anyio.sleep(3600)
        return "pass"

    stubborn = Check(deaf)
    m, _ = session("One. Two. Three. ", Stall())
    async with assert_no_leaks(), m:
        result = await m.stream("?", requirements=[stubborn, Check(always("fail", after=1))])
        await result.acomplete()
        assert anyio.current_time() == 1
    assert stubborn.seen.started == ["One."]
    assert result.full_text == ""
    assert result.error is None


async def test_4_3_an_error_in_the_cleanup_of_a_cancelled_sibling_surfaces_beside_the_fail() -> (
    None
):
    async def untidy(chunk: str, backend: Backend, ctx: Context) -> str:
        try:
            await anyio.sleep(3600)
        finally:
            raise LookupError("in the cleanup")

    m, backend = session("One. ", Stall())
    async with assert_no_leaks(), m:
        result = await m.stream("?", requirements=[Check(untidy), Check(always("fail", after=1))])
        with pytest.raises(LookupError, match="in the cleanup"):
            await result.acomplete()
        events = await read_events(result)
    assert kinds(events) == ["QuickCheck", "Error", "Completed"]
    assert len(result.streaming_failures) == 1
    assert backend.calls[0].outcome == "cancelled"


async def test_4_3_an_error_and_a_fail_in_the_same_tick_are_both_told() -> None:
    now = anyio.Event()

    async def break_now(chunk: str, backend: Backend, ctx: Context) -> str:
        await now.wait()
        raise LookupError(chunk)

    async def fail_now(chunk: str, backend: Backend, ctx: Context) -> str:
        await now.wait()
        return "fail"

    m, _ = session("One. ", Stall())
    async with assert_no_leaks(), m:
        result = await m.stream("?", requirements=[Check(break_now), Check(fail_now)])
        await anyio.sleep(1)
        now.set()
        with pytest.raises(LookupError, match=r"One\."):
            await result.acomplete()
        events = await read_events(result)
    assert kinds(events) == ["QuickCheck", "Error", "Completed"]
    assert len(result.streaming_failures) == 1


async def test_4_3_a_fail_while_another_lane_runs_into_its_timeout() -> None:
    m, _ = session("One. ", Stall())
    late = Check(always("pass", after=3600), timeout=1)
    async with assert_no_leaks(), m:
        result = await m.stream("?", requirements=[late, Check(always("fail", after=1))])
        try:
            await result.acomplete()
        except ValidatorTimeout:
            assert isinstance(result.error, ValidatorTimeout)
        else:
            assert len(result.streaming_failures) == 1
        assert anyio.current_time() == 1
    assert not result.completed


async def test_4_3_the_server_sends_at_most_one_delta_more() -> None:
    backend = ScriptedBackend(Script([f"{n}. " for n in range(100)], delay=1))
    async with start_session(backend=backend) as m:
        failing = Check(by_chunk({"9.": "fail"}))
        result = await m.stream("?", requirements=[failing])
        await result.acomplete()
    assert backend.calls[0].deltas_sent == 10
    assert backend.calls[0].outcome == "cancelled"
