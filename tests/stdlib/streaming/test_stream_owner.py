"""4.1 and 4.8: who owns a run, and what ends with whom."""

from __future__ import annotations

import gc
import logging
from collections.abc import Awaitable, Callable

import anyio
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
from mellea_sc.core.base import CBlock, Context
from mellea_sc.core.errors import (
    DependencyFailed,
    InvalidOption,
    ModelError,
    SessionClosed,
    StreamConsumed,
    ThunkNotComputed,
)
from mellea_sc.core.requirement import ValidationResult
from mellea_sc.stdlib.context import ChatContext, SimpleContext
from mellea_sc.stdlib.session import MelleaSession, start_session
from mellea_sc.stdlib.streaming import StreamChunkingResult, stream_with_chunking
from mellea_sc.testing.everywhere import cancel_everywhere
from mellea_sc.testing.leaks import assert_no_leaks
from mellea_sc.testing.scripted import Fail, Pause, Script, ScriptedBackend, Stall

pytestmark = pytest.mark.anyio


def nest_or(answer: object) -> Callable[[object], object]:
    """The answer; for a request that says "nested" a stream that never ends."""
    return lambda request: (
        [Stall()] if request.messages[-1].content == "nested" else answer  # type: ignore[attr-defined]
    )


async def test_4_8_awaiting_gives_the_result_while_the_run_goes_on() -> None:
    m, backend = session(Pause(5), "One. ", "Two.")
    async with assert_no_leaks(), m:
        result = await stream_with_chunking("?", m.backend, m.ctx)
        assert anyio.current_time() == 0
        assert "running" in repr(result)
        assert result.full_text == ""
        with pytest.raises(ThunkNotComputed):
            _ = result.as_thunk
        await result.acomplete()
        assert anyio.current_time() == 5
        assert backend.calls[0].outcome == "ended"
    assert result.full_text == "One. Two."
    assert "completed" in repr(result)


async def test_4_8_leaving_the_session_joins_a_run_and_its_result_can_be_read_afterwards() -> None:
    m, _ = session(Pause(5), "One. ", "Two.")
    async with m:
        result = await m.stream("?", requirements=[Check(always("pass", after=1))])
    assert anyio.current_time() == 8 - 1
    assert await read_chunks(result) == ["One.", "Two."]
    assert kinds(await read_events(result)) == [
        *["QuickCheck", "Chunk"] * 2,
        "StreamingDone",
        "FullValidation",
        "Completed",
    ]
    await result.acomplete()
    assert result.as_thunk.value == "One. Two."


async def test_4_8_a_block_that_is_left_early_ends_the_run() -> None:
    m, backend = session("One. ", Stall())
    check = Check(by_chunk({}, after={"One.": 3600}))
    async with assert_no_leaks(), m:
        async with m.stream("?", requirements=[check]) as result:
            await anyio.sleep(1)
        assert result.has_ended
        assert backend.calls[0].outcome == "cancelled"
        assert check.seen.cancelled == ["One."]
        assert anyio.current_time() == 1
    assert result.cancelled
    assert not result.completed
    assert kinds(await read_events(result)) == ["Completed"]
    assert "cancelled" in repr(result)


async def test_4_8_a_block_whose_run_has_ended_changes_nothing() -> None:
    m, _ = session("One.")
    async with m:
        async with m.stream("?") as result:
            assert await read_chunks(result) == ["One."]
        assert result.completed
        assert not result.cancelled


async def test_4_8_an_exception_that_leaves_the_block_cancels_the_run_and_stays_itself() -> None:
    m, backend = session("One. ", Stall())
    async with m:
        with pytest.raises(KeyError, match="mine"):
            async with m.stream("?") as result:
                await anyio.sleep(1)
                raise KeyError("mine")
        assert backend.calls[0].outcome == "cancelled"
    assert result.cancelled


async def test_4_8_an_error_that_nobody_has_seen_leaves_the_block_once() -> None:
    async def read_some(result: StreamChunkingResult) -> None:
        await result.wait_finished()

    async def read_all(result: StreamChunkingResult) -> None:
        with pytest.raises(ModelError):
            await read_chunks(result)

    for read, is_left in ((read_some, True), (read_all, False)):
        m, _ = session("One. ", Fail(ModelError("broken")))
        async with m:
            left = False
            try:
                async with m.stream("?") as result:
                    await read(result)
            except ModelError:
                left = True
            assert left is is_left
            await result.acomplete()


@pytest.mark.parametrize("how", ["result", "session", "outer scope", "block"])
async def test_4_8_a_cancel_from_anywhere_ends_everything_of_the_run(how: str) -> None:
    async def slow_judge(chunk: str, backend: Backend, ctx: Context) -> str:
        return await ask(backend, ctx, "nested")

    backend = ScriptedBackend(nest_or(Script([f"{n}. " for n in range(100)], delay=1)))  # type: ignore[arg-type]
    check = Check(slow_judge)
    async with assert_no_leaks():
        with anyio.CancelScope() as outer:
            async with (
                start_session(backend=backend) as m,
                m.stream("?", requirements=[Check(), check], lane_buffer=2) as result,
            ):
                await anyio.sleep(10)
                match how:
                    case "result":
                        result.cancel("enough")
                        await result.acomplete()
                    case "session":
                        m.cancel("enough")
                        await anyio.sleep_forever()
                    case "outer scope":
                        outer.cancel()
                        await anyio.sleep_forever()
    assert outer.cancelled_caught == (how == "outer scope")
    assert [call.outcome for call in backend.calls] == ["cancelled", "cancelled"]
    assert check.seen.cancelled == ["0."]
    assert result.cancelled
    assert result.error is None
    assert kinds(await read_events(result)) == ["Completed"]
    assert await read_chunks(result) == []
    await result.acomplete()
    assert anyio.current_time() == 10


async def test_4_8_cancelling_a_run_before_it_begins_twice_and_after_its_end() -> None:
    m, backend = session("One.")
    async with assert_no_leaks(), m:
        result = await m.stream("?")
        result.cancel()
        result.cancel()
        await result.acomplete()
        result.cancel()
        assert kinds(await read_events(result)) == ["Completed"]
    assert backend.calls == []

    m, _ = session("One.")
    async with m:
        result = await m.stream("?")
        await result.acomplete()
        result.cancel()
        assert result.completed
        assert not result.cancelled


async def test_4_8_cancelling_who_awaits_the_result_does_not_cancel_the_run() -> None:
    m, _ = session("One. ", Pause(10), "Two.")
    async with m:
        result = await m.stream("?")
        with anyio.move_on_after(1):
            await result.acomplete()
        chunks = result.astream()
        assert await anext(chunks) == "One."
        with anyio.move_on_after(1) as scope:
            await anext(chunks)
        assert scope.cancelled_caught
        assert [chunk async for chunk in chunks] == ["Two."]
    assert result.completed


async def test_4_8_a_bare_backend_runs_in_the_current_session() -> None:
    bare = ScriptedBackend(["One. ", Stall()])
    async with assert_no_leaks(), start_session(backend=ScriptedBackend()) as m:
        result = await stream_with_chunking(CBlock("?"), bare, SimpleContext())
        await anyio.sleep(1)
        m.cancel()
    assert result.cancelled
    assert bare.calls[0].outcome == "cancelled"


async def test_4_8_a_bare_backend_without_a_session_runs_in_the_loop_itself() -> None:
    backend = ScriptedBackend("One. Two.")
    async with assert_no_leaks():
        result = await stream_with_chunking(
            CBlock("?"), backend, SimpleContext(), requirements=[Check()]
        )
        assert await read_chunks(result) == ["One.", "Two."]
        await result.acomplete()
    assert result.completed

    async with (
        assert_no_leaks(),
        stream_with_chunking(
            CBlock("?"), ScriptedBackend(["One. ", Stall()]), SimpleContext()
        ) as result,
    ):
        assert await anext(result.astream()) == "One."
    assert result.cancelled


async def test_4_8_a_bare_session_hosts_runs_too() -> None:
    m, _ = session("One. ", "Two.")
    async with assert_no_leaks():
        result = await stream_with_chunking("?", m.backend, m.ctx)
        assert await read_chunks(result) == ["One.", "Two."]
        await m.aclose()


async def test_1_5_an_error_without_a_session_is_not_logged_while_somebody_may_still_see_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = ScriptedBackend(["One. ", Fail(ModelError("broken"))])
    async with assert_no_leaks():
        result = await stream_with_chunking(CBlock("?"), backend, SimpleContext())
        await result.wait_finished()
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ModelError):
            await result.acomplete()
    assert caplog.records == []


def test_1_5_an_error_that_nobody_saw_is_logged_when_the_loop_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def program() -> None:
        backend = ScriptedBackend(["One. ", Fail(ModelError("broken"))])
        result = await stream_with_chunking(CBlock("?"), backend, SimpleContext())
        await result.wait_finished()

    for loop in ("asyncio", "trio"):
        caplog.clear()
        with caplog.at_level(logging.ERROR, "mellea_sc"):
            anyio.run(program, backend=loop)
        (record,) = caplog.records
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ModelError)


async def test_1_4_an_error_that_nobody_saw_leaves_the_session() -> None:
    m, _ = session("One. ", Fail(ModelError("broken")))
    with pytest.raises(ExceptionGroup) as caught:
        async with m:
            result = await m.stream("?")
            await result.wait_finished()
    (error,) = caught.value.exceptions
    assert isinstance(error, ModelError)


async def test_1_4_an_error_cancels_a_session_that_is_strict() -> None:
    m, _ = session("One. ", Fail(ModelError("broken")), on_error="cancel")
    with pytest.raises(ExceptionGroup) as caught:
        async with m:
            await m.stream("?")
            await anyio.sleep_forever()
    (error,) = caught.value.exceptions
    assert isinstance(error, ModelError)


async def test_4_8_what_a_validator_streams_ends_with_the_run() -> None:
    streams: list[StreamChunkingResult] = []

    async def stream_and_fail(chunk: str, backend: Backend, ctx: Context) -> str:
        streams.append(await stream_with_chunking("nested", backend, ctx.without_items()))
        await anyio.sleep(1)
        return "fail"

    backend = ScriptedBackend(nest_or("One. Two."))  # type: ignore[arg-type]
    async with assert_no_leaks(), start_session(backend=backend) as m:
        result = await m.stream("?", requirements=[Check(stream_and_fail)])
        await result.acomplete()
        assert streams[0].has_ended
        assert streams[0].cancelled
        assert [call.outcome for call in backend.calls] == ["ended", "cancelled"]


async def test_4_8_the_backend_of_a_run_that_has_ended_generates_nothing() -> None:
    kept: list[Backend] = []

    async def keep(chunk: str, backend: Backend, ctx: Context) -> str:
        kept.append(backend)
        return "pass"

    backend = ScriptedBackend("One.")
    async with assert_no_leaks(), start_session(backend=backend) as m:
        result = await m.stream("?", requirements=[Check(keep)])
        await result.acomplete()
        with pytest.raises(SessionClosed, match="scope"):
            await ask(kept[0], SimpleContext(), "too late")
        with pytest.raises(SessionClosed, match="scope"):
            await stream_with_chunking("too late", kept[0], SimpleContext())
    assert len(backend.calls) == 1


async def judge_by_model(chunk: str, backend: Backend, ctx: Context) -> str:
    return await ask(backend, ctx, f"judge {chunk}")


async def test_4_8_validators_generate_with_the_validation_backend_bare_or_bound() -> None:
    for bound in (True, False):
        judge = ScriptedBackend("pass", "fail")
        m, backend = session("One. ", Pause(1), "Two. ", Stall())
        async with assert_no_leaks(), start_session(backend=judge) as judges, m:
            result = await m.stream(
                "?",
                requirements=[Check(judge_by_model)],
                validation_backend=judges.backend if bound else judge,
            )
            assert await read_chunks(result) == ["One."]
        assert [call.prompt for call in judge.calls] == ["judge One.", "judge Two."]
        assert len(backend.calls) == 1
        judge.assert_exhausted()


async def test_4_8_a_validation_backend_that_is_slow_is_cancelled_with_the_run() -> None:
    for bound in (True, False):
        start = anyio.current_time()
        judge = ScriptedBackend([Stall()])
        m, _ = session("One. ", Stall())
        async with assert_no_leaks(), start_session(backend=judge) as judges, m:
            result = await m.stream(
                "?",
                requirements=[Check(judge_by_model), Check(always("fail", after=1))],
                validation_backend=judges.backend if bound else judge,
            )
            await result.acomplete()
            assert anyio.current_time() == start + 1
            assert judge.calls[0].outcome == "cancelled"
        assert result.error is None


async def test_4_8_a_validation_backend_of_a_closed_session_is_refused_before_anything_starts() -> (
    None
):
    m, backend = session("One.")
    closed, _ = session("never")
    async with closed:
        pass
    async with assert_no_leaks(), m:
        with pytest.raises(SessionClosed):
            await m.stream("?", validation_backend=closed.backend)
    assert backend.calls == []
    with pytest.raises(SessionClosed):
        await stream_with_chunking("?", m.backend, SimpleContext())


async def test_4_8_a_request_is_used_once() -> None:
    m, backend = session("One.")
    async with m:
        request = m.stream("?")
        await (await request).acomplete()
        with pytest.raises(InvalidOption):
            await request
        with pytest.raises(InvalidOption):
            async with request:
                pass
    assert len(backend.calls) == 1


def del_request(m: MelleaSession) -> None:
    m.stream("?")
    gc.collect()


async def test_4_8_a_request_that_is_never_awaited_says_so() -> None:
    m, backend = session("One.")
    async with m:
        with pytest.warns(RuntimeWarning, match="never awaited"):
            del_request(m)
    assert backend.calls == []


async def test_1_4_what_a_validator_left_failing_is_not_lost_without_a_session() -> None:
    async def start_and_forget(chunk: str, backend: Backend, ctx: Context) -> str:
        thunk, _ = await backend.generate_from_context("broken", ctx.without_items())
        await thunk.wait_finished()  # type: ignore[attr-defined]
        return "pass"

    backend = ScriptedBackend(
        lambda request: (
            Fail(ModelError("broken")) if request.messages[-1].content == "broken" else "One."
        )
    )
    async with assert_no_leaks():
        result = await stream_with_chunking(
            CBlock("?"), backend, SimpleContext(), requirements=[Check(start_and_forget)]
        )
        with pytest.raises(ExceptionGroup) as caught:
            await result.acomplete()
    assert [type(error) for error in caught.value.exceptions] == [ModelError]
    assert not result.completed
    assert kinds(await read_events(result))[-2:] == ["Error", "Completed"]


async def test_4_8_a_thunk_in_the_prompt_is_waited_for_and_its_failure_is_the_runs() -> None:
    backend = ScriptedBackend(
        lambda request: (
            [Pause(1), "a fact"]
            if request.messages[-1].content == "good"
            else [Pause(1), Fail(ModelError("broken"))]
            if request.messages[-1].content == "bad"
            else "One."
        )
    )
    async with start_session(backend=backend) as m:
        good = await m.aact(CBlock("good"))
        result = await m.stream("Say {{fact}}", user_variables={"fact": good})
        await result.acomplete()
        assert "a fact" in backend.calls[-1].prompt
        bad = await m.aact(CBlock("bad"))
        result = await m.stream("Say {{fact}}", user_variables={"fact": bad})
        with pytest.raises(DependencyFailed):
            await result.acomplete()
        assert kinds(await read_events(result)) == ["Error", "Completed"]


async def test_3_2_runs_that_overlap_in_a_conversation_take_turns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = ScriptedBackend([Pause(5), "One. ", "More."], [Pause(1), "Two."], "Three.")
    async with assert_no_leaks(), start_session(backend=backend, ctx=ChatContext()) as m:
        # nobody reads the first one, which may only be one chunk ahead
        first = await m.stream("first", lookahead=1)
        second = await m.stream("second")
        third = await m.achat("third")
        assert anyio.current_time() == 6
        assert third.content == "Three."
        assert first.completed
        assert second.completed
        assert len(m.ctx.as_list()) == 6
    assert [len(call.request.messages) for call in backend.calls] == [1, 3, 5]
    assert [
        record.message.startswith("Not using a SimpleContext") for record in caplog.records
    ] == [
        True,
        True,
    ]


@pytest.mark.parametrize("how", ["fail", "error", "cancel"])
async def test_3_2_a_run_that_did_not_complete_leaves_the_conversation_as_it_was(how: str) -> None:
    backend = ScriptedBackend(
        ["One. ", Fail(ModelError("x")) if how == "error" else Pause(5)], "Ok."
    )
    async with start_session(backend=backend, ctx=ChatContext()) as m:
        check = Check(always("fail" if how == "fail" else "pass", after=1))
        result = await m.stream("first", requirements=[check])
        await anyio.sleep(1)
        if how == "cancel":
            result.cancel()
        try:
            await result.acomplete()
        except ModelError:
            assert how == "error"
        assert not result.completed
        assert m.ctx.as_list() == []
        await m.achat("second")
    assert [len(call.request.messages) for call in backend.calls] == [1, 1]


async def test_3_2_a_stream_with_bad_arguments_takes_no_turn() -> None:
    class Broken(Check):
        def __copy__(self) -> Check:
            raise LookupError("not copied")

    backend = ScriptedBackend("One.")
    async with start_session(backend=backend, ctx=ChatContext()) as m:
        for options in (
            {"lane_buffer": 0},
            {"lane_buffer": 2.5},
            {"lookahead": 0},
            {"lookahead": 1.5},
            {"validator_timeout": 0},
            {"chunking": "syllable"},
            {"requirements": [Check(chunking="syllable")]},
            {"format": 7},
            {"model_options": 7},
        ):
            with pytest.raises(InvalidOption):
                await m.stream("?", **options)  # type: ignore[arg-type]
        with pytest.raises(LookupError):
            await m.stream("?", requirements=[Broken()])
        assert backend.calls == []
        assert (await m.achat("hello")).content == "One."


# --- cancelled at every checkpoint -------------------------------------------------------------


Program = Callable[[MelleaSession], Awaitable[StreamChunkingResult]]


async def read_it(m: MelleaSession) -> StreamChunkingResult:
    result = await m.stream("?", requirements=three_lanes(), lookahead=1)
    await read_chunks(result)
    await result.acomplete()
    return result


async def in_a_block(m: MelleaSession) -> StreamChunkingResult:
    async with m.stream("?", requirements=three_lanes()) as result:
        async for event in result.events():
            if kinds([event]) == ["StreamingDone"]:
                break
    return result


async def leave_it(m: MelleaSession) -> StreamChunkingResult:
    return await m.stream("?", requirements=three_lanes(), lane_buffer=1)


async def by_the_session(m: MelleaSession) -> StreamChunkingResult:
    """Validators that use the session itself, and not the backend that they are given."""

    async def judge(chunk: str, backend: Backend, ctx: Context) -> str:
        return await (await m.aact(CBlock(f"judge {chunk}")))

    async def final(*_: object) -> ValidationResult:
        return ValidationResult(await (await m.aact(CBlock("judge"))) == "pass")

    result = await m.stream("?", requirements=[Check(judge, final=final), Check(judge)])
    await result.acomplete()
    return result


def three_lanes() -> list[Check]:
    return [Check(judge_by_model), Check(always("pass", after=0)), Check(chunking="word")]


@pytest.mark.parametrize("program", [read_it, in_a_block, leave_it, by_the_session])
async def test_4_8_a_run_cancelled_at_any_checkpoint_leaves_nothing_behind(
    program: Program,
) -> None:
    backends: list[ScriptedBackend] = []
    results: list[StreamChunkingResult] = []

    async def once() -> None:
        backend = ScriptedBackend(
            lambda request: (
                "pass" if "judge" in request.messages[-1].content else ["One. ", "Two, ", "three."]
            )
        )
        backends.append(backend)
        results.clear()
        async with start_session(backend=backend) as m:
            results.append(await program(m))

    async def check() -> None:
        assert all(call.outcome in ("ended", "cancelled") for call in backends[-1].calls)
        for result in results:
            assert result.has_ended
            events = await read_events(result)
            assert kinds(events).count("Completed") == 1
            assert kinds(events)[-1] == "Completed"
            with pytest.raises(StreamConsumed):
                await read_events(result)

    assert await cancel_everywhere(once, after_each=None if program is in_a_block else check) > 10
