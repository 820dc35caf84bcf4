"""Requests that go out on a client of httpx or httpx2: a caller's, or one of our own that goes through a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Hashable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, cast

import anyio
import anyio.lowlevel

from mellea_sc.backends.http.link import CLOSE_TIMEOUT, Link, Reply
from mellea_sc.backends.http.translation import WriteError, client_errors, is_one_of, reason_of

if TYPE_CHECKING:
    import h11
    import httpcore
    import httpx

    from mellea_sc.backends.http.client import AnyClient

__all__ = ["HttpxTransport"]


class HttpxTransport:
    """Sends requests on a client of httpx or httpx2.

    Args:
        client: The client; whoever has made it closes it.
    """

    def __init__(self, client: AnyClient) -> None:
        self._client = cast("httpx.AsyncClient", client)  # httpx2 has the same methods

    async def ask(self, link: Link, content: bytes | None) -> Reply:
        """Send a request and wait for the head of the response; see :meth:`.link.Transport.ask`."""
        request = self._client.build_request(
            "GET" if content is None else "POST",
            link.url,
            content=content,
            headers=link.headers,
            timeout=(link.connect_timeout, None, None, None),
        )
        if content is not None:
            request.stream = _in_one_piece(cast("Hashable", type(request.stream)))(content)
        tracker = _RequestTracker()
        try:
            return _reply(await self._send(request, tracker))
        except client_errors():
            if not tracker.was_given_up:
                raise
        return _reply(await self._send(request, _RequestTracker()))

    async def _send(self, request: httpx.Request, tracker: _RequestTracker) -> httpx.Response:
        request.extensions = {**request.extensions, "trace": tracker}
        try:
            return await self._client.send(request, stream=True)
        except client_errors() as error:
            if tracker.is_cut_off and is_one_of(error, "ReadError", "RemoteProtocolError"):
                raise WriteError(reason_of(error)) from error
            raise
        except BaseException:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await tracker.abandon()
            raise

    async def aclose(self) -> None:
        """Nothing: the client is another's."""


def _reply(response: httpx.Response) -> Reply:
    # Not through the client's decoders: a generator that fails in between would leave those
    # inside it to the garbage collector.
    chunks = aiter(cast("AsyncIterable[bytes]", response.stream))
    return Reply(
        response.status_code,
        response.headers.raw,
        lambda: anext(chunks, b""),
        partial(_close, response, chunks),
    )


async def _close(response: httpx.Response, chunks: AsyncIterator[bytes]) -> None:
    """Close the response; its connection goes back to the pool if the body was read to its end."""
    try:
        _spoil_if_there_is_more(response)
        await response.aclose()
        # The client reads through a chain of generators, and closing does not reach those inside. They must
        # not be left to the garbage collector: one more read, which the closed connection refuses, ends them all.
        while await anext(chunks, b""):
            pass
    except client_errors():
        pass


def _spoil_if_there_is_more(response: httpx.Response) -> None:
    """Keep the client from using a connection again on which more came than the response.

    It would take the rest for the response to its next request, which then has an error or another's
    answer. There is no public way to ask; of a client that is made otherwise, nothing is found here.
    """
    part: object = response.stream
    for name in ("_stream", "_httpcore_stream", "_stream", "_connection", "_h11_state"):
        part = getattr(part, name, None)
    if part is not None:
        http = cast("h11.Connection", part)
        rest, _ = http.trailing_data
        if rest:
            http.send_failed()  # it is then closed instead


@cache
def _in_one_piece(kind: Hashable) -> Callable[[bytes], httpx.AsyncByteStream]:
    """The body of a request, for the client that has bodies of this kind.

    The client's own is an async generator, and is left to the garbage collector when sending it
    is cancelled.
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


class _RequestTracker:
    """Watches over the connection of a request until the request goes out on it, and an answer begins.

    A cancellation that comes between a new connection and the request, or within the TLS handshake, makes
    the client forget the connection without closing it.
    """

    def __init__(self) -> None:
        self._stream: httpcore.AsyncNetworkStream | None = None
        self._is_new = False
        self.was_given_up: bool = False
        """Whether the request went out on a connection that was there before, and no answer came."""
        self.is_cut_off: bool = False
        """Whether the connection was lost before the whole request was sent."""

    async def __call__(self, event: str, info: Mapping[str, object]) -> None:
        """Take note of a step of the client's (its trace extension)."""
        step = event.partition(".")[2]
        if step.startswith("connect_"):
            self._is_new = True
        elif step == "send_request_headers.started":
            self.was_given_up = not self._is_new
        elif step == "receive_response_headers.complete":
            self.was_given_up = False
        if step in ("connect_tcp.complete", "connect_unix_socket.complete"):
            self._stream = cast("httpcore.AsyncNetworkStream", info["return_value"])
        elif step == "send_request_body.failed":
            self.is_cut_off = True  # the client passes that over, for an answer may have come
            return
        elif step != "start_tls.complete":
            return
        # Here, the client still counts it as a failure to connect; a step later, it would not.
        await anyio.lowlevel.checkpoint_if_cancelled()

    async def abandon(self) -> None:
        """Close what was opened."""
        if self._stream is not None:
            await self._stream.aclose()
