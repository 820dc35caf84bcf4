"""The conformance suite, and a cancellation at every checkpoint, for both HTTP backends over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Generator

import anyio
import pytest

from mellea_sc.backends.ollama import OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.backends.retry import Retrying
from mellea_sc.core.backend import Backend, ChatMessage, GenerationRequest, Usage
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


@pytest.fixture(params=["openai", "ollama", "retrying"])
def make(request: pytest.FixtureRequest, server: ModelServer) -> Make:
    """Makes a backend."""
    match request.param:
        case "openai":
            return lambda: OpenAIBackend("m", base_url=server.openai_url)
        case "ollama":
            return lambda: OllamaBackend("m", base_url=server.ollama_url)
        case _:
            return lambda: Retrying(OllamaBackend("m", base_url=server.ollama_url))


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

    assert await cancel_everywhere(ask_twice, after_each=all_are_closed) >= 8
