"""National identification numbers: found by pattern and checksum.

If these are not specific enough, as for nine or eleven digits in a row, the name of the number must stand before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from mellea_sc.stdlib.requirements.kinds.digits import says
from mellea_sc.stdlib.requirements.kinds.kind import Find, matching
from mellea_sc.stdlib.requirements.scanned import import_extra

__all__ = ["find_national_ids", "find_ssns"]


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
