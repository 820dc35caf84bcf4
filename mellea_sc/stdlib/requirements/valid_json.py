r"""An answer that is JSON, or contains some: validated character by character while it streams.

json/text.py    which character can come next
json/around.py  what may stand around the JSON text
json/schema.py  validation against a schema
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from mellea_sc.core.backend import Format, schema_of
from mellea_sc.core.requirement import OnFail, PartialValidationResult
from mellea_sc.stdlib.requirements.json.around import (
    JsonAnswer,
    JsonInProse,
    Span,
    at_character,
)
from mellea_sc.stdlib.requirements.json.schema import Fits, fits
from mellea_sc.stdlib.requirements.scanned import Piece, PieceList, ScannedRequirement, Scanner

__all__ = ["ValidJSON"]


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


_MakeReader: TypeAlias = Callable[[], JsonAnswer | JsonInProse]


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
