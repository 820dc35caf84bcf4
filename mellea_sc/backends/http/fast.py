"""The same connections, made and read by aiohttp: less work for each delta, under asyncio only.

Imports aiohttp, which the extra `fast` installs.
"""

from __future__ import annotations

import io
import ssl
from functools import partial
from types import SimpleNamespace
from typing import Final

import aiohttp
import anyio.lowlevel
import yarl
from aiohttp.client_proto import ResponseHandler

from mellea_sc.backends.http.link import STANDING_HEADERS, Link, Reply

__all__ = ["AiohttpTransport"]

LARGE: Final = 1024 * 1024
"""Bytes of a request from which on aiohttp wants a file to read from."""


class AiohttpTransport:
    """Speaks to one server, without a proxy, under asyncio and its kin.

    aiohttp does here what is asked for and no more: no cookies, no redirects, no decompression, nothing
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

    async def ask(self, link: Link, content: bytes | None) -> Reply:
        """Send a request and wait for the head of the response; see :meth:`.link.Transport.ask`."""
        if self._kept:
            await self._close_the_spoilt()
        note = SimpleNamespace(is_kept=False)
        session = self._session
        while True:
            try:
                response = await session.request(
                    "GET" if content is None else "POST",
                    yarl.URL(link.url, encoded=True),
                    headers={**STANDING_HEADERS, **link.headers},
                    data=io.BytesIO(content) if content and len(content) >= LARGE else content,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(sock_connect=link.connect_timeout),
                    trace_request_ctx=note,
                )
            except (aiohttp.ClientError, OSError) as error:
                if session is not self._session or not (note.is_kept and _is_unanswered(error)):
                    raise
                if self._renewing is None:
                    self._renewing = self._new_session(keeps=False)
                session = self._renewing
            else:
                return self._reply(response)

    def _reply(self, response: aiohttp.ClientResponse) -> Reply:
        # Where all has come with the head, aiohttp has let go of the connection, and more may come on it.
        connection = response.connection
        protocol: ResponseHandler | None = (
            getattr(response.content, "_protocol", None)
            if connection is None
            else connection.protocol
        )
        if protocol is not None:
            self._kept.discard(protocol)
        close = partial(self._release, response, protocol)
        return Reply(response.status, response.raw_headers, response.content.readany, close)

    async def _release(  # noqa: ASYNC124 - others have to wait
        self, response: aiohttp.ClientResponse, protocol: ResponseHandler | None
    ) -> None:
        """Keep a connection for the next request, if nothing can be left of this one; else close it."""
        response.close()  # has let go of the connection when all was read
        if protocol is not None and protocol.is_connected():
            if protocol.should_close:
                protocol.close()
            else:
                self._kept.add(protocol)

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


async def _note_kept(  # noqa: ASYNC124 - aiohttp wants it so
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _params: aiohttp.TraceConnectionReuseconnParams,
) -> None:
    context.trace_request_ctx.is_kept = True


def _is_unanswered(error: Exception) -> bool:
    """Whether a connection that broke did so before a byte of an answer came."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return not isinstance(error.message, aiohttp.http.RawResponseMessage)
    return isinstance(error, aiohttp.ClientOSError) and not isinstance(
        error, aiohttp.ClientConnectorError
    )
