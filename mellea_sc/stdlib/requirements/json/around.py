r"""Where the JSON text stands in an answer: alone, in a Markdown fence, or somewhere in prose."""

from __future__ import annotations

import math
import re
from typing import Final, Protocol, TypeAlias

from mellea_sc.stdlib.requirements.json.text import DEEPEST, SPACE, JsonText, most_space

__all__ = ["JsonAnswer", "JsonInProse", "Reader", "Span", "at_character"]

Span: TypeAlias = tuple[int, int]
"""Where a text begins and ends in another."""


def at_character(position: int, why: str) -> str:
    """The reason of a fail there."""
    return f"at character {position + 1}: {why}"


class Reader(Protocol):
    """Reads an answer as it comes."""

    why: str
    """Why the character cannot come at which :meth:`take` ended."""

    def take(self, text: str) -> int:
        """Read on, up to the text's end or the first character that cannot come."""
        ...

    def find(self, text: str) -> Span | str:
        """Where in the text, all of which was taken, the JSON text stands; or what is missing."""
        ...


_BOM: Final = "\ufeff"
# A fence's lines as far as they have come; what no longer matches is none.
_OPENING: Final = re.compile(r"(`{1,16}|~{1,16})(?:(?<=```|~~~)[^\n`{\[]{0,64}\n?)?")
_LONGEST_LINE: Final = 256
"""More than any of the two has."""


def _closing(marks: str) -> re.Pattern[str]:
    return re.compile(rf"{marks[0]}{{1,16}}(?:(?<={marks})[{SPACE}]{{0,{most_space(0)}}})?")


class JsonAnswer:
    """The answer is the JSON text, and around it nothing but, where it may be, a fence.

    Args:
        fenced: Whether a fence may be, and a byte order mark.
    """

    def __init__(self, *, fenced: bool) -> None:
        self._fenced = fenced
        self._json = JsonText()
        self._began = self._length = 0
        self._ended: int | None = None
        self._marks = ""  # those that have opened a fence
        self._line: str | None = None  # a fence's opening or closing line, while it is read
        self.why: str = ""

    def take(self, text: str) -> int:
        """Read on, up to the text's end or the first character that cannot come."""
        at = 0
        if self._fenced and not self._length and text.startswith(_BOM):
            at = self._began = 1
        while at < len(text) and not self.why:
            if self._line is not None:
                at = self._take_line(self._line, text, at)
                continue
            at = self._json.take(text, at)
            if at < len(text) and self._is_fence(text[at]):
                self._line = ""
                self._ended = self._length + at
            else:
                self.why = self._json.wrong
        self._length += at
        return at

    def find(self, text: str) -> Span | str:
        """Where in the text, all of which was taken, the JSON text stands; or what is missing."""
        missing = self._json.missing()
        if missing is None and self._marks and not self._is_closed():
            missing = "the code fence is not closed"
        if missing is not None:
            return missing
        return _stripped(text, self._began, len(text) if self._ended is None else self._ended)

    def _is_fence(self, char: str) -> bool:
        if self._marks:
            return char == self._marks[0] and self._json.missing() is None
        return self._fenced and char in "`~" and not self._json.has_begun

    def _is_closed(self) -> bool:
        return self._line is not None and self._line.rstrip().startswith(self._marks)

    def _take_line(self, line: str, text: str, at: int) -> int:
        known = len(line)
        line += text[at : at + _LONGEST_LINE]
        match = (_closing(self._marks) if self._marks else _OPENING).match(line)
        assert match is not None
        at += match.end() - known
        self._line = match[0]
        if not self._marks and self._line.endswith("\n"):
            self._marks = match[1]
            self._line = self._ended = None
            self._json = JsonText()
            self._began = self._length + at
        elif at < len(text):
            self.why = self._wrong_line()
        return at

    def _wrong_line(self) -> str:
        if not self._marks:
            return "the opening line of a code fence does not go on so"
        if self._is_closed():
            return "nothing may follow the code fence"
        return f"the code fence has to be closed by {self._marks}"


class JsonInProse:
    """A JSON object or array stands somewhere in the answer: the complete one that begins first.

    Around it may be anything but white space without end.
    """

    def __init__(self) -> None:
        self._run = 0
        self.why: str = ""

    def take(self, text: str) -> int:
        """Read on, up to the text's end or the first character that cannot come."""
        most = most_space(DEEPEST)
        for run in _WHITE.finditer(text):
            before = self._run if run.start() == 0 else 0
            if before + run.end() - run.start() > most:
                self.why = f"more than {most} characters of white space in a row"
                return run.start() + most - before
        space = len(text) - len(text.rstrip())
        self._run = space + (self._run if space == len(text) else 0)
        return len(text)

    def find(self, text: str) -> Span | str:
        """Where in the text, all of which was taken, the JSON text stands; or what is missing."""
        # A bracket that a reading from an earlier one has left open is closed nowhere, and need not
        # be tried: so no part of the text is read more than a few times.
        unclosed = bytearray(len(text))
        for bracket in _BRACKET.finditer(text):
            began = bracket.start()
            if unclosed[began]:
                continue
            json = JsonText(deepest=math.inf)
            ended = json.take(text, began)
            if json.missing() is None:
                return self._not_too_deep(text, began, ended)
            for _, at in json.open:
                unclosed[began + at] = 1
        return "there is no complete JSON object or array"

    def _not_too_deep(self, text: str, began: int, ended: int) -> Span | str:
        json = JsonText()
        at = json.take(text[:ended], began)
        return _stripped(text, began, ended) if at == ended else at_character(at, json.wrong)


def _stripped(text: str, began: int, ended: int) -> Span:
    """Without white space."""
    while began < ended and text[began] in SPACE:
        began += 1
    while began < ended and text[ended - 1] in SPACE:
        ended -= 1
    return began, ended


_BRACKET: Final = re.compile(r"[\[{]")
_WHITE: Final = re.compile(r"\s+")
