"""Readers for answers in which a JSON text stands alone, in a Markdown fence, or somewhere in prose.

A reader takes an answer as it comes, up to the first character that is not allowed; then ``why`` is the reason. When
it has taken a whole answer, ``find`` returns the position of the JSON text in it.
"""

from __future__ import annotations

import math
import re
from typing import Final, TypeAlias

from mellea_sc.stdlib.requirements.json.text import DEEPEST, SPACE, JsonText, most_space

__all__ = ["JsonAnswer", "JsonInProse", "Span", "at_character"]

Span: TypeAlias = tuple[int, int]
"""The beginning and the end of a text in another."""


def at_character(position: int, why: str) -> str:
    """The reason of a fail at a position."""
    return f"at character {position + 1}: {why}"


_BOM: Final = "\ufeff"
# These match a fence's line as far as it has come. A line that they do not match to its end is no fence.
_OPENING: Final = re.compile(r"(`{1,16}|~{1,16})(?:(?<=```|~~~)[^\n`{\[]{0,64}\n?)?")
_LONGEST_LINE: Final = 256
"""Longer than any line that is a fence."""


def _closing(marks: str) -> re.Pattern[str]:
    return re.compile(rf"{marks[0]}{{1,16}}(?:(?<={marks})[{SPACE}]{{0,{most_space(0)}}})?")


class JsonAnswer:
    """Reads an answer that is a JSON text with nothing around it, except perhaps a fence.

    Args:
        fenced: Whether a fence and a byte order mark are allowed.
    """

    def __init__(self, *, fenced: bool) -> None:
        self._fenced = fenced
        self._json = JsonText()
        self._began = self._length = 0
        self._ended: int | None = None
        self._marks = ""  # the backticks or tildes of the opening fence
        self._line: str | None = None  # the fence's line that is being read
        self.why: str = ""

    def take(self, text: str) -> int:
        """Read the next part of the answer; returns how many of its characters are allowed."""
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
        """The position of the JSON text in the whole answer, which was taken before; or what is missing."""
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
            return "this is not the opening line of a code fence"
        if self._is_closed():
            return "nothing may follow the code fence"
        return f"the code fence has to be closed by {self._marks}"


class JsonInProse:
    """Reads an answer that contains a JSON object or array: the first complete one.

    Anything may stand around it, except endless white space.
    """

    def __init__(self) -> None:
        self._run = 0
        self.why: str = ""

    def take(self, text: str) -> int:
        """Read the next part of the answer; returns how many of its characters are allowed."""
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
        """The position of the JSON text in the whole answer, which was taken before; or what is missing."""
        # A bracket that was still open when reading from an earlier one ended is never closed. Skipping these
        # brackets keeps the work linear: no part of the text is read more than a few times.
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
    """The span without the white space at its ends."""
    while began < ended and text[began] in SPACE:
        began += 1
    while began < ended and text[ended - 1] in SPACE:
        ended -= 1
    return began, ended


_BRACKET: Final = re.compile(r"[\[{]")
_WHITE: Final = re.compile(r"\s+")
