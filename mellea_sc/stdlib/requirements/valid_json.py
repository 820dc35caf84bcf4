r"""An answer that is JSON: checked character by character while it streams.

Whether a character can come next is said by two: a lexer here for what lies inside a token (the
letters of ``true``, the digits of a number, the escapes of a string), and the push parser of ``ijson`` for
how tokens may follow one another. The parser is given a token's stand-in with the token's first
character (``""``, ``0``, ``true``): so a wrong token fails where it begins, and the parser never keeps a
half-read one, however long it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Literal, Protocol, TypeAlias, cast

from mellea_sc.core.backend import Format, JsonSchema, SchemaModel, schema_of
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import OnFail, PartialValidationResult, ValidationResult
from mellea_sc.stdlib.requirements.making import simple_validate
from mellea_sc.stdlib.requirements.watching import Piece, Watch, Watched, import_extra

__all__ = ["ValidJSON"]

DEEPEST: Final = 200
"""How deep arrays and objects may lie in one another: more than any answer needs."""


class ValidJSON(Watched):
    """The answer is one JSON text (RFC 8259), and fits a schema if one is given.

    While the text streams, the first character that cannot be JSON stops it. That the text is
    complete and fits the schema is judged at the end.

    Args:
        schema: A JSON schema, or a pydantic model class that reads the text.
        fenced: The text may stand in a Markdown fence: three backticks, ``json`` or nothing after
            them, a new line, the JSON text, three backticks. There is nothing else around it.
        check_only: The description stays out of the prompt.
        on_fail: What follows a fail, see :class:`Requirement`. After one, every piece fails: with
            ``"filter"`` the text ends before the first character that cannot be JSON.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: it is not a schema; from the validation, when a reference in it leads nowhere.
        MissingExtra: a package of the extra ``json`` is not installed.
    """

    def __init__(
        self,
        schema: Format | None = None,
        *,
        fenced: bool = False,
        check_only: bool = False,
        on_fail: OnFail | None = None,
        blocking: bool = True,
    ) -> None:
        parser = _parser()
        super().__init__(
            _description(schema, fenced),
            simple_validate(partial(_judge, parser, _fits(schema), fenced)),
            _JsonWatch(parser, fenced),
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.schema = schema
        self.fenced = fenced


# --- while it streams -----------------------------------------------------------------------------

_State: TypeAlias = Literal[
    "begin",  # white space, or the fence
    "info",  # after the opening backticks
    "json",  # between tokens
    "literal",
    "number",
    "string",
    "escape",
    "hex",
    "closing",  # among the closing backticks
    "end",  # after them
]

_SPACE: Final = " \t\n\r"
_LITERALS: Final = {"t": "true", "f": "false", "n": "null"}
_DIGITS: Final = "0123456789"
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]+')
_IGNORED: Final = re.compile(r"[ \t\n\r]+")
_NUMBER: Final[Mapping[str, Mapping[str, str]]] = {
    # after what: which characters may come, and after what one is then
    "-": {"0": "0", **dict.fromkeys("123456789", "1")},
    "0": {".": ".", **dict.fromkeys("eE", "e")},
    "1": {".": ".", **dict.fromkeys("eE", "e"), **dict.fromkeys(_DIGITS, "1")},
    ".": dict.fromkeys(_DIGITS, ".1"),
    ".1": {**dict.fromkeys("eE", "e"), **dict.fromkeys(_DIGITS, ".1")},
    "e": {**dict.fromkeys("+-", "e+"), **dict.fromkeys(_DIGITS, "e1")},
    "e+": dict.fromkeys(_DIGITS, "e1"),
    "e1": dict.fromkeys(_DIGITS, "e1"),
}
_WHOLE_NUMBERS: Final = frozenset({"0", "1", ".1", "e1"})
_INFO: Final = re.compile(r"[ \t]*(?:json)?[ \t\r]*", re.IGNORECASE)
_INFO_LENGTH: Final = 20


class _Push(Protocol):
    """An incremental parser: it is sent the text, and raises at what cannot follow."""

    def send(self, data: bytes, /) -> object: ...

    def close(self) -> object: ...


class _Parser(Protocol):
    """What is used of ``ijson``."""

    def basic_parse_coro(self, target: object, /) -> _Push: ...


class _JsonText:
    """One text so far; sans-IO.

    Args:
        parser: Says which tokens may follow one another.
        fenced: Whether there may be a fence.
    """

    def __init__(self, parser: tuple[_Parser, type[Exception]], fenced: bool) -> None:
        pushing, self._wrong = parser
        self._push = pushing.basic_parse_coro(_Nowhere())
        self._fenced = fenced
        self._state: _State = "begin" if fenced else "json"
        self._inside = ""  # what is known of the token: see the methods
        self._is_fenced = False
        self._depth = 0
        self._is_closed = False
        self.began: int | None = None
        """Where the JSON text begins, behind a fence."""
        self.ended: int | None = None
        """Where it ends, before a fence."""
        self.length = 0

    def __del__(self) -> None:
        # ijson's parser in Python complains to stderr if it is dropped before the end of a text
        with suppress(self._wrong):
            self._push.close()

    def take(self, text: str) -> int | None:
        """Read on; where the first character is that cannot come, if there is one."""
        at, size = 0, len(text)
        while at < size:
            skipped = None
            if self._state == "string":
                skipped = _PLAIN.match(text, at)
            elif self._state == "json":
                skipped = _IGNORED.match(text, at)
            if skipped is not None:
                self.length += skipped.end() - at
                at = skipped.end()
            elif self._takes(text[at]):
                self.length += 1
                at += 1
            else:
                return at
        return None

    def is_complete(self) -> bool:
        """Whether the text may end here. Nothing can be taken after that."""
        match self._state:
            case "json":
                return self._close()
            case "number":
                return self._inside in _WHOLE_NUMBERS and self._close()
            case "end":
                return True
            case _:
                return False

    def _close(self) -> bool:
        if not self._is_closed:
            self._is_closed = True
            try:
                self._push.close()
            except self._wrong:
                return False
            if self._is_fenced and self.ended is None:
                return False
        return True

    def _takes(self, char: str) -> bool:
        match self._state:
            case "json":
                return self._takes_token(char)
            case "string" | "escape" | "hex":
                return self._takes_in_string(char)
            case "number":
                after = _NUMBER[self._inside].get(char)
                if after is not None:
                    self._inside = after
                    return True
                if self._inside not in _WHOLE_NUMBERS:
                    return False
                self._state = "json"
                return char in _SPACE or self._takes_token(char)
            case "literal":
                if not self._inside.startswith(char):
                    return False
                self._inside = self._inside[1:]
                self._state = "literal" if self._inside else "json"
                return True
            case _:
                return self._takes_of_fence(char)

    def _takes_token(self, char: str) -> bool:
        if char in _DIGITS or char == "-":
            self._state, self._inside = "number", "1" if char in "123456789" else char
            return self._sent("0")
        if char in _LITERALS:
            literal = _LITERALS[char]
            self._state, self._inside = "literal", literal[1:]
            return self._sent(literal)
        if char == '"':
            self._state = "string"
            return self._sent('""')
        if char in "{[":
            self._depth += 1
            return self._depth <= DEEPEST and self._sent(char)
        if char in "}]:,":
            self._depth -= char in "}]"
            return self._sent(char)
        if char == "`" and self._is_fenced:
            self.ended = self.length
            self._state, self._inside = "closing", "``"
            return self._close()
        return False

    def _takes_in_string(self, char: str) -> bool:
        if self._state == "string":  # one of those that are not plain
            if char == '"':
                self._state = "json"
            elif char == "\\":
                self._state = "escape"
            else:
                return False
        elif self._state == "escape":
            self._state, self._inside = ("hex", "uuuu") if char == "u" else ("string", "")
            return char in 'u"\\/bfnrt'
        else:
            self._inside = self._inside[1:]
            self._state = "hex" if self._inside else "string"
            return char in "0123456789abcdefABCDEF"
        return True

    def _takes_of_fence(self, char: str) -> bool:
        match self._state:
            case "begin":
                if char in _SPACE and not self._inside:
                    return True
                if char == "`":
                    self._inside += char
                    if self._inside == "```":
                        self._state, self._inside, self._is_fenced = "info", "", True
                    return True
                if self._inside:
                    return False
                self._state = "json"
                return self._takes_token(char)
            case "info":
                if char == "\n":
                    self._state, self.began = "json", self.length + 1
                    return self._inside.strip().lower() in ("", "json")
                self._inside += char
                said = self._inside.strip(" \t\r").lower()
                return len(self._inside) <= _INFO_LENGTH and "json".startswith(said)
            case "closing":
                self._inside = self._inside[1:]
                self._state = "closing" if self._inside else "end"
                return char == "`"
            case _:
                return char in _SPACE

    def _sent(self, token: str) -> bool:
        try:
            self._push.send(f"{token} ".encode())  # the space ends a token that could go on
        except self._wrong:
            return False
        return True


class _Nowhere:
    """Where the parser's events go."""

    def send(self, _event: object) -> None: ...

    def close(self) -> None: ...


class _JsonWatch(Watch):
    """Passes a text up to the first character that cannot be JSON."""

    def __init__(self, parser: tuple[_Parser, type[Exception]], fenced: bool) -> None:
        self._parser = parser
        self._fenced = fenced
        self._text = _JsonText(parser, fenced)
        self._failed = False

    def fresh(self) -> _JsonWatch:
        """A watch like this one that has seen no text."""
        return _JsonWatch(self._parser, self._fenced)

    def feed(self, delta: str) -> Sequence[Piece]:
        """What can be JSON, and what cannot."""
        bad = 0 if self._failed else self._text.take(delta)
        if bad is None or not delta:
            return (Piece.of(delta),) if delta else ()
        self._failed = True
        failed = Piece.of(delta[bad:], _CANNOT)
        return (Piece.of(delta[:bad]), failed) if bad else (failed,)

    def flush(self) -> Sequence[Piece]:
        """Nothing: no character waits for another."""
        return ()


_CANNOT: Final = PartialValidationResult("fail", reason="what follows here cannot be JSON")


# --- at the end --------------------------------------------------------------------------------------

_Fits: TypeAlias = Callable[[str], str | None]
"""What is wrong with a valid JSON text, if something is."""


def _judge(
    parser: tuple[_Parser, type[Exception]], fits: _Fits | None, fenced: bool, text: str
) -> ValidationResult:
    read = _JsonText(parser, fenced)
    if (bad := read.take(text)) is not None:
        return ValidationResult(False, reason=f"it is no JSON from character {bad + 1} on")
    if not read.is_complete():
        return ValidationResult(False, reason="the JSON text is not complete")
    wrong = fits(text[read.began or 0 : read.ended]) if fits is not None else None
    return ValidationResult(wrong is None, reason=wrong)


def _fits(schema: Format | None) -> _Fits | None:
    if schema is None:
        return None
    if isinstance(schema, type) and isinstance(schema, SchemaModel):
        return partial(_fits_model, schema)
    given = schema_of(schema)
    assert given is not None
    return partial(_fits_schema, _validator(given))


def _fits_model(model: type[SchemaModel], text: str) -> str | None:
    try:
        model.model_validate_json(text)
    except ValueError as error:
        return f"it does not fit {model.__name__}: {error}"
    return None


class _Invalid(Protocol):
    """What is used of a validation error of ``jsonschema``."""

    @property
    def message(self) -> str: ...
    @property
    def json_path(self) -> str: ...


class _Validator(Protocol):
    """What is used of a validator of ``jsonschema``."""

    def iter_errors(self, instance: object, /) -> object: ...


def _fits_schema(validator: _Validator, text: str) -> str | None:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of too many digits
        return f"it cannot be read: {error}"
    exceptions = import_extra("jsonschema.exceptions", "json", "ValidJSON with a schema")
    unresolvable = import_extra("referencing.exceptions", "json", "ValidJSON with a schema")
    try:
        worst = cast("_Invalid | None", exceptions.best_match(validator.iter_errors(value)))
    except unresolvable.Unresolvable as error:
        raise InvalidOption(f"a reference in the schema leads nowhere: {error}") from error
    return (
        None if worst is None else f"it does not fit the schema: {worst.json_path}: {worst.message}"
    )


def _validator(schema: JsonSchema) -> _Validator:
    jsonschema = import_extra("jsonschema", "json", "ValidJSON with a schema")
    referencing = import_extra("referencing", "json", "ValidJSON with a schema")
    plain: object = json.loads(json.dumps(schema, default=dict))
    kind = jsonschema.validators.validator_for(plain, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(plain)
    except jsonschema.SchemaError as error:
        raise InvalidOption(f"that is not a JSON schema: {error.message}") from error
    # an empty registry: a reference to somewhere else is an error, and is not fetched
    return cast("_Validator", kind(plain, registry=referencing.Registry()))


def _parser() -> tuple[_Parser, type[Exception]]:
    ijson = import_extra("ijson", "json", "ValidJSON")
    return cast("_Parser", ijson), cast("type[Exception]", ijson.JSONError)


def _description(schema: Format | None, fenced: bool) -> str:
    around = "in a Markdown code block or with nothing around it" if fenced else "nothing around it"
    said = f"the answer is one valid JSON text, {around}"
    given = schema_of(schema)
    return (
        said if given is None else f"{said}, that fits the schema {json.dumps(given, default=dict)}"
    )
