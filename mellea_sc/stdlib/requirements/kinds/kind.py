"""A kind of thing that must not be shown: where it stands in a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

import attrs

__all__ = ["HARMLESS", "Find", "Follow", "Kind", "claimed", "following", "matching"]

Find: TypeAlias = Callable[[str, int, int], Iterable[tuple[int, int]]]
"""The beginnings and ends of those in a plain text that stand between two positions of it."""

Follow: TypeAlias = Callable[[str, int, bool], tuple[int, bool]]
"""How far a thing that has been found up to a position goes on, and whether it may go on further.

Is given the text, the position, and whether the text has ended.
"""


@attrs.frozen
class Kind:
    """One kind.

    Args:
        label: What it is called, for people.
        find: Where it stands.
        follow: Follows one that is longer than what is looked at at once; without it none is.
        always: Whether each is followed, and not only those that are cut off.
    """

    label: str
    find: Find
    follow: Follow | None = None
    always: bool = False


def matching(
    pattern: re.Pattern[str], accept: Callable[[re.Match[str]], bool] | None = None
) -> Find:
    """Finds what a pattern matches; only its group ``it``, where it has one.

    Args:
        pattern: What it looks like.
        accept: Whether a match is one.
    """
    group = "it" if "it" in pattern.groupindex else 0

    def find(text: str, start: int, end: int) -> Iterable[tuple[int, int]]:
        for match in pattern.finditer(text, start, end):
            if accept is None or accept(match):
                yield match.span(group)

    return find


def following(pattern: re.Pattern[str]) -> Follow:
    """Follows through single characters that a pattern of the form ``[...]*`` matches."""

    def follow(text: str, at: int, ended: bool) -> tuple[int, bool]:
        match = pattern.match(text, at)
        end = at if match is None else match.end()
        return end, end == len(text) and not ended

    return follow


def claimed(kinds: Iterable[Kind], text: str, start: int, end: int) -> list[tuple[int, int, Kind]]:
    """What stands in a text, in its order; where two overlap, the kind that comes first has it."""
    taken: list[tuple[int, int, Kind]] = []
    for kind in kinds:
        for first, last in kind.find(text, start, end):
            if all(last <= other[0] or other[1] <= first for other in taken):
                taken.append((first, last, kind))
    return sorted((span for span in taken if span[2].label != HARMLESS), key=lambda span: span[0])


HARMLESS = ""
"""The label of a kind that only keeps others from what it finds."""
