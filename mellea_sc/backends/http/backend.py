"""What the HTTP backends share: one client for a block, one streamed response for a generation.

A subclass knows its protocol: what a request holds, and what a piece of the response says.
"""

from __future__ import annotations

import abc
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import attrs

from mellea_sc.backends.http.address import Address
from mellea_sc.backends.http.ending import LINGER, Ending
from mellea_sc.backends.http.environment import ClientSettings, proxy_for
from mellea_sc.backends.http.failures import Advice, Failures
from mellea_sc.backends.http.lines import Splitter
from mellea_sc.backends.http.surrogates import HalfCharacters
from mellea_sc.core.backend import Backend, Delta, GenerationRequest
from mellea_sc.core.beginnings import Echo
from mellea_sc.core.errors import (
    BackendProtocolError,
    BackendRejected,
    InvalidOption,
    MelleaError,
)
from mellea_sc.core.model_options import ModelOptions, merge_options, stream_timeout

if TYPE_CHECKING:
    from typing import Self

    from mellea_sc.backends.http.client import AnyClient
    from mellea_sc.backends.http.response import Response

__all__ = ["HttpBackend", "messages_in"]


def messages_in(request: GenerationRequest) -> list[dict[str, object]]:
    """The conversation of a request, as both protocols have it; the caller's to change."""
    return [{"role": message.role, "content": message.content} for message in request.messages]


@attrs.define(eq=False)
class _Habits:
    """What was found out of a server; its connected copies share it.

    Args:
        repeats: Whether it repeats the beginning that it is to go on from.
    """

    repeats: bool | None = None

    def heard(self, echo: Echo) -> None:
        """Learn from an answer that has ended."""
        if echo.was_listening and echo.was_heard is not None:
            self.repeats = self.repeats or echo.was_heard


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
        self._address = address
        self._client = client
        self._settings = settings
        self._habits = _Habits()
        self._failures = Failures(f"{self.provider} at {address}", advice, address.secrets)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_id!r}, {str(self._address)!r})"

    @abc.abstractmethod
    def payload(self, request: GenerationRequest) -> dict[str, object]:
        """The JSON object that asks for an answer."""

    @abc.abstractmethod
    def splitter(self) -> Splitter:
        """What cuts a response into the texts that :meth:`parse` reads."""

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
        """A block within which requests share one pool of connections."""
        if self._client is not None:
            yield self
            return
        from mellea_sc.backends.http.client import new_client

        async with new_client(self._address, self._settings) as client:
            connected = copy.copy(self)
            connected._client = client
            if (proxy := proxy_for(self._address, self._settings.proxy)) is not None:
                connected._failures = self._failures.through(str(proxy), proxy.secrets)
            yield connected

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        """Open a generation; see :meth:`Backend.open`."""
        if self._client is None:
            async with self.connected() as connected, connected.open(request) as deltas:
                yield deltas
            return
        async with AsyncExitStack() as stack:
            response = await self._respond(request, stack)
            deltas = self._deltas(response, stream_timeout(request.options), self._echo(request))
            yield await stack.enter_async_context(aclosing(deltas))

    def _echo(self, request: GenerationRequest) -> Echo:
        """What takes the beginning out of an answer that was to go on from it.

        A server that once has not repeated it is known not to: a text that happens to begin so again is left alone.
        """
        last = request.messages[-1] if request.messages else None
        goes_on = self.prefills and last is not None and last.role == "assistant"
        return Echo(last.content if last and goes_on and self._habits.repeats is not False else "")

    async def _respond(self, request: GenerationRequest, stack: AsyncExitStack) -> Response:
        """The response, once the server has been asked in a way that it understands."""
        from mellea_sc.backends.http.exchange import respond

        assert self._client is not None
        while True:
            payload, content = self._content(request)
            try:
                return await stack.enter_async_context(
                    respond(
                        self._client,
                        self._address,
                        self.path,
                        content,
                        self.media_types,
                        self._failures,
                        self._settings.timeout,
                    )
                )
            except BackendRejected as error:
                # What the caller has put there stays there, and is for the caller to change.
                if not self.adapts_to(payload, error) or self.payload(request) == payload:
                    raise

    def _content(self, request: GenerationRequest) -> tuple[dict[str, object], bytes]:
        try:
            payload = self.payload(request)
            return payload, json.dumps(payload, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            if isinstance(error, InvalidOption):
                raise
            raise InvalidOption(
                f"a model option or the schema cannot be sent as JSON: {error}"
            ) from None

    async def _deltas(
        self, response: Response, patience: float, echo: Echo
    ) -> AsyncGenerator[Delta]:
        """What the response says, until the answer is whole; see :mod:`~mellea_sc.backends.http.ending`.

        Args:
            response: Where it comes from.
            patience: Seconds that whoever reads the deltas waits for each of them.
            echo: Takes out of it what the answer was to go on from.
        """
        splitter, ending = self.splitter(), Ending()
        halves, halves_of_thoughts = HalfCharacters(), HalfCharacters()
        refused: BackendProtocolError | None = None
        words, ended = "", False
        while not ended:
            data = await response.read()
            ended = not data
            for text in splitter.close() if ended else splitter.feed(data):
                try:
                    delta = self.parse(text)
                except BackendProtocolError as error:
                    if not ended and ending.grace is None:
                        raise await self._refusal(response, text, ending, error) from None
                    refused, words = error, text  # cut in the middle, or not a part of the answer
                    continue
                if delta is None:
                    if not ending.has_begun:
                        raise self._failures.interrupted("it ended without an answer")
                    ending.end()
                else:
                    if refused is not None and (delta.text or delta.tool_calls):
                        raise refused  # it was a part of the answer
                    ending.take(delta)
                    delta.text = echo.feed(halves.join(delta.text))
                    if delta.reasoning:
                        delta.reasoning = halves_of_thoughts.join(delta.reasoning)
                    yield delta
                    if delta.finish_reason is not None and self.ends_with_finish_reason:
                        ending.end()
                if ending.grace is not None:
                    response.finish(min(ending.grace, patience / 2))
                    if ending.grace == LINGER:
                        ended = True
                        break
                elif response.is_finished:
                    response.go_on()
        if not ending.is_whole or (response.lost is not None and ending.grace is None):
            raise self._unfinished(response, ending, splitter.unread or words)
        text, reasoning = echo.feed(halves.end()) + echo.end(), halves_of_thoughts.end()
        self._habits.heard(echo)
        if text or reasoning:
            yield Delta(text, reasoning=reasoning)

    async def _refusal(
        self, response: Response, text: str, ending: Ending, error: BackendProtocolError
    ) -> BackendProtocolError:
        """The error for a text that is no part of an answer."""
        if ending.has_begun or response.media_type in self.media_types:
            return error
        body = await response.beginning(text)
        return self._failures.not_a_stream(response.media_type, self.media_types[0], body)

    def _unfinished(self, response: Response, ending: Ending, words: str) -> MelleaError:
        """The error for a response that has ended before its answer, perhaps with words that are no part of one."""
        if words.lstrip().startswith(("{", "[", "data:")):
            words = ""  # half a delta
        if words and not ending.has_begun:
            if response.media_type in self.media_types:
                return self._failures.malformed(words)
            return self._failures.not_a_stream(response.media_type, self.media_types[0], words)
        if response.lost is not None:
            return response.lost
        more = f", and with {words!r}" if words else ""
        return self._failures.interrupted(f"it ended before its last delta{more}")
