"""The HTTP client: how it is made.

Imports httpx; is itself imported when the first request is made.
"""

from __future__ import annotations

import ssl
from typing import Final
from urllib.request import getproxies

import httpx

from mellea_sc.backends.http.address import Address
from mellea_sc.backends.http.transport import DirectTransport
from mellea_sc.core.errors import InvalidOption, MissingExtra

__all__ = ["new_client"]

KEEP_FOR: Final = 2.0
"""Seconds for which an idle connection is kept. Usual servers drop it after 5 s; a request that is sent while
it is being dropped would have to be sent twice."""


def new_client(address: Address) -> httpx.AsyncClient:
    """A client for a server; it is to be entered and left.

    Raises:
        InvalidOption: the environment names a proxy that is no URL.
        MissingExtra: the environment names a proxy of a kind that needs another package.
    """
    # Reading the system's certificates takes tens of milliseconds, in vain without TLS.
    tls = (
        httpx.create_ssl_context()
        if address.is_encrypted
        else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )
    if address.is_local or not getproxies().keys() - {"no"}:
        return httpx.AsyncClient(
            transport=DirectTransport(tls, address.uds, KEEP_FOR), trust_env=False
        )
    try:
        return httpx.AsyncClient(
            verify=tls, limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEP_FOR)
        )
    except ImportError as error:
        raise MissingExtra(
            f"the proxy that the environment names needs a package: {error}"
        ) from error
    except ValueError:
        # Neither quoted nor chained: a proxy's URL may hold a password.
        raise InvalidOption("the proxy that the environment names has no valid URL") from None
