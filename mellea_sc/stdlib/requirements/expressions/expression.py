"""A user's regular expression, and the questions that requirements ask it, each in bounded time.

The engine is the package ``regex``, which can give up after a time. It counts the time of the processor,
so that a busy machine does not make a good expression too slow. Where an expression cannot take long on
so little text the time is not taken, for that takes longer than most searches.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from math import inf
from time import process_time
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from mellea_sc.core.errors import InvalidOption, PatternTooSlow
from mellea_sc.core.plain_text import quoted
from mellea_sc.stdlib.requirements.expressions.open_ended import MARK, is_certain, write, write_open
from mellea_sc.stdlib.requirements.expressions.size import Size, first_chars, nodes, size_of, ways
from mellea_sc.stdlib.requirements.expressions.tree import (
    Chars,
    Form,
    Node,
    NotReadable,
    Ref,
    read_tree,
)

if TYPE_CHECKING:
    import regex  # loaded with the first expression: it takes as long as all the rest of this package

__all__ = ["Allowance", "Expression", "Spot", "compile_pattern", "expression_of"]

SECONDS: Final = 0.25
"""Time of the processor that one step may take: a thousand times what good expressions need."""
SECONDS_A_CHARACTER: Final = 1e-6
"""The same, in addition, for each character of a long text."""
STEPS: Final = 1e6
"""What an engine may try at most where its time is not taken."""
LENGTHS: Final = (16, 64, 256, 1024, 4096, 16384)


@attrs.frozen
class Spot:
    """Where a match begins, or may begin.

    Args:
        begin: The position.
        end: The end of the match; ``None``: what follows decides.
    """

    begin: int
    end: int | None


class _Question(Protocol):
    """A method of a compiled pattern."""

    def __call__(
        self, string: str, pos: int, endpos: int, /, *, timeout: float | None = None
    ) -> regex.Match[str] | None: ...


@attrs.define
class Allowance:
    """Seconds of the processor that are left for the questions of one step."""

    seconds: float

    @classmethod
    def of(cls, length: int) -> Allowance:
        """As many as a step over so many characters may take."""
        return cls(SECONDS + SECONDS_A_CHARACTER * length)


@attrs.frozen(eq=False)
class Expression:
    """A regular expression, for a whole text and for one that goes on.

    Args:
        said: As the user wrote it.
        exact: For a text that has ended.
        open: For a text that goes on; ``None``: it cannot be asked about one.
        open_whole: The same, where the whole text has to match.
        certain: Whether a match by ``open`` that reached no end is the one, whatever follows.
        unmarked: Whether ``open`` never needs the end.
        first: What a match may begin with; ``None``: with anything.
        kinds: What it tells characters apart by; ``None``: it compares them with each other.
        size: How far it reaches.
        untimed: Up to this length of text its time is not taken.
    """

    said: str
    exact: regex.Pattern[str]
    open: regex.Pattern[str] | None
    open_whole: regex.Pattern[str] | None
    certain: bool
    unmarked: bool
    first: regex.Pattern[str] | None
    kinds: Sequence[regex.Pattern[str]] | None
    size: Size
    untimed: int

    def search(self, text: str, at: int, end: int, allowance: Allowance) -> tuple[int, int] | None:
        """Where the first match from a position on begins and ends, in a text that ends at ``end``.

        Raises:
            PatternTooSlow: it took too long; so do all the other questions.
        """
        match = self._ask(self.exact.search, text, at, end, allowance)
        return None if match is None else match.span()

    def match(self, text: str, at: int, end: int, allowance: Allowance) -> int | None:
        """Where the match ends that begins at a position, in a text that ends at ``end``."""
        match = self._ask(self.exact.match, text, at, end, allowance)
        return None if match is None else match.end()

    def matches_wholly(self, text: str, allowance: Allowance) -> bool:
        """Whether a whole text matches."""
        return self._ask(self.exact.fullmatch, text, 0, len(text), allowance) is not None

    def spot(self, text: str, at: int, end: int, allowance: Allowance) -> Spot | None:
        """The first position where a match begins, or may begin, in a text that goes on after ``end``.

        Only for an expression that has :attr:`open`.
        """
        assert self.open is not None
        match = self._ask(self.open.search, text, at, end, allowance)
        if match is None or match.start() >= end:
            return None
        decided = self.certain and (self.unmarked or match.span(MARK)[0] < 0)
        return Spot(match.start(), match.end() if decided else None)

    def may_match_wholly(self, text: str, allowance: Allowance) -> bool:
        """Whether a text that begins so can match as a whole; for one that has ``open_whole``."""
        assert self.open_whole is not None
        return self._ask(self.open_whole.match, text, 0, len(text), allowance) is not None

    def may_begin_with(self, chars: str) -> bool:
        """Whether a match can begin with one of these characters."""
        return self.first is None or self.first.search(chars) is not None

    def told_apart(self, chars: str) -> list[str]:
        """One of each sort of these characters that are all the same to the expression."""
        if self.kinds is None:
            return list(chars)
        sorts = {tuple(kind.match(char) is None for kind in self.kinds): char for char in chars}
        return list(sorts.values())

    def _ask(
        self, ask: _Question, text: str, at: int, end: int, allowance: Allowance
    ) -> regex.Match[str] | None:
        if end - at <= self.untimed:
            return ask(text, at, end)
        began = process_time()
        try:
            return ask(text, at, end, timeout=max(allowance.seconds, 1e-6))
        except TimeoutError:
            raise PatternTooSlow(
                f"the pattern {quoted(self.said)} took too long on {end - at} characters: where a repetition "
                "stands in a repetition, as in (a+)+, write it without, or make the inner one "
                "possessive (a++)"
            ) from None
        finally:
            allowance.seconds -= process_time() - began


def compile_pattern(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    """A user's pattern, compiled.

    Raises:
        InvalidOption: it is not a regular expression for text.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        raise InvalidOption(f"{_as_given(pattern)} is not a regular expression: {error}") from error
    if not isinstance(compiled.pattern, str):
        raise InvalidOption(f"{pattern!r} is an expression for bytes, and answers are text")
    return compiled


def _as_given(pattern: object) -> str:
    return quoted(pattern) if isinstance(pattern, str) else repr(pattern)


@lru_cache(maxsize=256)
def expression_of(pattern: re.Pattern[str], form: Form | None) -> Expression:
    """A compiled pattern as an expression for texts in a normalisation form.

    Raises:
        InvalidOption: the package ``regex`` does not take it.
    """
    normal = _normalised(pattern, form)
    try:
        tree = read_tree(normal, form)
        exact = _compiled(write(tree))
    except NotReadable:
        unknown = Size(0, inf, inf, inf)
        return Expression(
            pattern.pattern,
            _as_it_is(normal),
            None,
            None,
            False,
            False,
            None,
            None,
            unknown,
            untimed=0,
        )
    size = size_of(tree)
    first = first_chars(tree)
    open_: regex.Pattern[str] | None = None
    whole: regex.Pattern[str] | None = None
    with suppress(NotReadable):
        open_, whole = _compiled(write_open(tree)), _compiled(write_open(tree, whole=True))
    return Expression(
        pattern.pattern,
        exact,
        open_,
        whole,
        is_certain(tree),
        open_ is not None and MARK not in open_.groupindex,
        None if first is None else _compiled(_one_of(first)),
        _kinds(tree),
        size,
        _untimed(tree),
    )


def _normalised(pattern: re.Pattern[str], form: Form | None) -> re.Pattern[str]:
    # "e" and an accent as two characters are one in brackets and before a "+". By NFC also where NFKC
    # is asked for, which makes special characters of others; letters follow in the tree.
    if form is None or unicodedata.is_normalized("NFC", pattern.pattern):
        return pattern
    try:
        return re.compile(unicodedata.normalize("NFC", pattern.pattern), pattern.flags)
    except re.error:
        return pattern


def _compiled(source: str) -> regex.Pattern[str]:
    import regex

    try:
        return regex.compile(source, regex.V0, cache_pattern=False)
    except (regex.error, RecursionError) as error:
        raise NotReadable(source) from error


def _as_it_is(pattern: re.Pattern[str]) -> regex.Pattern[str]:
    import regex

    flags = regex.V0
    for name in ("A", "I", "M", "S", "X"):  # the numbers of some differ between the two packages
        if pattern.flags & getattr(re, name):
            flags |= getattr(regex, name)
    try:
        return regex.compile(pattern.pattern, flags, cache_pattern=False)
    except regex.error as error:
        raise InvalidOption(f"{pattern.pattern!r} cannot be matched: {error}") from error


def _one_of(chars: list[tuple[str, bool]]) -> str:
    return "|".join(f"(?i:{source})" if ignore_case else source for source, ignore_case in chars)


def _kinds(tree: Node) -> list[regex.Pattern[str]] | None:
    sources = {(r"\w", False), (r"(?a:\w)", False)}
    for node in nodes(tree):
        if isinstance(node, Ref):
            return None
        if isinstance(node, Chars):
            sources.update((source, node.ignore_case) for source in node.sources)
    return [_compiled(_one_of([source])) for source in sorted(sources)]


def _untimed(tree: Node) -> int:
    """The greatest length at which not more than so many steps are possible."""
    size = sum(1 for _ in nodes(tree)) + size_of(tree).least
    fitting = 0
    for length in LENGTHS:
        if length * size * ways(tree, length) <= STEPS:
            fitting = length
    return fitting
