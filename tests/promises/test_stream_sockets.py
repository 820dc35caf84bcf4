"""4.2 and 4.3 over real sockets: what the server saw."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from kit import Check, always, by_chunk, kinds, read_chunks, read_events

from mellea_sc.backends.ollama import OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import Backend
from mellea_sc.core.base import CBlock, Context
from mellea_sc.core.errors import ModelError, StreamInterrupted
from mellea_sc.stdlib.session import start_session
from mellea_sc.testing.leaks import assert_no_leaks
from mellea_sc.testing.server import Answer, ModelServer

pytestmark = pytest.mark.anyio

Connect = Callable[[ModelServer], Backend]


@pytest.fixture
def anyio_backend(real_time: str) -> str:
    """Real time, since there are real sockets."""
    return real_time


@pytest.fixture(params=["openai", "ollama"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """How to talk to the server."""
    if request.param == "openai":
        return lambda server: OpenAIBackend("test-model", base_url=server.openai_url)
    return lambda server: OllamaBackend("test-model", base_url=server.ollama_url)


async def test_4_3_after_a_fail_the_server_sees_the_client_close_and_has_sent_one_delta_more(
    connect: Connect,
) -> None:
    script = Answer([f"w{n} " for n in range(200)], delay=0.02)
    async with assert_no_leaks(), ModelServer(script) as server:
        async with start_session(backend=connect(server)) as m:
            check = Check(by_chunk({"w5": "fail"}))
            result = await m.stream("?", requirements=[check], chunking="word")
            await result.acomplete()
            sent = server.requests[0].deltas_sent
            with anyio.fail_after(5):
                await server.requests[0].wait_closed()
        assert server.requests[0].ended == "client_closed"
    # the sixth word is known to be whole with its space; the next may have been under way
    assert 6 <= sent <= server.requests[0].deltas_sent <= 7
    assert result.full_text == "w0 w1 w2 w3 w4"


async def test_4_3_a_fail_closes_a_stream_that_has_stalled(connect: Connect) -> None:
    script = Answer(["One. ", "Two. ", "Three."], stall_after=2)
    async with assert_no_leaks(), ModelServer(script) as server:
        async with start_session(backend=connect(server)) as m:
            check = Check(by_chunk({"Two.": "fail"}, after={"Two.": 0.05}))
            with anyio.fail_after(5):
                result = await m.stream("?", requirements=[check])
                assert await read_chunks(result) == ["One."]
                await server.requests[0].wait_closed()
        assert server.requests[0].ended == "client_closed"
        assert server.requests[0].deltas_sent == 2


async def test_4_3_a_fail_closes_the_judge_calls_of_its_siblings_too(connect: Connect) -> None:
    def script(request: object) -> Answer:
        if "judge" in request.prompt:  # type: ignore[attr-defined]
            return Answer(["slow"], first_delay=3600)
        return Answer(["One. ", "Two. "], stall_after=2)

    async def judge_by_model(chunk: str, backend: Backend, ctx: Context) -> str:
        thunk, _ = await backend.generate_from_context(CBlock("judge"), ctx.without_items())
        return await thunk.avalue()

    async with assert_no_leaks(), ModelServer(script) as server:
        async with start_session(backend=connect(server)) as m:

            async def fail_when_asked(chunk: str, backend: Backend, ctx: Context) -> str:
                await server.wait_for(2)
                return "fail"

            with anyio.fail_after(5):
                result = await m.stream(
                    "?", requirements=[Check(judge_by_model), Check(fail_when_asked)]
                )
                await result.acomplete()
                for request in server.requests:
                    await request.wait_closed()
        assert [request.ended for request in server.requests] == ["client_closed"] * 2
    assert result.full_text == ""


@pytest.mark.parametrize("how", ["cancel", "block", "session", "outer scope", "break"])
async def test_4_8_ending_a_run_in_any_way_closes_its_connection(
    how: str, connect: Connect
) -> None:
    script = Answer(["One. ", "Two. "], stall_after=1)
    async with assert_no_leaks(), ModelServer(script) as server:
        with anyio.fail_after(5), anyio.CancelScope() as outer:
            async with (
                start_session(backend=connect(server)) as m,
                m.stream("?", requirements=[Check()]) as result,
            ):
                async for chunk in result.astream():
                    assert chunk == "One."
                    if how == "break":
                        break
                    if how == "cancel":
                        result.cancel()
                    if how == "session":
                        m.cancel()
                    if how == "outer scope":
                        outer.cancel()
                    if how == "block":
                        break
        with anyio.fail_after(5):
            await server.requests[0].wait_closed()
        assert server.requests[0].ended == "client_closed"


@pytest.mark.parametrize("by", ["reader", "lane"])
async def test_4_2_back_pressure_reaches_the_socket(by: str, connect: Connect) -> None:
    """The server has much to send; who is slow here blocks it there."""
    count = 4_000
    script = Answer(["x" * 4_000 + " "] * count)
    async with assert_no_leaks(), ModelServer(script) as server:
        async with start_session(backend=connect(server)) as m:
            checks = [] if by == "reader" else [Check(always("pass", after=3600))]
            result = await m.stream(
                "?",
                requirements=checks,
                chunking="word",
                lookahead=1 if by == "reader" else None,
                lane_buffer=1,
            )
            await server.wait_for(1)
            sent = -1
            while sent != server.requests[0].deltas_sent or sent < 1:
                sent = server.requests[0].deltas_sent
                await anyio.wait_all_tasks_blocked()
            assert 1 <= sent < count / 2
            if by == "reader":
                chunks = result.astream()
                for _ in range(3):
                    assert len(await anext(chunks)) == 4_000
                assert server.requests[0].ended is None
            result.cancel()
        with anyio.fail_after(5):
            await server.requests[0].wait_closed()
        assert server.requests[0].ended == "client_closed"


async def test_4_2_a_delta_is_released_when_it_comes_and_does_not_wait_for_the_next(
    connect: Connect,
) -> None:
    script = Answer(["One. ", "Two. ", "Three. "], stall_after=2)
    async with (
        ModelServer(script) as server,
        start_session(backend=connect(server)) as m,
        m.stream("?", requirements=[Check()]) as result,
    ):
        chunks = result.astream()
        with anyio.fail_after(5):
            assert [await anext(chunks), await anext(chunks)] == ["One.", "Two."]


async def test_4_12_text_before_a_cut_or_an_error_in_the_stream_is_released_before_the_error(
    connect: Connect,
) -> None:
    deltas = ["One. ", "Two. ", "Thr", "ee."]
    for answer, kind in (
        (Answer(deltas, cut_after=3), StreamInterrupted),
        (Answer(deltas, error_after=3, error="out of memory"), ModelError),
    ):
        async with (
            assert_no_leaks(),
            ModelServer(answer) as server,
            start_session(backend=connect(server)) as m,
        ):
            check = Check(always("pass", after=0.02))
            result = await m.stream("?", requirements=[check])
            chunks: list[str] = []
            with pytest.raises(kind), anyio.fail_after(5):
                async for chunk in result.astream():
                    chunks.append(chunk)  # noqa: PERF401 - the iteration raises in the end
            assert chunks == ["One.", "Two.", "Thr"]
            assert kinds(await read_events(result))[-2:] == ["Error", "Completed"]
        assert len(server.requests) == 1


async def test_4_8_runs_side_by_side_and_one_after_another_share_connections(
    connect: Connect,
) -> None:
    async with assert_no_leaks(), ModelServer(Answer(["One. ", "Two."])) as server:
        async with start_session(backend=connect(server)) as m:
            for _ in range(3):
                results = [await m.stream("?", requirements=[Check()]) for _ in range(4)]
                for result in results:
                    assert await read_chunks(result) == ["One.", "Two."]
                    await result.acomplete()
        assert [request.ended for request in server.requests] == ["complete"] * 12
