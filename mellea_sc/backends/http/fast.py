"""The same connections, made and read by aiohttp: less work for each delta, under asyncio only.

Imports aiohttp, which the extra `fast` installs.
"""

from __future__ import annotations

import io
import ssl
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Final

import aiohttp
import anyio.lowlevel
import httpx
import yarl
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

__all__ = ["AiohttpTransport"]

LARGE: Final = 1024 * 1024
"""Bytes of a request from which on aiohttp wants a file to read from."""

_ERRORS: Final = (aiohttp.ClientError, HttpProcessingError, OSError)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Speaks to one server, without a proxy, under asyncio and its kin.

    aiohttp does here what httpx asks for and no more: no cookies, no redirects, no decompression, nothing
    from the environment, no limit of connections. It reads no further than a bounded buffer.

    Args:
        tls: For ``https``.
        uds: Path of the unix socket to go through instead of TCP.
        keep_for: Seconds for which a connection is kept for the next request.
    """

    def __init__(self, tls: ssl.SSLContext, uds: str | None, keep_for: float) -> None:
        self._tls = tls
        self._uds = uds
        self._keep_for = keep_for
        self._session = self._new_session(keeps=True)
        self._renewing: aiohttp.ClientSession | None = None
        self._kept: set[ResponseHandler] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and wait for the head of the response.

        Servers drop idle connections whenever they want to. Where a kept one dies before a byte of an answer
        has come, nothing was answered: the request is sent once more, on a new connection.

        Raises:
            httpx.TransportError: no connection, or it broke, or what came is not HTTP.

        Cancellation: the connection is closed.
        """
        note = _Note()
        await self._close_the_spoilt()
        try:
            return await self._ask(self._session, request, note)
        except _ERRORS as error:
            if not (note.is_kept and _is_unanswered(error)):
                raise _translated(error) from error
        if self._renewing is None:
            self._renewing = self._new_session(keeps=False)
        try:
            return await self._ask(self._renewing, request, _Note())
        except _ERRORS as error:
            raise _translated(error) from error

    async def _ask(
        self, session: aiohttp.ClientSession, request: httpx.Request, note: _Note
    ) -> httpx.Response:
        content = request.content
        response = await session.request(
            request.method,
            yarl.URL(str(request.url), encoded=True),
            headers=request.headers.multi_items(),
            data=_file_of(content),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                sock_connect=request.extensions.get("timeout", {}).get("connect")
            ),
            trace_request_ctx=note,
        )
        return httpx.Response(
            response.status, headers=response.raw_headers, stream=_Body(response, self._kept)
        )

    async def _close_the_spoilt(self) -> None:
        """Close kept connections on which more came than an answer: aiohttp would take it for the next one."""
        # What has arrived on them is read in the loop's next turn.
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        for protocol in list(self._kept):
            if protocol.should_close or not protocol.is_connected():
                self._kept.discard(protocol)
                protocol.close()

    def _new_session(self, *, keeps: bool) -> aiohttp.ClientSession:
        connector: aiohttp.BaseConnector
        keep = self._keep_for if keeps else None
        if self._uds is not None:
            connector = aiohttp.UnixConnector(
                self._uds, limit=0, keepalive_timeout=keep, force_close=not keeps
            )
        else:
            connector = aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=keep,
                force_close=not keeps,
                ssl=self._tls,
                resolver=aiohttp.ThreadedResolver(),
                use_dns_cache=False,
            )
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_kept)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            trace_configs=[trace],
        )

    async def aclose(self) -> None:
        """Close the connections that are kept; those in use are closed by who uses them."""
        await self._session.close()
        if self._renewing is not None:
            await self._renewing.close()


class _Note:
    """What is known of a request."""

    def __init__(self) -> None:
        self.is_kept: bool = False
        """Whether it went out on a connection that was there before."""


async def _note_kept(  # noqa: ASYNC124 - aiohttp wants it so
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _params: aiohttp.TraceConnectionReuseconnParams,
) -> None:
    context.trace_request_ctx.is_kept = True


class _Body(httpx.AsyncByteStream):
    """The body of a response, in the pieces in which it comes."""

    def __init__(self, response: aiohttp.ClientResponse, kept: set[ResponseHandler]) -> None:
        self._response = response
        self._content = response.content
        self._kept = kept
        # Where all has come with the head, aiohttp has let go of the connection, and more may come on it.
        connection = response.connection
        self._protocol: ResponseHandler | None = (
            getattr(response.content, "_protocol", None)
            if connection is None
            else connection.protocol
        )
        if self._protocol is not None:
            kept.discard(self._protocol)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._content.readany()
        except _ERRORS as error:
            raise _translated(error) from error
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        self._response.close()  # has let go of the connection when all was read
        protocol, self._protocol = self._protocol, None
        if protocol is not None and protocol.is_connected():
            if protocol.should_close:
                protocol.close()
            else:
                self._kept.add(protocol)


def _file_of(content: bytes) -> bytes | io.BytesIO | None:
    """A request's content as aiohttp wants it."""
    if len(content) >= LARGE:
        return io.BytesIO(content)
    return content or None


def _is_unanswered(error: Exception) -> bool:
    """Whether a connection that broke did so before a byte of an answer came."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return not isinstance(error.message, aiohttp.http.RawResponseMessage)
    return isinstance(error, aiohttp.ClientOSError) and not isinstance(
        error, aiohttp.ClientConnectorError
    )


def _translated(error: Exception) -> httpx.TransportError:
    """Aiohttp's error as one of httpx's."""
    words = str(error) or type(error).__name__
    match error:
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout(words)
        case aiohttp.ClientConnectorError() | aiohttp.ClientConnectorCertificateError():
            return httpx.ConnectError(words)
        case aiohttp.ServerDisconnectedError():
            return httpx.RemoteProtocolError("the server disconnected without a whole answer")
        case aiohttp.InvalidURL():
            return httpx.UnsupportedProtocol(words)
        case HttpProcessingError() | aiohttp.ClientResponseError():
            return httpx.RemoteProtocolError(words)
        case _:
            return httpx.ReadError(words)
