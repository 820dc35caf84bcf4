"""A transport with aiohttp: less work for each delta, but under asyncio only.

Imports aiohttp, which the extra `fast` installs.
"""

from __future__ import annotations

import inspect
import io
import ssl
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, cast

import aiohttp
import anyio.lowlevel
import yarl
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from mellea_sc.backends.http.client import (
    MAX_HEAD,
    STANDING_HEADERS,
    ConnectError,
    Link,
    ReadError,
    RemoteProtocolError,
    Reply,
    TransportError,
    WriteError,
    reason_of,
)

LARGE: Final = 1024 * 1024
"""The size of a request from which on aiohttp warns, unless it is given as a file."""
LIMITS: Final[dict[str, Any]] = {
    name: limit
    for name, limit in (
        ("max_line_size", MAX_HEAD),
        ("max_field_size", MAX_HEAD),
        ("max_headers", 1000),  # since 3.13.4; older versions do not count the headers
    )
    if name in inspect.signature(aiohttp.ClientSession).parameters
}
"""Limits of a response's head."""


class AiohttpTransport:
    """A transport to one server, without a proxy, under asyncio with any loop implementation.

    aiohttp's extras are turned off: cookies, redirects, decompression, settings from the environment, the limit of
    connections. It reads ahead only into a bounded buffer.

    Args:
        tls: The TLS context for ``https``.
        uds: The path of a unix socket to connect to instead of TCP.
        keep_for: Seconds for which an idle connection is kept for the next request.
    """

    def __init__(self, tls: ssl.SSLContext, uds: str | None, keep_for: float) -> None:
        self._tls = tls
        self._uds = uds
        self._keep_for = keep_for
        self._session = self._new_session(keeps=True)
        self._renewing: aiohttp.ClientSession | None = None

    async def ask(self, link: Link, content: bytes | None) -> Reply:
        """Send a request and wait for the head of the response; see :meth:`.client.Transport.ask`."""
        note = SimpleNamespace(is_kept=False)
        session = self._session
        while True:
            upload = _Upload(content) if content and len(content) >= LARGE else None
            try:
                response = await session.request(
                    "GET" if content is None else "POST",
                    yarl.URL(link.url, encoded=True),
                    headers={**STANDING_HEADERS, **link.headers},
                    data=content if upload is None else upload,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(connect=link.connect_timeout),
                    trace_request_ctx=note,
                )
            except aiohttp.ClientResponseError as error:
                failure: TransportError = RemoteProtocolError(error.message)
            except aiohttp.ConnectionTimeoutError:
                failure = ConnectError("it took too long")
            except (aiohttp.ClientError, OSError) as error:
                if session is not self._session or not (note.is_kept and _is_unanswered(error)):
                    if upload is not None and upload.is_cut_off and _is_unanswered(error):
                        raise WriteError(reason_of(error)) from error
                    raise
                if self._renewing is None:
                    self._renewing = self._new_session(keeps=False)
                session = self._renewing
                continue
            else:
                return _reply(response)
            # Not raised from aiohttp's error, which shows the request's URL, and its headers: both may hold keys.
            raise failure

    def _new_session(self, *, keeps: bool) -> aiohttp.ClientSession:
        connector: aiohttp.BaseConnector
        keep = self._keep_for if keeps else None
        if self._uds is not None:
            connector = _UnixConnector(
                self._uds, limit=0, keepalive_timeout=keep, force_close=not keeps
            )
        else:
            connector = _TCPConnector(
                limit=0,
                keepalive_timeout=keep,
                force_close=not keeps,
                ssl=self._tls,
                resolver=aiohttp.ThreadedResolver(),
                use_dns_cache=False,
            )
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_kept)
        # perhaps instead of a kept one that was spoilt
        trace.on_connection_create_start.append(_note_new)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            trace_configs=[trace],
            **LIMITS,
        )

    async def aclose(self) -> None:
        """Close the idle connections; those in use are closed by their users."""
        await self._session.close()
        if self._renewing is not None:
            await self._renewing.close()


class _Upload(io.BytesIO):
    """The body of a large request; knows whether aiohttp has taken a part of it, and not all."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._size = len(content)
        self._taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._taken += len(data)
        return data

    @property
    def is_cut_off(self) -> bool:
        return 0 < self._taken < self._size


def _reply(response: aiohttp.ClientResponse) -> Reply:
    async def close() -> None:  # noqa: ASYNC124 - others have to wait
        # Has an effect only on a connection whose response has not been received completely. Any other is back in the
        # pool, or another request's: it must not be touched here.
        response.close()

    return Reply(response.status, response.raw_headers, response.content.readany, close)


class _Handler(ResponseHandler):
    """aiohttp's protocol of a connection; knows whether any byte of the current answer has been received.

    Attributes:
        was_used: Whether it has been used for a request before the current one.
        has_answered: Whether any byte of the current answer has been received.
    """

    was_used = False
    has_answered = False

    def data_received(self, data: bytes) -> None:
        """Take received data, for aiohttp."""
        if not self.has_answered:
            self.has_answered = True
            # If junk follows an answer in the same read, aiohttp drops the whole read. Once it has the head, it has
            # handed out the answer by then.
            head, end, data = data.partition(b"\r\n\r\n")
            super().data_received(head + end)
        if data:
            super().data_received(data)

    def set_exception(self, exc: BaseException, *args: Any, **kwargs: Any) -> None:
        """Fail whoever waits for the answer, for aiohttp."""
        if self.has_answered and isinstance(exc, aiohttp.ClientConnectionError):
            # aiohttp's own error does not tell whether it had answered.
            exc = ReadError("the server disconnected")
            exc.__cause__ = next((cause for cause in args if isinstance(cause, Exception)), None)
        super().set_exception(exc, *args, **kwargs)
        # If the body is not HTTP, aiohttp closes the connection, and leaves the reader of the body waiting.
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(exc)


class _UnspoiltConnections(aiohttp.BaseConnector):
    """Closes a kept connection on which more came than an answer: aiohttp would take that for the next answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._factory = cast("partial[ResponseHandler]", partial(_Handler, loop=self._loop))

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Get a connection, for aiohttp's session."""
        while True:
            connection = await super().connect(req, traces, timeout)
            handler = connection.protocol
            assert isinstance(handler, _Handler)
            if not handler.was_used:
                handler.was_used = True
                return connection
            try:
                # Bytes that have arrived are read in the loop's next iteration. The connection is out of the pool
                # already: in there, another request could take it, and its answer would look like more bytes.
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
            except BaseException:
                connection.close()
                raise
            if handler.is_connected() and not handler.should_close:
                handler.has_answered = False
                return connection
            connection.close()

    def _release(
        self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False
    ) -> None:
        if should_close and protocol.transport is not None:
            # Else aiohttp would wait until the server has read the whole request, and has answered TLS's closing
            # handshake. A server that is busy, or hangs, does neither.
            protocol.transport.abort()
        super()._release(key, protocol, should_close=should_close)


class _TCPConnector(_UnspoiltConnections, aiohttp.TCPConnector):
    """To a host."""


class _UnixConnector(_UnspoiltConnections, aiohttp.UnixConnector):
    """To a unix socket."""


async def _note_kept(  # noqa: ASYNC124 - aiohttp wants it so
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _params: aiohttp.TraceConnectionReuseconnParams,
) -> None:
    context.trace_request_ctx.is_kept = True


async def _note_new(  # noqa: ASYNC124 - aiohttp wants it so
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _params: aiohttp.TraceConnectionCreateStartParams,
) -> None:
    context.trace_request_ctx.is_kept = False


def _is_unanswered(error: Exception) -> bool:
    """Whether a connection broke before the first byte of an answer; after it, the error is a :class:`ReadError`."""
    is_lost = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
    return is_lost and not isinstance(error, aiohttp.ClientConnectorError)
