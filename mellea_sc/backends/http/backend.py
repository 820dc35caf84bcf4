"""What the HTTP backends share: one client for a block, one streamed response for a generation.

A subclass knows its protocol: what a request holds, and what a piece of the response says.
"""

from __future__ import annotations

import abc
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import attrs

from mellea_sc.backends.http.address import Address
from mellea_sc.backends.http.environment import ClientSettings, proxy_for
from mellea_sc.backends.http.failures import Advice, Failures
from mellea_sc.backends.http.json_values import Json, parse_object
from mellea_sc.backends.http.lines import Splitter
from mellea_sc.core.answer_prefix import EchoFilter
from mellea_sc.core.backend import Backend, Delta, GenerationRequest
from mellea_sc.core.errors import BackendRejected, InvalidOption
from mellea_sc.core.model_options import ModelOptions, merge_options, stream_timeout

if TYPE_CHECKING:
    from typing import Self

    from mellea_sc.backends.http.client import AnyClient
    from mellea_sc.backends.http.exchange import Response
    from mellea_sc.backends.http.link import Link

__all__ = ["HttpBackend", "messages_in"]


def messages_in(request: GenerationRequest) -> list[dict[str, object]]:
    """The conversation of a request, as both protocols have it; the caller's to change."""
    return [{"role": message.role, "content": message.content} for message in request.messages]


@attrs.define(eq=False)
class _ServerTraits:
    """What was found out about a server; a backend shares it with its connected copies.

    Args:
        repeats: Whether the server repeats the beginning that it is to go on from.
    """

    repeats: bool | None = None


class HttpBackend(Backend):
    """A model behind an HTTP server that streams its answers; a subclass knows the protocol.

    Args:
        model_id: The model's name, as the server knows it.
        address: Where the server is.
        advice: What to do about the failures that people meet most.
        client: The client to use instead of one of our own; it is never closed.
        settings: How a client of our own connects.
        model_options: What every request starts from.

    Raises:
        InvalidOption: there is a client, and settings for one.
    """

    path: ClassVar[str]
    """Of generations, under the address."""
    media_types: ClassVar[tuple[str, ...]]
    """What a stream may be labelled as."""
    splitter: ClassVar[type[Splitter]]
    """What cuts a response into the texts that :meth:`parse` reads."""
    ends_with_finish_reason: ClassVar[bool]
    """Whether nothing follows the delta that says why the model stopped."""

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
        self.model_id = model_id
        self.model_options: ModelOptions = merge_options(model_options)
        self.address: Address = address
        self._client = client
        self._settings = settings
        self.link: Link | None = None
        """The way to the server, where the backend is connected."""
        self._traits = _ServerTraits()
        self.failures: Failures = Failures(f"{self.provider} at {address}", advice, address.secrets)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_id!r}, {str(self.address)!r})"

    @abc.abstractmethod
    def payload(self, request: GenerationRequest) -> dict[str, object]:
        """The JSON object that asks for an answer."""

    @abc.abstractmethod
    def parse(self, text: str) -> Delta | None:
        """What a text of the response says; ``None``: that it was the last one.

        Raises:
            BackendError: it is malformed, or reports an error.
        """

    def adapts_to(self, payload: Mapping[str, object], error: BackendRejected) -> bool:
        """Whether a refusal tells of what the server does not know, so that the request can be made otherwise.

        What it tells is remembered by this backend and its connected copies: the next payload is another.
        """
        return False

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Self]:
        """A block within which requests share the connections."""
        from mellea_sc.backends.http.client import new_transport
        from mellea_sc.backends.http.link import Link

        try:
            url = self.address.at(self.path)
        except ValueError as error:
            raise self.failures.unusable(str(error)) from error
        async with new_transport(self.address, self._settings, self._client) as transport:
            connected = copy.copy(self)
            connected.link = Link(
                transport,
                url,
                # In no variable: what shows the variables of a traceback's frames would show the key.
                {
                    "accept": ", ".join(self.media_types),
                    # A compressor would hold deltas back until it has a block of them.
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
        from mellea_sc.backends.http.answer import Answer

        echo = self._echo(request) if self.prefills else None
        async with aclosing(await self._respond(self.link, request)) as response:
            answer = Answer(self, response, echo, stream_timeout(request.options))
            async with aclosing(answer.deltas()) as deltas:
                yield deltas
        if echo is not None and echo.found is not None:
            self._traits.repeats = self._traits.repeats or echo.found

    def _echo(self, request: GenerationRequest) -> EchoFilter | None:
        """What takes the beginning out of an answer that was to go on from it.

        A server that once has not repeated it is known not to: a text that happens to begin so again is left alone.
        """
        if self._traits.repeats is False or not request.messages:
            return None
        last = request.messages[-1]
        return (
            EchoFilter(last.content) if last.role == "assistant" and last.content.strip() else None
        )

    async def _respond(self, link: Link, request: GenerationRequest) -> Response:
        """The response, once the server has been asked in a way that it understands."""
        from mellea_sc.backends.http.exchange import ask

        while True:
            payload = self.payload(request)
            try:
                content = json.dumps(payload, allow_nan=False).encode()
            except (TypeError, ValueError, RecursionError) as error:
                raise InvalidOption(
                    f"a model option or the schema cannot be sent as JSON: {error}"
                ) from None
            try:
                return await ask(link, self.failures, content)
            except BackendRejected as error:
                # What the caller has put there stays there, and is for the caller to change.
                if not self.adapts_to(payload, error) or self.payload(request) == payload:
                    raise

    async def get(self, path: str) -> dict[str, Json]:
        """The JSON object at another path of the server.

        Raises:
            BackendError: there is none.
        """
        from mellea_sc.backends.http.exchange import ask

        if self.link is None:
            async with self.connected() as connected:
                return await connected.get(path)
        link = attrs.evolve(self.link, url=self.address.at(path))
        async with aclosing(await ask(link, self.failures, None)) as response:
            text = await response.whole()
        answer = parse_object(text)
        if answer is None:
            raise self.failures.malformed(text)
        return answer
