"""Over sockets: which answers are asked for again, with whose delays, and what one that begins is worth."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Final, TypeAlias

import anyio
import pytest
from raw_server import Play, answer, hangs_up, raw_server, resets, sends

from mellea_sc import (
    Backend,
    BackendBusy,
    BackendError,
    BackendProtocolError,
    BackendRejected,
    BackendUnreachable,
    GenerationRequest,
    ModelError,
    ModelOption,
    StreamInterrupted,
    start_session,
)
from mellea_sc.backends import ChatMessage, OllamaBackend, OpenAIBackend, Retrying
from mellea_sc.testing.server import Answer, ModelServer

pytestmark = pytest.mark.anyio

REQUEST: Final = GenerationRequest((ChatMessage("user", "hi"),))
TEXT: Final = "Hello, world."
Make: TypeAlias = Callable[[ModelServer], Retrying]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long."""
    monkeypatch.setattr("mellea_sc.backends.retry.FIRST_WAIT", 0.02)


@pytest.fixture(params=["openai", "ollama"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a backend of a server."""
    if request.param == "openai":
        return lambda server: Retrying(OpenAIBackend("m", base_url=server.openai_url))
    return lambda server: Retrying(OllamaBackend("m", base_url=server.ollama_url))


async def read(backend: Backend) -> str:
    async with backend.open(REQUEST) as stream:
        return "".join([delta.text async for delta in stream])


def event(**fields: object) -> bytes:
    """An event that is a line of JSON too."""
    return f"data: {json.dumps(fields)}\n\n".encode()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
async def test_what_passes_by_itself_is_asked_for_again(make: Make, status: int) -> None:
    async with ModelServer([Answer(status=status)] * 2 + [Answer()]) as server:
        assert await read(make(server)) == TEXT
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Answer(status=400), BackendRejected),
        (Answer(status=402), BackendRejected),
        (Answer(status=413), BackendRejected),
        (Answer(status=429, error="insufficient_quota: pay first"), BackendRejected),
        (Answer(cut_after=0), StreamInterrupted),
        (Answer(cut_after=1), StreamInterrupted),
        (Answer(malformed_after=0), BackendProtocolError),
        (Answer(error_after=0, error="out of memory"), ModelError),
    ],
)
async def test_what_does_not_is_said_at_once(
    make: Make, refusal: Answer, kind: type[BackendError]
) -> None:
    async with ModelServer([refusal]) as server:
        with pytest.raises(kind):
            await read(make(server))
    assert len(server.requests) == 1


@pytest.mark.parametrize("ends", [hangs_up, resets])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_connection_that_ends_before_a_byte_is_made_again(ends: Play, times: int) -> None:
    async with raw_server(*[ends] * times, sends(answer("Hello"))) as server:
        assert await read(Retrying(OpenAIBackend("m", base_url=server.url))) == "Hello"
    assert len(server.connections) == times + 1


async def test_a_server_that_is_not_there_is_said_at_once(make: Make) -> None:
    async with ModelServer([]) as server:
        backend = make(server)
    with anyio.fail_after(2), pytest.raises(BackendUnreachable):
        await read(backend)


async def test_a_server_that_is_started_anew_is_waited_for(make: Make) -> None:
    async with ModelServer(Answer()) as server:
        backend = make(server)
        assert await read(backend) == TEXT
    with anyio.fail_after(5), pytest.raises(BackendUnreachable) as caught:
        await read(backend)
    assert "asked 4 times" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "first",
    [
        event(error={"code": 429, "message": "slow down"}),
        event(choices=[{"delta": {"role": "assistant", "content": ""}}])
        + event(error={"code": 529, "message": "slow down"}),
    ],
)
async def test_so_is_a_provider_that_is_busy_within_an_answer_without_text(first: bytes) -> None:
    async with ModelServer([Answer(body=first), Answer()]) as server:
        assert await read(Retrying(OpenAIBackend("m", base_url=server.openai_url))) == TEXT
    assert len(server.requests) == 2


async def test_after_text_it_is_an_error() -> None:
    body = event(choices=[{"delta": {"content": "Hel"}}]) + event(error={"code": 429})
    texts: list[str] = []
    async with ModelServer([Answer(body=body)]) as server:
        with pytest.raises(BackendBusy):
            async with Retrying(OpenAIBackend("m", base_url=server.openai_url)).open(REQUEST) as s:
                async for delta in s:
                    texts.append(delta.text)  # noqa: PERF401 # what came before the error counts
    assert "".join(texts) == "Hel"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "0.3"},
        {"retry-after-ms": "300", "retry-after": "60"},
        {"x-ratelimit-reset-requests": "300ms"},
    ],
)
async def test_the_servers_time_is_waited_for(make: Make, headers: dict[str, str]) -> None:
    refused = Answer(status=429, headers=headers)
    async with ModelServer([refused, refused, Answer()]) as server:
        assert await read(make(server)) == TEXT
    times = [record.received_at for record in server.requests]
    assert all(later - earlier >= 0.3 for earlier, later in itertools.pairwise(times))


async def test_more_than_the_budget_is_not_waited_for(make: Make) -> None:
    async with ModelServer([Answer(status=429, retry_after=3600)]) as server:
        with anyio.fail_after(2), pytest.raises(BackendBusy, match="wait for 3600 s"):
            await read(make(server))
    assert len(server.requests) == 1


async def test_a_refusal_that_does_not_end_is_not_lost_in_a_time_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mellea_sc.backends.http.answer.BODY_TIMEOUT", 0.5)
    refusal = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 500\r\n\r\nslow down"
    async with raw_server(sends(refusal)) as server:
        backend = OpenAIBackend("m", base_url=server.url)
        options = {ModelOption.STREAM_TIMEOUT: 0.1}
        async with start_session(backend=backend, model_options=options, retries=0) as m:
            with pytest.raises(BackendBusy, match="slow down"):
                await m.ainstruct("hi", await_result=True)


async def test_attempts_share_a_connection(make: Make) -> None:
    answers = [Answer(status=503), Answer()]
    async with ModelServer(answers) as server, make(server).connected() as backend:
        assert await read(backend) == TEXT
    assert [record.connection for record in server.requests] == [0, 0]


async def test_a_cancelled_wait_asks_nobody(make: Make) -> None:
    async with ModelServer(Answer(status=503, retry_after=4)) as server:
        with anyio.fail_after(2):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, make(server))
                await server.wait_for(1)
                await server.requests[0].wait_closed()
                tasks.cancel_scope.cancel()
    assert len(server.requests) == 1
