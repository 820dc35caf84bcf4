"""The HTTP client: how it is made.

Imports httpx; is itself imported when the first request is made.
"""

from __future__ import annotations

import ssl

import httpx

from mellea_sc.backends.http.address import Address
from mellea_sc.core.errors import InvalidOption, MissingExtra

__all__ = ["new_client"]


def new_client(address: Address) -> httpx.AsyncClient:
    """A client for a server; it is to be entered and left.

    Raises:
        InvalidOption: the environment names a proxy that is no URL.
        MissingExtra: the environment names a proxy of a kind that needs another package.
    """
    try:
        return httpx.AsyncClient(
            transport=None if address.uds is None else httpx.AsyncHTTPTransport(uds=address.uds),
            # Reading the system's certificates takes tens of milliseconds, in vain without TLS.
            verify=True if address.is_encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=not address.is_local,
            # Idle connections go before usual servers drop them (after 5 s): a request that is sent
            # on a connection while it is being dropped would fail.
            limits=httpx.Limits(max_connections=None, keepalive_expiry=2.0),
        )
    except ImportError as error:
        raise MissingExtra(
            f"the proxy that the environment names needs a package: {error}"
        ) from error
    except ValueError:
        # Neither quoted nor chained: a proxy's URL may hold a password.
        raise InvalidOption("the proxy that the environment names has no valid URL") from None
