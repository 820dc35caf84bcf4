"""What the HTTP client raises, as the library's errors: translated at this boundary, once.

A caller's client may be of httpx's successor, httpx2, whose errors have the names of httpx's, or go through
aiohttp. Neither is imported here: what nobody has loaded raises nothing.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from typing import Final, cast

import anyio
import httpx

from mellea_sc.backends.http.failures import Failures
from mellea_sc.core.errors import MelleaError

__all__ = ["ERRORS", "client_errors", "translated"]

ERRORS: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
)
"""All that a client of httpx, and the sockets below it, raise."""

_ELSEWHERE: Final = (
    ("httpx2", ("HTTPError", "InvalidURL", "StreamError")),
    ("aiohttp.http_exceptions", ("HttpProcessingError",)),
    ("aiohttp", ("ClientError",)),
)


def client_errors() -> tuple[type[Exception], ...]:
    """All that any client, and the sockets below it, raise."""
    return ERRORS + tuple(
        getattr(module, name)
        for library, names in _ELSEWHERE
        if (module := sys.modules.get(library)) is not None
        for name in names
    )


def translated(error: Exception, failures: Failures) -> MelleaError:
    """The library's error for one of the client's."""
    reason = _os_reason(error) or str(error) or type(error).__name__
    kinds = _names(error)
    if "ServerDisconnectedError" in kinds | _names(error.__cause__):
        return failures.interrupted(
            "the server disconnected"
        )  # httpx-aiohttp takes it for a time-out
    if kinds & {"InvalidURL", "UnsupportedProtocol", "LocalProtocolError"}:
        return failures.unusable(reason)
    if kinds & {"ConnectError", "ConnectTimeout", "ProxyError"}:
        return failures.unreachable(reason)
    if "RemoteProtocolError" in kinds and not _is_disconnect(reason):
        return failures.not_http(reason)
    if kinds & {"ClientResponseError", "HttpProcessingError"}:
        return failures.not_http(reason)
    return failures.interrupted(reason)


def _names(error: BaseException | None) -> set[str]:
    """The names of an error's class and of those above it."""
    return {kind.__name__ for kind in type(error).__mro__}


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
