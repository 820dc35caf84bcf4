r"""An answer that is JSON, or contains some: validated character by character while it streams.

A reader takes an answer as it comes, up to the first character that is not allowed; then ``why`` is the reason. When
it has taken a whole answer, ``find`` returns the position of the JSON text in it. ``json/text.py`` decides which
character can come next, ``json/schema.py`` validates against a schema.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from mellea_sc.core.backend import Format, schema_of
from mellea_sc.core.requirement import OnFail, PartialValidationResult
from mellea_sc.stdlib.requirements.json.schema import Fits, fits
from mellea_sc.stdlib.requirements.json.text import DEEPEST, SPACE, JsonText, most_space
from mellea_sc.stdlib.requirements.scanned import Piece, PieceList, ScannedRequirement, Scanner


class ValidJSON(ScannedRequirement):
    """The answer is one JSON text (RFC 8259), and fits a schema if one is given.

    While the text streams, the first character that cannot be JSON stops it. Whether the text is complete and fits
    the schema is decided at the end. Text that passes can be read by ``json.loads``, which takes the last of several
    values of one key, and infinity for a number that is too large for a float.

    A model may go on for ever where JSON allows it. So brackets are nested at most 200 deep, a number has at most
    4,300 characters, and there are at most 128 characters of white space in a row before, in and after the JSON
    text, and 16 more for each open bracket.

    Args:
        schema: A JSON schema, or a pydantic model class that reads the text. References in a schema are never
            fetched. A class with a union that contains itself needs a discriminator: without one, pydantic's time
            doubles with each level of the text.
        fenced: Whether the JSON text may stand in a Markdown fence: a line of at least three backticks or
            tildes with an optional language (``json`` or another), the JSON text, and at least as many backticks or
            tildes again. White space may surround it, and a byte order mark may stand first.
        find: Whether the JSON text, an object or an array, may stand anywhere in the answer; then only the end
            decides. If several are complete, the first to begin counts, even if it is inside of one that is not
            complete, or is a ``[1]`` in a sentence. ``fenced`` makes no difference then.
        check_only: Leave the description out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`. After one, every piece fails: with
            ``"filter"`` or ``"fix"`` the text ends before the first character that cannot be JSON.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: the schema is invalid, of an unknown draft, or has a reference that leads nowhere
            or in a circle.
        MissingExtra: for a schema, if a package of the extra ``json`` is not installed.
        PatternTooSlow: during validation, if the patterns of a schema take too long.
    """

    def __init__(
        self,
        schema: Format | None = None,
        *,
        fenced: bool = False,
        find: bool = False,
        check_only: bool = False,
        on_fail: OnFail | None = None,
        blocking: bool = True,
    ) -> None:
        fitting = None if schema is None else fits(schema)
        self._reader: _MakeReader = JsonInProse if find else partial(JsonAnswer, fenced=fenced)
        super().__init__(
            _description(schema, fenced, find),
            _JsonScanner(self._reader, fitting),
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.schema = schema
        self.fenced = fenced
        self.find = find

    def json_in(self, answer: str) -> str | None:
        """The JSON text in an answer, without the text around it; ``None`` if there is none.

        It is not validated against the schema.
        """
        found = _find(self._reader, answer)
        return None if isinstance(found, str) else answer[slice(*found)]


class _JsonScanner(Scanner):
    """Passes a text up to the first character that is not allowed.

    Args:
        make: Makes a reader for an answer.
        fits: Validates the complete JSON text; ``None``: any will do.
    """

    def __init__(self, make: _MakeReader, fits: Fits | None) -> None:
        self._make = make
        self._fits = fits
        self._reader = make()
        self._length = 0
        self._failed: PartialValidationResult | None = None

    def fresh(self) -> _JsonScanner:
        """A new scanner with the same settings."""
        return _JsonScanner(self._make, self._fits)

    def feed(self, delta: str) -> Sequence[Piece]:
        """The text that is allowed, and the text that is not."""
        passed = 0
        if self._failed is None:
            passed = self._reader.take(delta)
            self._length += passed
            if passed == len(delta):
                return (Piece.of(delta),) if delta else ()
            reason = at_character(self._length, self._reader.why)
            self._failed = PartialValidationResult(
                "fail", reason=reason, replacement="", cuts_off=True
            )
        pieces = PieceList()
        pieces.add(delta[:passed])
        pieces.add(delta[passed:], self._failed)
        return pieces

    def fault_in(self, text: str) -> str | None:
        """The reason why a whole text fails: it has no complete JSON text, or one that does not fit the schema."""
        found = _find(self._make, text)
        if isinstance(found, str):
            return found
        return None if self._fits is None else self._fits(text[slice(*found)])


def _find(make: _MakeReader, text: str) -> Span | str:
    """The position of the JSON text in a whole answer, or the reason why there is none."""
    reader = make()
    end = reader.take(text)
    return reader.find(text) if end == len(text) else at_character(end, reader.why)


def _description(schema: Format | None, fenced: bool, find: bool) -> str:
    if find:
        description = "the answer holds a valid JSON object or array"
    elif fenced:
        description = (
            "the answer is one valid JSON text, in a Markdown code block or with nothing around it"
        )
    else:
        description = "the answer is one valid JSON text, nothing around it"
    given = schema_of(schema)
    if given is not None:
        description += f", that fits the schema {json.dumps(given, default=dict)}"
    return description


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
_MakeReader: TypeAlias = Callable[[], JsonAnswer | JsonInProse]
