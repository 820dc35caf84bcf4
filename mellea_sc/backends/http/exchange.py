"""One request and the response to it: how it goes out on the client, and how that fails.

Imports httpx; is itself imported when the first request is made.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, cast

import anyio
import anyio.lowlevel
import httpx

from mellea_sc.backends.http.address import Address
from mellea_sc.backends.http.failures import Failures
from mellea_sc.backends.http.response import CLOSE_TIMEOUT, Response
from mellea_sc.backends.http.translation import ERRORS, reason_of, translated

if TYPE_CHECKING:
    import httpcore

__all__ = ["respond"]

LARGE: Final = 64 * 1024
"""Bytes of a request that are more than a connection takes at once."""


@asynccontextmanager
async def respond(
    client: httpx.AsyncClient,
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
    headers: dict[str, str] = {
        "accept": ", ".join(media_types),
        # A compressor would hold deltas back until it has a block of them.
        "accept-encoding": "identity",
        "content-type": "application/json",
        **address.sent_headers(),
    }
    opening = _Opening()
    try:
        request = client.build_request(
            "POST",
            address.at(path),
            content=content,
            headers=headers,
            timeout=httpx.Timeout(None, connect=connect_timeout),
            extensions={"trace": opening},
        )
        request.stream = _Content(content)
        response = Response(await client.send(request, stream=True), failures)
    except ERRORS as error:
        if opening.is_cut_off and len(content) > LARGE:
            raise failures.not_taken(reason_of(error), len(content)) from error
        raise translated(error, failures) from error
    except BaseException:
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await opening.abandon()
        raise
    try:
        await response.check(media_types)
        yield response
    finally:
        await response.aclose()


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
        self.is_cut_off = False
        """Whether the connection was lost before the whole request was sent."""

    async def __call__(self, event: str, info: Mapping[str, object]) -> None:
        """Take note of a step of the client's (its trace extension)."""
        if event.endswith(("connect_tcp.complete", "connect_unix_socket.complete")):
            self._stream = cast("httpcore.AsyncNetworkStream", info["return_value"])
        elif not event.endswith("start_tls.complete"):
            # the client passes this over, for an answer may have come nevertheless
            self.is_cut_off |= event.endswith("send_request_body.failed")
            return
        # Here, the client still counts it as a failure to connect; a step later, it would not.
        await anyio.lowlevel.checkpoint_if_cancelled()

    async def abandon(self) -> None:
        """Close what was opened."""
        if self._stream is not None:
            await self._stream.aclose()
