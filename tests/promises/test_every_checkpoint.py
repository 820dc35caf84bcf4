"""Programs cancelled at their first checkpoint, their second, … their last: nothing leaks, nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from kit import Check, always, asking_a_model, by_chunk

from mellea_sc import (
    BudgetExceeded,
    CompletedEvent,
    Instruction,
    MelleaSession,
    ModelOption,
    check,
    limits,
    simple_validate,
    start_session,
    stream_with_chunking,
    wait_for_all_mots,
)
from mellea_sc.backends import OpenAIBackend
from mellea_sc.stdlib import StreamChunkingResult
from mellea_sc.testing import ScriptedBackend, cancel_everywhere
from mellea_sc.testing.clock import LoopName, run_virtual
from mellea_sc.testing.server import Answer, ModelServer

TEXT = "One is here. Two is here. Three is here."


TAKES_TIME = always("pass", after=0.01)


@pytest.fixture
def anyio_backend(real_time: str) -> str:
    """Real time, since there are sockets."""
    return real_time


def passes() -> Check:
    """Takes its time for every chunk."""
    return Check(TAKES_TIME, final=TAKES_TIME)


def judged() -> Check:
    """Asks a model about every chunk."""
    return Check(asking_a_model(), final=TAKES_TIME)


class Watched:
    """A program's backends and runs, and what must hold of them after each of its runs."""

    def __init__(self) -> None:
        self.backend = ScriptedBackend(lambda _: TEXT)
        self.runs: list[StreamChunkingResult] = []

    @asynccontextmanager
    async def session(self, max_concurrency: int | None = None) -> AsyncGenerator[MelleaSession]:
        self.backend = ScriptedBackend(lambda _: TEXT)
        async with start_session(backend=self.backend, max_concurrency=max_concurrency) as m:
            yield m

    async def nothing_is_left(self) -> None:
        assert all(call.outcome != "running" for call in self.backend.calls)
        for run in self.runs:
            events = [event async for event in run.events()]
            ends = [event for event in events if isinstance(event, CompletedEvent)]
            assert len(ends) == 1
            assert events[-1] is ends[0]
            assert TEXT.startswith(run.full_text)
            assert run.error is None
        self.runs.clear()


async def an_instruction_that_is_repaired(watched: Watched) -> None:
    async with watched.session() as m:
        wanted = [check("never", simple_validate(lambda _: False)), judged()]
        thunk = await m.ainstruct("Count.", requirements=wanted)
        assert await thunk == TEXT


async def several_thunks_at_once(watched: Watched) -> None:
    async with watched.session(max_concurrency=2) as m:
        thunks = [await m.ainstruct("Count.") for _ in range(3)]
        await wait_for_all_mots(thunks)


async def a_streamed_thunk(watched: Watched) -> None:
    async with watched.session() as m:
        thunk = await m.ainstruct("Count.", model_options={ModelOption.STREAM: True})
        assert "".join([delta async for delta in thunk]) == TEXT


async def a_stream_with_three_lanes(watched: Watched) -> None:
    async with watched.session() as m:
        result = await stream_with_chunking(
            Instruction("Count."),
            m.backend,
            m.ctx,
            requirements=[passes(), judged(), passes()],
        )
        watched.runs.append(result)
        assert [chunk async for chunk in result.astream()] == TEXT.replace(". ", ".|").split("|")
        await result.acomplete()


async def a_stream_that_fails(watched: Watched) -> None:
    async with watched.session() as m:
        request = m.stream(
            "Count.", requirements=[passes(), judged(), Check(by_chunk({"Two is here.": "fail"}))]
        )
        async with request as result:
            watched.runs.append(result)
            await result.acomplete()
        assert not result.completed


async def a_block_within_its_limits(watched: Watched) -> None:
    async with watched.session() as m:
        with limits(requests=20, seconds=3600) as spent:
            result = await m.stream("Count.", requirements=[judged()])
            watched.runs.append(result)
            await m.ainstruct("Count.", requirements=[judged()])
            await result.acomplete()
    assert spent.requests == len(watched.backend.calls)


async def a_block_that_exceeds_its_limits(watched: Watched) -> None:
    async with watched.session() as m:
        with pytest.raises(BudgetExceeded), limits(requests=2, tokens=10_000):
            wanted = [check("never", simple_validate(lambda _: False)), judged()]
            thunks = [await m.ainstruct("Count.", requirements=wanted) for _ in range(2)]
            await wait_for_all_mots(thunks)
        for thunk in thunks:
            await thunk.wait_finished()
            assert thunk.cancelled


async def leaving_a_session_with_work_in_it(watched: Watched) -> None:
    async with watched.session() as m:
        await m.ainstruct("Count.", requirements=[judged()])
        await m.ainstruct("Count.", model_options={ModelOption.STREAM: True})
        watched.runs.append(await m.stream("Count.", requirements=[passes()], lookahead=1))


async def a_bare_session(watched: Watched) -> None:
    m = start_session(backend=watched.backend)
    try:
        thunk = await m.ainstruct("Count.")
        await thunk
    finally:
        with anyio.CancelScope(shield=True):
            await m.aclose()


async def what_a_blocking_call_runs(watched: Watched) -> None:
    """Its async half is what Ctrl-C in the waiting thread cancels."""
    async with watched.session() as m:
        thunk = await m.ainstruct("Count.", requirements=[judged()])
        async with thunk:
            assert await thunk.avalue() == TEXT
        assert str(await m.achat("Count.")) == TEXT


PROGRAMS = [
    an_instruction_that_is_repaired,
    several_thunks_at_once,
    a_streamed_thunk,
    a_stream_with_three_lanes,
    a_stream_that_fails,
    a_block_within_its_limits,
    a_block_that_exceeds_its_limits,
    leaving_a_session_with_work_in_it,
    a_bare_session,
    what_a_blocking_call_runs,
]


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_cancelled_anywhere_a_program_leaves_nothing_and_loses_nothing(
    program: Callable[[Watched], Awaitable[None]], loop: LoopName, seed: int | None
) -> None:
    async def main() -> int:
        watched = Watched()

        async def once() -> None:
            await program(watched)

        return await cancel_everywhere(once, after_each=watched.nothing_is_left)

    assert run_virtual(main, backend=loop, seed=seed) > 3


@pytest.mark.anyio
async def test_cancelled_anywhere_the_server_sees_the_close() -> None:
    answer = Answer(("One is here. ", "Two is here. ", "Three is here."), delay=0.001)
    # in a thread: the server's own tasks are none of the program's
    with ModelServer.in_thread(lambda _: answer) as server:
        backend = OpenAIBackend("test-model", base_url=server.openai_url)

        async def program() -> None:
            async with (
                start_session(backend=backend) as m,
                m.stream("Count.", requirements=[passes(), judged()]) as result,
            ):
                await result.acomplete()

        async def every_exchange_has_ended() -> None:
            for request in server.requests:
                with anyio.fail_after(5):
                    await anyio.to_thread.run_sync(server.portal.call, request.wait_closed)
            server.requests.clear()

        assert await cancel_everywhere(program, after_each=every_exchange_has_ended, max_points=40)


@pytest.mark.anyio
async def test_a_thousand_cancelled_requests_leave_the_pool_empty_and_the_next_one_works() -> None:
    answers = Answer(("Hello", " there."), delay=5.0), Answer(("Hello", " there."))
    async with ModelServer(lambda _: answers[0] if cancelling else answers[1]) as server:
        backend = OpenAIBackend("test-model", base_url=server.openai_url)
        async with start_session(backend=backend) as m:
            cancelling = True
            for _ in range(10):
                thunks = [await m.ainstruct("Greet.") for _ in range(100)]
                await server.wait_for(100)
                for thunk in thunks:
                    thunk.cancel("enough")
                for thunk in thunks:
                    await thunk.wait_finished()
                for request in server.requests:
                    with anyio.fail_after(10):
                        await request.wait_closed()
                    assert request.ended == "client_closed"
                server.requests.clear()
            cancelling = False
            with anyio.fail_after(10):
                assert await (await m.ainstruct("Greet.")) == "Hello there."


@pytest.mark.anyio
async def test_two_hundred_sessions_leave_no_thread_and_no_descriptor() -> None:
    def resources() -> tuple[int, int]:
        descriptors = Path("/proc/self/fd")
        return threading.active_count(), len(
            list(descriptors.iterdir())
        ) if descriptors.exists() else 0

    async with ModelServer(lambda _: Answer("Hello.")) as server:
        backend = OpenAIBackend("test-model", base_url=server.openai_url)

        async def one() -> None:
            async with start_session(backend=backend) as m:
                assert await (await m.ainstruct("Greet.")) == "Hello."

        await one()
        for request in server.requests:
            await request.wait_closed()
        before = resources()
        for _ in range(200):
            await one()
    assert resources() <= before


def test_two_hundred_blocking_sessions_leave_no_thread() -> None:
    def one() -> None:
        with start_session(backend=ScriptedBackend("Hello.")) as m:
            assert m.instruct("Greet.").value == "Hello."

    for _ in range(200):
        one()
    assert not [thread.name for thread in threading.enumerate() if "mellea_sc" in thread.name]
