"""Where a model's server is: addresses as people write them, keys, and what must stay secret of both."""

from __future__ import annotations

import base64
import ipaddress
from urllib.parse import unquote, urlsplit

import attrs

from mellea_sc.backends.http.failures import Secret
from mellea_sc.core.errors import InvalidOption

__all__ = ["Address", "parse_address"]


@attrs.frozen
class Address:
    """Where a server is and how to be let in.

    Args:
        url: The base URL, without user, password and trailing slash.
        authorization: The header's value, where one is needed.
        secrets: What must not be shown.
        uds: Path of the unix socket to go through, if any.
    """

    url: str
    authorization: Secret | None = None
    secrets: tuple[Secret, ...] = ()
    uds: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, so that a proxy must have no part in it."""
        host = urlsplit(self.url).hostname or ""
        if self.uds is not None or host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS is spoken there."""
        return self.url.startswith("https:")

    def __str__(self) -> str:
        return self.url if self.uds is None else f"unix:{self.uds}"


def parse_address(
    url: str, *, api_key: str | None = None, default_key: str | None = None, uds: str | None = None
) -> Address:
    """Read an address.

    Args:
        url: ``http://host:port/path`` or ``https://…``; may hold ``user:password@``.
        api_key: A key given for this server; wins over what the URL holds.
        default_key: A key from the environment; used when there is no other.
        uds: Path of the unix socket to go through.

    Raises:
        InvalidOption: it is not such a URL, or the key cannot stand in a header.
    """
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port, or the brackets of an IPv6 address
        parts, valid = urlsplit(""), False
    if not valid or parts.query or parts.fragment:
        shown = "this one" if "@" in url else repr(url)  # a password may be anywhere in it
        raise InvalidOption(f"a base URL must be like http://host:port/path, not {shown}")
    authority, _, host_and_port = parts.netloc.rpartition("@")
    clean = f"{parts.scheme}://{host_and_port}{parts.path}".rstrip("/")
    secrets: list[Secret] = []
    authorization: Secret | None = None
    if authority:
        user, _, password = authority.partition(":")
        pair = f"{unquote(user)}:{unquote(password)}"
        token = base64.b64encode(pair.encode()).decode()
        secrets += [Secret(unquote(password)), Secret(token)]
        authorization = Secret(f"Basic {token}")
    if api_key is not None or authorization is None:
        key = (api_key if api_key is not None else default_key or "").strip()
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise InvalidOption(
                "the API key holds characters that no key can have, a line break perhaps"
            )
        if key:
            secrets.append(Secret(key))
            authorization = Secret(f"Bearer {key}")
    return Address(clean, authorization, tuple(secrets), uds)
