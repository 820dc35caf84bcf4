"""Card numbers and IBANs: found by issuer, length and checksum."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from mellea_sc.stdlib.requirements.kinds.digits import Run, runs
from mellea_sc.stdlib.requirements.kinds.kind import Find
from mellea_sc.stdlib.requirements.scanned import import_extra

__all__ = ["find_cards", "find_ibans"]

_ISSUERS: Final = re.compile(
    r"""(?: 4(?:\d{12}|\d{15}|\d{18})                              # Visa
          | (?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}   # Mastercard
          | 3[47]\d{13}                                            # American Express
          | 3(?:0[0-5]|095|[689]\d)\d{11,16}                       # Diners Club
          | (?:6011|64[4-9]\d|65\d{2})\d{12,15}                    # Discover
          | 35(?:2[89]|[3-8]\d)\d{12,15}                           # JCB
          | 62\d{14,17}                                            # UnionPay
          | 220[0-4]\d{12,15}                                      # Mir
          | (?:50|5[6-8]|6[037])\d{14}                             # Maestro, RuPay
          | 9792\d{12}                                             # Troy
        )""",
    re.VERBOSE | re.ASCII,
)
_SHAPES: Final = frozenset(
    [
        *((size,) for size in range(13, 20)),
        (4, 4, 4, 4),
        (4, 6, 5),
        (4, 6, 4),
        (4, 4, 4, 4, 3),
        (6, 13),
        (4, 3, 3, 3),
    ]
)
_IBAN: Final = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z]{2}[ ]?\d{2}(?:[ .\-]?[A-Za-z0-9]){11,30}", re.ASCII
)


def find_cards() -> Find:
    """A function that finds card numbers.

    Raises:
        MissingExtra: python-stdnum is not installed.
    """
    luhn = import_extra("stdnum.luhn", "detect", "NoPII")
    ean = import_extra("stdnum.ean", "detect", "NoPII")

    def is_card(run: Run) -> bool:
        digits = run.digits
        if not _ISSUERS.fullmatch(digits) or run.counts_up:
            return False
        return bool(luhn.is_valid(digits)) and not (len(digits) == 13 and ean.is_valid(digits))

    def find(text: str, start: int, end: int) -> Iterable[tuple[int, int]]:
        for run in runs(text, start, end):
            for part in _in_shape(run):
                if is_card(part):
                    yield part.start, part.end
                    break

    return find


def _in_shape(run: Run) -> Iterator[Run]:
    """The parts of a run that are grouped like card numbers, and that are no part of a longer row of such groups."""
    groups, separators = run.groups, run.separators
    for first in range(len(groups)):
        for last in range(first + 1, min(len(groups), first + 5) + 1):
            within = set(separators[first : last - 1])
            if tuple(map(len, groups[first:last])) not in _SHAPES or len(within) > 1:
                continue
            sides = [groups[n] for n in (first - 1, last) if 0 <= n < len(groups)]
            beside = {separators[n] for n in (first - 1, last - 1) if 0 <= n < len(separators)}
            is_row = any(len(group) >= 4 for group in sides) and (not within or beside & within)
            is_row = is_row or (not within and not beside <= {" "})
            if not is_row and within <= {" ", "-", "."}:
                yield run.part(first, last)


def find_ibans() -> Find:
    """A function that finds IBANs.

    Raises:
        MissingExtra: python-stdnum is not installed.
    """
    iban = import_extra("stdnum.iban", "detect", "NoPII")

    def find(text: str, start: int, end: int) -> Iterable[tuple[int, int]]:
        for match in _IBAN.finditer(text, start, end):
            for last in _ends(match[0]):
                # Not checked is whether the bank exists, because lists of banks are never complete.
                if iban.is_valid(re.sub(r"[ .\-]", "", match[0][:last]), check_country=False):
                    yield match.start(), match.start() + last
                    break

    return find


def _ends(text: str) -> Iterator[int]:
    """The positions where a number in groups may end, the last one first."""
    for at in range(len(text), 14, -1):
        if at == len(text) or not text[at].isalnum():
            yield at
