"""Every backend of ours keeps the promises that check_backend checks: over real sockets where there are any."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from local_help import overlook_late_readiness

from mellea_sc import Backend, GenerationRequest, ModelOption
from mellea_sc.backends import (
    ChatMessage,
    LocalBackend,
    OllamaBackend,
    OpenAIBackend,
    Retrying,
    Usage,
)
from mellea_sc.backends._weights import SMOLLM2, fetch
from mellea_sc.core.errors import BackendBusy, EngineError
from mellea_sc.testing import (
    Fail,
    FailingBackend,
    Pause,
    Script,
    ScriptedBackend,
    check_backend,
)
from mellea_sc.testing.server import Answer, ModelServer

pytestmark = pytest.mark.anyio

ANSWER = Answer(["one ", "two ", "three"], delay=0.001, usage=Usage(7, 3))
ALL_AT_ONCE = Answer(["one ", "two ", "three"])


def openai(server: ModelServer) -> Backend:
    return OpenAIBackend("test-model", base_url=server.openai_url, api_key="secret")


def ollama(server: ModelServer) -> Backend:
    return OllamaBackend("test-model", base_url=server.ollama_url)


def retrying(server: ModelServer) -> Backend:
    return Retrying(openai(server))


def served(
    make: Callable[[ModelServer], Backend], answer: Answer
) -> Callable[[], AbstractAsyncContextManager[Backend]]:
    """A backend with a server of its own, that sees every request come to an end."""

    @asynccontextmanager
    async def made() -> AsyncGenerator[Backend]:
        async with ModelServer(answer) as server:
            yield make(server)
            for request in server.requests:
                await request.wait_closed()

    return made


@pytest.mark.parametrize("answer", [ANSWER, ALL_AT_ONCE], ids=["slowly", "at once"])
@pytest.mark.parametrize("make", [openai, ollama, retrying])
async def test_backends_over_http(make: Callable[[ModelServer], Backend], answer: Answer) -> None:
    await check_backend(served(make, answer), max_points=None)


async def test_a_retrying_backend_whose_first_attempts_are_refused() -> None:
    def busy_first() -> Backend:
        answers = iter([Fail(BackendBusy("busy", status=503, retry_after=0.0))] * 2)
        return Retrying(ScriptedBackend(lambda _: next(answers, Script(["one ", Pause(0), "two"]))))

    await check_backend(busy_first)


async def test_the_scripted_backend() -> None:
    await check_backend(lambda: ScriptedBackend(lambda _: Script("one two three", delay=0.001)))


async def test_a_failing_backend_that_does_not_fail() -> None:
    await check_backend(lambda: FailingBackend(ScriptedBackend(lambda _: "one two three")))


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="needs the extra local: xllamacpp"
)
async def test_the_embedded_engine(anyio_backend_name: str) -> None:
    if anyio_backend_name == "asyncio":
        overlook_late_readiness()
    try:
        await fetch(SMOLLM2, lambda _: None)
    except EngineError as error:
        pytest.skip(f"no model: {error}")
    request = GenerationRequest(
        (ChatMessage("user", "Count from one to three, in words."),),
        {ModelOption.MAX_NEW_TOKENS: 8, ModelOption.TEMPERATURE: 0.0},
    )
    async with LocalBackend().connected():  # the engine is shared, and so started once
        await check_backend(LocalBackend, request=request, max_points=8)
