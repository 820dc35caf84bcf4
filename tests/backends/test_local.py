"""The embedded backend over an engine that only pretends."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from local_help import FAKE_ENGINE, answer, asking, runs, text

from mellea_sc.backends import _weights as weights
from mellea_sc.backends import local
from mellea_sc.backends.engine import process
from mellea_sc.backends.engine.process import EngineSpec
from mellea_sc.backends.local import LocalBackend, Progress
from mellea_sc.core.backend import ChatMessage, GenerationRequest, ModelOption
from mellea_sc.core.errors import EngineError, InvalidOption, MissingExtra, StreamInterrupted

pytestmark = pytest.mark.anyio

MakeBackend = Callable[[str], LocalBackend]


@pytest.fixture(autouse=True)
def no_real_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "EngineSpec", functools.partial(EngineSpec, command=FAKE_ENGINE))
    monkeypatch.setattr(local, "require_engine", lambda: None)
    monkeypatch.delenv("MELLEA_SC_MODEL", raising=False)


@pytest.fixture
def backend(tmp_path: Path) -> MakeBackend:
    def make(behaviour: str) -> LocalBackend:
        model = tmp_path / "model.gguf"
        model.write_text(behaviour)
        return LocalBackend(str(model))

    return make


async def test_a_request_on_its_own_has_an_engine_of_its_own(backend: MakeBackend) -> None:
    assert json.loads(text(await answer(backend("serve"))))
    assert not process._engines


async def test_requests_in_a_block_share_its_engine(backend: MakeBackend) -> None:
    async with backend("serve").connected() as connected:
        (engine,) = process._engines.values()
        for _ in range(3):
            assert text(await answer(connected))
        assert list(process._engines.values()) == [engine]
    assert not runs(engine.child.pid)


async def test_a_request_without_a_system_message_gets_one(backend: MakeBackend) -> None:
    sent = json.loads(text(await answer(backend("serve"), asking("Hello."))))
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]


async def test_a_system_message_of_the_users_stays_the_only_one(backend: MakeBackend) -> None:
    messages = (ChatMessage("system", "Be a pirate."), ChatMessage("user", "Hello."))
    sent = json.loads(text(await answer(backend("serve"), GenerationRequest(messages))))
    assert sent["messages"] == [
        {"role": message.role, "content": message.content} for message in messages
    ]


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({}, 512),
        ({ModelOption.MAX_NEW_TOKENS: 7}, 7),
        ({ModelOption.MAX_NEW_TOKENS: None}, 512),
        ({"max_tokens": 9}, 9),
    ],
)
async def test_an_answer_is_limited_also_where_nobody_says_so(
    backend: MakeBackend, options: dict[str, object], limit: int
) -> None:
    sent = json.loads(text(await answer(backend("serve"), asking("Hello.", **options))))
    assert sent["max_tokens"] == limit


async def test_an_engine_that_dies_fails_the_request_and_not_the_next(
    backend: MakeBackend, tmp_path: Path
) -> None:
    async with backend("die-serving").connected() as connected:
        with pytest.raises(EngineError, match=r"died .*killed by SIGSEGV"):
            await answer(connected)
        (tmp_path / "model.gguf").write_text("serve")
        assert text(await answer(connected))


async def test_text_that_came_before_the_death_is_handed_out(backend: MakeBackend) -> None:
    received = ""
    with pytest.raises(EngineError):
        async with backend("die-serving").open(asking()) as deltas:
            async for delta in deltas:
                received += delta.text
    assert json.loads(received)


async def test_a_lost_connection_to_a_living_engine_stays_what_it_is(backend: MakeBackend) -> None:
    with pytest.raises(StreamInterrupted):
        await answer(backend("cut"))


async def test_an_error_of_the_users_is_not_taken_for_the_engines(backend: MakeBackend) -> None:
    mine = StreamInterrupted("of another server")
    with pytest.raises(StreamInterrupted) as caught:
        async with backend("serve").connected() as connected, connected.open(asking()):
            (engine,) = process._engines.values()
            engine.child.kill()
            raise mine
    assert caught.value is mine


async def test_a_cancelled_request_leaves_no_engine(backend: MakeBackend) -> None:
    with anyio.CancelScope() as scope:
        async with backend("stall").open(asking()) as deltas:
            (engine,) = process._engines.values()
            async for _ in deltas:
                scope.cancel()
    assert scope.cancelled_caught
    assert not runs(engine.child.pid)


async def test_progress_is_told_in_order(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_text("serve")
    told: list[Progress] = []
    async with LocalBackend(str(model), progress=told.append).connected():
        assert [progress.stage for progress in told] == ["loading", "ready"]


async def test_the_default_model_is_fetched_and_sampled_as_its_makers_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.gguf"
    model.write_text("serve")

    async def fetch(_: weights.Weights, progress: object) -> Path:
        return model

    monkeypatch.setattr(local, "fetch", fetch)
    sent = json.loads(text(await answer(LocalBackend(), asking("Hello.", top_p=0.5))))
    assert (sent["temperature"], sent["top_p"]) == (0.2, 0.5)


async def test_without_the_extra_it_says_what_to_install_before_it_fetches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr(local, "fetch", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mellea_sc\[local\]'"):
        await answer(LocalBackend())


def test_a_model_is_named_by_the_environment_if_it_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.gguf").touch()
    monkeypatch.setenv("MELLEA_SC_MODEL", str(tmp_path / "tiny.gguf"))
    assert LocalBackend().model_id == "tiny"
    monkeypatch.setenv("MELLEA_SC_MODEL", "a model of ollama's")
    assert LocalBackend().model_id == "SmolLM2-135M-Instruct"


@pytest.mark.parametrize("name", ["missing.gguf", "gpt-7"])
def test_a_model_that_is_not_there_is_refused_at_once(name: str) -> None:
    with pytest.raises(InvalidOption, match=name):
        LocalBackend(name)
