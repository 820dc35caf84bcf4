"""One request and the response to it: how it goes out on the client, and how that fails.

Imports httpx; is itself imported when the first request is made.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Final, cast

import anyio
import anyio.lowlevel
import httpx

from mellea_sc.backends.http.address import Address
from mellea_sc.backends.http.failures import Failures
from mellea_sc.backends.http.response import CLOSE_TIMEOUT, Response
from mellea_sc.backends.http.translation import (
    client_errors,
    is_one_of,
    reason_of,
    translated,
)
from mellea_sc.core.errors import StreamInterrupted

if TYPE_CHECKING:
    import httpcore

    from mellea_sc.backends.http.client import AnyClient

__all__ = ["respond"]

LARGE: Final = 64 * 1024
"""Bytes of a request that are more than a connection takes at once."""


@asynccontextmanager
async def respond(
    client: AnyClient,
    address: Address,
    path: str,
    content: bytes,
    media_types: tuple[str, ...],
    failures: Failures,
    connect_timeout: float | None,
) -> AsyncGenerator[Response]:
    """Send a request and wait for the head of the response to it, which is a stream.

    Raises:
        BackendError: no connection, an error status, or something else than a stream.
    """
    try:
        # httpx2 has the same methods.
        client = cast("httpx.AsyncClient", client)
        request = client.build_request(
            "POST",
            address.at(path),
            content=content,
            # In no variable: what shows the variables of a traceback's frames would show the key.
            headers={
                "accept": ", ".join(media_types),
                # A compressor would hold deltas back until it has a block of them.
                "accept-encoding": "identity",
                "content-type": "application/json",
                **address.sent_headers(),
            },
            timeout=(connect_timeout, None, None, None),
        )
        request.stream = _in_one_piece(cast("Hashable", type(request.stream)))(content)
        response = Response(await _send(client, request), failures)
    except client_errors() as error:
        if is_one_of(error, "WriteError") and len(content) > LARGE:
            # Not to be tried again: it would most likely end in the same way, after as many megabytes.
            raise failures.not_taken(reason_of(error), len(content)) from error
        failure = translated(error, failures)
        if isinstance(failure, StreamInterrupted):
            failure.retryable = True  # before its first byte
        raise failure from error
    try:
        await response.check()
        yield response
    finally:
        await response.aclose()


async def _send(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send a request; once more where the client took a connection that the server had given up.

    This is for the clients of callers: the transport of our own does it by itself, and leaves no trace.
    """
    watch = _Watch()
    try:
        return await _watched(client, request, watch)
    except client_errors():
        if not watch.was_given_up:
            raise
    return await _watched(client, request, _Watch())


async def _watched(
    client: httpx.AsyncClient, request: httpx.Request, watch: _Watch
) -> httpx.Response:
    request.extensions = {**request.extensions, "trace": watch}
    try:
        return await client.send(request, stream=True)
    except client_errors() as error:
        if watch.is_cut_off and is_one_of(error, "ReadError", "RemoteProtocolError"):
            raise httpx.WriteError(reason_of(error)) from error
        raise
    except BaseException:
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await watch.abandon()
        raise


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


class _Watch:
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
