"""How many characters decide about a match of a regular expression, and how many steps that may take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, prod
from typing import Final

import attrs

from mellea_sc.stdlib.requirements.expressions.tree import (
    At,
    Atomic,
    Chars,
    Choice,
    Group,
    If,
    Look,
    Node,
    Ref,
    Repeat,
    Seq,
)

AHEAD: Final = {"boundary": 1, "inside": 1, "line_end": 1, "end": 2, "very_end": 1}
"""The number of characters after a position that decide about an assertion. It is 2 for ``$``, which matches before
a newline only if the text ends after it."""
ENOUGH: Final = 1e12
"""An upper limit for numbers of ways; they are not counted further."""


@attrs.frozen
class Size:
    """The extent of the matches of an expression, in characters.

    Args:
        least: The length of the shortest match.
        most: The length of the longest match; may be infinite.
        seen: The number of characters, from the beginning of a match on, that decide about it.
        behind: The number of characters before its beginning that decide about it.
    """

    least: float = 0
    most: float = 0
    seen: float = 0
    behind: float = 0


def size_of(tree: Node) -> Size:
    """The extent of the matches of an expression."""
    return _size(tree, {})


def _size(node: Node, groups: dict[int, Size]) -> Size:
    match node:
        case Chars(sources):
            return Size(len(sources), len(sources), len(sources))
        case At(place):
            behind = 1 if place in ("line_start", "boundary", "inside") else 0
            return Size(0, 0, AHEAD.get(place, 0), behind)
        case Seq(items):
            return _size_in_a_row([_size(item, groups) for item in items])
        case Choice(options):
            return _size_of_either([_size(option, groups) for option in options])
        case If(_, yes, no):
            return _size_of_either([_size(yes, groups), _size(no, groups)])
        case Repeat(least, most, _, body):
            one = _size(body, groups)
            longest = one.most * most if one.most else 0
            seen = max(longest, one.most * (most - 1) + one.seen if one.most else one.seen)
            return Size(one.least * least, longest, seen if most else 0, one.behind)
        case Group(number, body):
            groups[number] = _size(body, groups)
            return groups[number]
        case Atomic(body):
            return _size(body, groups)
        case Look(ahead, _, body):
            one = _size(body, groups)
            if ahead:
                return Size(0, 0, max(one.most, one.seen), one.behind)
            # A look-ahead inside of the look-behind may see characters after this position.
            return Size(0, 0, max(0, one.seen - one.least), one.most + one.behind)
        case Ref(number):
            most = groups[number].most if number in groups else inf
            return Size(0, most, most)


def _size_in_a_row(sizes: list[Size]) -> Size:
    least = most = seen = behind = 0.0
    for size in sizes:
        seen = max(seen, most + size.seen)
        behind = max(behind, size.behind - least)
        most += size.most
        least += size.least
    return Size(least, most, max(seen, most), behind)


def _size_of_either(sizes: list[Size]) -> Size:
    return Size(
        min(size.least for size in sizes),
        max(size.most for size in sizes),
        max(size.seen for size in sizes),
        max(size.behind for size in sizes),
    )


def ways(tree: Node, length: int) -> float:
    """The maximum number of ways in which an engine may match ``length`` characters from one position on."""
    match tree:
        case Seq(items):
            return min(ENOUGH, prod(ways(item, length) for item in items))
        case Choice(options):
            return min(ENOUGH, sum(ways(option, length) for option in options))
        case If(_, yes, no):
            return min(ENOUGH, ways(yes, length) + ways(no, length))
        case Group(_, body) | Atomic(body):
            return ways(body, length)
        case Look(_, _, body):
            return min(ENOUGH, 1 + ways(body, length))
        case Repeat(least, most, _, body):
            times = max(min(most, length), least)
            each = ways(body, length)
            if each == 1:
                return 1 + times - min(least, times)
            return _power(each, times)
        case Chars() | At() | Ref():
            return 1


def _power(base: float, times: float) -> float:
    ways = 1.0
    while times > 0 and ways < ENOUGH:
        ways = 1 + ways * base
        times -= 1
    return min(ENOUGH, ways)


def first_chars(tree: Node) -> list[tuple[str, bool]] | None:
    """The characters that a match may begin with: their sources, and whether case is ignored. ``None``: any."""
    found: list[tuple[str, bool]] = []
    return found if _first(tree, found) else None


def _first(node: Node, found: list[tuple[str, bool]]) -> bool:
    """Append the first characters of a node's matches; returns whether every match has one."""
    match node:
        case Chars(sources, ignore_case):
            found.append((sources[0], ignore_case))
            return True
        case Seq(items):
            return any(_first(item, found) for item in items)
        case Choice(options):
            return _first_of_each(options, found)
        case If(_, yes, no):
            return _first_of_each((yes, no), found)
        case Group(_, body) | Atomic(body):
            return _first(body, found)
        case Repeat(least, _, _, body):
            return _first(body, found) and least > 0
        case At() | Look():
            return False
        case Ref():
            # It begins with the same character as its group, which may be any.
            found.append((r"[\s\S]", False))
            return False


def _first_of_each(options: Sequence[Node], found: list[tuple[str, bool]]) -> bool:
    have = [_first(option, found) for option in options]  # a list, because each appends to `found`
    return all(have)


def nodes(tree: Node) -> Iterator[Node]:
    """All nodes of a tree, each before its children."""
    yield tree
    for child in children(tree):
        yield from nodes(child)


def children(node: Node) -> list[Node]:
    """The children of a node."""
    match node:
        case Seq(parts) | Choice(parts):
            return list(parts)
        case If(_, yes, no):
            return [yes, no]
        case Group(_, body) | Atomic(body) | Look(_, _, body) | Repeat(_, _, _, body):
            return [body]
        case Chars() | At() | Ref():
            return []
