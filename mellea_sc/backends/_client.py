"""All that is known of the HTTP client: how it is made, how a request goes out, how it fails.

Imports httpx; is itself imported when the first request is made.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, cast

import anyio
import anyio.lowlevel
import httpx

from mellea_sc.backends._address import Address
from mellea_sc.backends._failures import Failures
from mellea_sc.core.errors import InvalidOption, MelleaError, MissingExtra

if TYPE_CHECKING:
    import httpcore

__all__ = ["Response", "new_client", "respond"]

CONNECT_TIMEOUT: Final = 10.0
"""Seconds to wait for a connection. What comes after it is bounded by whoever waits for deltas."""
CLOSE_TIMEOUT: Final = 5.0
"""Seconds that closing a response may take."""
LINGER: Final = 0.1
"""Seconds to wait, after the last delta, for the response's end: its connection can then be used again."""
BODY_TIMEOUT: Final = 5.0
"""Seconds to wait for the body of an error."""
BODY_LIMIT: Final = 64 * 1024
"""Bytes of the body of an error that are read."""

_ERRORS: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
)
"""All that the client, and the sockets below it, raise."""


def new_client(address: Address) -> httpx.AsyncClient:
    """A client for a server; it is to be entered and left.

    Raises:
        InvalidOption: the environment names a proxy that is no URL.
        MissingExtra: the environment names a proxy of a kind that needs another package.
    """
    try:
        return httpx.AsyncClient(
            transport=None if address.uds is None else httpx.AsyncHTTPTransport(uds=address.uds),
            # Reading the system's certificates takes tens of milliseconds, in vain without TLS.
            verify=True if address.is_encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=not address.is_local,
            # Idle connections go before usual servers drop them (after 5 s): a request that is sent
            # on a connection while it is being dropped would fail.
            limits=httpx.Limits(max_connections=None, keepalive_expiry=2.0),
        )
    except ImportError as error:
        raise MissingExtra(
            f"the proxy that the environment names needs a package: {error}"
        ) from error
    except ValueError:
        # Neither quoted nor chained: a proxy's URL may hold a password.
        raise InvalidOption("the proxy that the environment names has no valid URL") from None


@asynccontextmanager
async def respond(
    client: httpx.AsyncClient,
    address: Address,
    path: str,
    content: bytes,
    media_types: tuple[str, ...],
    failures: Failures,
) -> AsyncGenerator[Response]:
    """Send a request and wait for the head of the response to it, which is a stream.

    Raises:
        BackendError: no connection, an error status, or something else than a stream.
    """
    headers = {
        "accept": ", ".join(media_types),
        # A compressor would hold deltas back until it has a block of them.
        "accept-encoding": "identity",
        "content-type": "application/json",
    }
    if address.authorization is not None:
        headers["authorization"] = address.authorization.value
    opening = _Opening()
    try:
        request = client.build_request(
            "POST",
            f"{address.url}{path}",
            content=content,
            headers=headers,
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
            extensions={"trace": opening},
        )
        request.stream = _Content(content)
        response = Response(await client.send(request, stream=True), failures)
    except _ERRORS as error:
        raise _translated(error, failures) from error
    except BaseException:
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await opening.abandon()
        raise
    try:
        await response.check(media_types)
        yield response
    finally:
        await response.aclose()


class Response:
    """The response to one request: its bytes as they arrive, and a close that no peer can hold up.

    Args:
        response: The client's, with its body unread.
        failures: Makes the errors.
    """

    __slots__ = ("_chunks", "_failures", "_response", "is_finished")

    def __init__(self, response: httpx.Response, failures: Failures) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._response = response
        # Not through the client's decoders: a generator that fails in between would leave those
        # inside it to the garbage collector.
        self._chunks = aiter(response.stream)
        self._failures = failures
        self.is_finished = False
        """Set when the protocol has said all: what still comes, or fails, is of no interest."""

    async def check(self, media_types: tuple[str, ...]) -> None:
        """Make sure that it is a success, and a stream of one of these types.

        Raises:
            BackendError: it is not.
        """
        headers: Mapping[str, str] = self._response.headers
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if not self._response.is_success:
            status = self._response.status_code
            raise self._failures.status(status, headers, await self._beginning())
        if self._is_compressed:
            raise self._failures.not_http("it compresses what was asked for uncompressed")
        if media_type not in media_types:
            raise self._failures.not_a_stream(media_type, media_types[0], await self._beginning())

    async def read(self) -> bytes:
        """The next bytes as soon as there are any; empty at the end.

        Raises:
            BackendError: the connection was lost, or what came is not HTTP.
        """
        try:
            return await anext(self._chunks, b"")
        except _ERRORS as error:
            if self.is_finished:
                return b""
            raise _translated(error, self._failures) from error

    @property
    def _is_compressed(self) -> bool:
        encoding: str = self._response.headers.get("content-encoding", "identity")
        return encoding.strip().lower() not in ("identity", "")

    async def _beginning(self) -> str:
        """The beginning of the body, or what of it arrives within a bounded time."""
        if self._is_compressed:
            return ""
        data = bytearray()
        with anyio.move_on_after(BODY_TIMEOUT):
            try:
                while len(data) < BODY_LIMIT and (more := await self.read()):
                    data += more
            except MelleaError:
                pass  # what was read is what there is to say
        return data[:BODY_LIMIT].decode(errors="replace")

    async def aclose(self) -> None:
        """Close the response; its connection goes back to the pool if the body was read to its end.

        Cancellation: shielded, and bounded in time.
        """
        try:
            if self.is_finished:
                with anyio.move_on_after(LINGER):
                    while await self.read():
                        pass
        finally:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                try:
                    await self._response.aclose()
                    # The client reads through a chain of generators, and closing does not reach
                    # those inside. They must not be left to the garbage collector: one more read,
                    # which the closed connection refuses, ends them all.
                    while await anext(self._chunks, b""):
                        pass
                except _ERRORS:
                    pass


class _Content(httpx.AsyncByteStream):
    """The body of a request, in one piece.

    The client's own is an async generator, and is left to the garbage collector when sending it
    is cancelled.
    """

    def __init__(self, content: bytes) -> None:
        self._pieces = [content]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop()


class _Opening:
    """Watches over a new connection until a request goes out on it.

    A cancellation that comes between the two, or within the TLS handshake, makes the client forget
    the connection without closing it.
    """

    def __init__(self) -> None:
        self._stream: httpcore.AsyncNetworkStream | None = None

    async def __call__(self, event: str, info: Mapping[str, object]) -> None:
        """Take note of a step of the client's (its trace extension)."""
        if event.endswith(("connect_tcp.complete", "connect_unix_socket.complete")):
            self._stream = cast("httpcore.AsyncNetworkStream", info["return_value"])
        elif not event.endswith("start_tls.complete"):
            return
        # Here, the client still counts it as a failure to connect; a step later, it would not.
        await anyio.lowlevel.checkpoint_if_cancelled()

    async def abandon(self) -> None:
        """Close what was opened."""
        if self._stream is not None:
            await self._stream.aclose()


def _translated(error: Exception, failures: Failures) -> MelleaError:
    reason = _os_reason(error) or str(error) or type(error).__name__
    match error:
        case httpx.InvalidURL() | httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            return failures.unusable(reason)
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
            return failures.unreachable(reason)
        case httpx.RemoteProtocolError() if not _is_disconnect(reason):
            return failures.not_http(reason)
        case _:
            return failures.interrupted(reason)


def _is_disconnect(reason: str) -> bool:
    # One exception class stands for a peer that went away and for one that talks nonsense.
    return "disconnected" in reason or "closed connection" in reason


def _os_reason(error: BaseException | None) -> str | None:
    """What the operating system said, where that is what began the chain of errors."""
    while error is not None:
        if isinstance(error, ssl.SSLError | socket.gaierror) and error.strerror:
            return error.strerror  # their numbers are their own
        if isinstance(error, OSError) and error.errno:
            return os.strerror(error.errno)
        if isinstance(error, BaseExceptionGroup):  # one error per address that was tried
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        else:
            error = error.__cause__ or error.__context__
    return None
