"""Numbers: groups of digits in a text, and card numbers, IBANs and national numbers among them.

They are found by pattern, length and checksum. If these are not specific enough, as for a national number of nine or
eleven digits in a row, the name of the number must stand before it. Dates, times, UUIDs and ISBNs are harmless.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs

from mellea_sc.stdlib.requirements.kinds.regions import (
    DASHES,
    LETTER,
    SPACELESS,
    SPACES,
    UNSEEN,
    Find,
    Kind,
    Places,
    matching,
)
from mellea_sc.stdlib.requirements.scanned import import_extra

# A word ends at white space, at characters of scripts without spaces, and at quotes and brackets.
_STOPS: Final = rf"\s{SPACELESS}\"<>|{{}}\[\];`\u00ab\u00bb\u2018-\u201e\u2014\u2026"
_WORD: Final = rf"[^{_STOPS}]"
_UNSEEN: Final = rf"[{UNSEEN}]*+"
_SPACE: Final = rf"[{SPACES}]"
_GROUPED: Final = rf"{_UNSEEN}[{SPACES}.{DASHES}]?{_UNSEEN}[A-Za-z0-9\uff10-\uff19]"

PERSONAL_PLACES: Final = Places(
    trigger=re.compile(r"[\d@\uff20\ufe6b]|::|[0-9A-Fa-f]:[0-9A-Fa-f]"),
    # after two capital letters a space does not end the word: they may begin an IBAN or a national number
    cut=re.compile(
        rf"(?<![^A-Za-z0-9][A-Z]{{2}})(?<!\A[A-Z]{{2}})[{_STOPS}]|(?![{SPACES}])[{_STOPS}]"
    ),
    # Two things may contain spaces: numbers in groups, and a number that begins with two letters and two digits.
    region=re.compile(
        rf"(?:{_WORD}*?(?<![A-Za-z0-9])(?:[A-Za-z]{{2}}\d|[A-Z]{{2}}{_SPACE})\d(?:{_GROUPED}){{0,32}}+)?"
        rf"{_WORD}*+(?:(?<=[\d)/.+({DASHES}{UNSEEN}]){_SPACE}(?=[\d(+/.{DASHES}{UNSEEN}]){_WORD}*+)*"
    ),
    joint=re.compile(rf"{_UNSEEN}[{SPACES}.{DASHES}]?{_UNSEEN}\Z"),
)


@attrs.frozen
class Run:
    """Groups of digits with nothing but separators between them.

    Args:
        text: The plain text that contains it.
        start: The position of its first character: a plus, a bracket or a digit.
        spans: The beginnings and ends of its groups.
    """

    text: str
    start: int
    spans: tuple[tuple[int, int], ...]

    @property
    def end(self) -> int:
        """The position after its last digit."""
        return self.spans[-1][1]

    @property
    def groups(self) -> tuple[str, ...]:
        """The digits of each group."""
        return tuple(self.text[first:last] for first, last in self.spans)

    @property
    def digits(self) -> str:
        """The digits of all groups."""
        return "".join(self.groups)

    @property
    def separators(self) -> tuple[str, ...]:
        """The text between the groups."""
        pairs = itertools.pairwise(self.spans)
        return tuple(self.text[before[1] : after[0]] for before, after in pairs)

    @property
    def written(self) -> str:
        """The run as it is written."""
        return self.text[self.start : self.end]

    def part(self, first: int, last: int) -> Run:
        """The run of some of its groups."""
        begins = self.start if first == 0 else self.spans[first][0]
        while first and self.text[begins - 1] in "(+":
            begins -= 1
        return Run(self.text, begins, self.spans[first:last])

    @property
    def counts_up(self) -> bool:
        """Whether its groups go up or down by equal steps, as numbers of years and lines do."""
        numbers = [int(group) for group in self.groups]
        steps = {after - before for before, after in itertools.pairwise(numbers)}
        return (
            len(numbers) > 2
            and len(steps - {0}) == 1 == len(steps)
            and len({len(one) for one in self.groups}) == 1
        )


_RUN: Final = re.compile(
    r"[+(]{0,2}\d+(?:(?:[ ]?\(|\)[ .\-/]{0,2}|[ ]?/[ ]?|[ ]-[ ]|[ .\-])\+?\d+)*", re.ASCII
)
_BEFORE: Final = re.compile(rf"(?:{LETTER}|[#$\u20ac\u00a3\u00a5.\-/+]|\d[,:]|\\)\Z")
_ESCAPE: Final = re.compile(r"\\[nrt]\Z")
_AFTER: Final = re.compile(rf"{LETTER}|[%\u00b0\u20ac$]|[,:]\d|[-/][^\W\d_]")


def runs(text: str, start: int, end: int) -> Iterator[Run]:
    """The runs of digits that are no part of a word, an amount, a time or an address."""
    for match in _RUN.finditer(text, start, end):
        if _BEFORE.search(text, max(0, match.start() - 2), match.start()) and not _ESCAPE.search(
            text, max(0, match.start() - 2), match.start()
        ):
            continue
        if _AFTER.match(text, match.end(), end):
            continue
        spans = tuple(group.span() for group in re.finditer(r"\d+", match[0], re.ASCII))
        at = match.start()
        is_in_brackets = match[0][0] == "(" and match[0].count("(") > match[0].count(")")
        yield Run(
            text, at + is_in_brackets, tuple((at + first, at + last) for first, last in spans)
        )


def says(words: re.Pattern[str], text: str, at: int, width: int = 40) -> bool:
    """Whether one of the words stands at most ``width`` characters before a position."""
    return words.search(text, max(0, at - width), at) is not None


_DATES: Final = r"""
    (?<![\w.-])(?:
        [0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}                     # a UUID
      | \d{4}(?P<a>[-./ ])\d{1,2}(?P=a)\d{1,2}(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)?  # a date
      | \d{1,2}(?P<b>[-./ ])\d{1,2}(?P=b)(?:19|20)\d{2}(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)?
      | 97[89][- ]?(?:\d[- ]?){9}\d                                             # an ISBN
    )(?![\w]|[.-]\d)"""
HARMLESS_NUMBERS: Final = Kind("harmless", matching(re.compile(_DATES, re.VERBOSE | re.ASCII)))


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


@attrs.frozen
class Number:
    """A kind of number.

    Args:
        module: The module of ``stdnum`` that checks it; ``""``: it has no checksum.
        shape: Its pattern in a plain text.
        names: A pattern for its names, one of which must stand before it; ``""``: none needs to.
    """

    module: str
    shape: str
    names: str = ""


_NUMBERS: Final = (
    Number("br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}"),
    Number("br.cpf", r"\d{3}\.?\d{3}\.?\d{3}[ -]?\d{2}", r"\bcpf\b"),
    Number("cn.ric", r"\d{17}[\dXx]"),
    Number("es.dni", r"\d{8}-?[A-HJ-NP-TV-Z]"),
    Number("es.nie", r"[XYZ]-?\d{7}-?[A-Z]"),
    Number("it.codicefiscale", r"[A-Za-z]{6}\d{2}[A-Za-z]\d{2}[A-Za-z]\d{3}[A-Za-z]"),
    Number(
        "fr.nir",
        r"[12][ ]?\d{2}[ ]?(?:0[1-9]|1[0-2]|[2-9]\d)[ ]?(?:\d{2}|2[AB])[ ]?\d{3}[ ]?\d{3}[ ]?\d{2}",
    ),
    Number("be.nn", r"\d{2}\.\d{2}\.\d{2}[- ]\d{3}[. ]\d{2}"),
    Number("se.personnummer", r"(?:\d{2})?\d{6}[-+]\d{4}"),
    Number("fi.hetu", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Y]"),
    Number("dk.cpr", r"\d{6}[- ]?\d{4}", r"\bcpr\b|personnummer"),
    Number("no.fodselsnummer", r"\d{6}[ ]?\d{5}", r"f\w{1,2}dselsnummer|personnummer|\bfnr\b"),
    Number("kr.rrn", r"\d{6}-\d{7}"),
    Number("mx.curp", r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[A-Z0-9]\d"),
    Number("ch.ssn", r"756\.\d{4}\.\d{4}\.\d{2}"),
    Number("cz.rc", r"\d{6}/\d{3,4}"),
    Number(
        "nl.bsn",
        r"\d{3}[ .]?\d{3}[ .]?\d{3}|\d{4}\.?\d{2}\.?\d{3}",
        r"\bbsn\b|burgerservice|sofi-?n",
    ),
    Number("pl.pesel", r"\d{11}", r"\bpesel"),
    Number("ro.cnp", r"\d{13}", r"\bcnp\b|cod numeric"),
    Number("bg.egn", r"\d{10}", r"\begn\b|\u0435\u0433\u043d"),
    Number("tr.tckimlik", r"[1-9]\d{10}", r"kimlik|\btckn\b|t\.?c\.? ?no"),
    Number("za.idnr", r"\d{13}", r"\bid\b|identity"),
    Number("de.idnr", r"\d{2}[ ]?\d{3}[ ]?\d{3}[ ]?\d{3}", r"steuer.{0,3}id|steuernummer|\bidnr"),
    Number("gb.nhs", r"\d{3}[ -]?\d{3}[ -]?\d{4}", r"\bnhs\b"),
    Number("ca.sin", r"\d{3}[ -]?\d{3}[ -]?\d{3}", r"\bsin\b|social insurance|\bnas\b"),
    Number("au.tfn", r"\d{3}[ ]?\d{3}[ ]?\d{2,3}", r"\btfn\b|tax file"),
    Number(
        "in_.aadhaar",
        r"[2-9]\d{3}[ -]?\d{4}[ -]?\d{4}",
        r"aadha?ar|uidai|\u0906\u0927\u093e\u0930",
    ),
    Number(
        "",
        r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ ]?\d{2}[ ]?\d{2}[ ]?\d{2}[ ]?[A-D]",
    ),
)
_SSN: Final = re.compile(
    r"(?<![\w.$-])\d{3}(?P<sep>[- .]?)\d{2}(?P=sep)\d{4}(?![\w]|[-.]\d)", re.ASCII
)
_SAYS_SSN: Final = re.compile(r"\bssn\b|social.{0,10}security|\bitin\b|\bss#", re.IGNORECASE)


def find_ssns() -> Find:
    """A function that finds social security numbers of the United States.

    Raises:
        MissingExtra: python-stdnum is not installed.
    """
    ssn = import_extra("stdnum.us.ssn", "detect", "NoPII")

    def is_ssn(match: re.Match[str]) -> bool:
        plain = re.sub(r"\D", "", match[0])
        if not ssn.is_valid(f"{plain[:3]}-{plain[3:5]}-{plain[5:]}"):
            return False
        return match["sep"] == "-" or says(_SAYS_SSN, match.string, match.start())

    return matching(_SSN, is_ssn)


def find_national_ids() -> Find:
    """A function that finds the national identification numbers of other states.

    Raises:
        MissingExtra: python-stdnum is not installed.
    """
    numbers = [_finder(number) for number in _NUMBERS]

    def find(text: str, start: int, end: int) -> Iterable[tuple[int, int]]:
        for one in numbers:
            yield from one(text, start, end)

    return find


def _finder(number: Number) -> Find:
    pattern = re.compile(rf"(?<![\w.$/-])(?:{number.shape})(?![\w]|[-./]\d)", re.ASCII)
    names = re.compile(number.names, re.IGNORECASE) if number.names else None
    is_valid: Callable[[str], bool] = bool
    if number.module:
        is_valid = import_extra(f"stdnum.{number.module}", "detect", "NoPII").is_valid

    def is_number(match: re.Match[str]) -> bool:
        if names is not None and not says(names, match.string, match.start()):
            return False
        return is_valid(match[0])

    return matching(pattern, is_number)
