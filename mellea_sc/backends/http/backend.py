"""What the HTTP backends share: one client for a block, one streamed response for a generation.

A subclass knows its protocol: what a request holds, and what a piece of the response says.
"""

from __future__ import annotations

import abc
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

from mellea_sc.backends.http.address import Address
from mellea_sc.backends.http.ending import LINGER, Ending
from mellea_sc.backends.http.failures import Advice, Failures
from mellea_sc.backends.http.lines import Splitter
from mellea_sc.backends.http.surrogates import HalfCharacters
from mellea_sc.core.backend import Backend, Delta, GenerationRequest
from mellea_sc.core.errors import BackendProtocolError, InvalidOption, MelleaError
from mellea_sc.core.model_options import stream_timeout

if TYPE_CHECKING:
    from typing import Self

    from mellea_sc.backends.http.client import AnyClient
    from mellea_sc.backends.http.response import Response

__all__ = ["HttpBackend"]


class HttpBackend(Backend):
    """A model behind an HTTP server that streams its answers; a subclass knows the protocol.

    Args:
        model_id: The model's name, as the server knows it.
        address: Where the server is.
        advice: What to do about the failures that people meet most.
        client: The client to use instead of one of our own; it is never closed.
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
    ) -> None:
        self.model_id = model_id
        self._address = address
        self._client = client
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

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Self]:
        """A block within which requests share one pool of connections."""
        if self._client is not None:
            yield self
            return
        from mellea_sc.backends.http.client import new_client

        async with new_client(self._address) as client:
            connected = copy.copy(self)
            connected._client = client
            yield connected

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        """Open a generation; see :meth:`Backend.open`."""
        if self._client is None:
            async with self.connected() as connected, connected.open(request) as deltas:
                yield deltas
            return
        from mellea_sc.backends.http.exchange import respond

        content = self._content(request)
        async with (
            respond(
                self._client, self._address, self.path, content, self.media_types, self._failures
            ) as response,
            aclosing(self._deltas(response, stream_timeout(request.options))) as deltas,
        ):
            yield deltas

    def _content(self, request: GenerationRequest) -> bytes:
        try:
            return json.dumps(self.payload(request), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            if isinstance(error, InvalidOption):
                raise
            raise InvalidOption(
                f"a model option or the schema cannot be sent as JSON: {error}"
            ) from None

    async def _deltas(self, response: Response, patience: float) -> AsyncGenerator[Delta]:
        """What the response says, until the answer is whole; see :mod:`~mellea_sc.backends.http.ending`.

        Args:
            response: Where it comes from.
            patience: Seconds that whoever reads the deltas waits for each of them.
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
                    delta.text = halves.join(delta.text)
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
        text, reasoning = halves.end(), halves_of_thoughts.end()
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
