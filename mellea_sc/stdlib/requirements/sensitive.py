"""No secrets and no personal data in an answer, by what they look like."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import partial
from typing import Final, Literal, TypeAlias

from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import OnFail, PartialValidationResult, ValidationResult
from mellea_sc.stdlib.requirements.kinds import PII, SECRETS, Kind
from mellea_sc.stdlib.requirements.making import simple_validate
from mellea_sc.stdlib.requirements.watching import Found, Watched, WindowWatch

__all__ = ["NoPII", "NoSecrets", "PIIKind", "SecretKind"]

PIIKind: TypeAlias = Literal["email", "phone", "credit_card", "iban", "ipv4"]
"""E-mail addresses, phone numbers, card numbers and IBANs whose checksums are right, IP addresses."""

SecretKind: TypeAlias = Literal["api_key", "bearer", "jwt", "private_key"]
"""API keys of common services, bearer tokens, JSON web tokens, private keys in PEM blocks."""

PII_WINDOW: Final = 160
SECRETS_WINDOW: Final = 128

# Over these characters nothing reaches that is looked for, so that prose is judged at once: white space
# after a small letter or a mark (an "r" may be that of "bearer"), and the scripts that use no spaces.
_PII_BARRIER: Final = re.compile(
    r"(?<=[a-z,;:!?\u00df-\u00ff])\s|[\u3000-\u9fff\uac00-\ud7af\uff00-\uffef]"
)
_SECRETS_BARRIER: Final = re.compile(r"(?<=[a-qs-z,;:!?\u00df-\u00ff])\s|[\u3000-\uffef]")


class _Nothing(Watched):
    """Nothing of some kinds."""

    def __init__(
        self,
        description: str,
        kinds: Mapping[str, Kind],
        window: int,
        barrier: re.Pattern[str],
        replacement: str | None,
        *,
        check_only: bool,
        on_fail: OnFail | None,
        blocking: bool,
    ) -> None:
        verdicts = [(kind, _verdict(kind, replacement)) for kind in kinds.values()]
        watch = WindowWatch(partial(_find, verdicts), window, barrier=barrier)
        super().__init__(
            description,
            simple_validate(partial(_judge, watch)),
            watch,
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.kinds: frozenset[str] = frozenset(kinds)


class NoPII(_Nothing):
    """No personal data: nothing that looks like it is ever shown.

    What is found is the shape of a thing and its checksum, where it has one: names and postal
    addresses have neither and are not found. The reason of a fail says the kind, and does not quote.

    Args:
        kinds: What is looked for; by default all kinds.
        replacement: What stands in the place of each with ``on_fail="fix"``; by default its kind, like
            ``[e-mail]``.
        check_only: The description stays out of the prompt.
        on_fail: What follows a fail, see :class:`Requirement`; ``"fix"`` redacts.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: there is no such kind.
    """

    def __init__(
        self,
        kinds: Collection[PIIKind] | None = None,
        *,
        replacement: str | None = None,
        check_only: bool = False,
        on_fail: OnFail | None = None,
        blocking: bool = True,
    ) -> None:
        chosen = _chosen(PII, kinds)
        super().__init__(
            f"no personal data: {_listed(chosen)}",
            chosen,
            PII_WINDOW,
            _PII_BARRIER,
            replacement,
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )


class NoSecrets(_Nothing):
    """No keys and tokens: nothing that looks like one is ever shown.

    Known by their shape: the keys of common services, tokens, blocks of private keys. The reason of
    a fail says the kind, and does not quote.

    Args:
        kinds: What is looked for; by default all kinds.
        replacement: What stands in the place of each with ``on_fail="fix"``; by default its kind, like
            ``[API key]``.
        check_only: The description stays out of the prompt.
        on_fail: What follows a fail, see :class:`Requirement`; ``"fix"`` redacts.
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
        chosen = _chosen(SECRETS, kinds)
        super().__init__(
            f"no secrets: {_listed(chosen)}",
            chosen,
            SECRETS_WINDOW,
            _SECRETS_BARRIER,
            replacement,
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )


def _chosen(known: Mapping[str, Kind], kinds: Collection[str] | None) -> Mapping[str, Kind]:
    if kinds is None:
        return known
    names = set[object]() if isinstance(kinds, str) else set(kinds)
    if not names or not names <= known.keys():
        raise InvalidOption(f"kinds must be some of {', '.join(map(repr, known))}, not {kinds!r}")
    return {name: kind for name, kind in known.items() if name in names}


def _listed(kinds: Mapping[str, Kind]) -> str:
    return ", ".join(dict.fromkeys(kind.label for kind in kinds.values()))


def _verdict(kind: Kind, replacement: str | None) -> PartialValidationResult:
    return PartialValidationResult(
        "fail",
        reason=f"there is something that looks like this: {kind.label}",
        replacement=f"[{kind.label}]" if replacement is None else replacement,
    )


def _find(
    verdicts: list[tuple[Kind, PartialValidationResult]], text: str, at: int, end: int
) -> Found | None:
    for kind, verdict in verdicts:
        found = kind.find(text, at, end)
        if found is not None:
            return Found(found, verdict)
    return None


def _judge(watch: WindowWatch, text: str) -> ValidationResult:
    for piece in watch.pieces_of(text):
        if piece.verdict.success == "fail":
            return ValidationResult(False, reason=piece.verdict.reason)
    return ValidationResult(True)
