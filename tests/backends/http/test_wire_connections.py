"""A connection is used again only when what came on it was one whole response and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import anyio
import pytest
from wire_server import DONE, STOP, USAGE, RawServer, Step, chunked, raw_server, sized, word

from mellea_sc.backends.http.client import AnyClient
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import ChatMessage, GenerationRequest
from mellea_sc.core.errors import BackendError, BackendProtocolError

pytestmark = pytest.mark.anyio

REQUEST = GenerationRequest((ChatMessage("user", "hi"),))
STREAM = word("Hello") + STOP + USAGE + DONE
GOOD = chunked(STREAM)
ANOTHER = chunked(word("Another's.") + STOP + DONE)


async def ask(backend: OpenAIBackend) -> str | BackendError:
    try:
        async with backend.open(REQUEST) as deltas:
            return "".join([delta.text async for delta in deltas])
    except BackendError as error:
        return error


Connect = Callable[[RawServer], AbstractAsyncContextManager[OpenAIBackend]]


@pytest.fixture
def connect(client: AnyClient | None) -> Connect:
    """Connects a backend."""
    return lambda server: OpenAIBackend("m", base_url=server.url, client=client).connected()


async def ask_twice(connect: Connect, server: RawServer) -> list[str | BackendError]:
    with anyio.fail_after(20):
        async with connect(server) as backend:
            return [await ask(backend), await ask(backend)]


async def test_a_whole_response_leaves_a_connection_for_the_next_request(connect: Connect) -> None:
    for answer in (GOOD, sized(STREAM)):
        with raw_server([answer]) as server:
            assert await ask_twice(connect, server) == ["Hello", "Hello"]
        assert server.connections == [1, 1]


@pytest.mark.parametrize(
    "first",
    [
        pytest.param([GOOD + ANOTHER], id="two responses in one write"),
        pytest.param([GOOD + b"0\r\n\r\n"], id="a last chunk too many"),
        pytest.param([GOOD + b"\r\n"], id="a line break too many"),
        pytest.param([GOOD + b"junk"], id="junk behind the last chunk"),
        pytest.param([sized(STREAM, more=-14) + ANOTHER], id="a length too short, and another"),
        pytest.param([sized(STREAM, more=-1)], id="a length too short by one"),
        pytest.param([sized(STREAM, more=5), "hold"], id="a length too long"),
        pytest.param([GOOD[:-2], "hold"], id="the last chunk cut"),
        pytest.param([GOOD[:-5], "hold"], id="no last chunk"),
        pytest.param([chunked(word("Hello") + STOP, end=False), "reset"], id="reset at the end"),
        pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD + ANOTHER], id="100 before"),
        pytest.param(
            [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + GOOD + ANOTHER], id="103 before"
        ),
        pytest.param([GOOD + b"HTTP/1.1 100 Continue\r\n\r\n"], id="100 behind"),
    ],
)
async def test_what_comes_with_a_response_is_not_the_answer_to_the_next_request(
    connect: Connect, first: Sequence[Step], request: pytest.FixtureRequest
) -> None:
    with raw_server(lambda n: first if n == 0 else [0.05, GOOD]) as server:
        before, answer = await ask_twice(connect, server)
    assert answer == "Hello"
    name = request.node.name
    if "fast" in name and ("100 before" in name or "103 before" in name):
        # aiohttp may refuse all that came in one read with more than one head
        assert before == "Hello" or isinstance(before, BackendProtocolError)
    else:
        assert before == "Hello"
    if "fast" not in name:  # aiohttp overlooks a line break
        assert server.connections == [1, 2]


@pytest.mark.parametrize("more", [ANOTHER, b"junk"])
async def test_what_comes_after_a_response_is_not_the_answer_to_the_next_request(
    connect: Connect, more: bytes
) -> None:
    with raw_server(lambda n: [GOOD] if n else [GOOD, 0.05, more]) as server:
        async with connect(server) as backend:
            assert await ask(backend) == "Hello"
            await anyio.to_thread.run_sync(server.kept.acquire)
            assert await ask(backend) == "Hello"
    assert server.connections == [1, 2]


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(
            [b"HTTP/1.1 204 No Content\r\n\r\n" + b"data: x\n\n" + ANOTHER], id="a body after 204"
        ),
        pytest.param([b"HTTP/1.1 304 Not Modified\r\n\r\n" + ANOTHER], id="another after 304"),
        pytest.param([sized(b"{}", status="400 Bad Request") + ANOTHER], id="another after 400"),
        pytest.param([sized(b"{}", status="429 Busy", more=-1)], id="an error too long"),
        pytest.param(
            [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + ANOTHER], id="after 101"
        ),
        pytest.param([sized(b"") + ANOTHER], id="an empty answer, and another"),
        pytest.param([chunked(word("Hel")) + ANOTHER], id="half an answer, and another"),
        pytest.param([chunked(word("Hel"), end=False) + b"zz\r\n", "hold"], id="a broken chunk"),
    ],
)
async def test_an_error_spoils_nothing_for_the_next_request_either(
    connect: Connect, first: Sequence[Step], request: pytest.FixtureRequest
) -> None:
    with raw_server(lambda n: first if n == 0 else [0.05, GOOD]) as server:
        failed, answer = await ask_twice(connect, server)
    assert isinstance(failed, BackendError)
    assert answer == "Hello"
    if "fast" not in request.node.name:
        assert server.connections == [1, 2]


async def test_an_error_that_came_whole_leaves_a_connection_for_the_next_request(
    connect: Connect,
) -> None:
    first = sized(b'{"error": "too hot"}', status="400 Bad Request")
    with raw_server(lambda n: [GOOD if n else first]) as server:
        failed, answer = await ask_twice(connect, server)
    assert "too hot" in str(failed)
    assert (answer, server.connections) == ("Hello", [1, 1])
