"""Proxies and certificates, from arguments or from the environment.

The usual environment variables are read here and not by the HTTP clients, so that the same rules hold for all of
them, and a setting that cannot be used is an error that names the setting without showing its value.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, cast
from urllib.parse import urlsplit

import attrs

from mellea_sc.backends.http.address import Address, ip_of, user_secrets
from mellea_sc.backends.http.failures import Secret
from mellea_sc.core.errors import InvalidOption

if TYPE_CHECKING:
    import ssl

Verify: TypeAlias = "bool | str | os.PathLike[str] | ssl.SSLContext"
"""The trusted certificates: the default ones, any (``False``), those of a file or folder, or those of a context."""

CONNECT_TIMEOUT: Final = 10.0


def _check_verify(_: object, __: object, value: object) -> None:
    if isinstance(value, bool | str | os.PathLike):
        return
    import ssl  # no cost: whoever has a context has imported it

    if not isinstance(value, ssl.SSLContext):
        raise InvalidOption(
            "verify must be a bool, the path of certificates or an ssl.SSLContext, not "
            f"{type(value).__name__}"
        )


def _check_proxy(_: object, __: object, value: object) -> None:
    if isinstance(value, str):
        _parsed_proxy(value, "proxy=")
    elif not isinstance(value, bool):
        raise InvalidOption(f"proxy must be a URL or a bool, not {type(value).__name__}")


def _check_timeout(_: object, __: object, value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and cast("float", value) > 0):
        raise InvalidOption(f"timeout must be a positive number of seconds or None, not {value!r}")


@attrs.frozen(kw_only=True)
class ClientSettings:
    """Settings of the library's own clients.

    Args:
        verify: The trusted certificates; ``True``: those of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, or else the
            default ones.
        proxy: The URL of a proxy; ``True``: as the environment says for this server; ``False``: none.
        timeout: Seconds that connecting (DNS, TCP and TLS) may take; through a proxy, each step. ``None``: no
            timeout. Later waits are bounded by the timeout of deltas.
    """

    verify: Verify = attrs.field(default=True, validator=_check_verify)
    proxy: bool | str = attrs.field(default=True, repr=False, validator=_check_proxy)
    timeout: float | None = attrs.field(default=CONNECT_TIMEOUT, validator=_check_timeout)

    @property
    def are_usual(self) -> bool:
        """Whether certificates and proxies have their default settings."""
        return self.verify is True and self.proxy is True


# --- proxies ---------------------------------------------------------------------------------


@attrs.frozen
class Proxy:
    """A proxy.

    Args:
        url: Its URL, user and password included.
        named_by: The setting that it comes from, for example ``HTTPS_PROXY`` or ``proxy=``.
        secrets: The secrets in it.
    """

    url: str = attrs.field(repr=False)
    named_by: str
    secrets: tuple[Secret, ...] = ()

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection to the proxy itself uses TLS."""
        return self.url.startswith("https:")

    def __str__(self) -> str:
        return f"the proxy of {self.named_by}"


def proxy_for(address: Address, wanted: bool | str = True) -> Proxy | None:
    """The proxy for a server, if any.

    Args:
        address: The server's address.
        wanted: The URL of a proxy; ``True``: as the environment says; ``False``: none.

    Raises:
        InvalidOption: the proxy's setting, or ``NO_PROXY``, cannot be used.
    """
    if isinstance(wanted, str):
        return _parsed_proxy(wanted, "proxy=")
    if not wanted or address.is_local:
        return None
    from urllib.request import getproxies

    said = getproxies()  # elsewhere than on Linux, the system's own settings too
    for scheme in ("https" if address.is_encrypted else "http", "all"):
        url = said.get(scheme, "").strip()
        if url and not _is_excepted(address, said.get("no", "")):
            return _parsed_proxy(url, _variable(f"{scheme}_proxy", said[scheme]))
    return None


def _variable(name: str, value: str) -> str:
    found = [key for key, said in os.environ.items() if key.lower() == name and said == value]
    return min(found, key=str.isupper) if found else "the system's settings"


def _parsed_proxy(url: str, named_by: str) -> Proxy:
    url = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and parts.port != 0 and parts.path in ("", "/")
    except ValueError:
        raise _no_proxy_url(named_by) from None  # the original message quotes a part of the URL
    if not valid or parts.scheme not in _PROXY_SCHEMES or parts.query or parts.fragment:
        raise _no_proxy_url(named_by)
    authority = parts.netloc.rpartition("@")[0]
    return Proxy(url, named_by, tuple(user_secrets(authority)) if authority else ())


def _no_proxy_url(named_by: str) -> InvalidOption:
    return InvalidOption(
        f"the proxy that {named_by.removesuffix('=')} names has no valid URL: it must be like "
        "http://host:port or http://user:password@host:port, with % and two digits for / and @ in a password"
    )


_PROXY_SCHEMES: Final = ("http", "https", "socks5", "socks5h")


def _is_excepted(address: Address, no_proxy: str) -> bool:
    """Whether ``NO_PROXY`` contains the server.

    An entry is ``*``, a domain (its subdomains included), an address or a network, optionally with a port. An entry
    that cannot be read is ignored, unless it may mean this server.
    """
    host, ip = address.host.removesuffix("."), ip_of(address.host)
    for entry in no_proxy.lower().replace(",", " ").split():
        scheme, _, place = entry.rpartition("://")
        name, port = _split_port(place)
        if scheme and not address.url.startswith(f"{scheme}:"):
            continue
        if ip is None or (network := _network(name)) is None:
            domain = name.removeprefix("*").removeprefix(".").removesuffix(".")
            matches = name == "*" or (bool(domain) and f".{host}".endswith(f".{domain}"))
        else:
            matches = ip in network
        if matches and port and not (port.isascii() and port.isdigit()):
            raise InvalidOption("NO_PROXY names this server with a port that is no number")
        if matches and (not port or int(port) == address.port):
            return True
    return False


def _split_port(place: str) -> tuple[str, str]:
    if place.startswith("["):
        name, _, port = place[1:].partition("]")
        return name, port.removeprefix(":")
    if place.count(":") > 1:  # an IPv6 address; one without brackets has no port
        return place, ""
    name, _, port = place.partition(":")
    return name, port


def _network(name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(name, strict=False)
    except ValueError:
        ip = ip_of(name)
        return None if ip is None else ipaddress.ip_network(ip)


# --- certificates ----------------------------------------------------------------------------


def new_tls_context(verify: Verify = True) -> ssl.SSLContext:
    """The TLS context of a client, for the server and for a proxy.

    Raises:
        InvalidOption: there are no certificates in the given place; the message names the setting.
    """
    import ssl

    if isinstance(verify, ssl.SSLContext):
        return verify
    if verify is False:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if verify is not True:
        path = Path(verify).expanduser()
        return _trusting(None, path, "verify") if path.is_dir() else _trusting(path, None, "verify")
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file or folder:
        return _trusting(
            Path(file) if file else None, folder or None, "SSL_CERT_FILE", "SSL_CERT_DIR"
        )
    import certifi

    return ssl.create_default_context(cafile=certifi.where())


def _trusting(
    file: Path | None, folders: Path | str | None, file_named_by: str, folder_named_by: str = ""
) -> ssl.SSLContext:
    import ssl

    if folders is not None and not any(map(_has_certificates, str(folders).split(os.pathsep))):
        raise InvalidOption(
            f"{folder_named_by or file_named_by} names no folder with certificates that OpenSSL would find there: "
            "`openssl rehash` gives them the names that it looks for"
        )
    try:
        return ssl.create_default_context(cafile=file, capath=folders)
    except (OSError, ValueError):
        raise InvalidOption(
            f"{file_named_by} names no readable file with certificates (PEM, which begins with "
            "-----BEGIN CERTIFICATE-----)"
        ) from None


def _has_certificates(folder: str) -> bool:
    try:
        return any(_HASHED.match(path.name) for path in Path(folder).iterdir())
    except OSError:
        return False


_HASHED: Final = re.compile(r"[0-9a-f]{8}\.\d+\Z")
