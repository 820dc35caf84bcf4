"""A transport with a client of httpx or httpx2: the caller's, or the backend's own if there is a proxy."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Callable, Hashable, Mapping
from contextlib import suppress
from functools import cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import anyio
import anyio.lowlevel

from mellea_sc.backends.http.client import (
    CLOSE_TIMEOUT,
    ConnectError,
    Link,
    Reply,
    WriteError,
    client_errors,
    is_invalid,
    is_one_of,
    reason_of,
)

if TYPE_CHECKING:
    import h11
    import httpcore
    import httpx
    from h2.connection import H2Connection

    from mellea_sc.backends.http.client import AnyClient


class HttpxTransport:
    """Sends requests on a client of httpx or httpx2.

    Args:
        client: The client; it is closed by whoever has made it.
    """

    def __init__(self, client: AnyClient) -> None:
        self._client = cast("httpx.AsyncClient", client)  # httpx2 has the same methods

    async def ask(self, link: Link, content: bytes | None) -> Reply:
        """Send a request and wait for the head of the response; see :meth:`.client.Transport.ask`."""
        request = self._client.build_request(
            "GET" if content is None else "POST",
            link.url,
            content=content,
            headers=link.headers,
            timeout=(link.connect_timeout, None, None, None),
        )
        if content is not None:
            request.stream = _in_one_piece(cast("Hashable", type(request.stream)))(content)
        tracker = _RequestTracker(self._client, request, link.connect_timeout)
        try:
            return _reply(self._client, await self._send(request, tracker))
        except client_errors() as error:
            if not tracker.was_given_up or is_invalid(error):
                raise
        while True:
            # The client may have several kept connections, which have all died when a server was restarted.
            with suppress(_KeptConnection):
                again = _RequestTracker(self._client, request, link.connect_timeout, needs_new=True)
                return _reply(self._client, await self._send(request, again))

    async def _send(self, request: httpx.Request, tracker: _RequestTracker) -> httpx.Response:
        request.extensions = {**request.extensions, "trace": tracker}
        url = request.url
        with tracker.proxy_wait:
            try:
                return await self._client.send(request, stream=True)
            except client_errors() as error:
                if is_one_of(error, "HTTPStatusError"):  # by an event hook: raise_for_status()
                    return cast("httpx.HTTPStatusError", error).response
                if tracker.is_cut_off and is_one_of(error, "ReadError", "RemoteProtocolError"):
                    raise WriteError(reason_of(error)) from error
                raise
            except BaseException:
                with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                    await tracker.abandon()
                    await _reclaim_places(self._client, url)
                    await _reset_streams(self._client, url)
                raise
            finally:
                request.url = url
        raise ConnectError("it took too long")

    async def aclose(self) -> None:
        """Nothing: the client is another's."""


def _reply(client: httpx.AsyncClient, response: httpx.Response) -> Reply:
    if response.is_closed:
        # An event hook of the client has read it, or raised: its connection is another request's by now.
        chunks = aiter(_Content(response.content if response.is_stream_consumed else b""))
    else:
        # Without the client's decoders: they are nested async generators, and an error in one of them leaves the inner
        # ones to the garbage collector.
        chunks = aiter(cast("AsyncIterable[bytes]", response.stream))
    return Reply(
        response.status_code,
        response.headers.raw,
        partial(_next, chunks),
        partial(_close, client, response, chunks),
    )


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    """The next bytes; empty at the end. HTTP/2 has empty frames in the middle too."""
    while (chunk := await anext(chunks, None)) is not None:
        if chunk:
            return chunk
    return b""


async def _close(
    client: httpx.AsyncClient, response: httpx.Response, chunks: AsyncIterator[bytes]
) -> None:
    """Close the response; its connection goes back to the pool if the body was read to its end."""
    if response.is_closed:
        return
    try:
        if response.http_version == "HTTP/2":
            await _end_reading(response, chunks)
            await response.aclose()
            await _reset_streams(client, response.request.url)
            return
        _spoil_if_there_is_more(response)
        await response.aclose()
        # The client reads through nested generators, and closing the outer one does not close the inner ones. They
        # must not be left to the garbage collector. One more read on the closed connection ends them all by an error.
        while await anext(chunks, b""):
            pass
    except client_errors():
        pass


def _spoil_if_there_is_more(response: httpx.Response) -> None:
    """Prevent the client from reusing a connection with extra bytes after the response.

    The client would take them for the response to its next request. There is no public way to find out; with a
    client that is built differently this does nothing.
    """
    http = cast("h11.Connection | None", getattr(_connection(response), "_h11_state", None))
    if http is not None and http.trailing_data[0]:
        http.send_failed()  # marks the connection as broken, so that the client closes it


def _pool_for(client: httpx.AsyncClient, url: httpx.URL) -> object:
    """The pool with the client's connections for a URL, if the client is built as usual. There is no public way."""
    transport_for = getattr(client, "_transport_for_url", None)
    return None if transport_for is None else getattr(transport_for(url), "_pool", None)


async def _end_reading(response: httpx.Response, chunks: AsyncIterator[bytes]) -> None:
    """End the reading of a response over HTTP/2, whose connection stays open for others.

    One more read would wait for the rest of the response. There is no public way; with a client that is built
    differently this does nothing.
    """
    from h2.events import StreamEnded

    connection = _connection(response)
    events: dict[int, list[object]] = getattr(connection, "_events", {})
    number = response.extensions.get("stream_id")
    if isinstance(number, int) and number in events:
        http = cast("H2Connection", getattr(connection, "_h2_state"))  # noqa: B009 - of another library
        for event in events[number]:
            if size := getattr(event, "flow_controlled_length", 0):
                http.acknowledge_received_data(size, number)
        events[number] = [StreamEnded.__new__(StreamEnded)]  # its arguments depend on the version
        await _next(chunks)


async def _reset_streams(client: httpx.AsyncClient, url: httpx.URL) -> None:
    """Tell servers that speak HTTP/2 which responses nobody reads any more: the client does not.

    The models would generate to their end. There is no public way; with a client that is built differently this
    does nothing.
    """
    for each in getattr(_pool_for(client, url), "connections", ()):
        connection = getattr(each, "_connection", None)
        if not hasattr(connection, "_h2_state"):
            continue
        from h2.errors import ErrorCodes
        from h2.exceptions import ProtocolError

        http = cast("H2Connection", getattr(connection, "_h2_state"))  # noqa: B009
        read: Mapping[int, object] = getattr(connection, "_events")  # noqa: B009
        given_up = [n for n, stream in http.streams.items() if n not in read and not stream.closed]
        with suppress(ProtocolError):  # the connection is closed
            for number in given_up:
                http.reset_stream(number, ErrorCodes.CANCEL)
        if given_up:
            with suppress(Exception):  # the connection is lost
                await getattr(connection, "_write_outgoing_data")(SimpleNamespace(extensions={}))  # noqa: B009


def _connection(response: httpx.Response) -> object:
    """The connection of a response: its body has it, inside of those of the client and its pool."""
    part: object = response.stream
    for name in ("_stream", "_httpcore_stream", "_stream", "_connection"):
        part = getattr(part, name, None)
    return part


async def _reclaim_places(client: httpx.AsyncClient, url: httpx.URL) -> None:
    """Free the places of connections that the client will never open.

    httpcore may assign a new connection to a request while the request's cancellation is on its way. Nobody opens or
    removes that connection, and a client whose connections are limited in number hangs when all are such. httpcore2
    does this itself. There is no public way to find them; with a client that is built differently this does nothing.
    """
    pool = _pool_for(client, url)
    if type(pool).__module__.partition(".")[0] != "httpcore":
        return
    import httpcore

    if not isinstance(pool, httpcore.AsyncConnectionPool):
        return
    request = httpcore.Request("GET", str(url))
    assigned = [getattr(each, "connection", None) for each in getattr(pool, "_requests", ())]
    lost = [
        connection
        for connection in pool.connections
        if connection.info() == "CONNECTING"
        and connection.can_handle_request(request.url.origin)
        and not any(connection is each for each in assigned)
    ]
    # A request that is cancelled at once marks its connection as failed; the last one has the pool look at all of them.
    for ask in (
        [*(each.handle_async_request for each in lost), pool.handle_async_request] if lost else ()
    ):
        with anyio.CancelScope(shield=True) as scope:
            scope.cancel()
            await ask(request)


@cache
def _in_one_piece(kind: Hashable) -> Callable[[bytes], httpx.AsyncByteStream]:
    """The body of a request, as a class for the client (httpx or httpx2).

    The client's own class is an async generator, which is left to the garbage collector if sending is cancelled.
    """
    return cast(
        "Callable[[bytes], httpx.AsyncByteStream]",
        type("Content", (_Content, cast("type[object]", kind)), {}),
    )


class _Content:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._is_sent = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._is_sent = False
        return self

    async def __anext__(self) -> bytes:
        if self._is_sent:
            raise StopAsyncIteration
        self._is_sent = True
        return self._content


@cache
def _without_query(kind: Hashable) -> Callable[[httpx.URL], httpx.URL]:
    """A URL that shows nothing of its query, as a class for the client."""
    return cast(
        "Callable[[httpx.URL], httpx.URL]",
        type("URL", (cast("type[object]", kind),), {"__str__": _shown_url, "__repr__": _shown_url}),
    )


def _shown_url(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}{url.path}?…"


class _KeptConnection(Exception):
    """The client has chosen a kept connection for a request that needs a new one; it is closed, and nothing was sent."""


class _RequestTracker:
    """Tracks the connection of a request until the answer begins, by the client's trace extension.

    If a cancellation comes during the TLS handshake, or between connecting and sending, the client drops the
    connection without closing it. Then :meth:`abandon` closes it.

    Args:
        client: The client.
        request: The request.
        connect_timeout: Seconds that connecting may take; ``None``: no timeout.
        needs_new: Whether to raise :class:`_KeptConnection` instead of using a kept connection.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        request: httpx.Request,
        connect_timeout: float | None,
        *,
        needs_new: bool = False,
    ) -> None:
        self._client = client
        self._request = request
        self._connect_timeout = math.inf if connect_timeout is None else connect_timeout
        self._needs_new = needs_new
        self._stream: httpcore.AsyncNetworkStream | None = None
        self._is_new = False
        self.was_given_up: bool = False
        """Whether the request was sent on a kept connection, and no byte of an answer came."""
        self.is_cut_off: bool = False
        """Whether the connection was lost before the whole request was sent."""
        self.proxy_wait: anyio.CancelScope = anyio.CancelScope()
        """The scope of sending, with a deadline while a proxy has to answer. The client has no timeout for that."""

    async def __call__(self, event: str, info: Mapping[str, object]) -> None:
        """Process an event of the client's trace extension."""
        version, _, step = event.partition(".")
        if version == "http2":
            self._stream = None  # the client closes it itself, and others may use it by now
        if step == "setup_socks5_connection.started" or (
            step == "send_request_headers.started"
            and getattr(info.get("request"), "method", None) == b"CONNECT"
        ):
            self.proxy_wait.deadline = anyio.current_time() + self._connect_timeout
            return
        if step.startswith("connect_"):
            self._is_new = True
        elif step == "send_request_headers.started":
            self.was_given_up = not self._is_new
            # With HTTP/2, others use the connection too, and it is not closed.
            if self._needs_new and not self._is_new and version == "http11":
                raise _KeptConnection
        elif step == "receive_response_headers.failed":
            self.was_given_up = self.was_given_up and not self._has_received()
        elif step in ("receive_response_headers.complete", "setup_socks5_connection.complete"):
            self.proxy_wait.deadline = math.inf
            self.was_given_up = False
            url = self._request.url
            if url.query:  # it may hold a key, and the client logs the URL next
                self._request.url = _without_query(cast("Hashable", type(url)))(url)
        if step in ("connect_tcp.complete", "connect_unix_socket.complete"):
            self._stream = cast("httpcore.AsyncNetworkStream", info["return_value"])
        elif step == "send_request_body.failed":
            self.is_cut_off = True  # the client ignores this, because an answer may have come
            return
        elif step != "start_tls.complete":
            return
        # The client still counts an error that is raised here as a failure to connect; one step later not any more.
        await anyio.lowlevel.checkpoint_if_cancelled()

    def _has_received(self) -> bool:
        """Whether a part of the answer's head was received, as far as the client's connection can be found."""
        pool = _pool_for(self._client, self._request.url)
        for each in getattr(pool, "_requests", ()):
            if each.request.extensions.get("trace") is self:
                part = each.connection
                while (inner := getattr(part, "_connection", None)) is not None:
                    part = inner
                http = cast("h11.Connection | None", getattr(part, "_h11_state", None))
                return http is not None and bool(http.trailing_data[0])
        return False

    async def abandon(self) -> None:
        """Close what was opened."""
        if self._stream is not None:
            await self._stream.aclose()
