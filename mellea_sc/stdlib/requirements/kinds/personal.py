"""All kinds of personal data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from mellea_sc.stdlib.requirements.kinds.accounts import find_cards, find_ibans
from mellea_sc.stdlib.requirements.kinds.addresses import find_emails, find_ipv4, find_ipv6
from mellea_sc.stdlib.requirements.kinds.kind import Find, Kind
from mellea_sc.stdlib.requirements.kinds.nationals import find_national_ids, find_ssns
from mellea_sc.stdlib.requirements.kinds.phones import find_phones

__all__ = ["PERSONAL", "personal_kind"]

_Make = Callable[[Collection[str] | None], Find]

PERSONAL: Final[Mapping[str, tuple[str, _Make]]] = {
    "email": ("e-mail", lambda _: find_emails),
    "ipv6": ("IP address", lambda _: find_ipv6),
    "ipv4": ("IP address", lambda _: find_ipv4),
    "iban": ("IBAN", lambda _: find_ibans()),
    "credit_card": ("credit card", lambda _: find_cards()),
    "ssn": ("social security number", lambda _: find_ssns()),
    "national_id": ("national number", lambda _: find_national_ids()),
    "phone": ("phone", find_phones),
}
"""The label of each kind, and a function that makes its finder; where two find the same text, the first one counts."""


def personal_kind(name: str, regions: Collection[str] | None) -> Kind:
    """A kind of personal data; imports the packages that it needs.

    Args:
        name: Its name.
        regions: The regions of phone numbers without a country code; ``None``: the default ones.

    Raises:
        InvalidOption: a region is not known.
        MissingExtra: a package is not installed.
    """
    label, make = PERSONAL[name]
    return Kind(label, make(regions))
