"""E-mail addresses and IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from mellea_sc.stdlib.requirements.kinds.regions import LETTER, Find, matching

# Markdown may put a backslash into an address: eve\_smith@example.org. A double underscore may make it bold.
_EMAIL: Final = re.compile(
    rf"""(?<!{LETTER})(?<![.+%-]) [^\W_](?:\\?[\w.+%&-]){{0,63}} \\?@
        (?:[^\W_](?:[\w-]{{0,61}}[^\W_])?\.){{1,8}} (?:[^\W\d_]{{2,24}}|xn--[a-z0-9-]{{2,59}}) (?!{LETTER}|@)""",
    re.VERBOSE | re.IGNORECASE,
)
_IN_CODE: Final = re.compile(r"@(?:\d+x\.|self\.)|@[^@]*\.[^@.]+[(\[]", re.IGNORECASE)
_USUAL: Final = re.compile(r"\.(?:com|org|net|edu|gov|io|[a-z]{2})$", re.IGNORECASE)
_LOGIN: Final = re.compile(r"://[^\s/@]*:[^\s/@]*\Z")


def _is_email(match: re.Match[str]) -> bool:
    text, start, end = match.string, match.start(), match.end()
    if _LOGIN.search(text, max(0, start - 64), start):
        return False  # a password and a host
    if match[0].lower().startswith("git@") and text[end : end + 1] in (":", "/"):
        return False  # a repository
    code = _IN_CODE.match(text, text.index("@", start), end + 1)
    return code is None or bool(code[0][-1] in "([" and _USUAL.search(match[0]))


find_emails: Final[Find] = matching(_EMAIL, _is_email)

_OCTET: Final = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4: Final = re.compile(
    rf"(?<![\w.-])(?<![A-Za-z]/)(?:{_OCTET}\.){{3}}{_OCTET}(?![\w])(?![.-]\d)", re.ASCII
)
_NO_ADDRESS: Final = re.compile(
    r"""(?:\b(?:version|ver|v|release|build|firmware|chapter|section|sec|clause|paragraph|figure|fig|table|step|kapitel|abschnitt|chapitre
        |cap[i\u00ed]tulo|\u0433\u043b\u0430\u0432\u0430|\u0440\u0430\u0437\u0434\u0435\u043b|\u0432\u0435\u0440\u0441\u0438\u044f)|\u7b2c|\u7248\u672c|\u7ae0|\u00a7)["']?[ ]?[:=.]?[ ]?["']?\Z""",
    re.VERBOSE | re.IGNORECASE,
)
_IPV6: Final = re.compile(
    r"(?<![\w:.])(?=[0-9a-f:]*:[0-9a-f]*:)[0-9a-f:]{2,39}(?:(?<=:)\d{1,3}(?:\.\d{1,3}){3})?(?![\w:])",
    re.ASCII | re.IGNORECASE,
)
_ASSIGNED: Final = tuple(
    map(
        ipaddress.IPv6Network,
        ("2000::/3", "fc00::/7", "fe80::/10", "64:ff9b::/96", "::ffff:0:0/96"),
    )
)


def _is_ipv4(match: re.Match[str]) -> bool:
    """Whether it is the address of a host: not a mask, loopback or multicast, nor the number of a version or chapter."""
    address = ipaddress.IPv4Address(match[0])
    if address.is_loopback or address.is_multicast or address.is_reserved or match[0][:2] == "0.":
        return False
    at = match.start()
    return not _NO_ADDRESS.search(match.string, max(0, at - 24), at)


find_ipv4: Final[Find] = matching(_IPV4, _is_ipv4)


def find_ipv6(text: str, start: int, end: int) -> Iterable[tuple[int, int]]:
    """Find IPv6 addresses in the networks that are assigned to hosts."""
    for match in _IPV6.finditer(text, start, end):
        written = match[0]
        last = match.end()
        if written.endswith(":") and not written.endswith("::"):
            written, last = written[:-1], last - 1
        try:
            address = ipaddress.IPv6Address(written)
        except ValueError:
            continue
        if any(address in network for network in _ASSIGNED):
            yield match.start(), last
