"""Connections that are used again: dead ones, and ones on which more came than an answer."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator

import anyio
import anyio.abc
import httpx
import pytest
from raw_server import (
    HEAD,
    Play,
    RawServer,
    answer,
    chunk,
    hangs_up,
    raw_server,
    resets,
    sends,
)

from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import Backend, ChatMessage, GenerationRequest
from mellea_sc.core.errors import BackendError, BackendProtocolError, StreamInterrupted

pytestmark = pytest.mark.anyio

REQUEST = GenerationRequest((ChatMessage("user", "hi"),))
GOOD = sends(answer("good"))


@pytest.fixture(params=["ours", "httpx"])
async def client(request: pytest.FixtureRequest) -> AsyncGenerator[httpx.AsyncClient | None]:
    """A client of the caller's, or none."""
    if request.param == "ours":
        yield None
        return
    async with httpx.AsyncClient() as client:
        yield client


async def ask(backend: Backend) -> str:
    async with backend.open(REQUEST) as stream:
        return "".join([delta.text async for delta in stream])


def backend_for(server: RawServer, client: httpx.AsyncClient | None) -> OpenAIBackend:
    return OpenAIBackend("m", base_url=f"{server.url}/v1", client=client)


@pytest.mark.parametrize("dies", [hangs_up, resets])
async def test_a_request_on_a_reused_connection_that_dies_is_sent_once_more(
    client: httpx.AsyncClient | None, dies: Play
) -> None:
    async with (
        raw_server(GOOD, dies, GOOD) as server,
        backend_for(server, client).connected() as backend,
    ):
        assert [await ask(backend) for _ in range(2)] == ["good", "good"]
    assert server.connections == [1, 1, 2]


async def test_never_twice(client: httpx.AsyncClient | None) -> None:
    async with (
        raw_server(GOOD, hangs_up) as server,
        backend_for(server, client).connected() as backend,
    ):
        assert await ask(backend) == "good"
        with pytest.raises(StreamInterrupted) as caught:
            await ask(backend)
    assert server.connections == [1, 1, 2]
    assert caught.value.__context__ is caught.value.__cause__


async def test_never_when_the_connection_was_new(client: httpx.AsyncClient | None) -> None:
    async with (
        raw_server(hangs_up, GOOD) as server,
        backend_for(server, client).connected() as backend,
    ):
        with pytest.raises(StreamInterrupted):
            await ask(backend)
    assert server.connections == [1]


async def test_the_second_one_is_new_even_where_other_kept_ones_are_left() -> None:
    together = anyio.Event()

    async def waits(stream: anyio.abc.SocketStream) -> bool:
        if len(server.connections) == 3:
            together.set()
        await together.wait()
        await stream.send(answer("good"))
        return True

    async with (
        raw_server(waits, waits, waits, hangs_up, GOOD) as server,
        backend_for(server, None).connected() as backend,
    ):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask, backend)
        assert await ask(backend) == "good"
    assert server.connections[4:] == [4]


@pytest.mark.parametrize(
    "begun",
    [
        HEAD[:1],
        HEAD[:-1],
        HEAD,
        HEAD + chunk(b'data: {"choices": [{"delta": {"content": "go"}}]}\n\n'),
    ],
)
async def test_never_after_a_byte_of_the_answer(begun: bytes) -> None:
    async with (
        raw_server(GOOD, sends(begun, keep=False), GOOD) as server,
        backend_for(server, None).connected() as backend,
    ):
        assert await ask(backend) == "good"
        with pytest.raises(StreamInterrupted):
            await ask(backend)
    assert server.connections == [1, 1]


async def test_a_hook_of_the_callers_client_that_raises_sends_nothing_twice() -> None:
    async def refuse(response: httpx.Response) -> None:
        if len(server.connections) > 1:
            raise httpx.HTTPError("not today")

    async with (
        raw_server(GOOD) as server,
        httpx.AsyncClient(event_hooks={"response": [refuse]}) as client,
    ):
        backend = backend_for(server, client)
        assert await ask(backend) == "good"
        with pytest.raises(BackendError, match="not today"):
            await ask(backend)
    assert server.connections == [1, 1]


@pytest.mark.parametrize(
    "behind",
    [b"x", b"\r\n", b"data: junk\n\n", answer("another's"), b"HTTP/1.1 500 No\r\n\r\n"],
)
@pytest.mark.parametrize("apart", [False, True])
async def test_bytes_behind_an_answer_are_no_part_of_the_next_one(
    behind: bytes, apart: bool
) -> None:
    whole = answer("first")
    pieces = [whole, behind] if apart else [whole + behind]
    async with (
        raw_server(sends(*pieces), sends(answer("second"))) as server,
        backend_for(server, None).connected() as backend,
    ):
        assert await ask(backend) == "first"
        await anyio.wait_all_tasks_blocked()
        assert await ask(backend) == "second"
    assert server.connections == [1, 2]


async def test_an_answer_that_is_broken_spoils_no_other() -> None:
    async with (
        raw_server(GOOD, sends(HEAD + b"zz\r\n"), GOOD) as server,
        backend_for(server, None).connected() as backend,
    ):
        assert await ask(backend) == "good"
        with pytest.raises(BackendProtocolError):
            await ask(backend)
        assert await ask(backend) == "good"
    assert server.connections == [1, 1, 2]


async def test_a_cancel_just_when_the_connection_is_there_closes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect = anyio.connect_tcp
    scope = anyio.CancelScope()

    async def connect_and_cancel(host: str, port: int) -> anyio.abc.SocketStream:
        stream = await connect(host, port)
        scope.cancel()
        return stream

    monkeypatch.setattr("mellea_sc.backends.http.connection.anyio.connect_tcp", connect_and_cancel)
    async with raw_server(GOOD) as server, backend_for(server, None).connected() as backend:
        with scope:
            await ask(backend)
        assert scope.cancelled_caught
        gc.collect()  # an unclosed socket would be told of here
    assert server.connections == []


async def test_an_idle_connection_is_not_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mellea_sc.backends.http.client.KEEP_FOR", 0.0)
    async with (
        raw_server(GOOD) as server,
        backend_for(server, None).connected() as backend,
    ):
        assert [await ask(backend) for _ in range(2)] == ["good", "good"]
    assert server.connections == [1, 2]
