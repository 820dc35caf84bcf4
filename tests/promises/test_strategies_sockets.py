"""Over real sockets: what the server saw of losers."""

from __future__ import annotations

import anyio
import pytest
from kit import Without, is_

from mellea_sc import (
    BacktrackStrategy,
    PreconditionFailed,
    Requirement,
    ValidationResult,
    start_session,
)
from mellea_sc.backends.ollama import OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.stdlib import RacingStrategy
from mellea_sc.testing.leaks import assert_no_leaks
from mellea_sc.testing.server import Answer, ModelServer, RecordedRequest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(real_time: str) -> str:
    """Real time, since there are real sockets."""
    return real_time


@pytest.fixture(params=["openai", "ollama"])
def kind(request: pytest.FixtureRequest) -> str:
    """The protocol."""
    assert isinstance(request.param, str)
    return request.param


def connect(kind: str, server: ModelServer) -> Backend:
    if kind == "openai":
        return OpenAIBackend("test-model", base_url=server.openai_url)
    return OllamaBackend("test-model", base_url=server.ollama_url)


LONG = Answer([f"w{n}. " for n in range(500)], delay=0.02)


async def closed(request: RecordedRequest, sent: int) -> None:
    """The client has gone, and of what the server was to send at most one more delta was sent."""
    with anyio.fail_after(5):
        await request.wait_closed()
    assert request.ended == "client_closed"
    assert request.deltas_sent <= sent + 1


@pytest.mark.parametrize("call", ["instruct", "stream"])
async def test_after_a_win_the_losers_connections_are_closed(kind: str, call: str) -> None:
    answers = [LONG, LONG, Answer("Good.", first_delay=0.2)]
    async with assert_no_leaks(), ModelServer(answers) as server:
        async with start_session(backend=connect(kind, server)) as m:
            requirements, strategy = [is_("Good.")], RacingStrategy(3)
            if call == "instruct":
                thunk = await m.ainstruct("?", requirements=requirements, strategy=strategy)
                assert await thunk == "Good."
            else:
                result = await m.stream("?", requirements=requirements, strategy=strategy)
                await result.acomplete()
                assert result.full_text == "Good."
            sent = [request.deltas_sent for request in server.requests]
            for index in range(2):
                await closed(server.requests[index], sent[index])
        assert server.requests[2].ended == "complete"


async def test_after_a_fail_the_attempt_is_closed_and_the_next_one_asked(kind: str) -> None:
    async with (
        assert_no_leaks(),
        ModelServer([LONG, Answer("Good.")]) as server,
        start_session(backend=connect(kind, server)) as m,
    ):
        thunk = await m.ainstruct("?", requirements=[Without("w4.")], strategy=BacktrackStrategy())
        assert (await thunk).endswith("w3. Good.")
        # the chunk is known to be whole with its space, and one more may have been under way
        await closed(server.requests[0], 6)


@pytest.mark.parametrize("call", ["instruct", "stream"])
async def test_after_a_failing_precondition_every_candidate_is_closed(kind: str, call: str) -> None:
    async def judge(_: Context) -> ValidationResult:
        await server.wait_for(3)
        await anyio.sleep(0.1)
        return ValidationResult(False)

    async with (
        assert_no_leaks(),
        ModelServer(LONG) as server,
        start_session(backend=connect(kind, server)) as m,
    ):
        given = [Requirement("input", judge)]
        strategy = RacingStrategy(3)
        if call == "instruct":
            thunk = await m.ainstruct("?", preconditions=given, strategy=strategy)
            await thunk.wait_finished()
            assert thunk.error is not None
            with pytest.raises(type(thunk.error)):
                await thunk
        else:
            with pytest.raises(PreconditionFailed):
                await (await m.stream("?", preconditions=given, strategy=strategy)).acomplete()
        for request, sent in [(one, one.deltas_sent) for one in server.requests]:
            await closed(request, sent)


async def test_after_a_cancel_every_candidate_is_closed(kind: str) -> None:
    async with (
        assert_no_leaks(),
        ModelServer(LONG) as server,
        start_session(backend=connect(kind, server)) as m,
    ):
        thunk = await m.ainstruct("?", requirements=[is_("Good.")], strategy=RacingStrategy(3))
        with anyio.fail_after(5):
            await server.wait_for(3)
        thunk.cancel()
        await thunk.wait_finished()
        for request, sent in [(one, one.deltas_sent) for one in server.requests]:
            await closed(request, sent)
