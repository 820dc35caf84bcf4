"""What the HTTP client raises, as the library's errors: translated at this boundary, once.

Our own transport's errors have the names of httpx's, and so have those of httpx2. A caller's client may go through
aiohttp, as our own does. None of these is imported here: what nobody has loaded raises nothing.
"""

from __future__ import annotations

import os
import socket
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
    "is_one_of",
    "reason_of",
    "translated",
]


class TransportError(Exception):
    """What our own transport raises."""


class ConnectError(TransportError):
    """There is no way to the server, no TLS with it, or no end of connecting."""


class ReadError(TransportError):
    """The connection was lost while something was awaited."""


class WriteError(TransportError):
    """The connection was lost before the whole request was sent."""


class LocalProtocolError(TransportError):
    """The request cannot be sent."""


class RemoteProtocolError(TransportError):
    """What came is not HTTP, or it ended too early."""


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
"""There was none yet: httpx's, then aiohttp's."""


def client_errors() -> tuple[type[Exception], ...]:
    """All that any client, and the sockets below it, raise."""
    return _OURS + tuple(
        getattr(module, name)
        for library, names in _ELSEWHERE
        if (module := sys.modules.get(library)) is not None
        for name in names
    )


def translated(error: Exception, failures: Failures) -> MelleaError:
    """The library's error for one of the client's."""
    reason = reason_of(error)
    tls = _tls_error(error)
    if tls is not None and (is_one_of(error, *_NO_CONNECTION) or "CERT" in (tls.reason or "")):
        if isinstance(tls, ssl.SSLCertVerificationError):
            return failures.untrusted(tls.verify_message or reason)
        return failures.not_encrypted(reason)
    # httpx-aiohttp takes a disconnect for a time-out.
    if any(is_one_of(one, "ServerDisconnectedError") for one in (error, error.__cause__)):
        return failures.interrupted("the server disconnected")
    if is_one_of(error, "InvalidURL", "UnsupportedProtocol", "LocalProtocolError"):
        return failures.unusable(reason)
    if is_one_of(error, *_NO_CONNECTION):
        return failures.unreachable(reason)
    if is_one_of(error, "RemoteProtocolError") and not _is_disconnect(reason):
        return failures.not_http(reason)
    if is_one_of(error, "ClientResponseError", "HttpProcessingError"):
        return failures.not_http(reason)
    return failures.interrupted(reason)


def is_one_of(error: BaseException | None, *names: str) -> bool:
    """Whether an error is of a class with one of these names, whichever library's."""
    return any(kind.__name__ in names for kind in type(error).__mro__)


def reason_of(error: Exception) -> str:
    """Why, in the operating system's words where it has some."""
    if is_one_of(error, "ReadError", "WriteError"):  # trio's sockets do not say why
        return _os_reason(error) or str(error) or "the connection was lost"
    return _os_reason(error) or str(error) or type(error).__name__


def _is_disconnect(reason: str) -> bool:
    # One exception class stands for a peer that went away and for one that talks nonsense.
    return "disconnected" in reason or "closed connection" in reason


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """What TLS said, where it is in the chain of errors: the first that was raised, not what clients made of it."""
    said: ssl.SSLError | None = None
    while error is not None:
        # These two tell of a connection that has ended, not of TLS.
        if isinstance(error, ssl.SSLError) and not isinstance(
            error, ssl.SSLEOFError | ssl.SSLZeroReturnError
        ):
            said = error
        error = error.__cause__ or error.__context__
    return said


def _os_reason(error: BaseException | None) -> str | None:
    """What the operating system said, where that is what began the chain of errors."""
    while error is not None:
        if isinstance(error, ssl.SSLError | socket.gaierror) and error.strerror:
            return error.strerror  # their numbers are their own
        if isinstance(error, OSError) and error.errno:
            return os.strerror(error.errno)
        if isinstance(error, BaseExceptionGroup):  # one error per address that was tried
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        else:
            error = error.__cause__ or error.__context__
    return None
