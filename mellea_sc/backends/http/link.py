"""The interface of transports: connection settings, and the reply to a request.

A transport makes connections and reuses them. There are three: :mod:`.connection` (HTTP/1.1 over anyio),
:mod:`.fast` (aiohttp) and :mod:`.httpx_client` (the caller's client, or one that uses a proxy).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Protocol
from urllib.parse import SplitResult, urlsplit

import attrs

__all__ = ["CLOSE_TIMEOUT", "MAX_HEAD", "STANDING_HEADERS", "Link", "Reply", "Transport"]

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that closing a response may take."""
MAX_HEAD: Final = 100 * 1024
"""The maximum size of a response's head in bytes."""
STANDING_HEADERS: Final = {"user-agent": "mellea_sc", "connection": "keep-alive"}
"""Headers that the library's own transports add to every request, unless the request has them."""


def _parts_of(link: Link) -> SplitResult:
    return urlsplit(link.url)


@attrs.frozen
class Link:
    """The settings for requests to one server. Its ``repr`` shows nothing that may contain a key.

    Args:
        transport: Makes the connections.
        url: The URL of requests, with the query; ASCII.
        headers: The headers, by names in lower case; the transport adds those that HTTP needs.
        connect_timeout: Seconds that connecting may take; ``None``: no timeout.
    """

    transport: Transport
    url: str = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(repr=False)
    connect_timeout: float | None
    parts: SplitResult = attrs.field(
        init=False, repr=False, default=attrs.Factory(_parts_of, takes_self=True)
    )
    """The URL in its parts."""


@attrs.frozen
class Reply:
    """The response to a request, as a transport returns it: the head was received, the body was not read.

    Args:
        status: The status code.
        headers: The headers as received.
        read: Waits for the next bytes of the body; returns empty bytes at its end.
        aclose: Keeps the connection for the next request if the body was read to its end, else closes it.
    """

    status: int
    headers: Iterable[tuple[bytes, bytes]]
    read: Callable[[], Awaitable[bytes]]
    aclose: Callable[[], Awaitable[None]]


class Transport(Protocol):
    """Makes connections to one server, and reuses them."""

    async def ask(self, link: Link, content: bytes | None) -> Reply:
        """Send a request and wait for the head of the response.

        A server may close an idle connection at any time. If a kept connection breaks before the first byte of a
        response, the server has not answered: the request is sent again, on a new connection.

        Args:
            link: The settings of the request.
            content: The JSON to post; ``None``: send a GET request.

        Raises:
            Exception: one of :func:`~mellea_sc.backends.http.translation.client_errors`.

        Cancellation: the connection is closed.
        """
        ...

    async def aclose(self) -> None:
        """Close the idle connections; those in use are closed by their users."""
        ...
