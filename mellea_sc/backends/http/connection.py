"""The library's own transport: HTTP/1.1 by h11, on connections that are used for one request after another.

A connection is used for the next request only if nothing of the previous answer can be left:

- the request was sent and the answer was read, both completely, and neither side wants to close;
- no bytes came after the answer, neither in the parser nor in the TLS layer nor in the socket. They would be taken
  for the beginning of the next answer.
"""

from __future__ import annotations

import select
import ssl
from collections import deque
from functools import partial
from typing import Final
from urllib.parse import SplitResult

import anyio
import h11
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSAttribute, TLSStream

from mellea_sc.backends.http.client import (
    MAX_HEAD,
    STANDING_HEADERS,
    ConnectError,
    Link,
    LocalProtocolError,
    ReadError,
    RemoteProtocolError,
    Reply,
    TransportError,
    WriteError,
)

READ_SIZE: Final = 65536
"""Bytes of a read."""


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
        """Send a request and wait for the head of the response; see :meth:`.client.Transport.ask`."""
        now = anyio.current_time()  # those that expire first are on the left
        while self._kept and self._kept[0][0] <= now:
            await self._kept.popleft()[1].aclose()
        kept = None
        while kept is None and self._kept:
            _, connection = self._kept.pop()
            if connection.is_silent():
                kept = connection
            else:
                await connection.aclose()
        while True:
            connection = kept or await connect(
                link.parts, self._tls, self._uds, link.connect_timeout
            )
            try:
                head = await connection.ask(link, content)
            except (ReadError, WriteError, RemoteProtocolError):
                await connection.aclose()
                if kept is None or kept.has_answered:
                    raise
                kept = None
            except BaseException:
                await connection.aclose()
                raise
            else:
                release = partial(self._release, connection)
                return Reply(head.status_code, head.headers.raw_items(), connection.read, release)

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


async def connect(
    url: SplitResult, tls: ssl.SSLContext, uds: str | None, seconds: float | None
) -> Connection:
    """Connect to a server.

    Args:
        url: The server's URL.
        tls: The TLS context for ``https``.
        uds: The path of a unix socket to connect to instead of TCP.
        seconds: The timeout.

    Raises:
        ConnectError: the server cannot be reached, the TLS handshake failed, or it took too long.

    Cancellation: everything that was opened is closed.
    """
    try:
        with anyio.fail_after(seconds):
            return Connection(await _open(url, tls, uds))
    except TimeoutError as error:
        if isinstance(error, OSError) and error.errno:  # the system's own
            raise ConnectError(str(error)) from error
        raise ConnectError("it took too long") from None
    except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise ConnectError(str(error)) from error


async def _open(url: SplitResult, tls: ssl.SSLContext, uds: str | None) -> ByteStream:
    is_encrypted = url.scheme == "https"
    host = url.hostname or ""
    stream: ByteStream
    if uds is not None:
        stream = await anyio.connect_unix(uds)
    else:
        stream = await anyio.connect_tcp(host, url.port or (443 if is_encrypted else 80))
    if not is_encrypted:
        return stream
    try:
        return await TLSStream.wrap(
            stream, hostname=host, ssl_context=tls, standard_compatible=False
        )
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise


class Connection:
    """One connection to a server.

    Args:
        stream: The socket, or the TLS stream over it; the connection closes it.
    """

    __slots__ = ("_head", "_is_full", "_parser", "_stream", "has_answered")

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._head: h11.Response | None = None
        self._is_full = False
        self.has_answered: bool = False
        """Whether any byte of the current answer has been received."""

    async def ask(self, link: Link, content: bytes | None) -> h11.Response:
        """Send a request, and wait for the head of the answer.

        Raises:
            LocalProtocolError: the request cannot be sent.
            TransportError: the connection broke, or the answer is not HTTP.
        """
        self.has_answered = False
        self._head = None
        try:
            parts = link.parts
            length = {} if content is None else {"content-length": str(len(content))}
            pieces = [
                self._parser.send(event)
                for event in (
                    # In no local variable: tools that show the variables of a traceback's frames would show the key.
                    h11.Request(
                        method="GET" if content is None else "POST",
                        target=f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}",
                        headers=[
                            *{
                                "host": parts.netloc,
                                **STANDING_HEADERS,
                                **link.headers,
                                **length,
                            }.items()
                        ],
                    ),
                    h11.Data(content or b""),
                    h11.EndOfMessage(),
                )
            ]
        except h11.LocalProtocolError as error:
            raise LocalProtocolError(str(error)) from error
        lost: Exception | None = None
        try:
            await self._stream.send(b"".join(piece for piece in pieces if piece))
        except (OSError, anyio.BrokenResourceError) as error:
            lost = error  # the server may have sent a refusal before it had read the whole request
        try:
            await self.read()
        except TransportError:
            if lost is not None and not self.has_answered:
                raise WriteError(str(lost)) from lost
            raise
        if self._head is None:
            raise RemoteProtocolError("something else came than the head of an answer")
        return self._head

    async def read(self) -> bytes:
        """Wait for the next bytes of the answer's body; empty at its end, and also when its head has come.

        Raises:
            TransportError: the connection broke, or the answer is not HTTP.
        """
        parser = self._parser
        try:
            while True:
                event = parser.next_event()
                if isinstance(event, h11.Data):
                    if event.data:
                        return bytes(event.data)
                elif event is h11.NEED_DATA:
                    try:
                        data = await self._stream.receive(READ_SIZE)
                    except anyio.EndOfStream:
                        data = b""
                    if data:
                        self.has_answered = True
                        self._is_full = len(data) >= READ_SIZE
                    elif parser.their_state is h11.SEND_RESPONSE:
                        raise RemoteProtocolError("the server disconnected without an answer")
                    parser.receive_data(data)
                elif not isinstance(event, h11.InformationalResponse):
                    self._head = event if isinstance(event, h11.Response) else None
                    return b""
        except h11.RemoteProtocolError as error:
            raise RemoteProtocolError(str(error)) from error
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise ReadError(str(error)) from error

    def start_anew(self) -> bool:
        """Prepare for the next request; false: the connection must be closed instead."""
        parser = self._parser
        if parser.our_state is not h11.DONE or parser.their_state is not h11.DONE:
            return False
        # A read that has returned its maximum size may have left bytes in the layers below.
        if parser.trailing_data[0] or self._is_full or not self.is_silent():
            return False
        parser.start_next_cycle()
        return True

    def is_silent(self) -> bool:
        """Whether nothing was received since the last answer, not even the end of the connection."""
        tls = self._stream.extra(TLSAttribute.ssl_object, None)
        if tls is not None:
            try:
                tls.read(1)
            except ssl.SSLWantReadError:
                pass
            except OSError:
                return False
            else:
                return False
        # Under asyncio, anyio receives data before anybody has called receive(). There is no public way to find out.
        transport: object = getattr(self._stream, "transport_stream", self._stream)
        if getattr(getattr(transport, "_protocol", None), "read_queue", ()):
            return False
        sock = self._stream.extra(SocketAttribute.raw_socket)
        if not hasattr(select, "poll"):  # Windows, where any descriptor will do for select
            return not select.select([sock], [], [], 0)[0]
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return not poll.poll(0)

    async def aclose(self) -> None:
        """Close it at once, without a closing handshake.

        Cancellation: it is closed all the same.
        """
        await anyio.aclose_forcefully(self._stream)
