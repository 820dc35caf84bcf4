"""A user's regular expression, and the questions that requirements ask it, each in bounded time.

The engine is the package ``regex``, which has a timeout. The timeout is processor time, so that a busy machine does
not make a good expression fail. If an expression cannot take long on a short text it is matched without a timeout,
because measuring the time takes longer than most searches.
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
from mellea_sc.stdlib.requirements.expressions.tree import (
    Chars,
    Form,
    Node,
    NotReadable,
    Ref,
    Size,
    first_chars,
    nodes,
    read_tree,
    size_of,
    ways,
)

if TYPE_CHECKING:
    import regex  # imported with the first expression: that takes as long as importing all of this package

SECONDS: Final = 0.25
"""Processor time that one step may take: a thousand times what good expressions need."""
SECONDS_A_CHARACTER: Final = 1e-6
"""Additional processor time for each character of the text."""
STEPS: Final = 1e6
"""The maximum number of steps of the engine without a timeout."""
LENGTHS: Final = (16, 64, 256, 1024, 4096, 16384)
UNKNOWN_SIZE: Final = Size(0, inf, inf, inf)


@attrs.frozen
class Spot:
    """A position where a match begins, or may begin.

    Args:
        begin: The position.
        end: The end of the match; ``None``: the text that follows decides.
    """

    begin: int
    end: int | None


class _Question(Protocol):
    """A matching method of a compiled pattern."""

    def __call__(
        self, string: str, pos: int, endpos: int, /, *, timeout: float | None = None
    ) -> regex.Match[str] | None: ...


@attrs.define
class Allowance:
    """The seconds of processor time that are left for the questions of one step."""

    seconds: float

    @classmethod
    def of(cls, length: int) -> Allowance:
        """The time for a step over ``length`` characters."""
        return cls(SECONDS + SECONDS_A_CHARACTER * length)


@attrs.frozen(eq=False)
class Expression:
    """A regular expression, for a complete text and for one that goes on.

    Each question takes processor time from its allowance, and raises ``PatternTooSlow`` if there is none left.

    Args:
        source: The expression as the user wrote it.
        exact: The expression for a complete text.
        open: The expression for a text that goes on; ``None``: it does not support incomplete texts.
        open_whole: The same, if the whole text has to match.
        certain: Whether a match by ``open`` that did not reach the end of the text is final.
        unmarked: Whether a match by ``open`` never depends on the end of the text.
        first: Matches a first character of a match; ``None``: a match may begin with any character.
        kinds: Patterns for single characters; the expression treats characters alike that the same patterns match.
            ``None``: it may treat any two characters differently.
        size: The number of characters that decide about a match.
        untimed: The maximum length of a text that is matched without a timeout.
    """

    source: str
    exact: regex.Pattern[str]
    open: regex.Pattern[str] | None = None
    open_whole: regex.Pattern[str] | None = None
    certain: bool = False
    unmarked: bool = False
    first: regex.Pattern[str] | None = None
    kinds: Sequence[regex.Pattern[str]] | None = None
    size: Size = UNKNOWN_SIZE
    untimed: int = 0

    def search(self, text: str, at: int, end: int, allowance: Allowance) -> tuple[int, int] | None:
        """The first match that begins at a position or after it, in a text that ends at ``end``."""
        match = self._ask(self.exact.search, text, at, end, allowance)
        return None if match is None else match.span()

    def match(self, text: str, at: int, end: int, allowance: Allowance) -> int | None:
        """The end of the match that begins at a position, in a text that ends at ``end``."""
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
        """Whether a text that begins with this one can match as a whole.

        Only for an expression that has :attr:`open_whole`.
        """
        assert self.open_whole is not None
        return self._ask(self.open_whole.match, text, 0, len(text), allowance) is not None

    def may_begin_with(self, chars: str) -> bool:
        """Whether a match can begin with one of these characters."""
        return self.first is None or self.first.search(chars) is not None

    def told_apart(self, chars: str) -> list[str]:
        """These characters, reduced to one for each class that the expression treats alike."""
        if self.kinds is None:
            return list(chars)
        classes = {tuple(kind.match(char) is None for kind in self.kinds): char for char in chars}
        return list(classes.values())

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
                f"the pattern {quoted(self.source)} took too long on {end - at} characters. Avoid a repetition "
                "inside of a repetition, as in (a+)+, or make the inner one possessive (a++)"
            ) from None
        finally:
            allowance.seconds -= process_time() - began


def compile_pattern(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    """Compile a user's pattern.

    Raises:
        InvalidOption: it is not a regular expression for text.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        given = quoted(pattern) if isinstance(pattern, str) else repr(pattern)
        raise InvalidOption(f"{given} is not a regular expression: {error}") from error
    if not isinstance(compiled.pattern, str):
        raise InvalidOption(f"{pattern!r} is an expression for bytes, and answers are text")
    return compiled


@lru_cache(maxsize=256)
def expression_of(pattern: re.Pattern[str], form: Form | None) -> Expression:
    """Make the expression for a compiled pattern, for texts in a normalisation form.

    Raises:
        InvalidOption: the package ``regex`` does not support the pattern.
    """
    normal = _normalised(pattern, form)
    try:
        tree = read_tree(normal, form)
        exact = _compiled(write(tree))
    except NotReadable:
        return Expression(pattern.pattern, _as_it_is(normal))
    first = first_chars(tree)
    open_: regex.Pattern[str] | None = None
    whole: regex.Pattern[str] | None = None
    with suppress(NotReadable):
        open_, whole = _compiled(write_open(tree)), _compiled(write_open(tree, whole=True))
    return Expression(
        pattern.pattern,
        exact,
        open=open_,
        open_whole=whole,
        certain=is_certain(tree),
        unmarked=open_ is not None and MARK not in open_.groupindex,
        first=None if first is None else _compiled(_one_of(first)),
        kinds=_kinds(tree),
        size=size_of(tree),
        untimed=_untimed(tree),
    )


def _normalised(pattern: re.Pattern[str], form: Form | None) -> re.Pattern[str]:
    # In brackets and before a "+", "e" and a combining accent must be one character. NFC is used also for NFKC,
    # which would turn other characters into special ones; letters are normalised to NFKC when the tree is read.
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
    for name in ("A", "I", "M", "S", "X"):  # some have different values in the two packages
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
    """The greatest of ``LENGTHS`` for which matching takes at most ``STEPS`` steps."""
    size = sum(1 for _ in nodes(tree)) + size_of(tree).least
    fitting = 0
    for length in LENGTHS:
        if length * size * ways(tree, length) <= STEPS:
            fitting = length
    return fitting
