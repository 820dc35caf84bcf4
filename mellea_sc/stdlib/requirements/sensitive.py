"""No secrets and no personal data in an answer, by what they look like."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Literal, TypeAlias

from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import OnFail, PartialValidationResult, ValidationResult
from mellea_sc.stdlib.requirements.kinds.digits import HARMLESS_NUMBERS, PERSONAL_PLACES
from mellea_sc.stdlib.requirements.kinds.kind import Kind
from mellea_sc.stdlib.requirements.kinds.personal import PERSONAL, personal_kind
from mellea_sc.stdlib.requirements.kinds.regions import Places, RegionScanner
from mellea_sc.stdlib.requirements.kinds.secrets import SECRET_PLACES, SECRETS
from mellea_sc.stdlib.requirements.making import simple_validate
from mellea_sc.stdlib.requirements.scanned import UNKNOWN, ScannedRequirement

__all__ = ["NoPII", "NoSecrets", "PIIKind", "SecretKind"]

PIIKind: TypeAlias = Literal[
    "email", "phone", "credit_card", "iban", "ssn", "national_id", "ipv4", "ipv6"
]
"""E-mail addresses; phone numbers; card numbers, IBANs and numbers of persons whose checksums are right
(``"ssn"`` are those of the United States); IP addresses."""

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
"""API keys of common services, secret keys of AWS beside their name, credentials of Basic authentication,
bearer tokens, JSON web tokens, private keys in PEM blocks, passwords in addresses, addresses of webhooks."""


class _Nothing(ScannedRequirement):
    """Nothing of some kinds."""

    def __init__(
        self,
        description: str,
        kinds: Mapping[str, Kind],
        harmless: Iterable[Kind],
        places: Places,
        replacement: str | None,
        *,
        check_only: bool,
        on_fail: OnFail | None,
        blocking: bool,
    ) -> None:
        verdicts = [(kind, UNKNOWN) for kind in harmless]
        verdicts += [(kind, _verdict(kind, replacement)) for kind in kinds.values()]
        scanner = RegionScanner(places, verdicts)
        labels = dict.fromkeys(kind.label for kind in kinds.values())
        super().__init__(
            f"{description}: {', '.join(labels)}",
            simple_validate(partial(_judge, scanner)),
            scanner,
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.kinds: frozenset[str] = frozenset(kinds)


class NoPII(_Nothing):
    """No personal data: nothing that looks like it is ever shown.

    What is found is the shape of a thing and its checksum, where it has one: names and postal
    addresses have neither and are not found. The reason of a fail says the kind, and does not quote.
    How much is found, and how much else with it, says ``docs/guide/detection.md``.

    All kinds but ``"email"``, ``"ipv4"`` and ``"ipv6"`` need the extra ``detect``.

    Args:
        kinds: What is looked for; by default all kinds.
        phone_regions: Regions, like ``"DE"``, whose phone numbers are found without a country code too;
            by default those of many. With a country code all are.
        replacement: What stands in the place of each with ``on_fail="fix"``; by default its kind, like
            ``[e-mail]``.
        check_only: Leave the description out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`; ``"fix"`` redacts.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: there is no such kind, or no such region.
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
        super().__init__(
            "no personal data",
            {name: personal_kind(name, phone_regions) for name in _chosen(PERSONAL, kinds)},
            [HARMLESS_NUMBERS],
            PERSONAL_PLACES,
            replacement,
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )


class NoSecrets(_Nothing):
    """No keys, tokens and passwords: nothing that looks like one is ever shown.

    The reason of a fail says the kind, and does not quote. How much is found, and how much else with it,
    says ``docs/guide/detection.md``.

    Args:
        kinds: What is looked for; by default all kinds.
        replacement: What stands in the place of each with ``on_fail="fix"``; by default its kind, like
            ``[API key]``.
        check_only: Leave the description out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`; ``"fix"`` redacts.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: there is no such kind.
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
        super().__init__(
            "no secrets",
            {name: SECRETS[name] for name in _chosen(SECRETS, kinds)},
            (),
            SECRET_PLACES,
            replacement,
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )


def _chosen(known: Mapping[str, object], kinds: Collection[str] | None) -> list[str]:
    if kinds is None:
        return list(known)
    names = set[object]() if isinstance(kinds, str) else set(kinds)
    if not names or not names <= known.keys():
        raise InvalidOption(f"kinds must be some of {', '.join(map(repr, known))}, not {kinds!r}")
    return [name for name in known if name in names]


def _verdict(kind: Kind, replacement: str | None) -> PartialValidationResult:
    return PartialValidationResult(
        "fail",
        reason=f"there is something that looks like this: {kind.label}",
        replacement=f"[{kind.label}]" if replacement is None else replacement,
    )


def _judge(scanner: RegionScanner, text: str) -> ValidationResult:
    for piece in scanner.pieces_of(text):
        if piece.verdict.success == "fail":
            return ValidationResult(False, reason=piece.verdict.reason)
    return ValidationResult(True)
