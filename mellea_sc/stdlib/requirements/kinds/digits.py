"""Groups of digits in a plain text, and the harmless ones: dates, times, UUIDs, ISBNs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Final

import attrs

from mellea_sc.stdlib.requirements.kinds.kind import Kind, matching
from mellea_sc.stdlib.requirements.kinds.plain import DASHES, LETTER, SPACELESS, SPACES, UNSEEN
from mellea_sc.stdlib.requirements.kinds.regions import Places

__all__ = ["HARMLESS_NUMBERS", "PERSONAL_PLACES", "Run", "runs", "says"]

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
      | [12]\d{3}(?P<a>[-./ ])\d{1,2}(?P=a)\d{1,2}(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)?  # a date
      | \d{1,2}(?P<b>[-./ ])\d{1,2}(?P=b)(?:19|20)\d{2}(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)?
      | 97[89][- ]?(?:\d[- ]?){9}\d                                             # an ISBN
    )(?![\w]|[.-]\d)"""
HARMLESS_NUMBERS: Final = Kind("harmless", matching(re.compile(_DATES, re.VERBOSE | re.ASCII)))
