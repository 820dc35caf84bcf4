"""What a transport is: the way to a server, and what comes back on it.

A transport makes connections and uses them again. There are three: :mod:`.transport` (HTTP/1.1 over anyio),
:mod:`.fast` (aiohttp) and :mod:`.httpx_client` (a client of the caller's, or one behind a proxy).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Protocol
from urllib.parse import SplitResult, urlsplit

import attrs

__all__ = ["CLOSE_TIMEOUT", "STANDING_HEADERS", "Link", "Reply", "Transport"]

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that closing a response may take."""
STANDING_HEADERS: Final = {"user-agent": "mellea_sc", "connection": "keep-alive"}
"""What our own transports send with every request, unless the request says otherwise."""


@attrs.frozen
class Link:
    """The way to one server. What may hold a key is not shown.

    Args:
        transport: Makes the connections.
        url: Where requests go, with the query; ASCII.
        headers: What they say, by names in lower case; what the protocol needs is added by the transport.
        connect_timeout: Seconds that connecting may take; ``None``: any time.
    """

    transport: Transport
    url: str = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(repr=False)
    connect_timeout: float | None

    @property
    def parts(self) -> SplitResult:
        """The URL in its parts."""
        return urlsplit(self.url)


@attrs.frozen
class Reply:
    """The response to a request, as a transport gives it: the head has come, the body has not been read.

    Args:
        status: The status.
        headers: The headers, as they came.
        read: Waits for the next bytes of the body; gives none at its end.
        aclose: Gives the connection back if the body was read to its end, else closes it.
    """

    status: int
    headers: Iterable[tuple[bytes, bytes]]
    read: Callable[[], Awaitable[bytes]]
    aclose: Callable[[], Awaitable[None]]


class Transport(Protocol):
    """Makes the connections to one server, and uses them again."""

    async def ask(self, link: Link, content: bytes | None) -> Reply:
        """Send a request and wait for the head of the response.

        Servers drop idle connections whenever they want to. Where a kept one dies before a byte of a response
        has come, nothing was answered: the request is sent once more, on a new connection.

        Args:
            link: Where to, and with which headers.
            content: The JSON to be posted; ``None``: nothing, what is there is asked for.

        Raises:
            Exception: one of :func:`~mellea_sc.backends.http.translation.client_errors`.

        Cancellation: the connection is closed.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections that are kept; those in use are closed by who uses them."""
        ...
