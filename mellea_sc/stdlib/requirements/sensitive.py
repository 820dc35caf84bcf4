"""Requirements that find secrets and personal data in an answer, by their patterns and checksums."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, Literal, TypeAlias, TypeVar

from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import OnFail, PartialValidationResult
from mellea_sc.stdlib.requirements.kinds.addresses import find_emails, find_ipv4, find_ipv6
from mellea_sc.stdlib.requirements.kinds.numbers import (
    HARMLESS_NUMBERS,
    PERSONAL_PLACES,
    find_cards,
    find_ibans,
    find_national_ids,
    find_ssns,
)
from mellea_sc.stdlib.requirements.kinds.phones import find_phones
from mellea_sc.stdlib.requirements.kinds.regions import Find, Kind, Places, RegionScanner
from mellea_sc.stdlib.requirements.kinds.secrets import SECRET_PLACES, SECRETS
from mellea_sc.stdlib.requirements.scanned import ScannedRequirement

T = TypeVar("T")

PIIKind: TypeAlias = Literal[
    "email", "phone", "credit_card", "iban", "ssn", "national_id", "ipv4", "ipv6"
]
"""E-mail addresses; phone numbers; card numbers, IBANs and national identification numbers with valid checksums
(``"ssn"`` is that of the United States); IP addresses."""

SecretKind: TypeAlias = Literal[
    "api_key",
    "aws_secret",
    "basic_auth",
    "bearer",
    "jwt",
    "private_key",
    "url_password",
    "webhook",
]
"""API keys of common services, AWS secret keys beside their name, credentials of Basic authentication, bearer
tokens, JSON web tokens, private keys in PEM blocks, passwords in URLs, webhook URLs."""


_MakeFind = Callable[[Collection[str] | None], Find]

PERSONAL: Final[Mapping[str, tuple[str, _MakeFind]]] = {
    "email": ("e-mail", lambda _: find_emails),
    "ipv6": ("IP address", lambda _: find_ipv6),
    "ipv4": ("IP address", lambda _: find_ipv4),
    "iban": ("IBAN", lambda _: find_ibans()),
    "credit_card": ("credit card", lambda _: find_cards()),
    "ssn": ("social security number", lambda _: find_ssns()),
    "national_id": ("national number", lambda _: find_national_ids()),
    "phone": ("phone", find_phones),
}
"""The label of each kind, and a function that makes its finder, which imports the packages that it needs. Where two find
the same text, the first one counts."""


class NoPII(ScannedRequirement):
    """No personal data: text that looks like it is never shown.

    Personal data is found by its pattern and its checksum. Names and postal addresses have neither and are not
    found. The reason of a fail names the kind and does not quote the text. ``docs/guide/detection.md`` has the
    measured rates of what is found and of false alarms.

    All kinds but ``"email"``, ``"ipv4"`` and ``"ipv6"`` need the extra ``detect``.

    Args:
        kinds: The kinds to find; by default all.
        phone_regions: Regions, like ``"DE"``, whose phone numbers are also found without a country code;
            by default 40 regions. Numbers with a country code are found for all regions.
        replacement: Replaces each with ``on_fail="fix"``; by default its kind, like ``[e-mail]``.
        check_only: Leave the description out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`; ``"fix"`` redacts.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: a kind or a region is not known.
        MissingExtra: a kind needs a package that is not installed.
    """

    def __init__(
        self,
        kinds: Collection[PIIKind] | None = None,
        *,
        phone_regions: Collection[str] | None = None,
        replacement: str | None = None,
        check_only: bool = False,
        on_fail: OnFail | None = None,
        blocking: bool = True,
    ) -> None:
        chosen = _chosen(PERSONAL, kinds)
        found = [Kind(label, make(phone_regions)) for label, make in chosen.values()]
        super().__init__(
            f"no personal data: {_labels(found)}",
            _scanner(PERSONAL_PLACES, found, replacement, HARMLESS_NUMBERS),
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.kinds: frozenset[str] = frozenset(chosen)


class NoSecrets(ScannedRequirement):
    """No keys, tokens and passwords: text that looks like one is never shown.

    The reason of a fail names the kind and does not quote the text. ``docs/guide/detection.md`` has the measured
    rates of what is found and of false alarms.

    Args:
        kinds: The kinds to find; by default all.
        replacement: Replaces each with ``on_fail="fix"``; by default its kind, like ``[API key]``.
        check_only: Leave the description out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`; ``"fix"`` redacts.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: a kind is not known.
    """

    def __init__(
        self,
        kinds: Collection[SecretKind] | None = None,
        *,
        replacement: str | None = None,
        check_only: bool = False,
        on_fail: OnFail | None = None,
        blocking: bool = True,
    ) -> None:
        chosen = _chosen(SECRETS, kinds)
        super().__init__(
            f"no secrets: {_labels(chosen.values())}",
            _scanner(SECRET_PLACES, chosen.values(), replacement),
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.kinds: frozenset[str] = frozenset(chosen)


def _chosen(known: Mapping[str, T], kinds: Collection[str] | None) -> dict[str, T]:
    if kinds is None:
        return dict(known)
    names = set[object]() if isinstance(kinds, str) else set(kinds)
    if not names or not names <= known.keys():
        raise InvalidOption(f"kinds must be some of {', '.join(map(repr, known))}, not {kinds!r}")
    return {name: kind for name, kind in known.items() if name in names}


def _labels(kinds: Iterable[Kind]) -> str:
    return ", ".join(dict.fromkeys(kind.label for kind in kinds))


def _scanner(
    places: Places, kinds: Iterable[Kind], replacement: str | None, harmless: Kind | None = None
) -> RegionScanner:
    """A scanner for kinds of text that must not be there.

    Args:
        places: Finds the regions of the text that are searched.
        kinds: The kinds; where two find the same text, the first one counts.
        replacement: Replaces each with ``on_fail="fix"``; ``None``: the kind in brackets.
        harmless: Finds text that no kind may claim.
    """
    searched: list[tuple[Kind, PartialValidationResult | None]] = []
    if harmless is not None:
        searched.append((harmless, None))
    for kind in kinds:
        instead = f"[{kind.label}]" if replacement is None else replacement
        reason = f"there is something that looks like this: {kind.label}"
        searched.append((kind, PartialValidationResult("fail", reason=reason, replacement=instead)))
    return RegionScanner(places, searched)
