"""Options on the wire."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mellea_sc.backends import ModelOption
from mellea_sc.backends.ollama import OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import ChatMessage, GenerationRequest
from mellea_sc.core.errors import InvalidOption

OPENAI = OpenAIBackend("m", base_url="http://127.0.0.1:1")
OLLAMA = OllamaBackend("m", base_url="http://127.0.0.1:1")
ALL: Mapping[str, object] = {
    ModelOption.MAX_NEW_TOKENS: 7,
    ModelOption.TEMPERATURE: 0,
    ModelOption.CONTEXT_WINDOW: 2048,
    ModelOption.SEED: 1,
    ModelOption.STOP_SEQUENCES: ["END"],
    ModelOption.SYSTEM_PROMPT: "never here",
    ModelOption.STREAM: False,
    ModelOption.STREAM_TIMEOUT: 3.0,
}
MESSAGES = (ChatMessage("system", "be brief"), ChatMessage("user", "hi"))
ON_THE_WIRE = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def asking(**options: object) -> GenerationRequest:
    return GenerationRequest(MESSAGES, options)


def test_openai_calls_the_options_by_its_names() -> None:
    assert OPENAI.payload(GenerationRequest(MESSAGES, ALL)) == {
        "model": "m",
        "messages": ON_THE_WIRE,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 7,
        "temperature": 0,
        "seed": 1,
        "stop": ["END"],
    }


def test_ollama_calls_the_options_by_its_names() -> None:
    assert OLLAMA.payload(GenerationRequest(MESSAGES, ALL)) == {
        "model": "m",
        "messages": ON_THE_WIRE,
        "stream": True,
        "options": {
            "num_predict": 7,
            "temperature": 0,
            "num_ctx": 2048,
            "seed": 1,
            "stop": ["END"],
        },
    }


def test_openai_itself_gets_the_name_that_its_newer_models_want(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    payload = OpenAIBackend("m").payload(asking(**{ModelOption.MAX_NEW_TOKENS: 7}))
    assert payload["max_completion_tokens"] == 7
    assert "max_tokens" not in payload


def test_a_schema_constrains_the_answer() -> None:
    request = GenerationRequest(MESSAGES, {}, SCHEMA)
    assert OPENAI.payload(request)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA},
    }
    assert OLLAMA.payload(request)["format"] == SCHEMA


def test_other_names_go_to_the_server_as_they_are() -> None:
    assert OPENAI.payload(asking(top_p=0.5))["top_p"] == 0.5
    payload = OLLAMA.payload(asking(top_k=3, keep_alive="5m", think=False))
    assert payload["options"] == {"top_k": 3}
    assert payload["keep_alive"] == "5m"
    assert payload["think"] is False


@pytest.mark.parametrize("backend", [OPENAI, OLLAMA])
def test_none_counts_as_not_given(backend: OpenAIBackend | OllamaBackend) -> None:
    nothing = dict.fromkeys([*ALL, "top_p", "stream"])
    assert backend.payload(GenerationRequest(MESSAGES, nothing)) == backend.payload(asking())


def test_one_stop_sequence_may_be_given_as_text() -> None:
    assert OPENAI.payload(asking(**{ModelOption.STOP_SEQUENCES: "END"}))["stop"] == ["END"]
    assert OPENAI.payload(asking(**{ModelOption.STOP_SEQUENCES: ("a", "b")}))["stop"] == ["a", "b"]


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        (ModelOption.MAX_NEW_TOKENS, "many", "MAX_NEW_TOKENS"),
        (ModelOption.MAX_NEW_TOKENS, 0, "MAX_NEW_TOKENS"),
        (ModelOption.MAX_NEW_TOKENS, True, "MAX_NEW_TOKENS"),
        (ModelOption.MAX_NEW_TOKENS, 2.5, "MAX_NEW_TOKENS"),
        (ModelOption.CONTEXT_WINDOW, "4k", "CONTEXT_WINDOW"),
        (ModelOption.SEED, "x", "SEED"),
        (ModelOption.TEMPERATURE, "hot", "TEMPERATURE"),
        (ModelOption.TEMPERATURE, float("nan"), "TEMPERATURE"),
        (ModelOption.TEMPERATURE, -1, "TEMPERATURE"),
        (ModelOption.STOP_SEQUENCES, 3, "STOP_SEQUENCES"),
        (ModelOption.STOP_SEQUENCES, ["a", 3], "STOP_SEQUENCES"),
        ("@@@tools@@@", [], "@@@tools@@@"),
        ("messages", [], "messages"),
        ("model", "other", "model"),
        ("stream", False, "STREAM"),
    ],
)
@pytest.mark.parametrize("backend", [OPENAI, OLLAMA])
def test_nonsense_is_refused_before_it_is_sent(
    backend: OpenAIBackend | OllamaBackend, key: str, value: object, name: str
) -> None:
    with pytest.raises(InvalidOption, match=name):
        backend.payload(asking(**{key: value}))
    assert issubclass(InvalidOption, ValueError)
