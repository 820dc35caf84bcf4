"""What a refused request is about, by the words that servers are known to use."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc.backends.http.failures import Advice, Failures
from mellea_sc.backends.http.refusals import subject_of
from mellea_sc.core.errors import (
    BackendRejected,
    ContextTooLong,
    ModelError,
    ModelNotFound,
    NotAuthorized,
)

FAILURES = Failures(
    "server",
    Advice(unreachable="REACH", no_model="PULL IT", no_path="WRONG PATH", no_key="WRONG KEY"),
)

TOO_LONG = [
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 10000 tokens.",
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length",
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
    "Please reduce the length of the messages or completion. Current length is 10000 while limit is 8192",
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
    "`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 2000 `inputs` tokens and 100",
    "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    "the model is loaded with context length of only 4096 tokens, which is not enough",
    "The number of tokens to keep from the initial prompt is greater than the context length.",
    "Input is too long for requested model.",
    "This model's maximum prompt length is 131072 but the request contains 150000 tokens.",
    "Range of input length should be [1, 30720]",
    "Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)",
    "the input length exceeds the context length",
    "prompt too long; exceeded max context length by 123 tokens",
    "Prompt has 2000 tokens, but the configured context size is 1000 tokens",
    "Prompt exceeds max length",
    "the prompt is longer than the context length currently available to the model",
    "context window exceeds limit",
    "Input length (265330) exceeds model's maximum context length (262144).",
    "KV cache: the request exceeds the available context size; enable context shift",
]
NO_MODEL = [
    "The model `x` does not exist or you do not have access to it.",
    "model 'x' not found",
    'model "x:7b" not found, try pulling it first',
    "The API deployment for this resource does not exist. If you created it within the last 5 minutes, wait.",
    "Model Not Exist",
    "Invalid model: x",
    "model: claude-x",
    "x/y is not a valid model ID",
    "No endpoints found for x/y.",
    "Invalid model name passed in model=x. Call `/v1/models` to view available models for your key.",
    "Unable to access model x. Please visit the list of supported models.",
    "Model not found, inaccessible, and/or not deployed",
    "No models loaded. Please load a model in the developer page.",
    "models/x is not found for API version v1main, or is not supported for generateContent.",
    "The provided model identifier is invalid.",
    "The requested model 'x' is not supported by any provider you have enabled.",
    "No such model: x",
]
OTHER = [
    "temperature must be below 2",
    "404 page not found",
    "no Route matched with those values",
    "No route for /models/x",
    "no route for the model gateway",
    "model path /v1/x not found",
    "This model does not support response format `json_schema`. See supported models",
    "Unsupported parameter: 'max_tokens' is not supported with this model.",
    "Unsupported value: 'temperature' does not support 0.7 with this model.",
    "model requires more system memory (5.6 GiB) than is available (3.2 GiB)",
    "registry.ollama.ai/library/x does not support tools",
    "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 7000",
    "string too long. Expected a string with maximum length 64",
    "invalid model option 'x'",
    "missing key: messages",
]


@pytest.mark.parametrize("status", [400, 413, 422, 500])
@pytest.mark.parametrize("words", TOO_LONG)
def test_a_prompt_that_is_too_long_is_told_by_the_words(words: str, status: int) -> None:
    error = FAILURES.status(status, {}, json.dumps({"error": {"message": words}}))
    assert type(error) is ContextTooLong
    assert error.status == status
    assert words.rstrip(".") in str(error)
    assert "MAX_NEW_TOKENS" in str(error)


@pytest.mark.parametrize("status", [400, 404, 422])
@pytest.mark.parametrize("words", NO_MODEL)
def test_a_missing_model_is_told_by_the_words(words: str, status: int) -> None:
    error = FAILURES.status(status, {}, json.dumps({"error": words}))
    assert type(error) is ModelNotFound
    assert "PULL IT" in str(error)


@pytest.mark.parametrize("words", OTHER)
def test_what_is_about_something_else_is_only_a_refusal(words: str) -> None:
    for status in (400, 404, 413, 422, 500):
        error = FAILURES.status(status, {}, json.dumps({"message": words}))
        assert type(error) is BackendRejected
        assert ("WRONG PATH" in str(error)) is (status == 404)


@pytest.mark.parametrize(
    ("error", "subject"),
    [
        ({"error": {"message": "?", "code": "context_length_exceeded"}}, "context"),
        ({"error": {"message": "?", "type": "exceed_context_size_error", "code": 400}}, "context"),
        ({"error": {"message": "?", "code": "model_not_found"}}, "model"),
        ({"error": {"message": "?", "code": "DeploymentNotFound"}}, "model"),
        ({"object": "error", "message": "?", "type": "invalid_model"}, "model"),
        ({"error": {"message": "?", "code": "invalid_api_key"}}, "key"),
        ({"error": "API key not valid. Please pass a valid API key."}, "key"),
        ({"error": {"message": "?", "code": 404, "type": None}}, "other"),
        ({"detail": [{"loc": ["body", "model"], "msg": "Field required"}]}, "other"),
        ({}, "other"),
    ],
)
def test_codes_say_what_words_do_not(error: object, subject: str) -> None:
    assert subject_of(error) == subject


def test_a_key_that_is_refused_with_400_is_a_key_that_is_refused() -> None:
    error = FAILURES.status(400, {}, '{"error": "Incorrect API key provided: x***."}')
    assert type(error) is NotAuthorized


def test_a_page_for_people_is_about_nothing_that_we_asked() -> None:
    error = FAILURES.status(404, {}, "<html><h1>The model of a shop was not found</h1>")
    assert type(error) is BackendRejected


def test_a_prompt_that_is_found_too_long_inside_the_stream_is_told_the_same() -> None:
    error = FAILURES.model({"message": TOO_LONG[0], "code": 413})
    assert isinstance(error, ContextTooLong)
    assert error.status == 413
    assert type(FAILURES.model({"message": "out of memory"})) is ModelError


@given(st.text() | st.dictionaries(st.sampled_from(["error", "code", "message"]), st.text()))
def test_anything_is_about_something(error: object) -> None:
    assert subject_of(error) in ("context", "model", "key", "other")


@pytest.mark.parametrize("piece", ["model ", "exceeds ", "model '", "the deployment ", "context "])
def test_long_words_are_read_in_bounded_time(piece: str) -> None:
    assert subject_of(piece * 100_000) == "other"


def test_no_character_reaches_a_terminal_that_it_would_obey() -> None:
    evil = "\x1b]52;c;cm0=\x07\x1b[2J\x9b31m\u202eword\r\x00\ud800"
    error = FAILURES.status(500, {}, f"first\n{evil}\tlast")
    assert isinstance(error, BackendRejected)
    for shown in (str(error), error.body, str(FAILURES.model(evil)), str(FAILURES.malformed(evil))):
        assert not set(evil) & set(shown) & set("\x1b\x07\x9b\u202e\r\x00\ud800")
        assert "word" in shown
    assert error.body.splitlines()[0] == "first"


def test_a_secret_is_found_between_characters_that_are_taken_out() -> None:
    from mellea_sc.backends.http.failures import Secret

    failures = FAILURES.through("the proxy", (Secret("hidden-key"),))
    assert "hidden-key" not in str(failures.status(403, {}, "no hidden\x00-key"))
