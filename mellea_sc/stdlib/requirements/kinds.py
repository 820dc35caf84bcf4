"""What secrets and personal data look like: patterns, and checks of what they match.

Each pattern says with a look-behind where a thing may begin, so that none begins inside of another
word, and is made so that it takes time in the length of its window.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import attrs

__all__ = ["PII", "SECRETS", "Kind"]


@attrs.frozen
class Kind:
    """One kind of thing that must not be shown.

    Args:
        label: What it is called, for people.
        pattern: What it looks like.
        length: How much of a match is one: 0 for nothing. Without it: all.
    """

    label: str
    pattern: re.Pattern[str]
    length: Callable[[str], int] = len

    def find(self, text: str, at: int, end: int) -> int | None:
        """Where one ends that begins at ``at``, if one does."""
        match = self.pattern.match(text, at, end)
        length = 0 if match is None else self.length(match[0])
        return at + length if length else None


# --- secrets -----------------------------------------------------------------------------------------

_API_KEYS: Final = r"""
    (?<![A-Za-z0-9_-])
    (?: (?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])               # AWS
      | AIza[A-Za-z0-9_-]{35}                                            # Google
      | gh[opsur]_[A-Za-z0-9]{30,} | github_pat_[A-Za-z0-9_]{30,}        # GitHub
      | gl(?:pat|ptt|dt|rt|cbt)-[A-Za-z0-9_.-]{16,}                      # GitLab
      | xox[abeoprs]-[A-Za-z0-9-]{10,} | xapp-[A-Za-z0-9-]{10,}          # Slack
      | (?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,} | whsec_[A-Za-z0-9]{20,}   # Stripe
      | sk-[A-Za-z0-9_-]{20,}                                            # OpenAI, Anthropic and others
      | hf_[A-Za-z0-9]{30,}                                              # Hugging Face
      | npm_[A-Za-z0-9]{30,} | pypi-[A-Za-z0-9_-]{40,}                   # package indexes
      | SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}                       # SendGrid
      | (?:AC|SK)[0-9a-f]{32}(?![A-Za-z0-9])                             # Twilio
      | dop_v1_[0-9a-f]{40,} | shpat_[0-9a-fA-F]{32}                     # DigitalOcean, Shopify
    )"""
_PEM: Final = r"""
    -----BEGIN[ ](?:[A-Z0-9]+[ ]){0,3}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----
    (?: (?!-----END)[A-Za-z0-9+/=\\\s:,.()-] )*
    (?: -----END[ ](?:[A-Z0-9]+[ ]){0,3}PRIVATE[ ]KEY(?:[ ]BLOCK)?----- )?"""
_JWT: Final = r"""
    (?<![A-Za-z0-9_-]) eyJ[A-Za-z0-9_-]{10,} (?: \.[A-Za-z0-9_-]* ){0,4} (?<![.])"""
_BEARER: Final = r"(?<![A-Za-z0-9_]) (?i:bearer)[ ]+(?=[^\s]*[0-9])[A-Za-z0-9._~+/-]{16,}=*"

SECRETS: Final[Mapping[str, Kind]] = {
    "private_key": Kind("private key", re.compile(_PEM, re.VERBOSE)),
    "jwt": Kind("token", re.compile(_JWT, re.VERBOSE)),
    "bearer": Kind("token", re.compile(_BEARER, re.VERBOSE)),
    "api_key": Kind("API key", re.compile(_API_KEYS, re.VERBOSE)),
}

# --- personal data --------------------------------------------------------------------------------------

_EMAIL: Final = r"""
    (?<![\w.+%-]) \w[\w.+%-]{0,63} @ (?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8} [^\W\d_]{2,24} (?![\w@])"""
_PHONE: Final = r"""
    (?<![\w.+/-])
    (?: (?:\+|00)[1-9]\d{0,3} (?: [ ./-]? (?: \(\d{1,5}\) | \d{1,5} ) ){2,6}   # +49 (0)30 123456
      | (?: \([2-9]\d{2}\) | [2-9]\d{2} ) [ .-]? [2-9]\d{2} [ .-] \d{4}                    # (212) 555-0123
      | (?: \(0[1-9]\d{0,4}\) | 0[1-9]\d{0,4} ) (?:[ ]?[./-][ ]?|[ ]) \d{2,8} (?: [ -] \d{2,6} ){0,3}  # 030 / 123456
    ) (?![\w])"""
_CARD: Final = r"(?<![\w.-])[2-6]\d{3}(?:[ -]?\d){8,15}"
_IBAN: Final = r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]){11,30}"
_OCTET: Final = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4: Final = rf"(?<![\w.])(?:{_OCTET}\.){{3}}{_OCTET}(?![\w])(?!\.\d)"


def _card_length(text: str) -> int:
    for end in _ends(text):
        digits = [int(char) for char in text[:end] if char.isdecimal()]
        if 13 <= len(digits) <= 19 and _luhn(digits):
            return end
    return 0


def _luhn(digits: list[int]) -> bool:
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _iban_length(text: str) -> int:
    for end in _ends(text):
        plain = text[:end].replace(" ", "")
        if 15 <= len(plain) <= 34:
            number = "".join(str(int(char, 36)) for char in plain[4:] + plain[:4])
            if int(number) % 97 == 1:
                return end
    return 0


def _ends(text: str) -> list[int]:
    """Where something in groups may end: at the end, or before a space or hyphen; the longest first."""
    return [len(text), *(at for at in range(len(text) - 1, 0, -1) if text[at] in " -")]


def _phone_length(text: str) -> int:
    return len(text) if 7 <= sum(char.isdecimal() for char in text) <= 15 else 0


PII: Final[Mapping[str, Kind]] = {
    "email": Kind("e-mail", re.compile(_EMAIL, re.VERBOSE)),
    "iban": Kind("IBAN", re.compile(_IBAN, re.ASCII), _iban_length),
    "credit_card": Kind("credit card", re.compile(_CARD, re.ASCII), _card_length),
    "ipv4": Kind("IP address", re.compile(_IPV4, re.ASCII)),
    "phone": Kind("phone", re.compile(_PHONE, re.VERBOSE | re.ASCII), _phone_length),
}
