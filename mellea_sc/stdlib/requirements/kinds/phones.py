"""Phone numbers: found by the numbering plans of regions, and by the ways in which people write them.

Any seven digits are a phone number somewhere. So a number without a country code must also look like one. It is in
groups and begins with the zero of its region; or it is grouped exactly as in its region, with other separators than
only spaces; or the text before it announces a phone number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from types import ModuleType
from typing import Final

import attrs

from mellea_sc.core.errors import InvalidOption
from mellea_sc.stdlib.requirements.kinds.numbers import Run, runs, says
from mellea_sc.stdlib.requirements.kinds.regions import Find
from mellea_sc.stdlib.requirements.scanned import import_extra

REGIONS: Final = (
    *("US", "GB", "DE", "FR", "IT", "ES", "NL", "BE", "CH", "AT"),
    *("PL", "SE", "PT", "IE", "CZ", "GR", "RO", "HU", "UA", "RU"),
    *("TR", "IL", "SA", "AE", "EG", "ZA", "NG", "IN", "CN", "TW"),
    *("JP", "KR", "TH", "VN", "ID", "BR", "MX", "AR", "AU", "NZ"),
)
"""The default regions, whose numbers are found without a country code."""

DIVIDED: Final = ("US", "CN", "MX", "RU")
"""Regions whose numbers begin without a zero and usually have other separators than spaces."""

_SAYS_PHONE: Final = re.compile(
    r"""(?<![^\W\d_]) (?<!\[) (?: (?:tele)?(?:ph|f)on\w* | t\u00e9l\w* | tel[e\u00e9]fon\w* | tel | mob(?:ile?|il)\w* | cell(?:ulare?|phone)?
        | handy\w* | fax\w* | call\w* | ring | dial\w* | sms | text(?:ed|ing)?[ ](?:me|us|her|him) | whats?app\w* | viber | hotline | reach\w* | contact\w* | kontakt\w* | erreich\w*
        | ruf\w* | anruf\w* | rufnummer | appel\w* | llam\w* | m[o\u00f3]vil | celular | ligue | bel(?:len)? | zadzwo\w* | chiam\w*
        | \u0442\u0435\u043b\w* | \u0437\u0432\u043e\u043d\w* | \u043c\u043e\u0431\w* | \u03c4\u03b7\u03bb\w* | \u05d8\u05dc\w* | \u05d4\u05d8\u05dc\w* | \u0627\u062a\u0635\u0644 | \u0647\u0627\u062a\w* | \u062c\u0648\u0627\u0644\w*
        ) (?![^\W\d_])
    | \u7535\u8bdd | \u96fb\u8a71 | \u624b\u673a | \u624b\u6a5f | \u643a\u5e2f | \u62e8\u6253 | \u64a5\u6253 | \uc804\ud654 | \ud734\ub300 | \u092b\u093c?\u094b\u0928 | \u0928\u0902\u092c\u0930 | \u092e\u094b\u092c\u093e\u0907\u0932 | \u0e42\u0e17\u0e23""",
    re.VERBOSE | re.IGNORECASE,
)
LEAST, MOST = 7, 15
MOST_OTHERS: Final = 8
"""The maximum number of digits of other numbers in groups that begin with a zero: of journals and dates."""


@attrs.frozen
class _Plans:
    """The numbering plans.

    Args:
        library: The package phonenumbers.
        regions: The regions of numbers without a country code.
    """

    library: ModuleType
    regions: tuple[str, ...]

    def is_international(self, run: Run) -> bool:
        """Whether a run is a number with a country code."""
        with_plus = run.written.lstrip("(").startswith("+")
        number = self._parsed(run.written if with_plus else "+" + run.digits[2:], None)
        return number is not None and self._is_possible(number)

    def is_national(self, run: Run, *, expected: bool) -> bool:
        """Whether a run is a number without a country code.

        Args:
            run: The run.
            expected: Whether the text before it announces a phone number.
        """
        if not expected and not _looks_like_one(run):
            return False
        regions: Collection[str] = self.regions
        if not expected and run.digits[0] != "0" and "(" not in run.written:
            regions = [region for region in regions if region in DIVIDED]
        return any(self._is_of(run, region, expected=expected) for region in regions)

    def _is_of(self, run: Run, region: str, *, expected: bool) -> bool:
        number = self._parsed(run.digits, region)
        if number is None or not self._is_possible(number):
            return False
        valid = bool(self.library.is_valid_number(number))
        if expected and valid:
            return True
        national = self._groups(number)
        groups = "-".join(run.groups)
        is_exact = groups in (national, f"1-{national}")
        if valid and groups.startswith("0-"):
            is_exact = f"0{groups[2:]}" == national  # 0 (532) 123 45 67
        if run.digits[0] == "0":
            return is_exact or (valid and len(run.digits) > MOST_OTHERS and len(run.groups[0]) > 1)
        if not valid or not is_exact:
            return False
        kinds = self.library.PhoneNumberType
        kind = self.library.number_type(number)
        if "(" in run.written:
            return True
        if region == "US":
            usual = (kinds.FIXED_LINE, kinds.MOBILE, kinds.FIXED_LINE_OR_MOBILE)
            return kind in usual or len(set(run.separators)) == 1
        return bool(kind == kinds.MOBILE)

    def _is_possible(self, number: object) -> bool:
        reason = self.library.is_possible_number_with_reason(number)
        return bool(reason == self.library.ValidationResult.IS_POSSIBLE)

    def _groups(self, number: object) -> str:
        form = self.library.PhoneNumberFormat.NATIONAL
        return "-".join(re.findall(r"\d+", self.library.format_number(number, form)))

    def _parsed(self, written: str, region: str | None) -> object | None:
        try:
            number: object = self.library.parse(written, region)
        except self.library.NumberParseException:
            return None
        return number


def _looks_like_one(run: Run) -> bool:
    """Whether a number that is not announced is written like a phone number without a country code."""
    groups, separators = run.groups, set(run.separators)
    if "(" in run.written:
        return True
    if all(len(group) == 4 for group in groups) or len(groups) == 1:
        return False
    if run.digits[0] == "0":
        return separators != {"."} or len(groups) > 2
    is_amount = separators == {"."} and all(len(group) == 3 for group in groups)
    return len(groups) > 2 and len(run.digits) in (10, 11) and separators != {" "} and not is_amount


def find_phones(regions: Collection[str] | None) -> Find:
    """A function that finds phone numbers.

    Args:
        regions: The regions whose numbers are found without a country code; ``None``: the default ones.

    Raises:
        InvalidOption: a region is not known.
        MissingExtra: phonenumbers is not installed.
    """
    library = import_extra("phonenumbers", "detect", "NoPII")
    chosen = REGIONS if regions is None else _checked(regions, library.SUPPORTED_REGIONS)
    plans = _Plans(library, chosen)

    def find(text: str, start: int, end: int) -> Iterable[tuple[int, int]]:
        for run in runs(text, start, end):
            yield from _in_run(run, plans)

    return find


def _checked(regions: Collection[str], known: Collection[str]) -> tuple[str, ...]:
    names = () if isinstance(regions, str) else tuple(regions)
    if isinstance(regions, str) or not set(names) <= set(known):
        raise InvalidOption(
            f"phone_regions must be a collection of regions, as in ['US', 'DE'], not {regions!r}"
        )
    return names


def _in_run(run: Run, plans: _Plans) -> Iterator[tuple[int, int]]:
    """The phone numbers in a run: the whole run, or else parts of it that are separated by spaces."""
    for whole in _apart(run, lambda separator: "+" in separator):
        if (end := _length(whole, plans)) is not None:
            yield whole.start, end
            continue
        for part in _apart(whole, lambda separator: separator == " "):
            if len(part.spans) < len(whole.spans) and (end := _length(part, plans)) is not None:
                yield part.start, end


def _length(run: Run, plans: _Plans) -> int | None:
    """The end of the phone number that a run begins with, if there is one."""
    written = run.written.lstrip("(")
    is_dialled = written.startswith("00") and len(run.digits) > LEAST + 3 and len(run.groups) < 7
    is_dialled = is_dialled and (len(run.groups) == 1 or {len(one) for one in run.groups} != {4})
    if written.startswith("+") or is_dialled:
        shortest = 0 if written.startswith("+") else len(run.spans) - 1
        for last in range(len(run.spans), shortest, -1):
            part = run.part(0, last)
            if LEAST <= len(part.digits) <= MOST + 2 and plans.is_international(part):
                return part.end
        return None
    if not LEAST <= len(run.digits) <= 12 or run.counts_up or run.digits in "01234567890123456789":
        return None
    if run.digits.endswith("000") and run.digits[0] != "0":
        return None  # a round number: "call it 50 000 000"
    if run.separators == (".",) * 3 and all(len(group) < 4 for group in run.groups):
        return None  # an address or a mask
    expected = says(_SAYS_PHONE, run.text, run.start)
    return run.end if plans.is_national(run, expected=expected) else None


def _apart(run: Run, splits: Callable[[str], bool]) -> Iterator[Run]:
    begins = 0
    for n, separator in enumerate(run.separators, 1):
        if splits(separator):
            yield run.part(begins, n)
            begins = n
    yield run.part(begins, len(run.spans))
