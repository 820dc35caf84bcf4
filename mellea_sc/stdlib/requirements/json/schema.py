"""Validation of a JSON text: against a JSON schema, or by a pydantic model class."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final, TypeAlias, cast

from mellea_sc.core.backend import Format, JsonSchema, SchemaModel, schema_of
from mellea_sc.core.errors import InvalidOption
from mellea_sc.stdlib.requirements.json.keywords import (
    Invalid,
    Validator,
    bounded_keywords,
    bounded_work,
    resolver_of,
)
from mellea_sc.stdlib.requirements.json.schema_checks import Draft, draft_of, schema_package

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


def _what_is_wrong(invalid: Invalid) -> str:
    return invalid.message


_OF_NAMES_ONLY: Final = frozenset(
    {"required", "dependentRequired", "additionalProperties", "uniqueItems"}
)
"""The keywords whose error messages quote no value."""


def _what_is_wanted(invalid: Invalid) -> str:
    if invalid.validator in _OF_NAMES_ONLY:
        return invalid.message
    if invalid.validator is None:
        return "nothing may be there"
    wanted = json.dumps({invalid.validator: invalid.validator_value}, ensure_ascii=False)
    return f"wanted is {wanted}"


def _fits_schema(
    validator: Validator, text: str, *, words: Callable[[Invalid], str] = _what_is_wrong
) -> str | None:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:  # Python's limit on digits may be lower than ours
        return f"it cannot be read as JSON: {error}"
    exceptions = schema_package("jsonschema.exceptions")
    try:
        with bounded_work(len(text)):
            worst = cast("Invalid | None", exceptions.best_match(validator.iter_errors(value)))
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
    # With an empty registry, external references are not fetched.
    registry = schema_package("referencing").Registry()
    return _bounded(cast("type", draft_of(plain)), schema)(plain, registry=registry)


@lru_cache(maxsize=64)
def _bounded(package: type, schema: str) -> Draft:
    """The package's class of validators for a draft, with keywords that take bounded time."""
    keywords = bounded_keywords(cast("Draft", package).VALIDATORS, schema)
    bounded: Any = schema_package("jsonschema.validators").extend(package, keywords)
    package_evolve = cast("Callable[..., Validator]", bounded.evolve)

    def evolve(validator: Validator, **changes: object) -> Validator:
        made = package_evolve(validator, **changes)
        if type(made) is bounded:
            return made
        # The schema names its draft, and the package takes its own class for that.
        other = _bounded(type(made), schema)
        return other(changes["schema"], _resolver=resolver_of(made))

    bounded.evolve = evolve
    return cast("Draft", bounded)
