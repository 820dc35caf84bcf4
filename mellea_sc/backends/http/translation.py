"""Translates the errors of HTTP clients into the library's errors; the only place that does so.

The errors of the library's own transport have the same names as those of httpx and httpx2, so classes are compared by
name. None of the clients is imported here: one that is not loaded cannot have raised anything.
"""

from __future__ import annotations

import os
import ssl
import sys
from typing import Final, cast

import anyio

from mellea_sc.backends.http.failures import Failures
from mellea_sc.core.errors import MelleaError

__all__ = [
    "ConnectError",
    "LocalProtocolError",
    "ReadError",
    "RemoteProtocolError",
    "TransportError",
    "WriteError",
    "client_errors",
    "is_invalid",
    "is_one_of",
    "reason_of",
    "translated",
]


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
    is_disconnect = any(word in said for word in _DISCONNECTED)
    return is_one_of(error, "RemoteProtocolError") and not is_disconnect


_DISCONNECTED: Final = ("disconnected", "closed connection", "StreamReset", "ConnectionTerminated")
"""Words of clients for a peer that has ended the connection; the last two are of HTTP/2, which can end one answer."""


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
