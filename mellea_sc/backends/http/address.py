"""The address of a model's server: URLs as people write them, keys, and the secrets in both."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import attrs

from mellea_sc.backends.http.failures import Secret
from mellea_sc.core.errors import InvalidOption

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


@attrs.frozen
class Address:
    """The address of a server, and the credentials for it.

    Args:
        url: The base URL, without user, password, query and trailing slash.
        authorization: The value of the ``Authorization`` header, if one is needed.
        secrets: Texts that must not be shown.
        uds: The path of a unix socket to connect to instead, if any.
        headers: The caller's headers, by their names in lower case.
        query: The query of every request's URL, for example ``api-version=…``.
    """

    url: str
    authorization: Secret | None = None
    secrets: tuple[Secret, ...] = ()
    uds: str | None = None
    headers: Mapping[str, Secret] = attrs.field(factory=dict[str, Secret])
    query: Secret | None = None

    @property
    def host(self) -> str:
        """The host, in lower case, without port and brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port, or the scheme's own."""
        return urlsplit(self.url).port or _PORTS[urlsplit(self.url).scheme]

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, so that no proxy must be used."""
        return self.uds is not None or is_this_machine(self.host)

    @property
    def is_encrypted(self) -> bool:
        """Whether the server uses TLS."""
        return self.url.startswith("https:")

    def at(self, path: str) -> str:
        """The URL of a path below the address, as it is sent: only ASCII, without a default port.

        Raises:
            ValueError: the host has characters that no host can have.
        """
        parts = urlsplit(self.url)
        host = _ascii_host(parts.hostname or "")
        port = f":{parts.port}" if parts.port and parts.port != _PORTS[parts.scheme] else ""
        query = f"?{quote(self.query.value, safe=_SAFE)}" if self.query else ""
        return f"{parts.scheme}://{host}{port}{quote(parts.path + path, safe=_SAFE)}{query}"

    def sent_headers(self) -> dict[str, str]:
        """The caller's headers and, if needed, ``Authorization``."""
        headers = {name: secret.value for name, secret in self.headers.items()}
        if self.authorization is not None:
            headers["authorization"] = self.authorization.value
        return headers

    def __str__(self) -> str:
        return self.url if self.uds is None else f"unix:{self.uds}"


_PORTS: Final = {"http": 80, "https": 443}
_SAFE: Final = "!$%&'()*+,/:;=?@[]^`{|}~\\"
"""Characters that stay unquoted in a path or a query; with the percent sign, because it is quoted already."""


def _ascii_host(host: str) -> str:
    if ":" in host:
        return f"[{host}]"
    if host.isascii():
        return host
    import idna

    return idna.encode(host).decode("ascii")


def parse_address(
    url: str,
    *,
    api_key: str | None = None,
    default_key: str | None = None,
    uds: str | None = None,
    headers: Mapping[str, str] | None = None,
    what: str = "a base URL",
) -> Address:
    """Read an address.

    Args:
        url: ``http://host:port/path`` or ``https://…``; may hold ``user:password@`` and a query.
        api_key: A key given for this server; has priority over the URL and the headers.
        default_key: A key from the environment; used if there is no other.
        uds: The path of a unix socket to connect to instead.
        headers: Headers for every request. Their values are secrets.
        what: A name of the URL, for error messages.

    Raises:
        InvalidOption: it is not such a URL, or a key or header that cannot be sent.
    """
    for name, given in ((what, url), ("api_key", api_key), ("uds", uds)):
        if given is not None and not isinstance(given, str):
            raise InvalidOption(f"{name} must be a str, not {type(given).__name__}")
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port, or the brackets of an IPv6 address
        parts, valid = urlsplit(""), False
    if not valid or parts.fragment or not (parts.query.isascii() and parts.query.isprintable()):
        # Not quoted in full: a password or a key may be anywhere in it.
        shown = "this one" if "@" in url or "?" in url else repr(url)
        raise InvalidOption(f"{what} must be like http://host:port/path, not {shown}")
    authority, _, host_and_port = parts.netloc.rpartition("@")
    clean = f"{parts.scheme}://{_usual_spelling(host_and_port)}{parts.path}".rstrip("/")
    sent = _checked_headers(headers or {})
    secrets = [one for value in sent.values() for one in header_secrets(value.value)]
    secrets += [Secret(v) for k, v in parse_qsl(parts.query) if k != "api-version"]
    authorization = sent.pop("authorization", None)
    if authority and authorization is None:
        secrets += user_secrets(authority)
        authorization = Secret(f"Basic {secrets[-1].value}")
    if api_key is None and authorization is None and not _KEY_HEADERS & sent.keys():
        api_key = default_key
    if key := _checked_key(api_key or ""):
        secrets.append(Secret(key))
        authorization = Secret(f"Bearer {key}")
    query = Secret(parts.query) if parts.query else None
    return Address(clean, authorization, tuple(secrets), uds, sent, query)


def _usual_spelling(host_and_port: str) -> str:
    """The same host and port, the host in a spelling that every resolver and client understands."""
    host, colon, port = host_and_port.partition(":")
    if host.lower() == "localhost.":
        host = "localhost"
    elif _NUMBERS.match(host):
        host = str(ip_of(host) or host)
    return f"{host}{colon}{port}"


# --- this machine ----------------------------------------------------------------------------


def is_this_machine(host: str) -> bool:
    """Whether a host is this machine, in any spelling: a loopback address, or an unspecified one (``0.0.0.0``)."""
    host = host.lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    ip = ip_of(host)
    return ip is not None and (ip.is_loopback or ip.is_unspecified)


def ip_of(host: str) -> IPAddress | None:
    """The IP address that a host is written as; ``None``: it is a name.

    Resolvers accept more forms than the usual one (``127.1``, ``2130706433``), and an IPv4 address may be written as
    an IPv6 address.
    """
    try:
        ip = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host)) if _NUMBERS.match(host) else None
        except OSError:
            return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


_NUMBERS: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}\Z", re.IGNORECASE)


# --- keys and headers ------------------------------------------------------------------------

_KEY_HEADERS: Final = {"api-key", "x-api-key", "x-goog-api-key"}
"""Headers that carry a key. With one of them a key from the environment is not sent: it is for another server."""
_OURS: Final = {
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
}
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


def user_secrets(authority: str) -> list[Secret]:
    """The secrets in a URL's user and password; the last one is the Basic token made of both.

    The user is a secret too: some services accept a token in its place.
    """
    user, _, password = authority.partition(":")
    pair = f"{unquote(user)}:{unquote(password)}"
    token = base64.b64encode(pair.encode()).decode()
    return [Secret(unquote(user)), Secret(unquote(password)), Secret(token)]


def header_secrets(value: str) -> list[Secret]:
    """The secrets in a header's value: the value itself, and the key in it."""
    scheme, _, token = value.partition(" ")
    secrets = [Secret(value), Secret(token.strip())]
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):  # it is no base64
            secrets += user_secrets(base64.b64decode(token, validate=True).decode())
    return secrets


def _checked_key(key: str) -> str:
    key = key.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InvalidOption(
            "the API key holds characters that no key can have, a line break perhaps"
        )
    return key


def _checked_headers(headers: Mapping[str, str]) -> dict[str, Secret]:
    checked: dict[str, Secret] = {}
    if not isinstance(headers, Mapping):
        raise InvalidOption("headers must be a mapping from names to values")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.match(name):
            raise InvalidOption("headers has a name that no header can have")
        if name.lower() in _OURS:
            raise InvalidOption(f"the header {name!r} cannot be set: the protocol needs its own")
        if not isinstance(value, str) or not (value.isascii() and value.strip().isprintable()):
            raise InvalidOption(f"the header {name!r} has a value that cannot be sent")
        checked[name.lower()] = Secret(value.strip())
    return checked
