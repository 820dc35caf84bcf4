"""4.2 and 4.9: lanes are pipelines, a full one slows the producer, and nobody waits for a reader."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import anyio
import pytest
from kit import Check, always, ask, by_chunk, hanging, kinds, read_chunks, read_events, session

from mellea_sc.core.backend import Backend, ModelOption
from mellea_sc.core.base import CBlock, Context
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import BackendTimeout, ModelError, StreamConsumed
from mellea_sc.core.requirement import Requirement
from mellea_sc.stdlib.chunking import RawChunker
from mellea_sc.stdlib.context import SimpleContext
from mellea_sc.stdlib.session import start_session
from mellea_sc.stdlib.streaming import stream_with_chunking
from mellea_sc.stdlib.streaming.events import ChunkEvent
from mellea_sc.testing.leaks import assert_no_leaks
from mellea_sc.testing.scripted import Fail, Pause, Script, ScriptedBackend, Stall

pytestmark = pytest.mark.anyio


def one_after_another(slow_ones: set[int], count: int = 8) -> dict[str, float]:
    return {f"w{n}": 1.0 if n in slow_ones else 0.0 for n in range(count)}


async def test_4_2_a_run_takes_the_time_of_its_slowest_lane_not_the_sum_of_the_slowest_calls() -> (
    None
):
    even, odd = {0, 2, 4, 6}, {1, 3, 5, 7}
    checks = [Check(by_chunk({}, after=one_after_another(slow))) for slow in (even, odd)]
    m, _ = session(*(f"w{n} " for n in range(8)))
    async with m:
        result = await m.stream("?", requirements=checks, chunking="word")
        await result.acomplete()
    assert anyio.current_time() == 4


async def test_4_2_a_lane_is_at_most_lane_buffer_chunks_ahead_of_another() -> None:
    quick, slow = Check(), Check(always("pass", after=1))
    widest = 0

    async def watch(chunk: str, backend: Backend, ctx: Context) -> str:
        nonlocal widest
        widest = max(widest, len(quick.seen.finished) - len(slow.seen.finished))
        return "pass"

    m, _ = session(*(f"w{n} " for n in range(30)))
    async with m:
        result = await m.stream(
            "?", requirements=[quick, slow, Check(watch)], chunking="word", lane_buffer=3
        )
        await result.acomplete()
    # the buffer, the one that is being judged, and the one that found the buffer full
    assert 3 <= widest <= 5
    assert anyio.current_time() == 30


async def test_4_2_a_full_lane_slows_the_producer() -> None:
    backend = ScriptedBackend(f"w{n} " for n in range(1_000_000))
    async with start_session(backend=backend) as m:
        result = await m.stream(
            "?", requirements=[Check(always("pass", after=1))], chunking="word", lane_buffer=4
        )
        for seconds in range(1, 10):
            await anyio.sleep(1)
            assert backend.calls[0].deltas_sent <= seconds + 4 + 2
        result.cancel()


async def test_4_2_one_delta_with_many_chunks_fits_whatever_the_buffer() -> None:
    text = "".join(f"w{n} " for n in range(500))
    for own in (None, "word", "sentence"):
        check = Check(chunking=own)
        m, _ = session(text, text)
        async with m:
            result = await m.stream("?", requirements=[check], chunking="word", lane_buffer=1)
            assert len(await read_chunks(result)) == 1000
        assert len(check.seen.finished) == (1 if own == "sentence" else 1000)


async def test_4_2_lanes_of_own_chunking_with_the_smallest_buffer() -> None:
    text = [f"w{n}" + (". " if n % 3 == 2 else " ") for n in range(30)]
    text.insert(15, "\n\n")
    checks = [
        Check(always("pass", after=0.5), chunking="word"),
        Check(always("pass", after=1), chunking="sentence"),
        Check(always("pass", after=3), chunking="paragraph"),
        Check(chunking=RawChunker()),
        Check(always("pass", after=0.25)),
    ]
    m, _ = session(*text)
    async with m:
        result = await m.stream("?", requirements=checks, chunking="word", lane_buffer=1)
        chunks = await read_chunks(result)
    assert chunks == [f"w{n}" + ("." if n % 3 == 2 else "") for n in range(30)]
    assert [len(check.seen.finished) for check in checks] == [30, 10, 2, 31, 30]
    assert result.completed


async def test_5_3_the_time_that_validators_take_does_not_count_for_the_stream_timeout() -> None:
    m, _ = session(*(f"w{n} " for n in range(8)))
    options = {ModelOption.STREAM_TIMEOUT: 5}
    async with m:
        result = await m.stream(
            "?",
            requirements=[Check(always("pass", after=4))],
            chunking="word",
            lane_buffer=1,
            lookahead=1,
            model_options=options,
        )
        async for _chunk in result.astream():
            await anyio.sleep(100)
        await result.acomplete()
    assert result.completed


async def test_5_3_a_stall_is_an_error_after_the_stream_timeout_and_what_came_before_is_released() -> (
    None
):
    m, backend = session("One. ", "Two. ", Stall())
    async with m:
        result = await m.stream("?", model_options={ModelOption.STREAM_TIMEOUT: 5})
        with pytest.raises(BackendTimeout):
            await result.acomplete()
        assert await read_chunks(result) == ["One.", "Two."]
    assert anyio.current_time() == 5
    assert backend.calls[0].outcome == "cancelled"


# --- readers: either, both or neither, in any order --------------------------------------------


@pytest.mark.parametrize("lookahead", [None, 1, 2])
@pytest.mark.parametrize("who", ["chunks", "events", "both", "neither", "chunks, then events"])
async def test_4_9_whoever_reads_the_run_is_not_stalled(lookahead: int | None, who: str) -> None:
    m, _ = session(*(f"w{n} " for n in range(20)))
    async with assert_no_leaks(), m:
        result = await m.stream(
            "?", requirements=[Check(), Check()], chunking="word", lookahead=lookahead
        )
        async with anyio.create_task_group() as tg:
            if who in ("chunks", "both"):
                tg.start_soon(read_chunks, result)
            if who in ("events", "both"):
                tg.start_soon(read_events, result)
        if who == "chunks, then events":
            assert len(await read_chunks(result)) == 20
            assert len(await read_events(result)) == 20 * 2 + 2 + 3
        await result.acomplete()
    assert result.completed
    assert result.released == 20


async def test_4_9_events_that_were_asked_for_and_are_not_read_stall_no_reader_of_chunks() -> None:
    m, _ = session(*(f"w{n} " for n in range(20)))
    async with m:
        result = await m.stream("?", requirements=[Check()], chunking="word")
        events = result.events(lookahead=2)
        assert len(await read_chunks(result)) == 20
        assert len([event async for event in events]) == 20 * 2 + 2 + 3


async def test_4_9_without_lookahead_a_reader_may_come_at_the_very_end() -> None:
    backend = ScriptedBackend(Script([f"w{n} " for n in range(1000)]))
    async with start_session(backend=backend) as m:
        result = await m.stream("?", requirements=[Check()], chunking="word")
        await result.wait_finished()
        assert len(await read_chunks(result)) == 1000


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("by", ["chunks", "events"])
@pytest.mark.parametrize("lookahead", [1, 3])
async def test_4_9_lookahead_bounds_the_released_chunks_that_wait_unread(
    lookahead: int, by: str, checked: bool
) -> None:
    def deltas() -> Iterator[str]:
        for n in range(40):
            nonlocal sent
            sent = n + 1
            yield f"w{n} "

    sent = 0
    async with start_session(backend=ScriptedBackend(deltas())) as m:
        result = await m.stream(
            "?",
            requirements=[Check()] if checked else [],
            chunking="word",
            lookahead=lookahead,
            lane_buffer=1,
        )
        read = 0
        stream = result.astream() if by == "chunks" else result.events()
        async for item in stream:
            read += isinstance(item, str) or (isinstance(item, ChunkEvent) and bool(item.text))
            await anyio.wait_all_tasks_blocked()
            assert result.released <= read + lookahead
            # one that may be shown and waits for the reader, and those on their way through the lane
            assert sent <= read + lookahead + (5 if checked else 1)
        assert read == 40


async def test_4_9_leaving_the_session_lets_a_run_go_whose_reader_has_stopped() -> None:
    for checks in ([], [Check()], [Check(always("pass", after=1))]):
        backend = ScriptedBackend(["One. ", "Two. ", "Three. ", Pause(1), "Four. ", "Five."])
        async with assert_no_leaks(), start_session(backend=backend) as m:
            result = await m.stream("?", requirements=checks, lookahead=1)
        assert result.completed
        assert len(await read_chunks(result)) == 5


@pytest.mark.parametrize("bare", [True, False])
async def test_4_9_leaving_the_session_lets_a_run_go_that_waits_after_its_text(bare: bool) -> None:
    m, inner = session("One. ", "Two. ", "Three. ")
    async with assert_no_leaks(), m:
        result = await stream_with_chunking(
            CBlock("?"),
            inner if bare else m.backend,
            SimpleContext(),
            requirements=[Check(always("pass", after=1))],
            lookahead=1,
        )
        # the text has ended and is judged: only the reader is missing
        await anyio.sleep(10)
        assert not result.has_ended
    assert result.completed


async def test_4_9_acomplete_lets_a_run_go_whose_reader_has_stopped() -> None:
    m, _ = session(*(f"w{n} " for n in range(20)))
    async with m:
        result = await m.stream("?", requirements=[Check()], chunking="word", lookahead=1)
        chunks = result.astream()
        assert await anext(chunks) == "w0"
        await result.acomplete()
        assert result.completed
        assert len([chunk async for chunk in chunks]) == 19


async def test_4_9_nothing_is_released_after_the_end() -> None:
    m, _ = session("One. ", "Two. ", "Three. ", Stall())
    async with m:
        result = await m.stream("?", requirements=[Check()], lookahead=1)
        chunks = result.astream()
        assert await anext(chunks) == "One."
        await anyio.sleep(1)
        result.cancel()
        await result.wait_finished()
        before = result.full_text
        await result.acomplete()
        assert result.full_text == before == "One. Two."
        assert [chunk async for chunk in chunks] == ["Two."]
        assert kinds(await read_events(result)) == [*["QuickCheck", "Chunk"] * 2, "Completed"]


async def test_4_9_breaking_out_of_a_loop_leaks_nothing_and_loses_nothing() -> None:
    m, _ = session("One. ", "Two. ", "Three.")
    async with assert_no_leaks(), m:
        result = await m.stream("?")
        iteration = result.astream()
        async for chunk in iteration:
            assert chunk == "One."
            break
        assert [chunk async for chunk in iteration] == ["Two.", "Three."]
        assert [chunk async for chunk in iteration] == []
        async for event in result.events():
            assert isinstance(event, ChunkEvent)
            break


@pytest.mark.parametrize("ended", [True, False])
async def test_4_9_a_second_iteration_raises_at_once(ended: bool) -> None:
    m, _ = session("One. ", Pause(10), "Two.")
    async with m:
        result = await m.stream("?")
        chunks, events = result.astream(), result.events()
        assert await anext(chunks) == "One."
        await anext(events)
        if ended:
            await result.acomplete()
        for second in (result.astream(), result.events()):
            with pytest.raises(StreamConsumed):
                await anext(second)
        assert anyio.current_time() == (10 if ended else 0)
        assert [chunk async for chunk in chunks] == ["Two."]


async def test_4_9_two_tasks_cannot_share_one_iteration() -> None:
    m, _ = session(Pause(10), "One.")
    async with m:
        result = await m.stream("?")
        chunks = result.astream()
        async with anyio.create_task_group() as tg:
            tg.start_soon(anext, chunks)
            await anyio.sleep(1)
            with pytest.raises(StreamConsumed):
                await anext(chunks)
            assert isinstance(StreamConsumed("x"), anyio.BusyResourceError)


async def test_4_9_readers_that_came_early_and_late_see_the_same() -> None:
    m, _ = session("One. ", Pause(1), "Two. ", Pause(1), Fail(ModelError("broken")))
    early: list[str] = []
    async with m:
        result = await m.stream("?", requirements=[Check()])
        with pytest.raises(ModelError):
            async for chunk in result.astream():
                early.append(chunk)  # noqa: PERF401 - the iteration raises in the end
        events = await read_events(result)
    late = [event.text for event in events if isinstance(event, ChunkEvent)]
    assert early == late == ["One.", "Two."]


# --- a limit on requests in flight ---------------------------------------------------------------


async def judge_by_model(chunk: str, backend: Backend, ctx: Context) -> str:
    return await ask(backend, ctx, f"judge {chunk}")


def judging(answer: object, verdict: object = "pass") -> ScriptedBackend:
    return ScriptedBackend(
        lambda request: verdict if "judge" in request.messages[-1].content else answer  # type: ignore[arg-type,return-value]
    )


@pytest.mark.parametrize("lane_buffer", [1, 2, 16])
@pytest.mark.parametrize("lookahead", [None, 1])
@pytest.mark.parametrize("pause", [None, 0, 1])
async def test_4_2_a_judge_in_a_lane_with_one_request_in_flight_at_a_time(
    lane_buffer: int, lookahead: int | None, pause: float | None
) -> None:
    words = [f"w{n} " for n in range(12)]
    steps = words if pause is None else [step for word in words for step in (Pause(pause), word)]
    backend = judging(steps)
    async with assert_no_leaks(), start_session(backend=backend, max_concurrency=1) as m:
        result = await m.stream(
            "?",
            requirements=[Check(judge_by_model), Check(judge_by_model)],
            chunking="word",
            lane_buffer=lane_buffer,
            lookahead=lookahead,
            validator_timeout=None,
        )
        await read_chunks(result)
        await result.acomplete()
    assert result.completed
    assert len(backend.calls) == 1 + 24
    spans = sorted((call.started_at, call.ended_at or 0.0) for call in backend.calls)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


async def test_4_2_two_runs_with_judges_and_one_request_in_flight_do_not_wait_for_one_another() -> (
    None
):
    backend = judging([f"w{n} " for n in range(12)])
    async with assert_no_leaks(), start_session(backend=backend, max_concurrency=1) as m:
        for _ in range(2):
            await m.stream(
                "?",
                requirements=[Check(judge_by_model)],
                chunking="word",
                lane_buffer=1,
                lookahead=1,
                validator_timeout=None,
            )
    assert len(backend.calls) == 2 + 24


async def test_4_2_a_request_that_waits_lets_an_unread_run_go() -> None:
    backend = ScriptedBackend(["One. ", "Two. ", "Three."], "Other.")
    async with assert_no_leaks(), start_session(backend=backend, max_concurrency=1) as m:
        result = await m.stream("?", lookahead=1)
        await anyio.sleep(1)
        assert not result.has_ended
        assert str(await m.achat("!")) is not None
        await anyio.wait_all_tasks_blocked()
        assert result.has_ended


class FirstWordOnly(ChunkingStrategy):
    """Gives the first word and drops the rest."""

    def __init__(self) -> None:
        self.given = False

    def feed(self, delta: str) -> list[str]:
        word, space, _ = delta.partition(" ")
        if self.given or not space:
            return []
        self.given = True
        return [word]

    def flush(self) -> list[str]:
        return []


async def test_4_2_a_requirement_whose_own_chunking_drops_the_rest_has_passed_all_at_the_end() -> (
    None
):
    requirement = Requirement("the first word", chunking=FirstWordOnly())
    async with start_session(
        backend=ScriptedBackend(["One two. ", "Three four."], judge=lambda _: True)
    ) as m:
        async with m.stream("?", requirements=[requirement]) as result:
            with anyio.fail_after(5):
                assert [chunk async for chunk in result.astream()] == ["One two.", "Three four."]
        assert result.full_text == "One two. Three four."


@pytest.mark.parametrize("others", [0, 1])
async def test_4_2_a_full_lane_with_a_chunking_of_its_own_slows_the_producer_too(
    others: int,
) -> None:
    backend = ScriptedBackend(["word ", Pause(1)] * 200)
    lanes = [Check(hanging, chunking="word"), *[Check(chunking="word")] * others]
    async with (
        start_session(backend=backend) as m,
        m.stream("?", requirements=lanes, lane_buffer=2, validator_timeout=math.inf),
    ):
        await anyio.sleep(100)
        assert backend.calls[0].deltas_sent < 20
