r"""Rewrites a regular expression so that it can be matched against a text that goes on.

At the end of the known text an engine decides as if the text ended there: about ``\b``, ``$`` and look-arounds, and
about how long ``a+`` is. So each part of an expression that needs a character, or needs to know that there is none,
gets an alternative, ``END``. It matches only at the end of the text, and sets a group as a mark::

    \bcat\b     becomes     \bc(?:a|END)(?:t|END)(?:END|\b)

The engine then tries the same ways as in the longer text, in the same order, up to the first way that reaches the
end; from there on every part matches. So the result at a position means

- no match:               no match begins here, whatever text follows;
- a match without a mark: this is the match, whatever text follows;
- a match with a mark:    the text that follows decides.

There are two exceptions. The match of an atomic group may depend on an undecided look-ahead in it: then it is written
as a plain group, and a match without a mark may not be final. And if a back-reference reaches the end, only its first
characters are compared. Neither leads to "no match" where there may be one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf
from typing import Final

from mellea_sc.stdlib.requirements.expressions.tree import (
    At,
    Atomic,
    Chars,
    Choice,
    Group,
    If,
    Look,
    Node,
    NotReadable,
    Ref,
    Repeat,
    Seq,
    nodes,
    size_of,
)

MARK: Final = "open"
"""The name of the group that is set if the end was reached."""

END: Final = rf"\Z(?P<{MARK}>)"
ANY: Final = r"[\s\S]"
COMPARED: Final = 3
"""The number of characters of a back-reference that are compared one by one."""
LONGEST_TWICE: Final = 200
"""The maximum length of a repetition's body that is written twice, first for the first round: that makes a search
fast."""

_AT: Final = {
    "start": r"\A",
    "line_start": r"(?m:^)",
    "end": "$",
    "line_end": "(?m:$)",
    "very_end": r"\Z",
    "boundary": r"\b",
    "inside": r"\B",
}
_OPEN_AT: Final = {
    "end": rf"(?:{END}|(?=\n\Z)(?P<{MARK}>))",
    "line_end": rf"(?:{END}|(?=\n))",
    "very_end": rf"(?:{END})",
}


def write(tree: Node) -> str:
    """Write the unchanged expression, for a text that has ended."""
    return _Writer(tree, is_open=False).write(tree, first=False)


def write_open(tree: Node, *, whole: bool = False) -> str:
    """Write the expression for a text that goes on.

    Args:
        tree: The expression.
        whole: Whether it has to match up to the end of the whole text.

    Raises:
        NotReadable: that is not possible.
    """
    if any(_is_unsupported(node, tree) for node in nodes(tree)):
        raise NotReadable("the expression depends on a look-ahead that may change with the text")
    written = _Writer(tree, is_open=True).write(tree, first=not whole)
    return rf"(?:{written}){END}" if whole else written


def is_certain(tree: Node) -> bool:
    """Whether a match without a mark is final, whatever text follows."""
    return not any(map(_is_loosened, nodes(tree)))


class _Writer:
    def __init__(self, tree: Node, *, is_open: bool) -> None:
        self._open = is_open
        self._referred = {ref.number for ref in nodes(tree) if isinstance(ref, Ref)}
        self._widths = {
            group.number: size_of(group.body).most
            for group in nodes(tree)
            if isinstance(group, Group)
        }

    def write(self, node: Node, *, first: bool) -> str:
        """The source of a node.

        Args:
            node: The node.
            first: Whether no character comes before it; then it cannot be at the end of the text.
        """
        match node:
            case Chars(sources, ignore_case):
                return self._chars(sources, ignore_case, first=first)
            case Seq(items):
                return self._in_a_row(items, first=first)
            case Choice(options):
                return f"(?:{'|'.join(self.write(option, first=first) for option in options)})"
            case Repeat():
                return self._repeat(node, first=first)
            case Group(number, body):
                return self._group(number, body, first=first)
            case Atomic(body):
                loose = self._open and _is_loosened(node)
                return f"(?{':' if loose else '>'}{self.write(body, first=first)})"
            case Look():
                return self._look(node, first=first)
            case At():
                return self._at(node, first=first)
            case Ref(number, ignore_case):
                return self._ref(number, ignore_case)
            case If(number, yes, no):
                then, otherwise = self.write(yes, first=False), self.write(no, first=False)
                return f"(?({_name(number)}){then}|{otherwise})"

    def _chars(self, sources: Sequence[str], ignore_case: bool, *, first: bool) -> str:
        if not self._open:
            return _cased("".join(sources), ignore_case)
        one_by_one = [_cased(source, ignore_case) for source in sources]
        return "".join(
            source if first and not at else f"(?:{source}|{END})"
            for at, source in enumerate(one_by_one)
        )

    def _in_a_row(self, items: Sequence[Node], *, first: bool) -> str:
        written: list[str] = []
        for item in items:
            written.append(self.write(item, first=first))
            first = first and size_of(item).most == 0
        return "".join(written)

    def _repeat(self, node: Repeat, *, first: bool) -> str:
        least, most, way, body = node.least, node.most, node.way, node.body
        if most == 0:
            return ""
        if first and least > 0 and way != "+":
            once = self.write(body, first=True)
            if len(once) <= LONGEST_TWICE:
                rest = Repeat(least - 1, most - 1, way, body)
                return f"(?:{once}){self._repeat(rest, first=False)}"
        times = _quantifier(least, most)
        if not (isinstance(body, Chars) and len(body.sources) == 1):
            if self._open and _is_loosened(node):
                way = ""
            return f"(?:{self.write(body, first=False)}){times}{way}"
        char = _cased(body.sources[0], body.ignore_case)
        if not self._open:
            return f"{char}{times}{way}"
        # A loop over a plain character is ten times as fast as one over (?:a|END).
        so_many = f"{char}{times}{way}"
        up_to_the_end = f"{char}{_quantifier(0, most - 1)}+{END}"
        ways = (so_many, up_to_the_end) if way == "?" else (up_to_the_end, so_many)
        return f"(?:{'|'.join(ways)})"

    def _group(self, number: int, body: Node, *, first: bool) -> str:
        begins = ""
        if self._open and number in self._referred:
            compared = (f"(?P<{_name(number)}_{at}>{ANY})?" for at in range(COMPARED))
            begins = f"(?={''.join(compared)})"
        return f"{begins}(?P<{_name(number)}>{self.write(body, first=first)})"

    def _look(self, node: Look, *, first: bool) -> str:
        if not node.ahead:
            behind = f"(?<{'=' if node.wanted else '!'}{write(node.body)})"
            return behind if first or not self._open else f"(?:{END}|{behind})"
        body = self.write(node.body, first=first)
        if node.wanted:
            return f"(?={body})"
        if MARK not in body:
            return f"(?!{body})"
        return f"(?:(?!{body})|(?={body})(?({MARK})|(?!)))"

    def _at(self, node: At, *, first: bool) -> str:
        if self._open and node.place in _OPEN_AT:
            return _OPEN_AT[node.place]
        # The flag has to be directly around the assertion: in "(?a:(?:x|\b))" the engine ignores it.
        source = f"(?a:{_AT[node.place]})" if node.ascii else _AT[node.place]
        return f"(?:{END}|{source})" if self._open and not first else source

    def _ref(self, number: int, ignore_case: bool) -> str:
        same = _cased(f"(?P={_name(number)})", ignore_case)
        if not self._open:
            return same
        shorter = self._widths.get(number, inf) - 1
        unseen = shorter - COMPARED
        begun = f"{ANY}{_quantifier(0, unseen)}+{END}" if unseen > 0 else END
        for at in reversed(range(int(min(COMPARED, max(0, shorter))))):
            begun = f"(?:{END}|{_cased(f'(?P={_name(number)}_{at})', ignore_case)}{begun})"
        return f"(?:{same}|{begun})"


def _name(group: int) -> str:
    return f"g{group}"


def _cased(source: str, ignore_case: bool) -> str:
    return f"(?i:{source})" if ignore_case else source


def _quantifier(least: float, most: float) -> str:
    if most == inf:
        return "*" if least == 0 else "+" if least == 1 else f"{{{least:.0f},}}"
    return f"{{{least:.0f},{most:.0f}}}"


def _is_loosened(node: Node) -> bool:
    """Whether a node that never backtracks has an undecided look-ahead, so that it is written to backtrack."""
    if not (isinstance(node, Atomic) or (isinstance(node, Repeat) and node.way == "+")):
        return False
    return any(map(_sees_ahead, nodes(node.body)))


def _sees_ahead(node: Node) -> bool:
    return (isinstance(node, Look) and node.ahead) or (isinstance(node, At) and node.place == "end")


def _is_unsupported(node: Node, tree: Node) -> bool:
    if not isinstance(node, Look):
        return False
    if not node.ahead:
        # A look-behind is written unchanged, so nothing in it may depend on the end of the text.
        return any(
            _sees_ahead(inner) or (isinstance(inner, At) and inner.place == "very_end")
            for inner in nodes(node.body)
        )
    if not node.wanted:
        return False
    # A group in a look-ahead that reached the end of the text may match other text later; so no back-reference
    # outside of the look-ahead may use it.
    groups = {group.number for group in nodes(node.body) if isinstance(group, Group)}
    within = Counter(ref.number for ref in nodes(node.body) if isinstance(ref, Ref | If))
    anywhere = Counter(ref.number for ref in nodes(tree) if isinstance(ref, Ref | If))
    return any(anywhere[number] > within[number] for number in groups)
