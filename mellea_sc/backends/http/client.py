"""The transports that make connections and send requests: their interface, which of them is used, what they raise.

There are three: :mod:`.connection` (HTTP/1.1 over anyio), :mod:`.fast` (aiohttp) and :mod:`.httpx_client` (the
caller's client, or one that uses a proxy).

Their errors are translated into the library's errors here, and nowhere else. Those of the library's own transport have
the same names as those of httpx and httpx2, so classes are compared by name. None of the clients is imported for that:
one that is not loaded cannot have raised anything.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast
from urllib.parse import SplitResult, urlsplit

import anyio
import attrs

from mellea_sc.backends.http.address import Address
from mellea_sc.backends.http.environment import ClientSettings, Proxy, new_tls_context, proxy_for
from mellea_sc.backends.http.failures import Failures
from mellea_sc.core.errors import InvalidOption, MelleaError, MissingExtra

if TYPE_CHECKING:
    import httpx
    import httpx2

AnyClient: TypeAlias = "httpx.AsyncClient | httpx2.AsyncClient"
"""The clients that a caller may give."""

KEEP_FOR: Final = 2.0
"""Seconds for which an idle connection is kept. Most servers close it after 5 s. A request that is sent while the
server closes the connection has to be sent again."""
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
            Exception: one of :func:`client_errors`.

        Cancellation: the connection is closed.
        """
        ...

    async def aclose(self) -> None:
        """Close the idle connections; those in use are closed by their users."""
        ...


@asynccontextmanager
async def new_transport(
    address: Address, settings: ClientSettings, client: AnyClient | None
) -> AsyncGenerator[Transport]:
    """A block with a transport to a server; it uses the caller's client if there is one.

    Raises:
        InvalidOption: the setting of the proxy or of the certificates cannot be used.
        MissingExtra: this kind of proxy needs another package.
    """
    if client is not None:
        from mellea_sc.backends.http.httpx_client import HttpxTransport

        yield HttpxTransport(client)
        return
    proxy = proxy_for(address, settings.proxy)
    # Reading certificates takes tens of milliseconds, so it is not done without TLS.
    needs_tls = address.is_encrypted or (proxy is not None and proxy.is_encrypted)
    tls = new_tls_context(settings.verify) if needs_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if proxy is not None:
        from mellea_sc.backends.http.httpx_client import HttpxTransport

        async with _client_through(proxy, tls) as own:
            yield HttpxTransport(own)
        return
    async with aclosing(_fastest(tls, address.uds)) as transport:
        yield transport


def _client_through(proxy: Proxy, tls: ssl.SSLContext) -> httpx.AsyncClient:
    import httpx

    try:
        return httpx.AsyncClient(
            verify=tls,
            proxy=httpx.Proxy(proxy.url, ssl_context=tls if proxy.is_encrypted else None),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEP_FOR),
            trust_env=False,
        )
    except ImportError as error:
        raise MissingExtra(f"{proxy} needs a package: {error}") from error
    except (httpx.InvalidURL, ValueError):
        # Neither quoted nor chained: a proxy's URL may hold a password.
        raise InvalidOption(f"{proxy} has no valid URL") from None


def _fastest(tls: ssl.SSLContext, uds: str | None) -> Transport:
    """The fastest transport for this event loop and the installed packages."""
    if is_asyncio():
        _have_buffers_kept()
        if has_aiohttp():
            from mellea_sc.backends.http.fast import AiohttpTransport

            return AiohttpTransport(tls, uds, KEEP_FOR)
    from mellea_sc.backends.http.connection import DirectTransport

    return DirectTransport(tls, uds, KEEP_FOR)


def _have_buffers_kept() -> None:
    """Have the C library reuse the memory of asyncio's read buffers.

    asyncio reads into a new buffer of 256 KiB each time. glibc requests such a block from the kernel and returns it
    afterwards. Once a larger block has been freed, glibc raises its threshold and keeps these blocks; that saves 8 µs
    for each delta. With other C libraries this has no effect.
    """
    block = bytes(1024 * 1024)
    del block


@cache
def has_aiohttp() -> bool:
    """Whether aiohttp is installed, in a version that is new enough."""
    try:
        first, second, *_ = version("aiohttp").split(".")
        # before 3.14, a request that is given up while it is sent leaves an error for the loop's exception handler
        return (int(first), int(second)) >= (3, 14)
    except (PackageNotFoundError, ValueError):
        return False


def is_asyncio() -> bool:
    """Whether asyncio runs here, with any loop implementation (uvloop, …)."""
    # asyncio is not imported here, because a program under trio does not need it.
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and asyncio.current_task() is not None
    except (RuntimeError, AttributeError):  # no loop runs, or another thread is importing asyncio
        return False


# --- what they raise ------------------------------------------------------------------------------


class TransportError(Exception):
    """The base class of the errors of the library's own transport."""


class ConnectError(TransportError):
    """The server cannot be reached, the TLS handshake failed, or connecting took too long."""


class ReadError(TransportError):
    """The connection was lost while waiting for data."""


class WriteError(TransportError):
    """The connection was lost before the whole request was sent."""


class LocalProtocolError(TransportError):
    """The request cannot be sent."""


class RemoteProtocolError(TransportError):
    """The response is not valid HTTP, or ended too early."""


_OURS: Final = (TransportError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)

_ELSEWHERE: Final = (
    ("httpx", ("HTTPError", "InvalidURL", "StreamError")),
    ("httpx2", ("HTTPError", "InvalidURL", "StreamError")),
    ("aiohttp.http_exceptions", ("HttpProcessingError",)),
    ("aiohttp", ("ClientError",)),
)

_NO_CONNECTION: Final = (
    *("ConnectError", "ConnectTimeout", "ProxyError"),
    *("ClientConnectorError", "ClientConnectorCertificateError", "ConnectionTimeoutError"),
)
"""Names of errors that mean that no connection was made: httpx's, then aiohttp's."""


def client_errors() -> tuple[type[Exception], ...]:
    """All errors that the loaded clients, and the sockets below them, can raise."""
    return _OURS + tuple(
        kind
        for library, names in _ELSEWHERE
        if (module := sys.modules.get(library)) is not None
        for name in names
        # another thread may be in the middle of importing it
        if (kind := getattr(module, name, None)) is not None
    )


def translated(error: Exception, failures: Failures) -> MelleaError:
    """The library's error for an error of a client."""
    reason = reason_of(error)
    tls = _tls_error(error)
    if tls is not None and (is_one_of(error, *_NO_CONNECTION) or "CERT" in (tls.reason or "")):
        if isinstance(tls, ssl.SSLCertVerificationError):
            return failures.untrusted(tls.verify_message or reason)
        return failures.not_encrypted(reason)
    # httpx-aiohttp reports a disconnect as a timeout of connecting.
    for one in (error, error.__cause__):
        if is_one_of(one, "ServerDisconnectedError"):
            return failures.interrupted("the server disconnected")
        if is_one_of(one, "ClientOSError") and not is_one_of(one, "ClientConnectorError"):
            return failures.interrupted(_os_reason(one) or "the server disconnected")
    if is_one_of(error, "InvalidURL", "UnsupportedProtocol", "LocalProtocolError"):
        return failures.unusable(reason)
    if is_one_of(error, *_NO_CONNECTION):
        return failures.unreachable(reason)
    if is_invalid(error):
        return failures.not_http(reason)
    return failures.interrupted(reason)


def is_one_of(error: BaseException | None, *names: str) -> bool:
    """Whether an error's class, in whichever library, has one of these names."""
    return any(kind.__name__ in names for kind in type(error).__mro__)


def reason_of(error: Exception) -> str:
    """The reason of an error, in the operating system's words if possible."""
    if is_one_of(error, "ReadError", "WriteError"):  # trio's sockets do not say why
        return _os_reason(error) or str(error) or "the connection was lost"
    return _os_reason(error) or str(error) or type(error).__name__


def is_invalid(error: Exception) -> bool:
    """Whether something was received that is not HTTP."""
    if is_one_of(error, "ClientResponseError", "HttpProcessingError"):
        return True
    # The clients use one class for a peer that has disconnected and for one that sent invalid data.
    said = reason_of(error)
    is_disconnect = "disconnected" in said or "closed connection" in said
    return is_one_of(error, "RemoteProtocolError") and not is_disconnect


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error in the chain of errors: the one that was raised first, before clients wrapped it."""
    said: ssl.SSLError | None = None
    while error is not None:
        # The first two only mean that the connection has ended.
        if isinstance(error, ssl.SSLError) and not isinstance(
            error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, *_WAITED)
        ):
            said = error
        error = error.__cause__ or error.__context__
    return said


_WAITED: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""No errors: with them TLS has waited for the other side, for too long perhaps."""


def _os_reason(error: BaseException | None) -> str | None:
    """The operating system's message, if the chain of errors began with an error of the system."""
    while error is not None:
        if isinstance(error, OSError) and error.errno and not isinstance(error, _WAITED):
            # Errors of TLS and of name resolution, also aiohttp's, have numbers of their own.
            if is_one_of(error, "SSLError", "gaierror", "ClientConnectorDNSError"):
                return error.strerror
            return os.strerror(error.errno)
        if isinstance(error, BaseExceptionGroup):  # one error per address that was tried
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        else:
            error = error.__cause__ or error.__context__
    return None
