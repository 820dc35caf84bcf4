"""The syntax tree of a regular expression with all its flags resolved, and what it says about matches.

It is made from the tree of the standard library's parser, because users write expressions for ``re``. That module is
not public, but its tree has had the same form for twenty years. :class:`NotReadable` is raised for anything in it that
is not known here. It says how many characters decide about a match, and how many steps that may take.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from math import inf, prod
from typing import Any, Final, Literal, TypeAlias

import attrs

Form: TypeAlias = Literal["NFC", "NFKC"]
"""A Unicode normalisation form that composes."""

Place: TypeAlias = Literal[
    "start", "line_start", "end", "line_end", "very_end", "boundary", "inside"
]
"""``\\A``, ``^`` and ``$`` with and without MULTILINE, ``\\Z``, ``\\b``, ``\\B``."""

Way: TypeAlias = Literal["", "?", "+"]
"""The suffix of a quantifier: greedy, lazy, possessive."""


class NotReadable(Exception):
    """An expression, or the parser's tree of it, that is not supported here."""


@attrs.frozen
class Chars:
    """Single characters in a row; each source is an expression that matches one."""

    sources: Sequence[str]
    ignore_case: bool


@attrs.frozen
class At:
    """An assertion about a position between characters."""

    place: Place
    ascii: bool


@attrs.frozen
class Seq:
    """A sequence."""

    items: Sequence[Node]


@attrs.frozen
class Choice:
    """An alternation."""

    options: Sequence[Node]


@attrs.frozen
class Repeat:
    """A repetition."""

    least: int
    most: float
    way: Way
    body: Node


@attrs.frozen
class Group:
    """A capturing group."""

    number: int
    body: Node


@attrs.frozen
class Atomic:
    """An atomic group: it never backtracks."""

    body: Node


@attrs.frozen
class Look:
    """A look-ahead or look-behind, positive (``wanted``) or negative."""

    ahead: bool
    wanted: bool
    body: Node


@attrs.frozen
class Ref:
    """A back-reference to a group."""

    number: int
    ignore_case: bool


@attrs.frozen
class If:
    """A conditional on whether a group has matched."""

    number: int
    yes: Node
    no: Node


Node: TypeAlias = Chars | At | Seq | Choice | Repeat | Group | Atomic | Look | Ref | If

_PLACES: Final[dict[str, Place]] = {
    "AT_BEGINNING_STRING": "start",
    "AT_END_STRING": "very_end",
    "AT_BOUNDARY": "boundary",
    "AT_NON_BOUNDARY": "inside",
}
_CLASSES: Final = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}
_WAYS: Final[dict[str, Way]] = {"MAX_REPEAT": "", "MIN_REPEAT": "?", "POSSESSIVE_REPEAT": "+"}


def read_tree(pattern: re.Pattern[str], form: Form | None) -> Node:
    """Read the tree of an expression, with normalised characters.

    Raises:
        NotReadable: something in it is not known.
    """
    try:
        parser = importlib.import_module("re._parser")
        # the flags of the compiled pattern contain those from the source, like "(?i)"
        tree = parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG)
        return _Reader(form).seq(tree, pattern.flags)
    except (ImportError, AttributeError, TypeError, ValueError, RecursionError, re.error) as error:
        raise NotReadable(pattern.pattern) from error


class _Reader:
    # The parser's tree is untyped: pairs of a named constant and its arguments.

    def __init__(self, form: Form | None) -> None:
        self._form: Form | None = form

    def seq(self, tree: Iterable[tuple[Any, Any]], flags: int) -> Node:
        items: list[Node] = []
        literals: list[str] = []
        for op, arguments in tree:
            if str(op) == "LITERAL":
                literals.append(chr(arguments))
                continue
            self._end(literals, items, flags)
            items.append(self._node(str(op), arguments, flags))
        self._end(literals, items, flags)
        return items[0] if len(items) == 1 else Seq(items)

    def _end(self, literals: list[str], items: list[Node], flags: int) -> None:
        if literals:
            text = self._normal("".join(literals))
            items.append(Chars([_escaped(char) for char in text], bool(flags & re.I)))
            literals.clear()

    def _node(self, op: str, arguments: Any, flags: int) -> Node:
        match op:
            case "NOT_LITERAL" | "ANY" | "IN":
                return Chars([self._one(op, arguments, flags)], bool(flags & re.I))
            case "AT":
                return At(self._place(str(arguments), flags), bool(flags & re.A))
            case "BRANCH":
                return Choice([self.seq(option, flags) for option in arguments[1]])
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, body = arguments
                unbounded = str(most) == "MAXREPEAT"
                return Repeat(
                    int(least), inf if unbounded else int(most), _WAYS[op], self.seq(body, flags)
                )
            case "SUBPATTERN":
                number, added, removed, body = arguments
                # the flags "a" and "u" exclude each other
                removed |= (re.U if added & re.A else 0) | (re.A if added & re.U else 0)
                inner = self.seq(body, (flags & ~removed) | added)
                return inner if number is None else Group(number, inner)
            case "ATOMIC_GROUP":
                return Atomic(self.seq(arguments, flags))
            case "ASSERT" | "ASSERT_NOT":
                direction, body = arguments
                return Look(direction > 0, op == "ASSERT", self.seq(body, flags))
            case "FAILURE":
                return Look(True, False, Seq(()))
            case "GROUPREF":
                return Ref(arguments, bool(flags & re.I))
            case "GROUPREF_EXISTS":
                number, yes, no = arguments
                return If(number, self.seq(yes, flags), self.seq(no or (), flags))
            case _:
                raise NotReadable(op)

    def _place(self, place: str, flags: int) -> Place:
        match place:
            case "AT_BEGINNING":
                return "line_start" if flags & re.M else "start"
            case "AT_END":
                return "line_end" if flags & re.M else "end"
            case _:
                return _PLACES[place]

    def _one(self, op: str, arguments: Any, flags: int) -> str:
        if op == "ANY":
            return r"[\s\S]" if flags & re.S else "."
        if op == "NOT_LITERAL":
            return f"[^{self._item('LITERAL', arguments)}]"
        items = [(str(kind), value) for kind, value in arguments]
        negated = items[0][0] == "NEGATE"
        chosen = "".join(self._item(kind, value) for kind, value in items[negated:])
        source = f"[{'^' if negated else ''}{chosen}]"
        return f"(?a:{source})" if flags & re.A and "\\" in source else source

    def _item(self, kind: str, value: Any) -> str:
        match kind:
            case "LITERAL":
                normal = self._normal(chr(value))
                return _escaped(normal if len(normal) == 1 else chr(value))
            case "RANGE":
                return f"{_escaped(chr(value[0]))}-{_escaped(chr(value[1]))}"
            case "CATEGORY":
                return _CLASSES[str(value)]
            case _:
                raise NotReadable(kind)

    def _normal(self, text: str) -> str:
        return text if self._form is None else unicodedata.normalize(self._form, text)


def _escaped(char: str) -> str:
    if char.isascii() and char.isalnum():
        return char
    return f"\\U{ord(char):08x}"


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
