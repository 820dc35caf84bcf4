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

__all__ = ["ERRORS", "translated"]

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
    reason = _os_reason(error) or str(error) or type(error).__name__
    match error:
        case httpx.InvalidURL() | httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            return failures.unusable(reason)
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
            return failures.unreachable(reason)
        case httpx.RemoteProtocolError() if not _is_disconnect(reason):
            return failures.not_http(reason)
        case _:
            return failures.interrupted(reason)


def _is_disconnect(reason: str) -> bool:
    # One exception class stands for a peer that went away and for one that talks nonsense.
    return "disconnected" in reason or "closed connection" in reason


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
