"""The library's own transport: makes connections, keeps them for later requests, and replaces broken ones."""

from __future__ import annotations

import ssl
from collections import deque
from functools import partial

import anyio

from mellea_sc.backends.http.connection import Connection, connect
from mellea_sc.backends.http.link import Link, Reply
from mellea_sc.backends.http.translation import ReadError, RemoteProtocolError, WriteError

__all__ = ["DirectTransport"]


class DirectTransport:
    """A transport to one server, without a proxy, under any event loop.

    The cost of a request does not depend on the number of other requests. The connection that was released last is
    reused first.

    Args:
        tls: The TLS context for ``https``.
        uds: The path of a unix socket to connect to instead of TCP.
        keep_for: Seconds for which an idle connection is kept for the next request.
    """

    def __init__(self, tls: ssl.SSLContext, uds: str | None, keep_for: float) -> None:
        self._tls = tls
        self._uds = uds
        self._keep_for = keep_for
        # each with its expiry time, by the loop's clock
        self._kept: deque[tuple[float, Connection]] = deque()
        self._is_closed = False

    async def ask(self, link: Link, content: bytes | None) -> Reply:
        """Send a request and wait for the head of the response; see :meth:`.link.Transport.ask`."""
        kept = await self._next_kept()
        if kept is not None:
            try:
                return await self._ask(kept, link, content)
            except (ReadError, WriteError, RemoteProtocolError):
                if kept.has_answered:
                    raise
        connection = await connect(link.parts, self._tls, self._uds, link.connect_timeout)
        return await self._ask(connection, link, content)

    async def _ask(self, connection: Connection, link: Link, content: bytes | None) -> Reply:
        try:
            head = await connection.ask(link, content)
        except BaseException:
            await connection.aclose()
            raise
        headers = head.headers.raw_items()
        return Reply(head.status_code, headers, connection.read, partial(self._release, connection))

    async def _next_kept(self) -> Connection | None:
        now = anyio.current_time()
        while self._kept and self._kept[0][0] <= now:
            await self._kept.popleft()[1].aclose()
        while self._kept:
            _, connection = self._kept.pop()
            if connection.is_silent():
                return connection
            await connection.aclose()
        return None

    async def _release(self, connection: Connection) -> None:
        """Keep a connection for the next request if nothing of this response can be left on it, else close it."""
        if self._is_closed or not connection.start_anew():
            await connection.aclose()
        else:
            self._kept.append((anyio.current_time() + self._keep_for, connection))

    async def aclose(self) -> None:
        """Close the idle connections; those in use are closed by their users."""
        self._is_closed = True
        while self._kept:
            await self._kept.pop()[1].aclose()
