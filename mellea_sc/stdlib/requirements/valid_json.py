r"""An answer that is JSON, or holds some: checked character by character while it streams.

json/text.py    which character can come next
json/around.py  what may stand around the JSON text
json/schema.py  what the JSON text has to fit
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from mellea_sc.core.backend import Format, schema_of
from mellea_sc.core.requirement import OnFail, PartialValidationResult, ValidationResult
from mellea_sc.stdlib.requirements.json.around import (
    JsonAnswer,
    JsonInProse,
    Reader,
    Span,
    at_character,
)
from mellea_sc.stdlib.requirements.json.schema import Fits, fits
from mellea_sc.stdlib.requirements.making import simple_validate
from mellea_sc.stdlib.requirements.scanned import Piece, ScannedRequirement, Scanner

__all__ = ["ValidJSON"]


class ValidJSON(ScannedRequirement):
    """The answer is one JSON text (RFC 8259), and fits a schema if one is given.

    While the text streams, the first character that cannot be JSON stops it. That the text is
    complete and fits the schema is judged at the end. What passes is read by ``json.loads``, which
    takes the last of a key that comes twice, and infinity for what is too large for a float.

    A model may go on for ever where JSON would let it. So brackets are open at most 200 deep, a
    number has at most 4,300 characters, and white space before, in and after the JSON text at
    most 128 in a row, and 16 more for each open bracket.

    Args:
        schema: A JSON schema, or a pydantic model class that reads the text. No reference in a
            schema is fetched.
        fenced: The JSON text may stand in a Markdown fence: a line of at least three backticks or
            tildes and the language, if any (``json`` or another), the JSON text, and at least as
            many of the same again. White space may stand around, and a byte order mark before all.
        find: The JSON text, an object or an array, may stand anywhere in the answer, and only the end
            decides. If several are complete, the one that begins first counts, be it in
            another that is not complete, or ``[1]`` in a sentence. ``fenced`` adds nothing to this.
        check_only: Leave the description out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`. After one, every piece fails: with
            ``"filter"`` or ``"fix"`` the text ends before the first character that cannot be JSON.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: it is not a schema, is of an unknown draft, or has a reference that leads nowhere
            or in a circle.
        MissingExtra: for a schema, if a package of the extra ``json`` is not installed.
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
            simple_validate(partial(_judge, self._reader, fitting)),
            _JsonScanner(self._reader),
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.schema = schema
        self.fenced = fenced
        self.find = find

    def json_in(self, answer: str) -> str | None:
        """The JSON text in an answer, without what stands around it; ``None``: there is none.

        That it fits the schema is not asked.
        """
        found = _find(self._reader, answer)
        return None if isinstance(found, str) else answer[slice(*found)]


_MakeReader: TypeAlias = Callable[[], Reader]


class _JsonScanner(Scanner):
    """Passes a text up to the first character that cannot come."""

    def __init__(self, make: _MakeReader) -> None:
        self._make = make
        self._reader = make()
        self._length = 0
        self._failed: PartialValidationResult | None = None

    def fresh(self) -> _JsonScanner:
        """A new scanner with the same settings."""
        return _JsonScanner(self._make)

    def feed(self, delta: str) -> Sequence[Piece]:
        """What can come, and what cannot."""
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
        good, bad = delta[:passed], delta[passed:]
        pieces = (Piece.of(good), Piece.of(bad, self._failed))
        return tuple(piece for piece in pieces if piece)

    def flush(self) -> Sequence[Piece]:
        """Nothing: no character is held back."""
        return ()


def _find(make: _MakeReader, text: str) -> Span | str:
    """Where the JSON text of a whole answer is, or what is wrong."""
    reader = make()
    end = reader.take(text)
    return reader.find(text) if end == len(text) else at_character(end, reader.why)


def _judge(make: _MakeReader, fitting: Fits | None, text: str) -> ValidationResult:
    found = _find(make, text)
    if isinstance(found, str):
        return ValidationResult(False, reason=found)
    bad = None if fitting is None else fitting(text[slice(*found)])
    return ValidationResult(bad is None, reason=bad)


def _description(schema: Format | None, fenced: bool, find: bool) -> str:
    if find:
        said = "the answer holds a valid JSON object or array"
    elif fenced:
        said = (
            "the answer is one valid JSON text, in a Markdown code block or with nothing around it"
        )
    else:
        said = "the answer is one valid JSON text, nothing around it"
    given = schema_of(schema)
    return (
        said if given is None else f"{said}, that fits the schema {json.dumps(given, default=dict)}"
    )
