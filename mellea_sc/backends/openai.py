"""A backend for servers with OpenAI's chat completions: streamed, as server-sent events."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final, Literal
from urllib.parse import urlsplit

import attrs

from mellea_sc.backends.http.address import Address, parse_address
from mellea_sc.backends.http.backend import (
    HttpBackend,
    WireNames,
    checked_extra_body,
    wire_body,
)
from mellea_sc.backends.http.environment import CONNECT_TIMEOUT, ClientSettings, Verify
from mellea_sc.backends.http.failures import Advice, Secret
from mellea_sc.backends.http.json_values import (
    calls_in,
    count_in,
    fields_of,
    list_of,
    reasoning_in,
    text_in,
    usage_in,
)
from mellea_sc.backends.http.splitting import EventSplitter, Splitter, parse_object
from mellea_sc.backends.model_ids import ModelIdentifier, name_of
from mellea_sc.core.backend import (
    Delta,
    GenerationRequest,
    JsonSchema,
    ModelOption,
    ModelOptions,
    Usage,
)
from mellea_sc.core.errors import BackendRejected, InvalidOption

if TYPE_CHECKING:
    from mellea_sc.backends.http.client import AnyClient

log: Final = logging.getLogger("mellea_sc")

DEFAULT_URL: Final = "https://api.openai.com/v1"
WITH_USAGE: Final[Mapping[str, object]] = {"include_usage": True}


class OpenAIBackend(HttpBackend):
    """A model behind ``POST {base_url}/chat/completions``: OpenAI's own, llama.cpp's, vLLM's, …

    Other options are sent to the server unchanged, for example ``top_p``.

    Args:
        model_id: The model's name, as the server knows it, or one of ``model_ids``.
        base_url: The server's address, ``http://127.0.0.1:8080`` or ``…/v1``; ``/v1`` is added to a URL without a
            path. By default ``OPENAI_BASE_URL``, else OpenAI's own server.
        api_key: The key; by default ``OPENAI_API_KEY``. Servers on your own machine usually need none.
        headers: Headers for every request. One that carries a key (``Authorization``, ``api-key``) replaces
            ``OPENAI_API_KEY``. Their values are treated as secrets.
        client: An ``AsyncClient`` of httpx or httpx2 to use instead of the backend's own. The caller has to close it;
            its timeouts are not used.
        verify: The trusted certificates: the path of a file or folder, an ``ssl.SSLContext``, or ``False`` for
            any. By default those of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, else the usual ones.
        proxy: The URL of a proxy; ``False``: none. By default as ``HTTPS_PROXY`` and the related variables say;
            never for a server on this machine.
        timeout: Seconds that connecting (DNS, TCP and TLS) may take; through a proxy, each step. ``None``: no
            timeout. The waits for the answer and for each delta have ``ModelOption.STREAM_TIMEOUT``.
        extra_body: Additional fields for the body of every request; an option of the same name has priority.
        stream_options: The field ``stream_options``; ``None`` leaves it out. A server that refuses it is asked again
            without it, and this is remembered.
        strict: The field ``strict`` of a schema, if given. OpenAI's own server then follows the schema exactly, if
            it is of the supported kind (all fields required, no others allowed).
        prefills: Whether the server continues the assistant's last message: ``True`` if it accepts
            ``continue_final_message`` (llama.cpp, vLLM, SGLang) or needs no field, ``"prefix"`` if the message must
            be marked as a prefix (Mistral, DeepSeek). A server that refuses the first way gets the second.
        uds: The path of a unix socket to connect to; ``base_url`` is then only what the server sees as its address.
        model_options: Default options of every request; the options of a session and of a call have priority.

    Raises:
        InvalidOption: one of them cannot be used.
    """

    provider = "openai"
    path: ClassVar[str] = "/chat/completions"
    media_types: ClassVar[tuple[str, ...]] = ("text/event-stream",)
    splitter: ClassVar[type[Splitter]] = EventSplitter
    ends_with_finish_reason: ClassVar[bool] = False  # the usage follows

    def __init__(
        self,
        model_id: str | ModelIdentifier,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        client: AnyClient | None = None,
        verify: Verify = True,
        proxy: bool | str = True,
        timeout: float | None = CONNECT_TIMEOUT,
        extra_body: Mapping[str, object] | None = None,
        stream_options: Mapping[str, object] | None = WITH_USAGE,
        strict: bool | None = None,
        prefills: bool | Literal["prefix"] = False,
        uds: str | None = None,
        model_options: ModelOptions | None = None,
    ) -> None:
        model = name_of(model_id, "openai")
        if prefills not in (True, False, "prefix"):
            raise InvalidOption(f'prefills must be a bool or "prefix", not {prefills!r}')
        address = _address(base_url, api_key, uds, headers)
        settings = ClientSettings(verify=verify, proxy=proxy, timeout=timeout)
        super().__init__(model, address, _advice(model), client, settings, model_options)
        self.prefills: bool = bool(prefills)
        self._extra_body = checked_extra_body(extra_body, WireNames({}, _RESERVED))
        self._stream_options = stream_options
        self._strict = strict
        # Every compatible server knows max_tokens, and few know its successor; but OpenAI's own server refuses
        # max_tokens for its newer models.
        self._dialect = _Dialect(
            "max_completion_tokens" if _is_openai(address) else "max_tokens",
            stream_options=stream_options is not None,
            marks_prefix=prefills == "prefix",
        )

    def payload(self, request: GenerationRequest) -> dict[str, object]:
        """The body of the request."""
        dialect = self._dialect
        wire = WireNames({**_NAMES, ModelOption.MAX_NEW_TOKENS: dialect.max_tokens}, _RESERVED)
        payload, parameters = wire_body(request.options, self._extra_body, wire)
        messages: list[dict[str, object]] = [
            {"role": message.role, "content": message.content} for message in request.messages
        ]
        payload |= parameters
        payload |= {"model": self.model_id, "messages": messages, "stream": True}
        if dialect.stream_options and request.options.get("stream_options", True) is not None:
            payload["stream_options"] = self._stream_options
        schema = request.json_schema
        if schema is not None and "response_format" not in payload:
            if dialect.json_schema:
                payload["response_format"] = self._response_format(schema)
            else:
                payload["response_format"] = {"type": "json_object"}
                _describe(schema, messages)
        if self.prefills and messages and messages[-1]["role"] == "assistant":
            if dialect.marks_prefix:
                messages[-1]["prefix"] = True
            else:
                payload |= {"continue_final_message": True, "add_generation_prompt": False}
        return payload

    def _response_format(self, schema: JsonSchema) -> dict[str, object]:
        described: dict[str, object] = {"name": "answer", "schema": schema}
        if self._strict is not None:
            described["strict"] = self._strict
        return {"type": "json_schema", "json_schema": described}

    def adapts_to(self, payload: Mapping[str, object], error: BackendRejected) -> bool:
        """Learn from a refusal that names a feature which the server does not know."""
        learned = self._dialect.learn(payload, error)
        if learned and _has_schema(payload) and not self._dialect.json_schema:
            log.warning(
                "%s cannot hold an answer to a JSON schema; from now on it is asked for JSON, with the schema in "
                "the prompt",
                self.failures.server,
            )
        return learned

    def repeats(self, first: str, text: str) -> bool:
        """Whether an event has the whole message, after the answer has come in deltas (MiniMax)."""
        return _has_message(text) and not _has_message(first)

    def parse(self, text: str) -> Delta | None:
        """Parse the delta in an event's data; ``[DONE]`` is the end mark.

        An event without choices (a ping, metadata, the usage) is an empty delta. Text is also found in ``message`` and
        ``text``, as in other protocols; reasoning and tool calls under any of their names.
        """
        chunk = parse_object(text)
        if chunk is None:
            if text.strip() == "[DONE]":
                return None
            raise self.failures.malformed(text)
        choices = chunk.get("choices")
        if choices is not None and not isinstance(choices, list):
            raise self.failures.malformed(text)
        choice = choices[0] if choices else None
        if not isinstance(choice, dict):
            choice = {}
        error = chunk.get("error") or choice.get("error")
        if not error and "choices" not in chunk:
            error = chunk.get("detail")  # servers made with FastAPI
        if error or chunk.get("object") == "error":
            raise self.failures.model(error or chunk, chunk)
        reason = choice.get("finish_reason")
        if reason is not None:
            if not isinstance(reason, str) or reason.lower() in _NO_REASON:
                reason = None
            elif reason.lower() in _FAILED:
                raise self.failures.model({"message": f"finish_reason {reason!r}", "code": reason})
        words = choice.get("delta") or choice.get("message") or {}
        if not isinstance(words, dict):
            raise self.failures.malformed(text)
        said = words.get("content")
        if isinstance(said, str) and said:
            content: str | None = said
        else:  # a model that refuses to answer in a given format says so in a separate field
            other = said or words.get("refusal") or choice.get("text")
            content = "" if other is None or other == "" else text_in(other)
        if content is None:
            raise self.failures.malformed(text)
        has_usage = chunk.get("usage") or "x_groq" in chunk
        delta = Delta(content, reason, _usage(chunk) if has_usage else None)
        has_more = len(words) > ("content" in words) + ("role" in words)
        if has_more or isinstance(said, list):  # the fast path: most deltas are only one text
            delta.reasoning = reasoning_in(words)
            delta.tool_calls = calls_in(words)
        return delta


def _has_message(text: str) -> bool:
    """Whether an event has a message where others have a delta."""
    for choice in map(fields_of, list_of((parse_object(text) or {}).get("choices"))[:1]):
        return bool(choice.get("message")) and not choice.get("delta")
    return False


@attrs.define(eq=False)
class _Dialect:
    """The features of OpenAI's protocol that a server supports, learned from its refusals.

    A backend shares it with its connected copies.

    Args:
        max_tokens: The name of the parameter for the maximum length of an answer.
        stream_options: Whether it accepts ``stream_options``.
        json_schema: Whether it can constrain an answer to a schema.
        marks_prefix: Whether a message to continue must be marked as a prefix.
    """

    max_tokens: Literal["max_tokens", "max_completion_tokens"]
    stream_options: bool = True
    json_schema: bool = True
    marks_prefix: bool = False

    def learn(self, payload: Mapping[str, object], error: BackendRejected) -> bool:
        """Learn from the refusal of a request; true if something was learned."""
        if error.status not in (400, 422):
            return False
        words = error.body
        if "stream_options" in payload and "stream_options" in words:
            self.stream_options = False
        elif "max_tokens" in payload and "max_completion_tokens" in words:
            self.max_tokens = "max_completion_tokens"
        elif "continue_final_message" in payload and _GO_ON.search(words):
            self.marks_prefix = True
        elif _has_schema(payload) and _refuses_schemas(words.lower()):
            self.json_schema = False
        else:
            return False
        return True


def _has_schema(payload: Mapping[str, object]) -> bool:
    """Whether a request constrains the answer to a schema."""
    return fields_of(payload.get("response_format")).get("type") == "json_schema"


def _refuses_schemas(words: str) -> bool:
    """Whether the server refuses all schemas, and not just this one for its content."""
    if "invalid schema" in words or "invalid_json_schema" in words:
        return False
    return "response_format" in words or "json_schema" in words or "response format" in words


def _describe(schema: JsonSchema, messages: list[dict[str, object]]) -> None:
    """Put a schema into the system message, for servers that cannot constrain an answer to it."""
    said = (
        f"Answer with nothing but a JSON object that fits this JSON schema:\n{json.dumps(schema)}"
    )
    if messages and messages[0]["role"] == "system":
        messages[0]["content"] = f"{messages[0]['content']}\n\n{said}"
    else:
        messages.insert(0, {"role": "system", "content": said})


def _usage(chunk: Mapping[str, object]) -> Usage | None:
    usage = fields_of(chunk.get("usage")) or fields_of(fields_of(chunk.get("x_groq")).get("usage"))
    if not usage:
        return None
    known = usage_in(usage, "prompt_tokens", "completion_tokens") or usage_in(
        usage, "input_tokens", "output_tokens"
    )
    if known is None:
        return None
    read = fields_of(usage.get("prompt_tokens_details") or usage.get("input_tokens_details"))
    wrote = fields_of(usage.get("completion_tokens_details") or usage.get("output_tokens_details"))
    reasoning = count_in(wrote, "reasoning_tokens") or count_in(usage, "reasoning_tokens")
    # Some servers (xAI, Gemini) do not count reasoning as completion tokens, but in the total.
    rest = count_in(usage, "total_tokens") - known.total_tokens if known.prompt_tokens else 0
    if rest <= 0:
        rest = reasoning if reasoning > known.completion_tokens else 0
    return Usage(
        known.prompt_tokens,
        known.completion_tokens + rest,
        count_in(read, "cached_tokens") or count_in(usage, "prompt_cache_hit_tokens"),
        reasoning,
    )


_NO_REASON: Final = ("", "null", "none")
"""Finish reasons of a delta that is not the last one: KoboldCpp and others send the word."""
_FAILED: Final = ("error", "abort", "network_error", "insufficient_system_resource")
"""Finish reasons that stand for an error; the last one is DeepSeek's."""


_GO_ON: Final = re.compile("continue_final_message|add_generation_prompt")

_NAMES: Final = {
    ModelOption.TEMPERATURE: "temperature",
    ModelOption.SEED: "seed",
    ModelOption.STOP_SEQUENCES: "stop",
}

_RESERVED: Final = {
    "model": "give the session another model_id",
    "messages": "they are made from the action and the context",
    "stream": "the wire is always streamed; see ModelOption.STREAM",
    "stream_options": "give the backend other stream_options, or None for none",
    "n": "one request has one answer; make several requests",
}


def _address(
    base_url: str | None, api_key: str | None, uds: str | None, headers: Mapping[str, str] | None
) -> Address:
    what = "a base URL"
    if uds is None:
        url = base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
        default_key = os.environ.get("OPENAI_API_KEY")
        if not base_url and url != DEFAULT_URL:
            what = "the base URL in OPENAI_BASE_URL"
    else:
        # The environment's address and key are for another server than the one behind this socket.
        url, default_key = base_url or "http://localhost", None
    address = parse_address(
        url, api_key=api_key, default_key=default_key, uds=uds, headers=headers, what=what
    )
    if _is_openai(address):
        said = {name: Secret(os.environ.get(variable, "")) for name, variable in _ACCOUNT.items()}
        given = {name: secret for name, secret in said.items() if secret.value}
        address = attrs.evolve(address, headers={**given, **address.headers})
    return address if urlsplit(address.url).path else attrs.evolve(address, url=f"{address.url}/v1")


def _is_openai(address: Address) -> bool:
    return f".{address.host}".endswith(".api.openai.com")


_ACCOUNT: Final = {"openai-organization": "OPENAI_ORG_ID", "openai-project": "OPENAI_PROJECT_ID"}
"""Headers for OpenAI's own server, and the environment variables that OpenAI's client reads for them."""


def _advice(model_id: str) -> Advice:
    return Advice(
        unreachable="Is the server running, and is base_url (or OPENAI_BASE_URL) its address?",
        no_model=f"Give the name of a model that it has instead of {model_id!r}; GET /models lists them.",
        no_path="Is base_url (or OPENAI_BASE_URL) right? It mostly ends in /v1.",
        no_key="Give a key that is valid there as api_key (or in OPENAI_API_KEY), or the header that it wants.",
    )
