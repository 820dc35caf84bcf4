"""Mellea's ``stream``: its names for a checked stream, and its block."""

from __future__ import annotations

import inspect

import anyio
import pytest
from kit import Check, by_chunk, session

from mellea_sc import CBlock, StreamConsumed, stream_with_chunking
from mellea_sc.core.errors import BackendError, InvalidOption
from mellea_sc.stdlib.streaming import stream
from mellea_sc.testing.leaks import assert_no_leaks
from mellea_sc.testing.scripted import Fail, Stall

ASKED = CBlock("Tell me.")


@pytest.mark.anyio
async def test_a_stream_that_ends_by_itself_has_handed_out_all_of_it_and_was_judged() -> None:
    m, _ = session("One. ", "Two.")
    check = Check()
    async with m:
        async with await stream(
            ASKED, m.backend, m.ctx, requirements=[check], chunking="sentence"
        ) as chunks:
            assert [chunk async for chunk in chunks] == ["One.", "Two."]
            assert [bool(verdict) for verdict in chunks.final_validations] == [True]
        assert chunks.completed_normally
        assert not chunks.failed_early
        assert chunks.failure_reason is None
        assert chunks.full_text == "One. Two."
        assert chunks.mot is not None
        assert chunks.mot.value == "One. Two."


@pytest.mark.anyio
async def test_without_a_chunking_the_chunks_are_the_deltas() -> None:
    m, _ = session("One. T", "wo.")
    async with m, await stream(ASKED, m.backend, m.ctx) as chunks:
        assert [chunk async for chunk in chunks] == ["One. T", "wo."]


@pytest.mark.anyio
async def test_a_failed_check_ends_the_stream_and_says_why() -> None:
    m, backend = session("One. ", "Two. ", Stall())
    check = Check(by_chunk({"Two.": "fail"}))
    async with m:
        async with await stream(
            ASKED, m.backend, m.ctx, requirements=[check], chunking="sentence"
        ) as chunks:
            assert [chunk async for chunk in chunks] == ["One."]
        assert (chunks.completed_normally, chunks.failed_early) == (False, True)
        assert chunks.failure_reason == "Two."
        assert chunks.full_text == "One."
        assert chunks.mot is None
        assert chunks.final_validations == []
        [(requirement, verdict)] = chunks.streaming_failures
        assert (requirement.description, verdict.success) == ("a check", "fail")
        assert [call.outcome for call in backend.calls] == ["cancelled"]


@pytest.mark.anyio
async def test_generation_begins_before_anybody_reads() -> None:
    m, backend = session("One. ", "Two.")
    async with m, await stream(ASKED, m.backend, m.ctx):
        await anyio.wait_all_tasks_blocked()
        assert [call.outcome for call in backend.calls] == ["ended"]


@pytest.mark.anyio
@pytest.mark.parametrize("reads", [True, False])
async def test_leaving_the_block_early_stops_the_model_and_waits_for_that(reads: bool) -> None:
    m, backend = session("One. ", "Two. ", Stall())
    async with assert_no_leaks(), m:
        async with await stream(ASKED, m.backend, m.ctx, chunking="sentence") as chunks:
            await anyio.wait_all_tasks_blocked()
            if reads:
                async for _ in chunks:
                    break
        assert [call.outcome for call in backend.calls] == ["cancelled"]
        assert not chunks.completed_normally
        assert not chunks.failed_early


@pytest.mark.anyio
async def test_aclose_stops_the_model_and_can_be_called_again() -> None:
    m, backend = session("One. ", Stall())
    async with m:
        chunks = await stream(ASKED, m.backend, m.ctx)
        await anyio.wait_all_tasks_blocked()
        await chunks.aclose()
        assert [call.outcome for call in backend.calls] == ["cancelled"]
        await chunks.aclose()


@pytest.mark.anyio
async def test_an_error_is_raised_once_by_the_iteration_or_else_by_the_block() -> None:
    for reads in (True, False):
        m, _ = session("One. ", Fail(BackendError("lost")))
        async with m:
            with pytest.raises(BackendError, match="lost"):
                async with await stream(ASKED, m.backend, m.ctx) as chunks:
                    await anyio.wait_all_tasks_blocked()
                    if reads:
                        _ = [chunk async for chunk in chunks]
                        pytest.fail("the iteration has not raised it")


@pytest.mark.anyio
async def test_the_chunks_are_iterated_once() -> None:
    m, _ = session("One.")
    async with m, await stream(ASKED, m.backend, m.ctx) as chunks:
        assert [chunk async for chunk in chunks] == ["One."]
        with pytest.raises(StreamConsumed):
            _ = [chunk async for chunk in chunks]


@pytest.mark.anyio
async def test_an_unknown_chunking_starts_nothing() -> None:
    m, backend = session("One.")
    async with m:
        with pytest.raises(InvalidOption, match="chunking must be one of"):
            await stream(ASKED, m.backend, m.ctx, chunking="lines")
    assert backend.calls == []


def test_its_parameters_are_those_of_stream_with_chunking() -> None:
    theirs = inspect.signature(stream_with_chunking).parameters
    ours = inspect.signature(stream).parameters
    assert set(ours) <= set(theirs)
    for name, parameter in ours.items():
        assert parameter.annotation == theirs[name].annotation
        assert parameter.kind == theirs[name].kind


# --- the block of a result that was awaited ---------------------------------------------------------


@pytest.mark.anyio
async def test_an_awaited_result_can_be_entered_and_ends_with_its_block() -> None:
    m, backend = session("One. ", "Two. ", Stall())
    async with m:
        async with await stream_with_chunking(ASKED, m.backend, m.ctx) as result:
            async for _ in result.astream():
                break
        assert result.cancelled
        assert [call.outcome for call in backend.calls] == ["cancelled"]


@pytest.mark.anyio
async def test_the_block_of_an_awaited_result_raises_the_error_that_nobody_has_seen() -> None:
    m, _ = session("One.")
    check = Check(by_chunk({"One.": ValueError("wrong")}))
    async with m:
        with pytest.raises(ValueError, match="wrong"):
            async with await stream_with_chunking(
                ASKED, m.backend, m.ctx, requirements=[check]
            ) as result:
                await anyio.wait_all_tasks_blocked()
        assert isinstance(result.error, ValueError)
