"""The real engine with the real model."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import httpx
import pytest
from local_help import answer, asking, runs, text

from mellea_sc.backends._weights import SMOLLM2, fetch
from mellea_sc.backends.engine import process
from mellea_sc.backends.engine.process import Engine
from mellea_sc.backends.local import LocalBackend
from mellea_sc.core.backend import ChatMessage, GenerationRequest, ModelOption
from mellea_sc.core.errors import BackendRejected, EngineError

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed"
    ),
]


@pytest.fixture(scope="module")
def model() -> Path:
    async def fetch_model() -> Path:
        return await fetch(SMOLLM2, lambda _: None)

    try:
        return anyio.run(fetch_model)
    except EngineError as error:
        pytest.skip(f"no model: {error}")


@pytest.fixture
async def backend(model: Path) -> AsyncGenerator[LocalBackend]:
    async with LocalBackend().connected() as backend:
        yield backend


def the_engine() -> Engine:
    (engine,) = process._engines.values()
    return engine


async def busy_slots() -> int:
    engine = the_engine()
    transport = httpx.AsyncHTTPTransport(uds=engine.uds)
    async with httpx.AsyncClient(transport=transport, base_url=engine.url) as client:
        response = await client.get("/slots", headers={"authorization": f"Bearer {engine.key}"})
    return sum(slot["is_processing"] for slot in response.json())


async def seconds_until_idle() -> float:
    start = time.monotonic()
    with anyio.fail_after(20):
        while await busy_slots():  # noqa: ASYNC110  # only the engine knows
            await anyio.sleep(0.005)
    return time.monotonic() - start


async def test_it_streams_text_and_counts_tokens(backend: LocalBackend) -> None:
    deltas = await answer(backend, asking("Name a colour.", **{ModelOption.MAX_NEW_TOKENS: 20}))
    assert text(deltas).strip()
    assert sum(bool(delta.text) for delta in deltas) > 1
    assert any(delta.finish_reason in ("stop", "length") for delta in deltas)
    usage = next(delta.usage for delta in deltas if delta.usage is not None)
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens <= 20


async def test_two_sessions_share_the_process_and_leave_none(model: Path) -> None:
    async with LocalBackend().connected():
        engine = the_engine()
        async with LocalBackend().connected():
            assert the_engine() is engine
    assert not runs(engine.child.pid)
    assert not engine.child.directory.exists()


async def test_a_generation_that_is_left_stops_in_the_engine(backend: LocalBackend) -> None:
    async with backend.open(asking("Tell me a long story.")) as deltas:
        async for delta in deltas:
            if delta.text:
                break
        assert await busy_slots() == 1
    assert await seconds_until_idle() < 1


async def test_a_prompt_that_is_being_read_is_given_up_when_nobody_waits(
    backend: LocalBackend,
) -> None:
    async with backend.open(asking("tree river stone " * 900)):
        assert await busy_slots() == 1
    assert await seconds_until_idle() < 3


async def test_requests_run_at_the_same_time(backend: LocalBackend) -> None:
    async with anyio.create_task_group() as group:
        running = 0
        together = anyio.Event()

        async def ask() -> None:
            nonlocal running
            async with backend.open(asking("Count to a hundred.")) as deltas:
                async for delta in deltas:
                    if delta.text:
                        break
                running += 1
                if running == 3:
                    together.set()
                await together.wait()

        with anyio.fail_after(60):
            for _ in range(3):
                group.start_soon(ask)
            await together.wait()


async def test_the_next_request_after_a_crash_has_another_engine(backend: LocalBackend) -> None:
    with pytest.raises(EngineError, match="died"):
        async with backend.open(asking("Tell me a long story.")) as deltas:
            async for _ in deltas:
                the_engine().child.kill()
    assert text(await answer(backend, asking("Hi.", **{ModelOption.MAX_NEW_TOKENS: 3})))


async def test_a_prompt_that_is_too_long_is_refused_and_harms_nobody(backend: LocalBackend) -> None:
    async with backend.open(asking("Tell me a long story.")) as deltas:
        with pytest.raises(BackendRejected, match="context size"):
            await answer(backend, asking("tree river stone " * 3000))
        assert await anext(deltas) is not None


async def test_a_schema_constrains_the_answer(backend: LocalBackend) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [7]}}, "required": ["n"]}
    request = GenerationRequest((ChatMessage("user", "Any number?"),), {}, schema)
    # The model is free to put white space between, and now and then does.
    assert json.loads(text(await answer(backend, request))) == {"n": 7}


async def test_a_file_that_is_no_model_is_an_error_in_the_engines_words(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_text("this is not a model")
    with pytest.raises(EngineError, match="invalid magic"):
        async with LocalBackend(str(tmp_path / "bad.gguf")).connected():
            pass
