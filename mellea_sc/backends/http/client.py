"""The HTTP client: how it is made.

Imports httpx; is itself imported when the first request is made.
"""

from __future__ import annotations

import ssl
from typing import Final

import httpx

from mellea_sc.backends.http.address import Address
from mellea_sc.backends.http.environment import ClientSettings, new_tls_context, proxy_for
from mellea_sc.backends.http.transport import DirectTransport
from mellea_sc.core.errors import InvalidOption, MissingExtra

__all__ = ["new_client"]

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
        return httpx.AsyncClient(
            transport=DirectTransport(tls, address.uds, KEEP_FOR), trust_env=False
        )
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
