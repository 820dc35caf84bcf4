"""Whatever a server puts into its stream: a delta, an end, or a typed error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc.backends.ollama import OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import Delta
from mellea_sc.core.errors import BackendError, BackendProtocolError, ModelError

OPENAI = OpenAIBackend("m", base_url="http://127.0.0.1:1")
OLLAMA = OllamaBackend("m", base_url="http://127.0.0.1:1")

# Objects whose keys are those that are looked for, with anything at all under them.
KEYS = st.sampled_from(
    [
        "choices",
        "delta",
        "content",
        "refusal",
        "finish_reason",
        "usage",
        "prompt_tokens",
        "error",
        "message",
        "done",
        "done_reason",
        "prompt_eval_count",
        "eval_count",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(KEYS, inside, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("backend", [OPENAI, OLLAMA])
@given(text=st.text() | VALUES.map(json.dumps))
def test_any_text_is_a_delta_an_end_or_a_typed_error(
    backend: OpenAIBackend | OllamaBackend, text: str
) -> None:
    try:
        delta = backend.parse(text)
    except BackendError:
        return
    assert delta is None or isinstance(delta, Delta)
    if delta is not None:
        assert isinstance(delta.text, str)
        assert delta.finish_reason is None or isinstance(delta.finish_reason, str)
        assert delta.usage is None or delta.usage.total_tokens is not None


@pytest.mark.parametrize("backend", [OPENAI, OLLAMA])
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "{}", "[]", "null", '{"choices": 3}'],
    ids=lambda text: text[:12],
)
def test_what_is_no_part_of_an_answer_is_a_protocol_error(
    backend: OpenAIBackend | OllamaBackend, text: str
) -> None:
    with pytest.raises(BackendProtocolError) as caught:
        backend.parse(text)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("backend", [OPENAI, OLLAMA])
@pytest.mark.parametrize(
    "error",
    ["too hot", {"message": "too hot"}, {"error": {"message": "too hot"}}, {"code": "too hot"}],
)
def test_an_error_object_says_what_the_server_said(
    backend: OpenAIBackend | OllamaBackend, error: object
) -> None:
    with pytest.raises(ModelError, match="too hot"):
        backend.parse(json.dumps({"error": error, "choices": [], "done": False}))


@pytest.mark.parametrize("content", [3, ["a"], {"a": 1}, True])
def test_content_that_is_no_text_is_a_protocol_error(content: object) -> None:
    with pytest.raises(BackendProtocolError):
        OPENAI.parse(json.dumps({"choices": [{"delta": {"content": content}}]}))
    with pytest.raises(BackendProtocolError):
        OLLAMA.parse(json.dumps({"message": {"content": content}, "done": False}))
