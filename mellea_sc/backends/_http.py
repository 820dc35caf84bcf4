"""What the HTTP backends share: one client for a block, one streamed response for a generation.

Every failure of the client and of the sockets below it is translated here, and nowhere else. A
response is closed shielded and within a bounded time, whatever its peer does.
"""

from __future__ import annotations

import abc
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, ClassVar, Final

from mellea_sc.backends._address import Address
from mellea_sc.backends._failures import Advice, Failures
from mellea_sc.backends._lines import Splitter
from mellea_sc.backends._response import Response, transport_errors
from mellea_sc.core.backend import Backend, Delta, GenerationRequest
from mellea_sc.core.errors import (
    BackendProtocolError,
    InvalidOption,
    MissingExtra,
)

if TYPE_CHECKING:
    from typing import Self

    import httpx

__all__ = ["HttpBackend"]

CONNECT_TIMEOUT: Final = 10.0
"""Seconds to wait for a connection. What comes after it is bounded by whoever waits for deltas."""


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
        client: httpx.AsyncClient | None = None,
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
        async with self._new_client() as client:
            connected = copy.copy(self)
            connected._client = client
            yield connected

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        """Open a generation; see :meth:`Backend.open`."""
        content = self._content(request)
        async with AsyncExitStack() as stack:
            client = self._client
            if client is None:
                client = await stack.enter_async_context(self._new_client())
            response = await stack.enter_async_context(self._respond(client, content))
            yield await stack.enter_async_context(aclosing(self._deltas(response)))

    def _content(self, request: GenerationRequest) -> bytes:
        try:
            return json.dumps(self.payload(request), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            if isinstance(error, InvalidOption):
                raise
            raise InvalidOption(
                f"a model option or the schema cannot be sent as JSON: {error}"
            ) from None

    def _new_client(self) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        import ssl

        import httpx

        try:
            return httpx.AsyncClient(
                transport=None
                if self._address.uds is None
                else httpx.AsyncHTTPTransport(uds=self._address.uds),
                # Reading the system's certificates takes tens of milliseconds, in vain without TLS.
                verify=True
                if self._address.is_encrypted
                else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                trust_env=not self._address.is_local,
                # Idle connections go before usual servers drop them (5 s): a request that is sent
                # on a connection that is just being dropped would fail.
                limits=httpx.Limits(max_connections=None, keepalive_expiry=2.0),
            )
        except ImportError as error:
            raise MissingExtra(
                f"a proxy set in the environment needs a package: {error}"
            ) from error
        except ValueError as error:
            raise InvalidOption("a proxy set in the environment has no valid URL") from error

    @asynccontextmanager
    async def _respond(self, client: httpx.AsyncClient, content: bytes) -> AsyncGenerator[Response]:
        import httpx

        headers = {
            "accept": ", ".join(self.media_types),
            # A compressor holds deltas back until it has a block.
            "accept-encoding": "identity",
            "content-type": "application/json",
        }
        if self._address.authorization is not None:
            headers["authorization"] = self._address.authorization.value
        try:
            request = client.build_request(
                "POST",
                f"{self._address.url}{self.path}",
                content=content,
                headers=headers,
                timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
            )
            response = Response(await client.send(request, stream=True), self._failures)
        except transport_errors() as error:
            raise self._failures.transport(error) from error
        try:
            await self._check(response)
            yield response
        finally:
            await response.aclose()

    async def _check(self, response: Response) -> None:
        if not response.is_success:
            raise self._failures.status(
                response.status, response.headers, await response.beginning()
            )
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in self.media_types:
            raise self._failures.not_a_stream(
                media_type, self.media_types[0], await response.beginning()
            )

    async def _deltas(self, response: Response) -> AsyncGenerator[Delta]:
        splitter = self.splitter()
        data = b" "
        while data:
            data = await response.read()
            for text in splitter.feed(data) if data else splitter.close():
                if not text:
                    continue
                try:
                    delta = self.parse(text)
                except BackendProtocolError:
                    if data:
                        raise
                    break  # half a text, where the response ended
                if delta is None:
                    response.is_finished = True
                    return
                yield delta
                if delta.finish_reason is not None:
                    response.is_finished = True
                    if self.ends_with_finish_reason:
                        return
        if not response.is_finished:
            raise self._failures.interrupted("it ended before its last delta")
