"""A caller's client that speaks HTTP/2: requests share a connection, and one that ends must not touch the others."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import anyio
import anyio.abc
import httpx
import httpx2
import pytest
from raw_server import served
from wire_server import DONE, STOP, USAGE, word

from mellea_sc.backends import Retrying
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import Backend, ChatMessage, GenerationRequest
from mellea_sc.core.errors import StreamInterrupted

pytest.importorskip("h2")

import h2.connection
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.events import StreamEnded, StreamReset

pytestmark = pytest.mark.anyio

REQUEST = GenerationRequest((ChatMessage("user", "Hi."),))
HEAD = [(":status", "200"), ("content-type", "text/event-stream")]


class Http2Server:
    """Answers each request, of all, with its play; the last one is for all that follow.

    Attributes:
        requests: For each request, the number of its connection.
        resets: The streams that clients have given up.
    """

    def __init__(self, *plays: Play) -> None:
        self._plays = plays
        self.url = ""
        self.requests: list[int] = []
        self.resets: list[int] = []
        self.connections = 0
        self.was_asked = anyio.Event()
        self.was_reset = anyio.Event()

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        self.connections += 1
        connection = Http2Connection(stream)
        number = self.connections
        ends = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)
        with contextlib.suppress(*ends):
            async with stream:
                await connection.send()
                while True:
                    for event in connection.http.receive_data(await stream.receive()):
                        if isinstance(event, StreamEnded):
                            self.requests.append(number)
                            self.was_asked.set()
                            play = self._plays[min(len(self.requests), len(self._plays)) - 1]
                            await play(connection, event.stream_id)
                        elif isinstance(event, StreamReset):
                            self.resets.append(event.stream_id)
                            self.was_reset.set()
                    await connection.send()


class Http2Connection:
    """The server's side of a connection."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self.stream = stream
        self.http = h2.connection.H2Connection(H2Configuration(client_side=False))
        self.http.initiate_connection()

    async def send(self) -> None:
        if data := self.http.data_to_send():
            await self.stream.send(data)

    async def deltas(self, number: int, *texts: bytes, ended: bool = True) -> None:
        self.http.send_headers(number, HEAD)
        for text in texts:
            self.http.send_data(number, text)
            await self.send()
        if ended:
            self.http.end_stream(number)
            await self.send()


Play = Callable[[Http2Connection, int], Awaitable[None]]


async def answers(connection: Http2Connection, number: int) -> None:
    await connection.deltas(number, word("Hel"), b"", word("lo"), b"", STOP, USAGE, DONE)


async def begins(connection: Http2Connection, number: int) -> None:
    await connection.deltas(number, word("Hel"), ended=False)


async def says_nothing(connection: Http2Connection, number: int) -> None:
    await connection.send()


async def refuses(connection: Http2Connection, number: int) -> None:
    connection.http.reset_stream(number, ErrorCodes.REFUSED_STREAM)
    await connection.send()


async def goes_away(connection: Http2Connection, number: int) -> None:
    connection.http.close_connection(last_stream_id=max(number - 2, 0))
    await connection.send()
    await connection.stream.aclose()


async def breaks_off(connection: Http2Connection, number: int) -> None:
    await begins(connection, number)
    connection.http.reset_stream(number, ErrorCodes.INTERNAL_ERROR)
    await connection.send()


@pytest.fixture(params=["httpx", "httpx2"])
async def client(request: pytest.FixtureRequest) -> AsyncGenerator[httpx.AsyncClient]:
    if request.param == "httpx":
        async with httpx.AsyncClient(http1=False, http2=True) as client:
            yield client
    else:
        async with httpx2.AsyncClient(http1=False, http2=True) as client2:
            yield client2  # type: ignore[misc] - it is used in the same way


def serving(*plays: Play) -> AbstractAsyncContextManager[Http2Server]:
    return served(Http2Server(*plays))


async def read(backend: Backend) -> str:
    async with backend.open(REQUEST) as stream:
        return "".join([delta.text async for delta in stream])


async def test_answers_follow_each_other_on_one_connection(client: httpx.AsyncClient) -> None:
    async with serving(answers) as server:
        backend = OpenAIBackend("m", base_url=server.url, client=client)
        with anyio.fail_after(4):  # closing a response does not wait for its bound
            assert [await read(backend) for _ in range(3)] == ["Hello"] * 3
        assert server.requests == [1, 1, 1]
        assert server.resets == []


async def test_an_answer_that_is_left_stops_at_the_server_and_leaves_the_others(
    client: httpx.AsyncClient,
) -> None:
    async with serving(begins, answers) as server:
        backend = OpenAIBackend("m", base_url=server.url, client=client)
        with anyio.fail_after(4):
            async with backend.open(REQUEST) as stream:
                assert (await anext(stream)).text == "Hel"
                assert await read(backend) == "Hello"
            await server.was_reset.wait()
            assert await read(backend) == "Hello"
        assert server.requests == [1, 1, 1]
        assert server.resets == [1]


async def test_so_does_one_that_is_cancelled(client: httpx.AsyncClient) -> None:
    async with serving(begins, answers) as server:
        backend = OpenAIBackend("m", base_url=server.url, client=client)
        with anyio.fail_after(4):
            with anyio.move_on_after(0.3):
                await read(backend)
            await server.was_reset.wait()
            assert await read(backend) == "Hello"
        assert server.requests == [1, 1]


async def test_a_request_that_is_cancelled_before_its_answer_stops_and_leaves_the_others(
    client: httpx.AsyncClient,
) -> None:
    async with serving(says_nothing, begins, answers) as server:
        backend = OpenAIBackend("m", base_url=server.url, client=client)
        with anyio.fail_after(4):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, backend)
                await server.was_asked.wait()
                async with backend.open(REQUEST) as stream:
                    assert (await anext(stream)).text == "Hel"
                    with anyio.CancelScope(shield=True):
                        tasks.cancel_scope.cancel()
                        await server.was_reset.wait()
                        assert server.resets == [1]
            assert await read(backend) == "Hello"
        assert server.requests == [1, 1, 1]


@pytest.mark.parametrize("play", [refuses, goes_away])
async def test_a_request_that_was_not_begun_is_made_again(
    client: httpx.AsyncClient, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mellea_sc.backends.retry.FIRST_WAIT", 0.02)
    async with serving(play, answers, play, answers) as server:
        backend = Retrying(OpenAIBackend("m", base_url=server.url, client=client))
        with anyio.fail_after(4):
            assert [await read(backend) for _ in range(2)] == ["Hello"] * 2
        assert len(server.requests) == 4


async def test_an_answer_that_is_broken_off_is_cut_off(client: httpx.AsyncClient) -> None:
    async with serving(breaks_off) as server:
        with anyio.fail_after(4), pytest.raises(StreamInterrupted):
            await read(OpenAIBackend("m", base_url=server.url, client=client))
