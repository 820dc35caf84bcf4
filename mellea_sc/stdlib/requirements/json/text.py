r"""A state machine for JSON (RFC 8259) that decides for each character whether it can come next.

Between tokens the state is what is expected, besides white space::

    begin, item, member    a value: the first of all, after "," in an array, after ":" in an object
    first item             a value, or "]"
    key                    a string: after "," in an object
    first key              a string, or "}"
    colon                  ":"
    more items             "," or "]"
    more members           "," or "}"
    end                    nothing: the text is complete

and inside a token it is the position in the token. ``_STEPS`` has the transitions.

RFC 8259 lets a text go on for ever, this does not: see ``DEEPEST``, ``LONGEST_NUMBER`` and :func:`most_space`. What
the RFC leaves open is allowed, as in ``json.loads``: an escaped surrogate without its other half, and duplicate keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

DEEPEST: Final = 200
"""The maximum depth of nested arrays and objects: more than any answer needs."""

LONGEST_NUMBER: Final = 4300
"""The maximum length of a number: ``json.loads`` makes no ``int`` of more digits, and a model that loops writes more."""

SPACE: Final = " \t\n\r"


def most_space(depth: int) -> int:
    """The maximum number of characters of white space in a row, with ``depth`` open brackets.

    Sixteen for the indentation of each bracket, and some for empty lines and columns.
    """
    return 128 + 16 * depth


class JsonText:
    """The state of one JSON text.

    Args:
        deepest: The maximum number of open brackets.
    """

    def __init__(self, deepest: float = DEEPEST) -> None:
        self._deepest = deepest
        self._state = "begin"
        self._after = "end"  # the state after the string, word or number that is being read
        self._last = ""  # the state in which the last of these ended
        self._run = 0  # the length of the current white space or number
        self._length = 0
        self.open: list[tuple[str, int]] = []
        """The open brackets, with their positions."""
        self.wrong: str = ""
        """The reason why the next character is not allowed."""

    @property
    def has_begun(self) -> bool:
        """Whether there was anything else than white space."""
        return self._state != "begin"

    def take(self, text: str, at: int = 0) -> int:
        """Read a text from a position on, up to its end or the first character that is not allowed."""
        offset, size = self._length - at, len(text)
        while at < size and not self.wrong:
            state = self._state
            if state == "string" and (plain := _PLAIN.match(text, at)):
                at = plain.end()
            elif state in _BETWEEN and (space := _SPACES.match(text, at)):
                at += self._takes_space(space.end() - at)
            elif state in _NUMBERS and text[at] not in _STEPS[state]:
                self._state, self._last, self._run = self._after, state, 0
            elif self._takes(text[at], offset + at):
                at += 1
        self._length = offset + at
        return at

    def missing(self) -> str | None:
        """What is missing; ``None`` if the text is complete."""
        if not self.has_begun:
            return "there is no JSON text"
        if self._state == "end" or (self._state in _NUMBERS and self._after == "end"):
            return None
        missing = "the JSON text is not complete"
        if self._state not in _BETWEEN | _NUMBERS:
            missing += f": it ends inside a {_token_of(self._state)}"
        if self.open:
            missing += f", with {len(self.open)} bracket{'s' * (len(self.open) > 1)} open"
        return missing

    def _takes_space(self, size: int) -> int:
        most = most_space(len(self.open))
        taken = min(size, most - self._run)
        self._run += taken
        if taken < size:
            self.wrong = f"more than {most} characters of white space in a row"
        return taken

    def _takes(self, char: str, position: int) -> bool:
        before = self._state
        state = _STEPS[before].get(char)
        if state is None:
            self.wrong = _explain(before, char, self._last)
            return False
        if before in _BETWEEN:
            self._run = 0
            self._after = "colon" if before in _KEYS else self._after_value()
        if state in ("first item", "first key"):
            if len(self.open) >= self._deepest:
                self.wrong = f"more than {self._deepest} brackets are open"
                return False
            self.open.append((char, position))
        elif state == "close":
            self.open.pop()
            state = self._after_value()
        elif state in _IN_NUMBER:
            self._run += 1
            if self._run > LONGEST_NUMBER:
                self.wrong = f"a number of more than {LONGEST_NUMBER} characters"
                return False
        elif state == "after":
            state, self._last = self._after, before
        self._state = state
        return True

    def _after_value(self) -> str:
        if not self.open:
            return "end"
        return "more items" if self.open[-1][0] == "[" else "more members"


# --- the rules ------------------------------------------------------------------------------------

_SPACES: Final = re.compile(rf"[{SPACE}]+")
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]+')

_DIGITS: Final = dict.fromkeys("0123456789")
_VALUE: Final[Mapping[str, str]] = {
    '"': "string",
    "[": "first item",
    "{": "first key",
    "t": "rue",
    "f": "alse",
    "n": "ull",
    "-": "minus",
    "0": "zero",
    **dict.fromkeys("123456789", "digits"),
}
_EXPONENT: Final = dict.fromkeys("eE", "exponent")
_STEPS: Final[Mapping[str, Mapping[str, str | None]]] = {
    **dict.fromkeys(("begin", "item", "member"), _VALUE),
    "first item": {**_VALUE, "]": "close"},
    "key": {'"': "string"},
    "first key": {'"': "string", "}": "close"},
    "colon": {":": "member"},
    "more items": {",": "item", "]": "close"},
    "more members": {",": "key", "}": "close"},
    "end": {},
    # inside true, false and null: the state is the rest of the word
    **{
        word[at:]: {word[at]: word[at + 1 :] or "after"}
        for word in ("true", "false", "null")
        for at in range(1, len(word))
    },
    "string": {'"': "after", "\\": "escape"},
    "escape": {**dict.fromkeys('"\\/bfnrt', "string"), "u": "hex 1"},
    **{
        f"hex {digit}": dict.fromkeys(
            "0123456789abcdefABCDEF", "string" if digit == 4 else f"hex {digit + 1}"
        )
        for digit in range(1, 5)
    },
    "minus": {"0": "zero", **dict.fromkeys("123456789", "digits")},
    "zero": {**_DIGITS, ".": "point", **_EXPONENT},  # a digit leads nowhere: 01
    "digits": {**dict.fromkeys(_DIGITS, "digits"), ".": "point", **_EXPONENT},
    "point": dict.fromkeys(_DIGITS, "decimals"),
    "decimals": {**dict.fromkeys(_DIGITS, "decimals"), **_EXPONENT},
    "exponent": {
        **dict.fromkeys("+-", "exponent sign"),
        **dict.fromkeys(_DIGITS, "exponent digits"),
    },
    "exponent sign": dict.fromkeys(_DIGITS, "exponent digits"),
    "exponent digits": dict.fromkeys(_DIGITS, "exponent digits"),
}
_KEYS: Final = frozenset({"key", "first key"})
_VALUES: Final = frozenset({"begin", "item", "member", "first item"})
_BETWEEN: Final = _KEYS | _VALUES | {"colon", "more items", "more members", "end"}
_NUMBERS: Final = frozenset({"zero", "digits", "decimals", "exponent digits"})
"""The states in which a number may end."""
_IN_STRING: Final = frozenset({"string", "escape", "hex 1", "hex 2", "hex 3", "hex 4"})
_IN_NUMBER: Final = _NUMBERS | {"minus", "point", "exponent", "exponent sign"}


def _token_of(state: str) -> str:
    if state in _IN_STRING:
        return "string"
    return "number" if state in _IN_NUMBER else "word"


# --- the reasons of fails, in words that a model can follow -----------------------------------------

_WRONG: Final[Mapping[str, str]] = {
    "begin": "the JSON text has to begin here, with nothing before it",
    "end": "the JSON text has ended, and nothing may follow it",
    "key": "a key in double quotes is missing",
    "first key": "a key in double quotes or '}' is missing",
    "colon": "':' is missing after a key",
    "more items": "',' or ']' is missing",
    "more members": "',' or '}' is missing",
    "string": "a line break or control character inside a string has to be escaped, as \\n",
    "escape": "no escape begins so: a backslash inside a string is written \\\\",
    "zero": "a number has no needless zero at its beginning",
    **{f"hex {digit}": "\\u takes four hexadecimal digits" for digit in range(1, 5)},
    **dict.fromkeys(_IN_NUMBER - _NUMBERS, "a digit of a number is missing"),
    **dict.fromkeys(
        ("item", "member", "first item"), "a value is missing, or the double quotes of a string"
    ),
}
_WRONG_WORD: Final = "the words of JSON are true, false and null"
_WRONG_QUOTES: Final = dict.fromkeys("'\u2018\u2019\u201c\u201d", "strings stand in double quotes")
_WRONG_VALUE: Final[Mapping[str, str]] = {
    **_WRONG_QUOTES,
    "T": "True is written true",
    "F": "False is written false",
    "N": "None is written null, and JSON has no NaN",
    "I": "JSON has no Infinity",
    "u": "undefined is written null",
    ".": "nothing may be left out, and a number begins with a digit",
    "+": "a number has no '+' before it",
}
_COMMA: Final = {char: f"a trailing comma before '{char}'" for char in "]}"}
_COMMENT: Final = dict.fromkeys("/#", "JSON has no comments")
_WRONG_THERE: Final[Mapping[str, Mapping[str, str]]] = {
    "begin": {
        **_WRONG_QUOTES,
        **dict.fromkeys("`~", "no code fence may stand before the JSON text"),
        "\ufeff": "no byte order mark may stand before the JSON text",
    },
    "item": {**_WRONG_VALUE, **_COMMA},
    "first item": _WRONG_VALUE,
    "member": _WRONG_VALUE,
    "minus": _WRONG_VALUE,
    "key": {**_WRONG_QUOTES, **_COMMA},
    "first key": _WRONG_QUOTES,
    "escape": {"'": "a single quote inside a string is not escaped"},
}


def _explain(state: str, char: str, last: str) -> str:
    """Why a character is not allowed.

    Args:
        state: The state.
        char: The character.
        last: The state in which the last token ended.
    """
    there = _WRONG_THERE.get(state, {}).get(char) or (state in _BETWEEN and _COMMENT.get(char))
    if there:
        return there
    reason = _WRONG.get(state, _WRONG_WORD)
    if state in ("more items", "more members") and last == "string" and char not in "]}":
        reason += ', or a double quote inside a string is not written \\"'
    return reason
