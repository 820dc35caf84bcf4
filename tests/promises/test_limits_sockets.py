"""Over real sockets: what the server saw of a limit."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from mellea_sc import (
    Backend,
    BudgetExceeded,
    CBlock,
    MelleaSession,
    ModelOutputThunk,
    limits,
    req,
    start_session,
)
from mellea_sc.backends import OllamaBackend, OpenAIBackend, Usage
from mellea_sc.testing import assert_no_leaks
from mellea_sc.testing.server import Answer, ModelServer, RecordedRequest

pytestmark = pytest.mark.anyio

Connect = Callable[[ModelServer], Backend]


@pytest.fixture
def anyio_backend(real_time: str) -> str:
    """Real time, since there are real sockets."""
    return real_time


async def ask(m: MelleaSession) -> ModelOutputThunk:
    """A thunk that makes one request."""
    return await m.aact(CBlock("hi"), strategy=None)


@pytest.fixture(params=["openai", "ollama"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """How to talk to the server."""
    if request.param == "openai":
        return lambda server: OpenAIBackend("test-model", base_url=server.openai_url)
    return lambda server: OllamaBackend("test-model", base_url=server.ollama_url)


async def closed(server: ModelServer) -> list[tuple[int, int]]:
    """For every request, when all are closed, the deltas sent before and after that was waited for."""
    before = [one.deltas_sent for one in server.requests]
    with anyio.fail_after(5):
        for one in server.requests:
            await one.wait_closed()
    return list(zip(before, [one.deltas_sent for one in server.requests], strict=True))


async def test_the_server_sees_every_request_closed_after_at_most_one_delta_more(
    connect: Connect,
) -> None:
    script = Answer([f"w{n} " for n in range(200)], delay=0.02)
    async with assert_no_leaks(), ModelServer(script) as server:
        async with start_session(backend=connect(server)) as m:
            with pytest.raises(BudgetExceeded) as caught, limits(tokens=20):
                for _ in range(3):
                    await ask(m)
                await anyio.sleep_forever()
            seen = await closed(server)
        assert [one.ended for one in server.requests] == ["client_closed"] * 3
    assert all(after <= before + 1 for before, after in seen)
    # 20 tokens: three prompts, and the deltas of all three; each may have had one under way
    assert 18 <= sum(after for _, after in seen) <= 18 + 3
    assert caught.value.spent.requests == 3


async def test_a_stalled_request_is_closed_by_the_time(connect: Connect) -> None:
    script = Answer(["a", "b"], stall_after=1)
    async with assert_no_leaks(), ModelServer(script) as server:
        async with start_session(backend=connect(server)) as m:
            with pytest.raises(BudgetExceeded) as caught, limits(seconds=0.5):
                await (await ask(m))
            await closed(server)
        assert [one.ended for one in server.requests] == ["client_closed"]
    assert caught.value.partial_text == "a"


async def test_a_judge_and_a_stream_are_closed_together(connect: Connect) -> None:
    def script(request: RecordedRequest) -> Answer:
        if "response_format" in request.json or "format" in request.json:
            return Answer(["slow"], first_delay=3600)
        return Answer(["One. ", *(f"w{n} " for n in range(200))], delay=0.02)

    async with assert_no_leaks(), ModelServer(script) as server:
        async with start_session(backend=connect(server)) as m:
            with pytest.raises(BudgetExceeded), limits(seconds=0.7):
                thunk = await m.ainstruct("count", requirements=[req("be kind")])
                stream = await m.stream("count")
                with anyio.fail_after(5):
                    await thunk
            seen = await closed(server)
            await stream.wait_finished()
        assert {one.ended for one in server.requests} == {"client_closed"}
    assert all(after <= before + 1 for before, after in seen)


async def test_the_servers_own_count_is_what_is_spent(connect: Connect) -> None:
    script = Answer(["a", "b"], usage=Usage(70, 30))
    async with (
        assert_no_leaks(),
        ModelServer(script) as server,
        start_session(backend=connect(server)) as m,
    ):
        with limits(tokens=100) as spent:
            await (await ask(m))
    assert (spent.prompt_tokens, spent.completion_tokens, spent.estimated) == (70, 30, False)
