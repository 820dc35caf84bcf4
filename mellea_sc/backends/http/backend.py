"""The base class of HTTP backends: one client for a block, one streamed response for a generation.

A subclass implements a protocol: how a request is built (:func:`wire_body` translates the options), and how a piece of
the response is parsed.
"""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias, cast

import attrs

from mellea_sc.backends.http.address import Address
from mellea_sc.backends.http.environment import ClientSettings, proxy_for
from mellea_sc.backends.http.failures import Advice, Failures
from mellea_sc.backends.http.json_values import Json, value_or_text
from mellea_sc.backends.http.splitting import Splitter
from mellea_sc.core.answer_prefix import EchoFilter
from mellea_sc.core.backend import (
    Backend,
    Delta,
    GenerationRequest,
    ModelOption,
    ModelOptions,
    merge_options,
    stream_timeout,
)
from mellea_sc.core.errors import BackendRejected, InvalidOption

if TYPE_CHECKING:
    from typing import Self

    from mellea_sc.backends.http.client import AnyClient, Link


@attrs.frozen
class WireNames:
    """A protocol's names of the options.

    Args:
        names: Maps keys of :class:`ModelOption` to names; other options of it are not sent.
        reserved: Names that only the backend may set, each with advice what to use instead.
    """

    names: Mapping[str, str]
    reserved: Mapping[str, str]


def wire_body(
    options: ModelOptions, extra_body: Mapping[str, object], wire: WireNames
) -> tuple[dict[str, object], dict[str, object]]:
    """The additional fields for the body of a request, and the options as parameters of the protocol.

    Args:
        options: The request's options. Keys that are not of :class:`ModelOption` stay unchanged; ``extra_body`` is
            no parameter but holds more fields.
        extra_body: The backend's additional fields.
        wire: The protocol's names.

    Raises:
        InvalidOption: a value is not usable, or a key is reserved for the backend.
    """
    parameters: dict[str, object] = {}
    fields = dict(extra_body)
    for key, value in options.items():
        if value is None or key in _NOT_FOR_THE_WIRE:
            continue
        if key in _CHECKED:
            name, check = _CHECKED[key]
            checked = check(f"ModelOption.{name}", value)
            if key in wire.names:
                parameters[wire.names[key]] = checked
        elif key.startswith("@@@"):
            raise InvalidOption(f"{key!r} is not one of the options in ModelOption")
        elif key in wire.reserved:
            raise InvalidOption(f"the option {key!r} cannot be set here: {wire.reserved[key]}")
        elif key == "extra_body":
            fields |= checked_extra_body(value, wire)
        else:
            parameters[key] = value
    return fields, parameters


def checked_extra_body(extra: object, wire: WireNames) -> dict[str, object]:
    """Check the caller's ``extra_body``: additional fields for the body of a request.

    Raises:
        InvalidOption: it is no mapping, or one of its keys is reserved for the backend.
    """
    if extra is None:
        return {}
    fields = cast("Mapping[object, object]", extra) if isinstance(extra, Mapping) else {0: extra}
    checked: dict[str, object] = {}
    for key, value in fields.items():
        if not isinstance(key, str):
            raise InvalidOption("extra_body must be a mapping with str keys")
        if key in wire.reserved:
            raise InvalidOption(f"extra_body cannot hold {key!r}: {wire.reserved[key]}")
        checked[key] = value
    return checked


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOption(f"{name} must be an int, not {value!r}")
    return value


def _positive(name: str, value: object) -> int:
    if (number := _integer(name, value)) < 1:
        raise InvalidOption(f"{name} must be 1 or more, not {value!r}")
    return number


def _temperature(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value) or value < 0:
        raise InvalidOption(f"{name} must be 0 or more and finite, not {value!r}")
    return value


def _strings(name: str, value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple):
        items = cast("list[object] | tuple[object, ...]", value)
        strings = [item for item in items if isinstance(item, str)]
        if len(strings) == len(items):
            return strings
    raise InvalidOption(f"{name} must be a str or a list of str, not {value!r}")


_NOT_FOR_THE_WIRE: Final = frozenset(
    # The messages already contain the system prompt; the other options concern only the client.
    {
        ModelOption.SYSTEM_PROMPT,
        ModelOption.STREAM,
        ModelOption.STREAM_TIMEOUT,
        ModelOption.THINK_TAGS,
    }
)

_Check: TypeAlias = Callable[[str, object], object]

_CHECKED: Final[Mapping[str, tuple[str, _Check]]] = {
    ModelOption.MAX_NEW_TOKENS: ("MAX_NEW_TOKENS", _positive),
    ModelOption.CONTEXT_WINDOW: ("CONTEXT_WINDOW", _positive),
    ModelOption.SEED: ("SEED", _integer),
    ModelOption.TEMPERATURE: ("TEMPERATURE", _temperature),
    ModelOption.STOP_SEQUENCES: ("STOP_SEQUENCES", _strings),
}


@attrs.define(eq=False)
class _ServerTraits:
    """What has been learned about a server; a backend shares it with its connected copies.

    Args:
        repeats: Whether the server repeats the prefix that it continues; ``None``: not known yet.
    """

    repeats: bool | None = None


class HttpBackend(Backend):
    """A model behind an HTTP server that streams its answers; a subclass implements the protocol.

    Args:
        model_id: The model's name, as the server knows it.
        address: The server's address.
        advice: Advice for frequent failures.
        client: The caller's client, to use instead of the backend's own; it is never closed.
        settings: Settings for the backend's own client.
        model_options: Default options of every request.

    Raises:
        InvalidOption: the client is no async one, or given with settings for another one.
    """

    path: ClassVar[str]
    """The path of generations below the address."""
    media_types: ClassVar[tuple[str, ...]]
    """Accepted media types of a streamed response."""
    splitter: ClassVar[type[Splitter]]
    """The class that cuts a response into the texts for :meth:`parse`."""
    ends_with_finish_reason: ClassVar[bool]
    """Whether the delta with the finish reason is the last one."""

    def __init__(
        self,
        model_id: str,
        address: Address,
        advice: Advice,
        client: AnyClient | None = None,
        settings: ClientSettings | None = None,
        model_options: ModelOptions | None = None,
    ) -> None:
        settings = settings or ClientSettings()
        if client is not None and (address.uds or not settings.are_usual):
            raise InvalidOption(
                "give either a client or what one of our own needs (verify, proxy, uds), not both"
            )
        if client is not None and not (
            hasattr(client, "build_request") and hasattr(client, "aclose")
        ):
            raise InvalidOption(f"client must be an httpx.AsyncClient, not {type(client).__name__}")
        self.model_id = model_id
        self.model_options: ModelOptions = merge_options(model_options)
        self.address: Address = address
        self._client = client
        self._settings = settings
        self.link: Link | None = None
        """The connection settings, while the backend is connected."""
        self._traits = _ServerTraits()
        self.failures: Failures = Failures(f"{self.provider} at {address}", advice, address.secrets)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_id!r}, {str(self.address)!r})"

    @abc.abstractmethod
    def payload(self, request: GenerationRequest) -> dict[str, object]:
        """The JSON object that asks for an answer."""

    @abc.abstractmethod
    def parse(self, text: str) -> Delta | None:
        """Parse a text of the response; ``None``: the protocol's end mark.

        Raises:
            BackendError: it is malformed, or reports an error.
        """

    def repeats(self, first: str, text: str) -> bool:
        """Whether a text at the end of a response has the whole answer once more.

        Args:
            first: The first text of the response with a part of the answer.
            text: The text, which has a part of the answer as well.
        """
        return False

    def adapts_to(self, payload: Mapping[str, object], error: BackendRejected) -> bool:
        """Whether a refusal shows that the server lacks a feature, and the request can be made without it.

        This is remembered by this backend and its connected copies, so that the next payload differs.
        """
        return False

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Self]:
        """A block within which requests share the connections."""
        from mellea_sc.backends.http.client import Link, new_transport

        try:
            url = self.address.at(self.path)
        except ValueError as error:
            raise self.failures.unusable(str(error)) from error
        async with new_transport(self.address, self._settings, self._client) as transport:
            connected = copy.copy(self)
            connected.link = Link(
                transport,
                url,
                # In no local variable: tools that show the variables of a traceback's frames would show the key.
                {
                    "accept": ", ".join(self.media_types),
                    # Not compressed: a compressor holds deltas back until it has a block of them.
                    "accept-encoding": "identity",
                    "content-type": "application/json",
                    **self.address.sent_headers(),
                },
                self._settings.timeout,
            )
            if self._client is None and (proxy := proxy_for(self.address, self._settings.proxy)):
                connected.failures = self.failures.through(str(proxy), proxy.secrets)
            yield connected

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        """Open a generation; see :meth:`Backend.open`."""
        if self.link is None:
            async with self.connected() as connected, connected.open(request) as deltas:
                yield deltas
            return
        from mellea_sc.backends.http.answer import ask

        echo = self._echo(request) if self.prefills else None
        payload = self.payload(request)
        while True:
            try:
                response = await ask(self.link, self, payload)
            except BackendRejected as error:
                changed = self.adapts_to(payload, error) and self.payload(request)
                # If the payload stays the same, the refused field comes from the caller, who has to change it.
                if not changed or changed == payload:
                    raise
                payload = changed
            else:
                break
        async with (
            aclosing(response),
            aclosing(response.deltas(echo, stream_timeout(request.options))) as deltas,
        ):
            yield deltas
        if echo is not None and echo.found is not None:
            self._traits.repeats = self._traits.repeats or echo.found

    def _echo(self, request: GenerationRequest) -> EchoFilter | None:
        """A filter for a repeated prefix, if the answer continues one.

        A server that has once not repeated the prefix is known not to do it. From then on, an answer that happens
        to begin like its prefix is not changed.
        """
        if self._traits.repeats is False or not request.messages:
            return None
        last = request.messages[-1]
        return (
            EchoFilter(last.content) if last.role == "assistant" and last.content.strip() else None
        )

    async def get(self, path: str) -> dict[str, Json] | list[Json]:
        """The JSON object or array at another path of the server.

        Raises:
            BackendError: there is none.
        """
        from mellea_sc.backends.http.answer import ask

        if self.link is None:
            async with self.connected() as connected:
                return await connected.get(path)
        link = attrs.evolve(self.link, url=self.address.at(path))
        async with aclosing(await ask(link, self, None)) as response:
            text = await response.whole()
        answer = value_or_text(text)
        if not isinstance(answer, dict | list):
            raise self.failures.malformed(text)
        return cast("dict[str, Json] | list[Json]", answer)
