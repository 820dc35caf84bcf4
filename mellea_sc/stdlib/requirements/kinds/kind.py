"""A kind of secret or personal data: how it is found in a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

import attrs

__all__ = ["Find", "Follow", "Kind", "following", "matching"]

Find: TypeAlias = Callable[[str, int, int], Iterable[tuple[int, int]]]
"""Finds occurrences in a plain text between two positions; returns their beginnings and ends."""

Follow: TypeAlias = Callable[[str, int, bool], tuple[int, bool]]
"""Follows an occurrence that was found up to a position.

It gets the text, the position, and whether the text has ended. It returns the end of the occurrence, and whether the
occurrence may go on with the text that comes next.
"""


@attrs.frozen
class Kind:
    """A kind.

    Args:
        label: Its name, for people.
        find: Finds its occurrences.
        follow: Follows an occurrence that is longer than the window that is searched; ``None``: none is longer.
        always: Whether every occurrence is followed, and not only those that are longer than the window.
    """

    label: str
    find: Find
    follow: Follow | None = None
    always: bool = False


def matching(
    pattern: re.Pattern[str], accept: Callable[[re.Match[str]], bool] | None = None
) -> Find:
    """A function that finds the matches of a pattern.

    Args:
        pattern: The pattern. If it has a group ``it``, only that group is found.
        accept: Decides whether a match counts.
    """
    group = "it" if "it" in pattern.groupindex else 0

    def find(text: str, start: int, end: int) -> Iterable[tuple[int, int]]:
        for match in pattern.finditer(text, start, end):
            if accept is None or accept(match):
                yield match.span(group)

    return find


def following(pattern: re.Pattern[str]) -> Follow:
    """A function that follows an occurrence through the characters that a pattern ``[...]*`` matches."""

    def follow(text: str, at: int, ended: bool) -> tuple[int, bool]:
        match = pattern.match(text, at)
        end = at if match is None else match.end()
        return end, end == len(text) and not ended

    return follow
