"""The syntax tree of a regular expression, with all its flags resolved.

It is made from the tree of the standard library's parser, because users write expressions for ``re``. That module is
not public, but its tree has had the same form for twenty years. :class:`NotReadable` is raised for anything in it that
is not known here.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from math import inf
from string import ascii_letters
from typing import Any, Final, Literal, TypeAlias

import attrs

__all__ = [
    "At",
    "Atomic",
    "Chars",
    "Choice",
    "Form",
    "Group",
    "If",
    "Look",
    "Node",
    "NotReadable",
    "Place",
    "Ref",
    "Repeat",
    "Seq",
    "read_tree",
]

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
_FORMS_OF_I: Final = "iI\u0130\u0131"
"""If case is ignored, these are all alike for ``re``, but not for ``regex``."""
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
            items.append(Chars([_literal(char, flags) for char in text], _ignores_case(flags)))
            literals.clear()

    def _node(self, op: str, arguments: Any, flags: int) -> Node:
        match op:
            case "NOT_LITERAL" | "ANY" | "IN":
                return Chars([self._one(op, arguments, flags)], _ignores_case(flags))
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
            arguments = [("NEGATE", None), ("LITERAL", arguments)]
        items = [(str(kind), value) for kind, value in arguments]
        negated = items[0][0] == "NEGATE"
        chosen = "".join(self._item(kind, value) for kind, value in items[negated:])
        chosen += _alike(items, flags)
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


def _ignores_case(flags: int) -> bool:
    return bool(flags & re.I and not flags & re.A)


def _literal(char: str, flags: int) -> str:
    alike = _alike([("LITERAL", ord(char))], flags)
    return f"[{_escaped(char)}{alike}]" if alike else _escaped(char)


def _alike(items: Iterable[tuple[str, Any]], flags: int) -> str:
    """The characters that ``re`` adds to these if case is ignored, as far as ``regex`` does not."""
    if not flags & re.I:
        return ""
    if flags & re.A:
        return "".join(char.swapcase() for char in ascii_letters if _contain(items, char))
    return _FORMS_OF_I if any(_contain(items, char) for char in _FORMS_OF_I) else ""


def _contain(items: Iterable[tuple[str, Any]], char: str) -> bool:
    return any(
        (kind == "LITERAL" and value == ord(char))
        or (kind == "RANGE" and value[0] <= ord(char) <= value[1])
        for kind, value in items
    )


def _escaped(char: str) -> str:
    if char.isascii() and char.isalnum():
        return char
    return f"\\U{ord(char):08x}"
