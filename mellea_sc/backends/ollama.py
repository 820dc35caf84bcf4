"""A backend for Ollama's own protocol: streamed, one JSON object per line."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from mellea_sc.backends.http.address import parse_address
from mellea_sc.backends.http.backend import (
    HttpBackend,
    WireNames,
    checked_extra_body,
    wire_body,
)
from mellea_sc.backends.http.environment import CONNECT_TIMEOUT, ClientSettings, Verify
from mellea_sc.backends.http.failures import Advice
from mellea_sc.backends.http.json_values import (
    calls_in,
    fields_of,
    reasoning_in,
    text_in,
    usage_in,
)
from mellea_sc.backends.http.splitting import LineSplitter, Splitter, parse_object
from mellea_sc.backends.model_ids import ModelIdentifier, name_of
from mellea_sc.core.backend import Delta, GenerationRequest, ModelOption, ModelOptions

if TYPE_CHECKING:
    from mellea_sc.backends.http.client import AnyClient

__all__ = ["OllamaBackend", "OllamaModelBackend"]

DEFAULT_MODEL: Final = "granite4:micro"
DEFAULT_PORT: Final = 11434


class OllamaBackend(HttpBackend):
    """A model behind Ollama's ``POST /api/chat``.

    Other options are sent as options of the model (``top_k``, ``repeat_penalty``, …), except for ``keep_alive``,
    ``think`` and a few others, which Ollama expects at the top level of the body.

    Args:
        model_id: The model's name, as ``ollama list`` shows it, or one of ``model_ids``.
        base_url: The address of Ollama: a URL, a host, or host and port. By default ``OLLAMA_HOST``, else
            port 11434 of this machine.
        api_key: A key, if the server needs one (Ollama's own service, a gateway). Sent as a bearer token. By
            default ``OLLAMA_API_KEY``, which is only sent to ollama.com.
        headers: Headers for every request. Their values are treated as secrets.
        client: An ``AsyncClient`` of httpx or httpx2 to use instead of the backend's own. The caller has to close it;
            its timeouts are not used.
        verify: The trusted certificates: the path of a file or folder, an ``ssl.SSLContext``, or ``False`` for
            any. By default those of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, else the usual ones.
        proxy: The URL of a proxy; ``False``: none. By default as ``HTTPS_PROXY`` and the related variables say;
            never for a server on this machine.
        timeout: Seconds that connecting (DNS, TCP and TLS) may take; through a proxy, each step. ``None``: no
            timeout. The waits for the answer and for each delta have ``ModelOption.STREAM_TIMEOUT``.
        extra_body: Additional fields for the body of every request; an option of the same name has priority.
        model_options: Default options of every request; the options of a session and of a call have priority.

    Raises:
        InvalidOption: one of them cannot be used.
    """

    provider = "ollama"
    prefills = True
    path: ClassVar[str] = "/api/chat"
    media_types: ClassVar[tuple[str, ...]] = ("application/x-ndjson", "application/ndjson")
    splitter: ClassVar[type[Splitter]] = LineSplitter
    ends_with_finish_reason: ClassVar[bool] = True

    def __init__(
        self,
        model_id: str | ModelIdentifier = DEFAULT_MODEL,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        client: AnyClient | None = None,
        verify: Verify = True,
        proxy: bool | str = True,
        timeout: float | None = CONNECT_TIMEOUT,
        extra_body: Mapping[str, object] | None = None,
        model_options: ModelOptions | None = None,
    ) -> None:
        model = name_of(model_id, "ollama")
        url = ollama_url(base_url or os.environ.get("OLLAMA_HOST") or "")
        what = "a base URL" if base_url else "the base URL in OLLAMA_HOST"
        default_key = os.environ.get("OLLAMA_API_KEY") if _HOSTED.match(url) else None
        address = parse_address(
            url, api_key=api_key, default_key=default_key, headers=headers, what=what
        )
        settings = ClientSettings(verify=verify, proxy=proxy, timeout=timeout)
        super().__init__(model, address, _advice(model), client, settings, model_options)
        self._extra_body = checked_extra_body(extra_body, _WIRE)

    def payload(self, request: GenerationRequest) -> dict[str, object]:
        """The body of the request."""
        payload, parameters = wire_body(request.options, self._extra_body, _WIRE)
        payload |= {name: parameters.pop(name) for name in _BESIDE_OPTIONS if name in parameters}
        payload["model"] = self.model_id
        payload["messages"] = [
            {"role": message.role, "content": message.content} for message in request.messages
        ]
        payload["stream"] = True
        if parameters:
            payload["options"] = parameters
        if request.json_schema is not None:
            payload.setdefault("format", request.json_schema)
        return payload

    def parse(self, text: str) -> Delta | None:
        """Parse the delta in a line; the one with ``done`` is the last."""
        chunk = parse_object(text)
        if chunk is None:
            raise self.failures.malformed(text)
        if chunk.get("error"):
            raise self.failures.model(chunk["error"], chunk)
        message = fields_of(chunk.get("message"))
        said = message.get("content")
        content = said if isinstance(said, str) and said else text_in(said or chunk.get("response"))
        # Some of Ollama's engines end with a reason and without "done".
        done = chunk.get("done", True if chunk.get("done_reason") else None)
        if content is None or not isinstance(done, bool):
            raise self.failures.malformed(text)
        delta = Delta(content)
        if not content or len(message) > 2 or "role" not in message:
            delta.reasoning = reasoning_in(message) or text_in(chunk.get("thinking")) or ""
            delta.tool_calls = calls_in(message, counted=False)  # each call comes in one piece
        if not done:
            return delta
        reason = chunk.get("done_reason")
        if reason in ("load", "unload"):  # it has only loaded or unloaded a model
            raise self.failures.model(f"done_reason {reason!r}")
        delta.finish_reason = reason if isinstance(reason, str) and reason else "stop"
        delta.usage = usage_in(chunk, "prompt_eval_count", "eval_count")
        return delta


OllamaModelBackend = OllamaBackend
"""Mellea's name for it."""


def ollama_url(host: str) -> str:
    """The URL of a value of ``OLLAMA_HOST``, which also configures where the server listens.

    Forms: empty, ``host``, ``host:port``, ``:port``, an IPv6 address with or without brackets, and each of them
    after ``http://`` or ``https://`` (the default port is then 80 or 443).
    """
    scheme, separator, rest = host.strip().strip("\"'").rpartition("://")
    authority, slash, path = rest.partition("/")
    user, at, place = authority.rpartition("@")
    name, _, port = place.rpartition(":")
    if not port.isdigit() or (":" in name and not name.endswith("]")):
        name, port = place.removesuffix(":"), ""
    name = name.strip("[]") or "127.0.0.1"
    try:
        ip = ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        if ip.is_unspecified:  # the server listens on all addresses: connect to this machine
            ip = ipaddress.ip_address("127.0.0.1" if ip.version == 4 else "::1")
        name = f"[{ip}]" if ip.version == 6 else str(ip)
    if not port and not separator:
        port = str(DEFAULT_PORT)
    return f"{scheme or 'http'}://{user}{at}{name}{f':{port}' if port else ''}{slash}{path}"


_HOSTED: Final = re.compile(r"https://((www|api)\.)?ollama\.com(:443)?(/|$)")
"""Ollama's own service, the only server to which ``OLLAMA_API_KEY`` is sent."""

_WIRE: Final = WireNames(
    {
        ModelOption.MAX_NEW_TOKENS: "num_predict",
        ModelOption.CONTEXT_WINDOW: "num_ctx",
        ModelOption.TEMPERATURE: "temperature",
        ModelOption.SEED: "seed",
        ModelOption.STOP_SEQUENCES: "stop",
    },
    {
        "model": "give the session another model_id",
        "messages": "they are made from the action and the context",
        "stream": "the wire is always streamed; see ModelOption.STREAM",
        "options": "give what would be in it as options",
    },
)

_BESIDE_OPTIONS: Final = (
    "format",
    "keep_alive",
    "logprobs",
    "think",
    "tools",
    "top_logprobs",
    "truncate",
)


def _advice(model_id: str) -> Advice:
    return Advice(
        unreachable="Is Ollama running? Start it with `ollama serve`, or set OLLAMA_HOST to where it is.",
        no_model=f"Fetch it with `ollama pull {model_id}`, or take one that `ollama list` shows.",
        no_path="Is base_url (or OLLAMA_HOST) the address of Ollama?",
        no_key="Give the key as api_key, the header that it wants as headers=, or user and password in base_url.",
    )
