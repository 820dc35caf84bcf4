"""The HTTP client: how it is made.

Imports httpx; is itself imported when the first request is made.
"""

from __future__ import annotations

import ssl
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, TypeAlias

import httpx

from mellea_sc.backends.http.address import Address
from mellea_sc.backends.http.environment import ClientSettings, new_tls_context, proxy_for
from mellea_sc.backends.http.transport import DirectTransport
from mellea_sc.core.errors import InvalidOption, MissingExtra

if TYPE_CHECKING:
    import httpx2

__all__ = ["AnyClient", "has_aiohttp", "new_client"]

AnyClient: TypeAlias = "httpx.AsyncClient | httpx2.AsyncClient"
"""What a caller may bring."""

KEEP_FOR: Final = 2.0
"""Seconds for which an idle connection is kept. Usual servers drop it after 5 s; a request that is sent while
it is being dropped would have to be sent twice."""


def new_client(address: Address, settings: ClientSettings) -> httpx.AsyncClient:
    """A client for a server; it is to be entered and left.

    Raises:
        InvalidOption: what names the proxy, or the certificates, cannot be used.
        MissingExtra: the proxy is of a kind that needs another package.
    """
    proxy = proxy_for(address, settings.proxy)
    # Reading certificates takes tens of milliseconds, in vain without TLS.
    needs_tls = address.is_encrypted or (proxy is not None and proxy.is_encrypted)
    tls = new_tls_context(settings.verify) if needs_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if proxy is None:
        return _DirectClient(_new_transport(tls, address.uds))
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


class _DirectClient(httpx.AsyncClient):
    """A client whose requests go straight to its transport: no cookies, redirects, hooks or log lines.

    They take a quarter of the time of a request, and another step for each delta.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        super().__init__(transport=transport, trust_env=False)
        self._direct = transport

    async def send(
        self,
        request: httpx.Request,
        *,
        stream: bool = False,
        auth: object = None,
        follow_redirects: object = None,
    ) -> httpx.Response:
        """Send a request."""
        response = await self._direct.handle_async_request(request)
        response.request = request
        if not stream:
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response


def _new_transport(tls: ssl.SSLContext, uds: str | None) -> httpx.AsyncBaseTransport:
    """The fastest one that this event loop and what is installed allow."""
    if is_asyncio() and has_aiohttp():
        from mellea_sc.backends.http.fast import AiohttpTransport

        return AiohttpTransport(tls, uds, KEEP_FOR)
    return DirectTransport(tls, uds, KEEP_FOR)


@cache
def has_aiohttp() -> bool:
    """Whether aiohttp is installed, and not one of the old ones."""
    try:
        first, second, *_ = version("aiohttp").split(".")
        return (int(first), int(second)) >= (3, 12)
    except (PackageNotFoundError, ValueError):
        return False


def is_asyncio() -> bool:
    """Whether this is a task of asyncio's, be its loop of another make."""
    # Not imported here: a program under trio does without it.
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and asyncio.current_task() is not None
    except RuntimeError:
        return False
