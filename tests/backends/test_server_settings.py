"""What a caller says of a server, and what servers are found to know: what is sent in consequence."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from mellea_sc import start_session
from mellea_sc.backends.ollama import OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import Backend, ChatMessage, GenerationRequest, ModelOption
from mellea_sc.core.errors import BackendRejected, InvalidOption, NotAuthorized
from mellea_sc.testing.server import Answer, ModelServer, RecordedRequest

pytestmark = pytest.mark.anyio

MESSAGES = (ChatMessage("user", "hi"),)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}

Make = Callable[..., Backend]


@pytest.fixture(params=["openai", "ollama"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes the backend of one of the two protocols."""
    if request.param == "openai":
        return lambda server, **more: OpenAIBackend("m", base_url=server.openai_url, **more)
    return lambda server, **more: OllamaBackend("m", base_url=server.ollama_url, **more)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")


async def ask(backend: Backend, *, schema: Any = None, **options: object) -> str:
    request = GenerationRequest(MESSAGES, options, schema)
    async with backend.open(request) as deltas:
        return "".join([delta.text async for delta in deltas])


# --- headers, keys, queries ------------------------------------------------------------------


async def test_headers_are_sent_and_never_shown(make: Make) -> None:
    def refuse(record: RecordedRequest) -> Answer:
        return Answer(status=403, error=f"who is {record.headers['x-team']}?")

    async with ModelServer(refuse) as server:
        backend = make(server, headers={"X-Team": "Bearer t0ken-x"})
        with pytest.raises(NotAuthorized, match=r"who is \*\*\*") as caught:
            await ask(backend)
    shown = f"{caught.value}{vars(caught.value)}{backend!r}{vars(backend)}"
    assert "t0ken" not in shown


async def test_a_header_with_a_key_takes_the_place_of_the_key_in_the_environment() -> None:
    async with ModelServer(Answer()) as server:
        for name in ("Authorization", "api-key", "X-API-Key"):
            await ask(OpenAIBackend("m", base_url=server.openai_url, headers={name: "mine"}))
        await ask(OpenAIBackend("m", base_url=server.openai_url, headers={"x-team": "mine"}))
    sent = [record.headers.get("authorization") for record in server.requests]
    assert sent == ["mine", None, None, "Bearer sk-env"]
    assert [r.headers.get("api-key") for r in server.requests] == [None, "mine", None, None]


async def test_a_key_for_ollama_is_sent_as_a_bearer_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "for-the-service")
    async with ModelServer(Answer()) as server:
        await ask(OllamaBackend("m", base_url=server.ollama_url, api_key="mine"))
        await ask(OllamaBackend("m", base_url=server.ollama_url))
    assert [r.headers.get("authorization") for r in server.requests] == ["Bearer mine", None]
    hosted = OllamaBackend("m", base_url="https://ollama.com")
    assert hosted.address.sent_headers() == {"authorization": "Bearer for-the-service"}


async def test_the_query_of_a_base_url_goes_with_every_request() -> None:
    seen: list[str] = []

    async def note(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(400, text="bad version v1 or key=s3cret")

    url = "https://r.openai.azure.com/openai/deployments/d?api-version=v1&key=s3cret"
    async with httpx.AsyncClient(transport=httpx.MockTransport(note)) as client:
        backend = OpenAIBackend("d", base_url=url, headers={"api-key": "k3y-azure"}, client=client)
        with pytest.raises(BackendRejected, match=r"bad version v1 or key=\*\*\*"):
            await ask(backend)
    assert seen == [url.replace("/d?", "/d/chat/completions?")]
    assert "s3cret" not in repr(backend) + repr(vars(backend))


def test_openais_account_is_told_to_openai_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-env")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-env")
    for url in (None, "https://eu.api.openai.com/v1"):
        sent = OpenAIBackend("m", base_url=url).address.sent_headers()
        assert (sent["openai-organization"], sent["openai-project"]) == ("org-env", "proj-env")
    given = OpenAIBackend("m", headers={"OpenAI-Organization": "org-mine"})
    assert given.address.sent_headers()["openai-organization"] == "org-mine"
    other = OpenAIBackend("m", base_url="https://api.openai.com.example")
    assert "openai-organization" not in other.address.sent_headers()


@pytest.mark.parametrize(
    "headers",
    [
        {"X Team": "k3y"},
        {"x-team": "k3y\r\nx: y"},
        {"x-team": "k3yé"},
        {"x-team": 3},
        {"": "k3y"},
        {"Content-Length": "k3y"},
        {"accept-encoding": "gzip"},
        [("x-team", "k3y")],
    ],
)
def test_headers_that_cannot_be_sent_are_refused_without_being_shown(headers: Any) -> None:
    for kind in (OpenAIBackend, OllamaBackend):
        with pytest.raises(InvalidOption, match="header") as caught:
            kind("m", base_url="http://h", headers=headers)
        assert "k3y" not in str(caught.value)


def test_a_client_is_not_given_together_with_what_one_of_ours_needs() -> None:
    client = httpx.AsyncClient()
    for settings in ({"verify": False}, {"proxy": False}, {"uds": "/run/engine"}):
        with pytest.raises(InvalidOption, match="client"):
            OpenAIBackend("m", base_url="http://h", client=client, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["openai", "ollama"])
async def test_a_session_passes_the_settings_on(name: str) -> None:
    async with ModelServer(Answer()) as server:
        url = server.ollama_url if name == "ollama" else server.openai_url
        async with start_session(
            name,
            "m",
            base_url=url,
            headers={"x-team": "mine"},
            extra_body={"keep_alive": 3},
            timeout=None,
            verify=False,
        ) as m:
            assert await (await m.ainstruct("hi")) == "Hello, world."
    (record,) = server.requests
    assert record.headers["x-team"] == "mine"
    assert record.json["keep_alive"] == 3


def test_a_session_with_a_backend_takes_no_settings_of_another() -> None:
    with pytest.raises(InvalidOption, match="not both"):
        start_session(backend=OpenAIBackend("m", base_url="http://h"), headers={"a": "b"})
    with pytest.raises(InvalidOption, match="no use for organisation"):
        start_session("openai", "m", organisation="x")  # type: ignore[call-arg]


# --- the body --------------------------------------------------------------------------------


async def test_fields_for_every_body_give_way_to_options(make: Make) -> None:
    async with ModelServer(Answer()) as server:
        backend = make(server, extra_body={"keep_alive": 3, "user": "u"})
        await ask(backend)
        await ask(backend, keep_alive=5)
        await ask(backend, extra_body={"user": "v"})
    assert [r.json["keep_alive"] for r in server.requests] == [3, 5, 3]
    assert [r.json["user"] for r in server.requests] == ["u", "u", "v"]
    assert "extra_body" not in str([r.json for r in server.requests])
    with pytest.raises(InvalidOption, match="extra_body"):
        await ask(backend, extra_body={"stream": False})
    for wrong in ({"stream": False}, {"model": "x"}, {3: 4}, [1]):
        with pytest.raises(InvalidOption, match="extra_body"):
            make(server, extra_body=wrong)


async def test_stream_options_can_be_left_out() -> None:
    async with ModelServer(Answer()) as server:
        await ask(OpenAIBackend("m", base_url=server.openai_url))
        await ask(OpenAIBackend("m", base_url=server.openai_url, stream_options=None))
        await ask(OpenAIBackend("m", base_url=server.openai_url), stream_options=None)
        other = {"include_usage": True, "chunk_include_usage": False}
        await ask(OpenAIBackend("m", base_url=server.openai_url, stream_options=other))
    sent = [record.json.get("stream_options") for record in server.requests]
    assert sent == [{"include_usage": True}, None, None, other]


def refusing(refused: str, words: str, status: int = 400) -> Callable[[RecordedRequest], Answer]:
    """Answers requests that do not have this in their body."""

    def answer(record: RecordedRequest) -> Answer:
        return (
            Answer(status=status, error=words) if refused in json.dumps(record.json) else Answer()
        )

    return answer


async def test_a_server_that_does_not_know_stream_options_is_asked_again_without_once() -> None:
    words = "property 'stream_options' is unsupported, did you mean 'stream'?"
    async with ModelServer(refusing("stream_options", words, 422)) as server:
        backend = OpenAIBackend("m", base_url=server.openai_url)
        async with backend.connected() as connected:
            assert await ask(connected) == "Hello, world."
            assert await ask(connected) == "Hello, world."
        assert await ask(backend) == "Hello, world."
    assert ["stream_options" in r.json for r in server.requests] == [True, False, False, False]


async def test_a_server_that_refuses_stream_options_for_ever_is_asked_twice() -> None:
    answer = Answer(status=400, error="stream_options? there are none")
    async with ModelServer(answer) as server:
        with pytest.raises(BackendRejected, match="stream_options"):
            await ask(OpenAIBackend("m", base_url=server.openai_url))
    assert len(server.requests) == 2


async def test_the_limit_of_an_answer_has_the_name_that_the_server_asks_for() -> None:
    words = (
        "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
    )
    limit: dict[str, object] = {ModelOption.MAX_NEW_TOKENS: 7}
    async with ModelServer(refusing('"max_tokens"', words)) as server:
        backend = OpenAIBackend("m", base_url=server.openai_url)
        for _ in range(2):
            await ask(backend, **limit)
    assert [r.json.get("max_tokens") for r in server.requests] == [7, None, None]
    assert [r.json.get("max_completion_tokens") for r in server.requests] == [None, 7, 7]
    request = GenerationRequest(MESSAGES, limit)
    assert OpenAIBackend("m").payload(request)["max_completion_tokens"] == 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_tokens": 7}, "max_tokens? Use 'max_completion_tokens' instead."),
        ({"response_format": {"type": "json_schema"}}, "no response_format of type json_schema"),
        (
            {"continue_final_message": True},
            "continue_final_message? Extra inputs are not permitted",
        ),
    ],
)
async def test_what_the_caller_has_asked_for_is_not_asked_for_again(
    options: dict[str, object], words: str
) -> None:
    async with ModelServer(lambda _: Answer(status=400, error=words)) as server:
        backend = OpenAIBackend("m", base_url=server.openai_url)
        with pytest.raises(BackendRejected):
            await ask(backend, **options)
        with pytest.raises(BackendRejected):
            await ask(OpenAIBackend("m", base_url=server.openai_url, extra_body=options))
    assert len(server.requests) == 2


async def test_a_server_that_does_not_know_the_flag_for_going_on_gets_the_message_marked() -> None:
    begun = GenerationRequest((*MESSAGES, ChatMessage("assistant", "The tea")))
    words = '[{"type": "extra_forbidden", "loc": ["body", "continue_final_message"]}]'
    async with ModelServer(refusing("continue_final_message", words, 422)) as server:
        backend = OpenAIBackend("m", base_url=server.openai_url, prefills=True)
        for _ in range(2):
            async with backend.open(begun) as deltas:
                assert [delta async for delta in deltas]
    marked = [record.json["messages"][-1].get("prefix") for record in server.requests]  # type: ignore[index]
    assert marked == [None, True, True]


@pytest.mark.parametrize(
    "words",
    [
        "This response_format type is unavailable now",
        "This model does not support response format `json_schema`.",
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
    ],
)
async def test_where_no_schema_is_known_json_is_asked_for_and_the_schema_said(
    words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "mellea_sc"):
        async with ModelServer(refusing('"json_schema"', words)) as server:
            backend = OpenAIBackend("m", base_url=server.openai_url)
            for _ in range(2):
                assert await ask(backend, schema=SCHEMA) == "Hello, world."
    assert len(server.requests) == 3
    for record in server.requests[1:]:
        assert record.json["response_format"] == {"type": "json_object"}
        first, last = record.messages
        assert first.role == "system"
        assert json.dumps(SCHEMA) in first.content
        assert last == MESSAGES[0]
    (said,) = [r.getMessage() for r in caplog.records if r.name == "mellea_sc"]
    assert "schema" in said


async def test_a_schema_that_is_refused_for_what_is_in_it_is_the_callers_to_mend() -> None:
    words = "Invalid schema for response_format 'answer': 'additionalProperties' is required"
    async with ModelServer(refusing('"json_schema"', words)) as server:
        with pytest.raises(BackendRejected, match="additionalProperties"):
            await ask(OpenAIBackend("m", base_url=server.openai_url), schema=SCHEMA)
    assert len(server.requests) == 1


async def test_a_response_format_of_the_callers_goes_before_the_schema() -> None:
    own = {"type": "json_object"}
    async with ModelServer(Answer()) as server:
        await ask(
            OpenAIBackend("m", base_url=server.openai_url), schema=SCHEMA, response_format=own
        )
        await ask(OllamaBackend("m", base_url=server.ollama_url), schema=SCHEMA, format="json")
        strict = OpenAIBackend("m", base_url=server.openai_url, strict=True)
        await ask(strict, schema=SCHEMA)
    assert server.requests[0].json["response_format"] == own
    assert server.requests[1].json["format"] == "json"
    described: Any = server.requests[2].json["response_format"]
    assert described["json_schema"]["strict"] is True


async def test_a_beginning_is_marked_for_servers_that_go_on_from_it() -> None:
    begun = GenerationRequest((*MESSAGES, ChatMessage("assistant", "The tea")))

    def payload(request: GenerationRequest, prefills: Any) -> dict[str, Any]:
        return OpenAIBackend("m", base_url="http://h", prefills=prefills).payload(request)

    flags = {"continue_final_message": True, "add_generation_prompt": False}
    assert payload(begun, True).items() >= flags.items()
    assert payload(begun, "prefix")["messages"][-1]["prefix"] is True
    for other in (payload(begun, False), payload(GenerationRequest(MESSAGES), True)):
        assert not flags.keys() & other.keys()
    assert [OpenAIBackend("m", prefills=p).prefills for p in (True, False, "prefix")] == [  # type: ignore[arg-type]
        True,
        False,
        True,
    ]
    with pytest.raises(InvalidOption, match="prefills"):
        OpenAIBackend("m", prefills="yes")  # type: ignore[arg-type]
