"""Whatever a server puts into its stream: a delta, an end, or a typed error."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc.backends.http.answer import join_halves
from mellea_sc.backends.ollama import OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import Delta, ToolCallDelta, Usage
from mellea_sc.core.errors import BackendBusy, BackendError, BackendProtocolError, ModelError

OPENAI = OpenAIBackend("m", base_url="http://127.0.0.1:1")
OLLAMA = OllamaBackend("m", base_url="http://127.0.0.1:1")

# Objects whose keys are those that are looked for, with anything at all under them.
KEYS = st.sampled_from(
    [
        "choices",
        "delta",
        "content",
        "refusal",
        "reasoning",
        "reasoning_content",
        "thinking",
        "type",
        "text",
        "tool_calls",
        "function_call",
        "function",
        "name",
        "arguments",
        "index",
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
        assert isinstance(delta.reasoning, str)
        assert isinstance(delta.tool_calls, tuple)
        for piece in delta.tool_calls:
            assert isinstance(piece.id + piece.name + piece.arguments, str)
            assert piece.index is None or piece.index >= 0


@pytest.mark.parametrize("backend", [OPENAI, OLLAMA])
@pytest.mark.parametrize(
    "text",
    [
        *("[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "[]", "null", '{"choices": 3}'),
        *('{"choices": [], "done": false} {}', "[{}, {}]", '[[{"done": false}]]', "\ufeff{}", ""),
    ],
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


@pytest.mark.parametrize("delta", ["Hello", 3, ["Hello"], True])
def test_a_delta_that_is_no_object_is_a_protocol_error(delta: object) -> None:
    with pytest.raises(BackendProtocolError):
        openai(delta=delta)
    for nothing in (None, [], ""):  # PHP writes an empty object as an empty list
        assert openai(delta=nothing) == Delta()


@pytest.mark.parametrize(
    "content",
    [
        *(3, {"a": 1}, True, [{"type": "text", "text": {"a": 1}}], [{"type": "text", "text": 3}]),
        # Cloudflare's Workers AI sends tokens that look like numbers as numbers: "005" as 5, and "000" as 0
        *(0, 0.0, False, [{"type": "text", "text": 0}]),
    ],
)
def test_content_that_is_no_text_is_a_protocol_error(content: object) -> None:
    with pytest.raises(BackendProtocolError):
        OPENAI.parse(json.dumps({"choices": [{"delta": {"content": content}}]}))
    with pytest.raises(BackendProtocolError):
        OLLAMA.parse(json.dumps({"message": {"content": content}, "done": False}))


def openai(**choice: object) -> Delta | None:
    return OPENAI.parse(json.dumps({"choices": [choice]}))


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": "ping"},
        {"choices": None, "prompt_filter_results": []},
        {"choices": [], "citations": ["u"]},
        {"choices": [], "error": None, "errors": [], "detail": None},
        {"status": "queued", "message": "third in the queue"},
        {"code": 0, "message": "Success", "sid": "s"},  # Spark
        {"code": "200", "message": "ok", "x_groq": {"id": "x"}},
        {"choices": None, "base_resp": {"status_code": 0, "status_msg": ""}},  # MiniMax
    ],
)
def test_an_event_without_choices_is_passed_over(event: object) -> None:
    assert OPENAI.parse(json.dumps(event)) == Delta()


def test_text_is_taken_where_other_protocols_have_it() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, "b"]
    assert openai(delta={"content": parts}) == Delta("ab")
    assert openai(message={"content": "ab"}, finish_reason="stop") == Delta("ab", "stop")
    assert openai(text="ab") == Delta("ab")
    assert openai(delta={"content": [{"type": "text", "text": {"value": "ab"}}]}) == Delta("ab")
    assert openai(delta={"content": [{"type": "refusal", "refusal": "ab"}]}) == Delta("ab")
    assert openai(delta={"content": [{"type": "output_audio", "transcript": "ab"}]}) == Delta("ab")
    assert openai(delta={"content": None, "audio": {"id": "x", "transcript": "ab"}}) == Delta("ab")
    assert openai(delta={"audio": {"data": "UklGRg=="}}) == Delta()
    assert OLLAMA.parse('{"response": "ab", "done": false}') == Delta("ab")


def choices(*deltas: dict[str, object], counted: bool) -> str:
    number = iter(range(9))
    each = [
        {"index": next(number) if counted else 0, "delta": delta, "finish_reason": None}
        for delta in deltas
    ]
    return json.dumps({"choices": each, "usage": {"prompt_tokens": 3, "completion_tokens": 5}})


def test_an_answer_that_is_split_into_several_choices_is_one() -> None:
    text = {"content": "ab", "reasoning": "hm"}
    call = {"tool_calls": [{"id": "x", "function": {"name": "f", "arguments": "{}"}}]}
    piece = ToolCallDelta("x", "f", "{}")
    for counted in (True, False):  # GitHub Copilot
        whole = Delta("ab", usage=Usage(3, 5), reasoning="hm", tool_calls=(piece,))
        assert OPENAI.parse(choices(text, call, counted=counted)) == whole
        assert OPENAI.parse(choices(call, text, counted=counted)) == whole
    parts = OPENAI.parse(choices({"content": "a"}, {"content": "b"}, counted=False))  # Vertex AI
    assert parts == Delta("ab", usage=Usage(3, 5))


def test_of_several_answers_the_first_is_taken() -> None:
    several = OPENAI.parse(choices({"content": "ab"}, {"content": "cd"}, counted=True))
    assert several == Delta("ab", usage=Usage(3, 5))
    ends = [{"index": 0, "delta": {}}, {"index": 1, "delta": {}, "finish_reason": "stop"}]
    assert OPENAI.parse(json.dumps({"choices": ends})) == Delta("", "stop")
    with pytest.raises(ModelError, match="too hot"):
        OPENAI.parse(json.dumps({"choices": [ends[0], {"index": 1, "error": "too hot"}]}))


def test_an_empty_finish_reason_is_none() -> None:
    for reason in ("", None, "null", "None"):  # KoboldCpp sends the word
        assert openai(delta={"content": "a"}, finish_reason=reason) == Delta("a")


@pytest.mark.parametrize("reason", ["error", "abort", "network_error"])
def test_a_finish_reason_that_says_fail_is_an_error(reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        openai(delta={"content": "a"}, finish_reason=reason)


def test_a_finish_reason_that_says_busy_is_tried_again() -> None:
    with pytest.raises(BackendBusy, match="insufficient_system_resource") as caught:  # DeepSeek
        openai(delta={"content": "a"}, finish_reason="insufficient_system_resource")
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"error": True, "message": "too hot"}, "too hot"),
        ({"error": "Bad Request", "message": "too hot", "statusCode": 400}, "Bad Request: too hot"),
        ({"error": {"message": "too hot"}, "message": "too hot"}, "too hot"),
        (  # OpenRouter's, and its provider's
            {"error": {"message": "Provider returned error", "metadata": {"raw": "too hot"}}},
            "Provider returned error: too hot",
        ),
        (
            {
                "error": {
                    "message": "Provider returned error",
                    "metadata": {"raw": '{"error": {"message": "too hot", "code": null}}'},
                }
            },
            "Provider returned error: too hot",
        ),
    ],
)
@pytest.mark.parametrize("backend", [OPENAI, OLLAMA])
def test_all_words_of_an_error_are_said(
    backend: OpenAIBackend | OllamaBackend, event: dict[str, object], words: str
) -> None:
    with pytest.raises(ModelError) as caught:
        backend.parse(json.dumps({**event, "done": False}))
    assert str(caught.value).endswith(f"reported an error: {words}")


@pytest.mark.parametrize(
    "event",
    [
        {"error": "too hot", "code": 429},
        {"error": "too hot", "status": 503},
        {"error": {"message": "too hot"}, "status_code": 429},
        {"error": {"message": "too hot"}, "statusCode": 429},
        {"error": {"message": "too hot", "http_code": "429"}},
        {"error": {"message": "too hot", "http_status": 529}},
        {"error": '{"error": {"message": "too hot", "code": 429}}'},  # JSON in JSON
    ],
)
@pytest.mark.parametrize("backend", [OPENAI, OLLAMA])
def test_the_status_of_an_error_is_found_beside_it(
    backend: OpenAIBackend | OllamaBackend, event: dict[str, object]
) -> None:
    with pytest.raises(BackendBusy, match="too hot") as caught:
        backend.parse(json.dumps({**event, "done": False}))
    assert caught.value.retryable


def test_ollamas_reason_is_an_end_by_itself() -> None:
    assert OLLAMA.parse('{"message": {"content": ""}, "done_reason": "stop"}') == Delta("", "stop")
    with pytest.raises(BackendProtocolError):
        OLLAMA.parse('{"message": {"content": ""}, "done_reason": ""}')


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_ollamas_end_of_loading_is_no_answer(reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        OLLAMA.parse(json.dumps({"done": True, "done_reason": reason}))


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [{"delta": {}, "error": {"message": "too hot"}}]},
        {"choices": [{"finish_reason": "error", "error": "too hot"}]},
        {"object": "error", "message": "too hot"},
        {"detail": "too hot"},
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "x_groq": {"error": "too hot"}},
    ],
)
def test_an_error_is_found_wherever_it_stands(event: object) -> None:
    with pytest.raises(ModelError, match="too hot"):
        OPENAI.parse(json.dumps(event))


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "message": "too hot"},
        {"status": "error", "msg": "too hot"},
        {"code": "Throttling", "message": "too hot", "request_id": "r"},  # DashScope
        {"status_code": 400, "message": "too hot", "choices": []},
        {"error_code": 336501, "error_msg": "too hot"},  # Baidu
        {"success": False, "errors": [{"code": 3040, "message": "too hot"}]},  # Cloudflare
        {"choices": None, "base_resp": {"status_code": 1027, "status_msg": "too hot"}},  # MiniMax
    ],
)
def test_an_error_in_a_form_of_the_servers_own_is_one(event: object) -> None:
    with pytest.raises(BackendProtocolError, match="too hot"):
        OPENAI.parse(json.dumps(event))


@pytest.mark.parametrize("count", [-1, True, None, "7", 1.5])
def test_a_number_of_tokens_that_is_none_says_nothing(count: object) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": count}
    assert OPENAI.parse(json.dumps({"choices": [], "usage": usage})) == Delta()
    done = {"done": True, "prompt_eval_count": 3, "eval_count": count}
    assert OLLAMA.parse(json.dumps(done)) == Delta("", "stop")


def test_tokens_are_found_under_other_names() -> None:
    other = {"usage": {"input_tokens": 3, "output_tokens": 4}}
    groq = {"x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}}
    for event in (other, groq):
        assert OPENAI.parse(json.dumps(event)) == Delta(usage=Usage(3, 4))


@given(data=st.data())
def test_halves_of_characters_are_joined_however_the_text_is_cut(data: st.DataObject) -> None:
    units = data.draw(st.lists(st.sampled_from(["a", "é", "\ud83d", "\ude00", "\U0001f600"])))
    text = "".join(units)
    whole, half = "", ""
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    parts = [text[a:b] for a, b in pairwise([0, *places, len(text)])]
    for part in parts:
        more, half = join_halves(half + part)
        whole += more
    whole += "\ufffd" if half else ""
    assert whole == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    whole.encode()


# --- what an answer has besides its text ------------------------------------------------------------


def chunk_of(**delta: object) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def line_of(**message: object) -> str:
    return json.dumps({"message": {"role": "assistant", "content": "", **message}, "done": False})


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "hm"},  # DeepSeek, llama.cpp, SGLang
        {"reasoning": "hm"},  # vLLM, Groq, OpenRouter
        {"thinking": "hm"},
        {"reasoning": "hm", "reasoning_content": "hm", "reasoning_details": [{"text": "hm"}]},
        {"role": "assistant", "content": None, "reasoning_content": "hm"},
        {
            "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
        },  # Mistral
        {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}]},
        {"content": [{"type": "reasoning", "text": "hm"}]},
        {"reasoning_text": "hm"},  # GitHub Copilot
        {"content": "", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},  # MiniMax
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]},
        {"reasoning_content": {"text": "hm", "signature": "s"}},  # Bedrock behind Envoy
        {"content": "hm", "extra_content": {"google": {"thought": True}}},
    ],
)
def test_reasoning_is_read_wherever_a_server_puts_it_and_is_no_text(
    delta: dict[str, object],
) -> None:
    assert OPENAI.parse(chunk_of(**delta)) == Delta(reasoning="hm")


def test_text_and_reasoning_in_one_delta_are_told_apart() -> None:
    assert OPENAI.parse(chunk_of(content="a", reasoning="b")) == Delta("a", reasoning="b")
    parts = [{"type": "thinking", "thinking": "b"}, {"type": "text", "text": "a"}]
    assert OPENAI.parse(chunk_of(content=parts)) == Delta("a", reasoning="b")
    assert OLLAMA.parse(line_of(content="a", thinking="b")) == Delta("a", reasoning="b")
    bare = {"message": {"content": "a", "thinking": "b"}, "done": False}
    assert OLLAMA.parse(json.dumps(bare)) == Delta("a", reasoning="b")


def test_the_tags_around_googles_thoughts_are_neither_reasoning_nor_text() -> None:
    backend = OpenAIBackend("m", base_url="http://127.0.0.1:1")
    marked = {"extra_content": {"google": {"thought": True}}}
    plain = Delta("</thought> is a tag")
    assert backend.parse(chunk_of(content=plain.text)) == plain
    assert backend.parse(chunk_of(content="<thought>a", **marked)) == Delta(reasoning="a")
    assert backend.parse(chunk_of(content="b", **marked)) == Delta(reasoning="b")
    assert backend.parse(chunk_of(content="</thought>c")) == Delta("c")
    assert backend.parse(chunk_of(content="d</thought>")) == Delta("d</thought>")
    whole = chunk_of(content="<thought>a</thought>b", **marked)  # not streamed
    assert backend.parse(whole) == Delta("b", reasoning="a")
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    assert backend.parse(chunk_of(content="e", **signed)) == Delta("e")


@pytest.mark.parametrize("said", [None, "", [], {}, 0, True, {"x": "hm"}, {"text": 3}])
def test_reasoning_that_is_no_text_is_none(said: object) -> None:
    assert OPENAI.parse(chunk_of(content="a", reasoning=said)) == Delta("a")
    assert OLLAMA.parse(line_of(content="a", thinking=said)) == Delta("a")


def test_pieces_of_calls_are_read() -> None:
    piece = {
        "index": 1,
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": '{"'},
    }
    assert OPENAI.parse(chunk_of(content=None, tool_calls=[piece])) == Delta(
        tool_calls=(ToolCallDelta("c1", "f", '{"', 1),)
    )
    more = {"index": 1, "id": None, "function": {"name": None, "arguments": 'a"'}}
    assert OPENAI.parse(chunk_of(tool_calls=[more])) == Delta(
        tool_calls=(ToolCallDelta("", "", 'a"', 1),)
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_calls": [{"function": {"name": "f", "arguments": {"a": "ä"}}}]},  # an object
        {"tool_calls": {"function": {"name": "f", "arguments": '{"a": "ä"}'}}},  # no list
        {"tool_calls": [None, {"type": "custom", "custom": {"name": "f", "input": '{"a": "ä"}'}}]},
        {"tool_calls": [{"name": "f", "arguments": {"a": "ä"}}]},  # Workers AI
    ],
)
def test_calls_in_other_shapes_are_calls(fields: dict[str, object]) -> None:
    expected = Delta(tool_calls=(ToolCallDelta("", "f", '{"a": "ä"}'),))
    assert OPENAI.parse(chunk_of(**fields)) == expected
    assert OLLAMA.parse(line_of(**fields)) == expected


def test_a_call_of_before_there_were_tools_is_a_call() -> None:
    assert OPENAI.parse(chunk_of(function_call={"name": "f", "arguments": "{}"})) == Delta(
        tool_calls=(ToolCallDelta("", "f", "{}", 0),)
    )


def test_a_call_in_both_forms_is_one_call() -> None:
    call = {"name": "f", "arguments": "{}"}
    both = {"function_call": call, "tool_calls": [{"index": 0, "id": "x", "function": call}]}
    assert OPENAI.parse(chunk_of(**both)) == Delta(tool_calls=(ToolCallDelta("x", "f", "{}", 0),))


def test_ollamas_calls_are_whole_and_its_numbers_count_nothing() -> None:
    calls = [{"id": "x", "function": {"index": 0, "name": "f", "arguments": {}}}, {"index": 0}]
    assert OLLAMA.parse(line_of(tool_calls=calls)) == Delta(
        tool_calls=(ToolCallDelta("x", "f", "{}"), ToolCallDelta())
    )


@pytest.mark.parametrize("said", [None, [], {}, 0, "f()", [None], [[]]])
def test_calls_that_are_none_are_none(said: object) -> None:
    assert OPENAI.parse(chunk_of(content="a", tool_calls=said)) == Delta("a")
    assert OLLAMA.parse(line_of(content="a", tool_calls=said)) == Delta("a")


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 7,
                "total_tokens": 16,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 5},
            },
            Usage(9, 7, 4, 5),
        ),
        (
            {
                "input_tokens": 9,
                "output_tokens": 7,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens_details": {"reasoning_tokens": 5},
            },
            Usage(9, 7, 4, 5),
        ),
        (  # DeepSeek's names
            {"prompt_tokens": 9, "completion_tokens": 7, "prompt_cache_hit_tokens": 4},
            Usage(9, 7, 4),
        ),
        (  # xAI: 279 and 6 and 89 are 374
            {
                "prompt_tokens": 279,
                "completion_tokens": 6,
                "total_tokens": 374,
                "completion_tokens_details": {"reasoning_tokens": 89},
            },
            Usage(279, 95, 0, 89),
        ),
        (  # Gemini behind a gateway: all of it was thought
            {
                "prompt_tokens": 21,
                "completion_tokens": 0,
                "total_tokens": 81,
                "completion_tokens_details": {"reasoning_tokens": 60},
            },
            Usage(21, 60, 0, 60),
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 6,
                "completion_tokens_details": {"reasoning_tokens": 89},
            },
            Usage(9, 95, 0, 89),
        ),
        ({"completion_tokens": 7, "total_tokens": 16}, Usage(0, 7)),  # what else is in the total?
        ({"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 3}, Usage(9, 7)),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 7,
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": -5},
            },
            Usage(9, 7),
        ),
    ],
)
def test_cached_and_reasoning_tokens_are_counted_where_they_are_said(
    counts: dict[str, object], usage: Usage
) -> None:
    assert OPENAI.parse(json.dumps({"choices": [], "usage": counts})) == Delta(usage=usage)
