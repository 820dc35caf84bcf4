"""Over sockets: which answers are asked for again, with whose delays, and what one that begins is worth."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Generator
from typing import Final, TypeAlias

import anyio
import anyio.abc
import pytest

from mellea_sc import (
    Backend,
    BackendBusy,
    BackendError,
    BackendProtocolError,
    BackendRejected,
    BackendUnreachable,
    ChatMessage,
    GenerationRequest,
    ModelError,
    OllamaBackend,
    OpenAIBackend,
    StreamInterrupted,
)
from mellea_sc.backends import Retrying
from mellea_sc.testing.server import Answer, ModelServer

pytestmark = pytest.mark.anyio

REQUEST: Final = GenerationRequest((ChatMessage("user", "hi"),))
TEXT: Final = "Hello, world."
Make: TypeAlias = Callable[[ModelServer], Retrying]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Nobody waits for long."""
    monkeypatch.setattr("mellea_sc.backends.retry.FIRST_WAIT", 0.02)
    yield


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
    ("answer", "kind"),
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
    make: Make, answer: Answer, kind: type[BackendError]
) -> None:
    async with ModelServer([answer]) as server:
        with pytest.raises(kind):
            await read(make(server))
    assert len(server.requests) == 1


@pytest.mark.parametrize("hang_ups", [1, 3])
async def test_a_connection_that_ends_before_a_byte_is_made_again(
    make: Make, hang_ups: int
) -> None:
    connections = 0
    good = (
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nConnection: close\r\n\r\n"
        '{}{{"choices": [{{"delta": {{"content": "Hello"}}, "finish_reason": "stop"}}], '
        '"message": {{"content": "Hello"}}, "done": true, "done_reason": "stop"}}\n\n'
    )

    async def answer(stream: anyio.abc.SocketStream) -> None:
        nonlocal connections
        connections += 1
        async with stream:
            request = await stream.receive()
            if connections > hang_ups:
                ollama = b"/api/chat" in request
                kind, prefix = (
                    ("application/x-ndjson", "") if ollama else ("text/event-stream", "data: ")
                )
                await stream.send(good.format(kind, prefix).encode())

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, answer)
        server = ModelServer(Answer())
        server._port = listener.extra(anyio.abc.SocketAttribute.local_port)
        assert await read(make(server)) == "Hello"
        tasks.cancel_scope.cancel()
    assert connections == hang_ups + 1


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


async def test_attempts_share_a_connection(make: Make) -> None:
    async with ModelServer([Answer(status=503), Answer()]) as server:
        async with make(server).connected() as backend:
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
