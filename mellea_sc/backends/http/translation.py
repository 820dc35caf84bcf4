"""What the HTTP client raises, as the library's errors: translated at this boundary, once."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Final, cast

import anyio
import httpx

from mellea_sc.backends.http.failures import Failures
from mellea_sc.core.errors import MelleaError

__all__ = ["ERRORS", "reason_of", "translated"]

ERRORS: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
)
"""All that the client, and the sockets below it, raise."""


def translated(error: Exception, failures: Failures) -> MelleaError:
    """The library's error for one of the client's."""
    reason = reason_of(error)
    tls = _tls_error(error)
    if tls is not None and (isinstance(error, httpx.ConnectError) or "CERT" in (tls.reason or "")):
        if isinstance(tls, ssl.SSLCertVerificationError):
            return failures.untrusted(tls.verify_message or reason)
        return failures.not_encrypted(reason)
    match error:
        case httpx.InvalidURL() | httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            return failures.unusable(reason)
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
            return failures.unreachable(reason)
        case httpx.RemoteProtocolError() if not _is_disconnect(reason):
            return failures.not_http(reason)
        case _:
            return failures.interrupted(reason)


def reason_of(error: Exception) -> str:
    """Why, in the operating system's words where it has some."""
    if isinstance(error, httpx.ReadError | httpx.WriteError):  # trio's sockets do not say why
        return _os_reason(error) or str(error) or "the connection was lost"
    return _os_reason(error) or str(error) or type(error).__name__


def _is_disconnect(reason: str) -> bool:
    # One exception class stands for a peer that went away and for one that talks nonsense.
    return "disconnected" in reason or "closed connection" in reason


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """What TLS said, where that is what began the chain of errors."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            # Both tell of a connection that has ended, not of TLS.
            return None if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) else error
        error = error.__cause__ or error.__context__
    return None


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
