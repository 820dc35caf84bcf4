"""The connections of a client: made, kept for the next request, and renewed when a kept one is dead."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import AsyncIterator

import anyio
import httpx

from mellea_sc.backends.http.connection import Connection, connect

__all__ = ["DirectTransport"]


class DirectTransport(httpx.AsyncBaseTransport):
    """Speaks to one server, without a proxy, under any event loop.

    A request costs the same however many others are under way. The last connection that became free is
    the first to be used again.

    Args:
        tls: For ``https``.
        uds: Path of the unix socket to go through instead of TCP.
        keep_for: Seconds for which a connection is kept for the next request.
    """

    def __init__(self, tls: ssl.SSLContext, uds: str | None, keep_for: float) -> None:
        self._tls = tls
        self._uds = uds
        self._keep_for = keep_for
        self._kept: deque[Connection] = deque()
        self._is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and wait for the head of the response.

        Servers drop idle connections whenever they want to. Where a kept one dies before a byte of an answer
        has come, nothing was answered: the request is sent once more, on a new connection.

        Raises:
            httpx.TransportError: no connection, or it broke, or what came is not HTTP.

        Cancellation: the connection is closed.
        """
        kept = await self._next_kept()
        if kept is not None:
            try:
                return await self._ask(kept, request)
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                if kept.has_answered:
                    raise
        seconds = request.extensions.get("timeout", {}).get("connect")
        connection = await connect(request.url, self._tls, self._uds, seconds)
        return await self._ask(connection, request)

    async def _ask(self, connection: Connection, request: httpx.Request) -> httpx.Response:
        try:
            head = await connection.ask(request)
        except BaseException:
            await connection.aclose()
            raise
        return httpx.Response(
            head.status_code, headers=head.headers.raw_items(), stream=_Body(connection, self)
        )

    async def _next_kept(self) -> Connection | None:
        now = anyio.current_time()
        while self._kept and self._kept[0].expires_at <= now:
            await self._kept.popleft().aclose()
        while self._kept:
            connection = self._kept.pop()
            if connection.is_silent():
                return connection
            await connection.aclose()
        return None

    async def release(self, connection: Connection) -> None:
        """Keep a connection whose answer was read, if it can be used again."""
        if self._is_closed or not connection.start_anew():
            await connection.aclose()
        else:
            connection.expires_at = anyio.current_time() + self._keep_for
            self._kept.append(connection)

    async def aclose(self) -> None:
        """Close the connections that are kept; those in use are closed by who uses them."""
        self._is_closed = True
        while self._kept:
            await self._kept.pop().aclose()


class _Body(httpx.AsyncByteStream):
    """The body of a response, in the pieces in which it comes."""

    def __init__(self, connection: Connection, transport: DirectTransport) -> None:
        self._connection: Connection | None = connection
        self._transport = transport

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._connection is None or not (data := await self._connection.read()):
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await self._transport.release(connection)
