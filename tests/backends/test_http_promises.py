"""The conformance suite, and a cancellation at every checkpoint, for both HTTP backends over real sockets."""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from http_clients import CLIENTS, http_client

from mellea_sc.backends.ollama import OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.backends.retry import Retrying
from mellea_sc.core.backend import Backend, ChatMessage, GenerationRequest, Usage
from mellea_sc.core.errors import BackendError
from mellea_sc.testing import cancel_everywhere, check_backend
from mellea_sc.testing.server import Answer, ModelServer

pytestmark = pytest.mark.anyio

Make = Callable[[], Backend]

REQUEST = GenerationRequest((ChatMessage("user", "hi"),))


@pytest.fixture
def server() -> Generator[ModelServer]:
    """A server in a thread of its own, so that only the client's checkpoints count."""
    with ModelServer.in_thread(Answer(["one ", "two ", "three"], usage=Usage(1, 3))) as server:
        yield server


@pytest.fixture(params=["ollama", "retrying", *CLIENTS])
async def make(
    request: pytest.FixtureRequest,
    server: ModelServer,
    anyio_backend_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[Make]:
    """Makes a backend, the one of them on every client."""
    match request.param:
        case "ollama":
            yield lambda: OllamaBackend("m", base_url=server.ollama_url)
        case "retrying":
            yield lambda: Retrying(OllamaBackend("m", base_url=server.ollama_url))
        case kind:
            async with http_client(kind, anyio_backend_name, monkeypatch, keeps=False) as client:
                yield lambda: OpenAIBackend("m", base_url=server.openai_url, client=client)


async def test_it_keeps_the_promises_of_a_backend(make: Make) -> None:
    await check_backend(make)


async def test_cancelled_at_any_checkpoint_it_leaves_nothing_and_the_next_request_works(
    make: Make, server: ModelServer
) -> None:
    async def ask_twice() -> None:
        async with make().connected() as backend:
            for _ in range(2):
                async with backend.open(REQUEST) as stream:
                    text = "".join([delta.text async for delta in stream])
                assert text == "one two three"

    async def all_are_closed() -> None:
        with anyio.fail_after(5):
            for record in list(server.requests):
                await anyio.to_thread.run_sync(server.portal.call, record.wait_closed)
        server.requests.clear()

    assert await cancel_everywhere(ask_twice, after_each=all_are_closed) >= 6


async def test_cancelled_twice_while_its_connection_opens_it_leaves_nothing(
    make: Make, server: ModelServer
) -> None:
    """As in a shutdown that comes from two sides; the second one comes into the cleanup after the first."""
    backend = make()

    async def ask() -> None:
        async with backend.open(REQUEST) as stream:
            async for _ in stream:
                pass

    for steps in range(12):
        with anyio.CancelScope() as outer, anyio.CancelScope() as inner:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                inner.cancel()
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()
                    outer.cancel()
    with anyio.fail_after(5):
        for record in list(server.requests):
            await anyio.to_thread.run_sync(server.portal.call, record.wait_closed)
    assert held_by_client(backend) == []
    await ask()
    gc.collect()  # an unclosed socket would be told of here


def held_by_client(backend: Backend) -> list[object]:
    """What the caller's client still takes for under way; for ever, if its requests have ended."""
    client: Any = getattr(backend, "_client", None)
    if client is None:
        return []
    return [*client._transport._pool._requests, *client._transport._pool.connections]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nor_where_a_task_of_asyncio_is_cancelled_twice(
    make: Make, server: ModelServer
) -> None:
    backend = make()

    async def ask() -> None:
        async with backend.open(REQUEST) as stream:
            async for _ in stream:
                pass

    for steps in range(12):
        task = asyncio.create_task(ask())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    with anyio.fail_after(5):
        for record in list(server.requests):
            await anyio.to_thread.run_sync(server.portal.call, record.wait_closed)
    if not isinstance(getattr(backend, "_client", None), httpx.AsyncClient):
        assert (
            held_by_client(backend) == []
        )  # httpx's pool loses count there, its successor's does not
    await ask()
    gc.collect()


async def test_no_frame_of_an_error_has_the_key_in_a_variable() -> None:
    key = "sk-very-secret-0123456789"
    async with ModelServer(Answer(status=400)) as server:
        backend = OpenAIBackend("m", base_url=server.openai_url, api_key=key)
        async with backend.connected() as connected:
            with pytest.raises(BackendError) as caught:
                async with connected.open(GenerationRequest((ChatMessage("user", "hi"),))):
                    pass
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    ours = [frame for frame in frames if "mellea_sc" in frame.f_code.co_filename]
    assert ours
    shown = [repr(value) for frame in ours for value in frame.f_locals.values()]
    assert not [text for text in shown if key in text]
