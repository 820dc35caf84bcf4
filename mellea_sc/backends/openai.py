"""Any server that speaks OpenAI's chat completions: streamed, as server-sent events."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final, cast
from urllib.parse import urlsplit

import attrs

from mellea_sc.backends.http.address import Address, parse_address
from mellea_sc.backends.http.backend import HttpBackend
from mellea_sc.backends.http.events import EventSplitter
from mellea_sc.backends.http.failures import Advice
from mellea_sc.backends.http.json_values import (
    calls_in,
    count_in,
    fields_of,
    list_of,
    parse_object,
    reasoning_in,
    text_in,
    usage_in,
)
from mellea_sc.backends.model_options import ModelOption, WireNames, wire_parameters
from mellea_sc.core.backend import Delta, GenerationRequest, Usage

if TYPE_CHECKING:
    from mellea_sc.backends.http.client import AnyClient

__all__ = ["OpenAIBackend"]

DEFAULT_URL: Final = "https://api.openai.com/v1"


class OpenAIBackend(HttpBackend):
    """A model behind ``POST {base_url}/chat/completions``: OpenAI's own, llama.cpp's, vLLM's, …

    Options of other names go to the server as they are, ``top_p`` for example.

    Args:
        model_id: The model's name, as the server knows it.
        base_url: Where the server is, ``http://127.0.0.1:8080`` or ``…/v1``; a URL without a path is
            taken to end in ``/v1``. By default ``OPENAI_BASE_URL``, else OpenAI's own.
        api_key: By default ``OPENAI_API_KEY``; servers on one's own machine mostly need none.
        client: An ``AsyncClient`` of httpx or httpx2 to use instead of one of the backend's own, for certificates
            or proxies; it stays the caller's to close, and its timeouts are not used.
        uds: Path of a unix socket to go through; ``base_url`` is then the address seen by the server.

    Raises:
        InvalidOption: the URL or the key cannot be used.
    """

    provider = "openai"
    path: ClassVar[str] = "/chat/completions"
    media_types: ClassVar[tuple[str, ...]] = ("text/event-stream",)
    ends_with_finish_reason: ClassVar[bool] = False  # the usage follows

    def __init__(
        self,
        model_id: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        client: AnyClient | None = None,
        uds: str | None = None,
    ) -> None:
        address = _address(base_url, api_key, uds)
        super().__init__(model_id, address, _advice(model_id), client)
        self._wire = WireNames(
            {
                # Every compatible server knows max_tokens and few its successor; OpenAI's own
                # refuses it for its newer models.
                ModelOption.MAX_NEW_TOKENS: "max_completion_tokens"
                if urlsplit(address.url).hostname == "api.openai.com"
                else "max_tokens",
                ModelOption.TEMPERATURE: "temperature",
                ModelOption.SEED: "seed",
                ModelOption.STOP_SEQUENCES: "stop",
            },
            _RESERVED,
        )

    def payload(self, request: GenerationRequest) -> dict[str, object]:
        """The body of the request."""
        payload = wire_parameters(request.options, self._wire)
        payload["model"] = self.model_id
        payload["messages"] = [
            {"role": message.role, "content": message.content} for message in request.messages
        ]
        payload["stream"] = True
        payload["stream_options"] = {"include_usage": True}
        if request.json_schema is not None:
            payload["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": request.json_schema},
            }
        return payload

    def splitter(self) -> EventSplitter:
        """The response is a stream of events."""
        return EventSplitter()

    def parse(self, text: str) -> Delta | None:
        """The delta in an event's data; ``[DONE]`` is the end.

        An event without choices (a ping, metadata, the usage) is an empty delta. Text is also taken where
        other protocols have it: in ``message``, in ``text``; reasoning and calls, by whichever of their names.
        """
        if text.strip() == "[DONE]":
            return None
        chunk = parse_object(text)
        if chunk is None:
            raise self._failures.malformed(text)
        found = chunk.get("choices")
        if found is not None and not isinstance(found, list):
            raise self._failures.malformed(text)
        choices = list_of(cast("object", found))
        choice = fields_of(choices[0] if choices else None)
        error = chunk.get("error") or choice.get("error")
        if not error and "choices" not in chunk:
            error = chunk.get("detail")  # FastAPI's word for it
        if error or chunk.get("object") == "error":
            raise self._failures.model(error or chunk)
        reason = choice.get("finish_reason")
        if reason in _FAILED:
            raise self._failures.model(f"finish_reason {reason!r}")
        words = fields_of(choice.get("delta")) or fields_of(choice.get("message"))
        # A model that declines an answer in a given form says so in a field of its own.
        content = text_in(words.get("content") or words.get("refusal") or choice.get("text"))
        if content is None:
            raise self._failures.malformed(text)
        reason = reason if isinstance(reason, str) and reason else None
        delta = Delta(content, reason, _usage(chunk))
        if len(words) > 1 or not content or content is not words.get("content"):
            # most deltas are one text, and have nothing else
            delta.reasoning = reasoning_in(words)
            delta.tool_calls = calls_in(words)
        return delta


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
    # Some (xAI, Gemini) leave the reasoning out of the completion; what they call the total has it.
    rest = count_in(usage, "total_tokens") - known.total_tokens if known.prompt_tokens else 0
    if rest <= 0:
        rest = reasoning if reasoning > known.completion_tokens else 0
    return Usage(
        known.prompt_tokens,
        known.completion_tokens + rest,
        count_in(read, "cached_tokens") or count_in(usage, "prompt_cache_hit_tokens"),
        reasoning,
    )


_FAILED: Final = ("error", "abort", "network_error")
"""Reasons that servers give for an answer that is none."""

_RESERVED: Final = {
    "model": "give the session another model_id",
    "messages": "they are made from the action and the context",
    "stream": "the wire is always streamed; see ModelOption.STREAM",
    "stream_options": "the wire is always streamed; see ModelOption.STREAM",
    "n": "one request has one answer; make several requests",
}


def _address(base_url: str | None, api_key: str | None, uds: str | None) -> Address:
    if uds is None:
        url = base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
        default_key = os.environ.get("OPENAI_API_KEY")
    else:
        # What the environment says is about another server than the one behind this socket.
        url, default_key = base_url or "http://localhost", None
    address = parse_address(url, api_key=api_key, default_key=default_key, uds=uds)
    return address if urlsplit(address.url).path else attrs.evolve(address, url=f"{address.url}/v1")


def _advice(model_id: str) -> Advice:
    return Advice(
        unreachable="Is the server running, and is base_url (or OPENAI_BASE_URL) its address?",
        no_model=f"Give the name of a model that it has instead of {model_id!r}; GET /models lists them.",
        no_path="Is base_url (or OPENAI_BASE_URL) right? It mostly ends in /v1.",
        no_key="Give a key that is valid there as api_key, or in OPENAI_API_KEY.",
    )
