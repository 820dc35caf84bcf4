"""Validation of a JSON text: against a JSON schema, or by a pydantic model class."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator
from functools import lru_cache, partial
from typing import Final, Protocol, TypeAlias, cast

from mellea_sc.core.backend import Format, JsonSchema, SchemaModel, schema_of
from mellea_sc.core.errors import InvalidOption
from mellea_sc.stdlib.requirements.expressions.expression import (
    Allowance,
    compile_pattern,
    expression_of,
)
from mellea_sc.stdlib.requirements.json.schema_checks import (
    Draft,
    Validator,
    draft_of,
    schema_package,
)

__all__ = ["Fits", "fits", "misfits_with"]

Fits: TypeAlias = Callable[[str], str | None]
"""Returns the reason why a complete JSON text does not fit, or ``None`` if it fits."""

LONGEST_REASON = 400
"""The maximum length of a package's error message, which may quote the whole text."""


def fits(schema: Format) -> Fits:
    """A function that validates texts against a schema.

    Raises:
        InvalidOption: the schema is invalid, of an unknown draft, or has a reference that leads nowhere
            or in a circle.
        MissingExtra: a package of the extra ``json`` is not installed.
    """
    if isinstance(schema, type) and isinstance(schema, SchemaModel):
        return partial(_fits_model, schema)
    given = schema_of(schema)
    assert given is not None
    return partial(_fits_schema, _validator(given))


def misfits_with(schema: JsonSchema) -> Fits:
    """As :func:`fits`, but the reason is what the schema demands: it does not quote the text, which may be private."""
    return partial(_fits_schema, _validator(schema), words=_what_is_wanted)


def _fits_model(model: type[SchemaModel], text: str) -> str | None:
    try:
        model.model_validate_json(text)
    except ValueError as error:
        return f"it does not fit {model.__name__}: {_in_short(str(error))}"
    return None


class _Invalid(Protocol):
    """The part of a ``jsonschema`` validation error that is used here."""

    @property
    def message(self) -> str: ...
    @property
    def json_path(self) -> str: ...
    @property
    def validator(self) -> str | None: ...
    @property
    def validator_value(self) -> object: ...


def _what_is_wrong(invalid: _Invalid) -> str:
    return invalid.message


_OF_NAMES_ONLY: Final = frozenset(
    {"required", "dependentRequired", "additionalProperties", "uniqueItems"}
)
"""The keywords whose error messages quote no value."""


def _what_is_wanted(invalid: _Invalid) -> str:
    if invalid.validator in _OF_NAMES_ONLY:
        return invalid.message
    if invalid.validator is None:
        return "nothing may be there"
    wanted = json.dumps({invalid.validator: invalid.validator_value}, ensure_ascii=False)
    return f"wanted is {wanted}"


def _fits_schema(
    validator: Validator, text: str, *, words: Callable[[_Invalid], str] = _what_is_wrong
) -> str | None:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:  # Python's limit on digits may be lower than ours
        return f"it cannot be read as JSON: {error}"
    exceptions = schema_package("jsonschema.exceptions")
    try:
        worst = cast("_Invalid | None", exceptions.best_match(validator.iter_errors(value)))
    except RecursionError:
        return "it is nested too deeply to be held against the schema"
    except OverflowError:
        return "a number is too large to be held against the schema"
    if worst is None:
        return None
    return f"it does not fit the schema: {_in_short(f'{worst.json_path}: {words(worst)}')}"


def _in_short(said: str) -> str:
    half = LONGEST_REASON // 2
    return said if len(said) <= LONGEST_REASON else f"{said[:half]} … {said[-half:]}"


def _validator(schema: JsonSchema) -> Validator:
    try:
        text = json.dumps(schema, default=dict)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOption(f"a JSON schema is made of JSON values: {error}") from error
    return _validator_of(text)


@lru_cache(maxsize=64)
def _validator_of(schema: str) -> Validator:
    plain = cast("dict[str, object]", json.loads(schema))
    extend = schema_package("jsonschema.validators").extend
    # The package's own uniqueItems compares each item with each other one, which takes seconds for some thousand
    # objects, and its own pattern has no timeout.
    keywords = {"uniqueItems": _unique_items, "pattern": _pattern}
    draft = cast("Draft", extend(draft_of(plain), keywords))
    # With an empty registry, external references are not fetched.
    return draft(plain, registry=schema_package("referencing").Registry())


def _unique_items(
    _validator: object, is_asked: object, value: object, _schema: object
) -> Iterator[Exception]:
    if is_asked and isinstance(value, list):
        items = cast("list[object]", value)
        if len(set(map(_key, items))) < len(items):
            invalid = schema_package("jsonschema.exceptions").ValidationError
            yield cast("Exception", invalid("its items are not all different"))


def _pattern(
    _validator: object, pattern: object, value: object, _schema: object
) -> Iterator[Exception]:
    if isinstance(pattern, str) and isinstance(value, str):
        expression = expression_of(compile_pattern(pattern), None)
        if expression.search(value, 0, len(value), Allowance.of(len(value))) is None:
            invalid = schema_package("jsonschema.exceptions").ValidationError
            yield cast("Exception", invalid(f"a string in it does not match {pattern!r}"))


def _key(value: object) -> Hashable:
    """Equal for equal JSON values: the same for 1 and 1.0, but not for 1 and true."""
    if isinstance(value, bool):
        return "true or false", value
    if isinstance(value, list):
        return "array", tuple(map(_key, cast("list[object]", value)))
    if isinstance(value, dict):
        members = cast("dict[str, object]", value).items()
        return "object", frozenset((name, _key(member)) for name, member in members)
    assert isinstance(value, Hashable)
    return value
