"""Validation of a JSON text: against a JSON schema, or by a pydantic model class.

A schema is itself validated when a requirement is made, before any answer. It must be valid and of a known draft. Each
reference must lead to a schema in it, or to the schema of its draft; nothing is fetched. A reference may lead back to
a schema that contains it only if a step into the value lies between, as with the branches of a tree::

    {"properties": {"left": {"$ref": "#"}}}     a part of the value is validated against the same schema
    {"anyOf": [{"$ref": "#"}]}                  the same value is, for ever: refused
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast

from mellea_sc.core.backend import Format, JsonSchema, SchemaModel, schema_of
from mellea_sc.core.errors import InvalidOption
from mellea_sc.stdlib.requirements.json.keywords import (
    Invalid,
    Keyword,
    bounded_keywords,
    bounded_work,
    schema_package,
)

if TYPE_CHECKING:
    from referencing import Specification
    from referencing._core import Resolved, Resolver  # no public module has them

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
    extend = schema_package("jsonschema.validators").extend
    package = draft_of(plain)
    keywords = bounded_keywords(cast("Mapping[str, Keyword]", package.VALIDATORS), schema)
    draft = cast("Draft", extend(package, keywords))
    # With an empty registry, external references are not fetched.
    return draft(plain, registry=schema_package("referencing").Registry())


# --- the schema itself -----------------------------------------------------------------------------


class Validator(Protocol):
    """The part of a ``jsonschema`` validator that is used here; the package has no types."""

    def iter_errors(self, instance: object, /) -> object:
        """The errors of a value."""
        ...


class Draft(Protocol):
    """The part of a ``jsonschema`` validator class that is used here."""

    META_SCHEMA: Mapping[str, object]
    VALIDATORS: Mapping[str, object]

    def __call__(self, schema: object, /, *, registry: object) -> Validator:
        """A validator for a schema."""
        ...

    def check_schema(self, schema: object, /) -> None:
        """Raise an error if the schema is invalid."""
        ...


def draft_of(schema: Mapping[str, object]) -> Draft:
    """The draft of a schema, after validating the schema.

    Raises:
        InvalidOption: the schema is invalid, of an unknown draft, or has a reference that leads nowhere
            or in a circle.
    """
    draft = _named(schema.get("$schema", _LATEST))
    try:
        draft.check_schema(schema)
        _References(_uri(draft)).follow_all(schema)
    except schema_package("jsonschema.exceptions").SchemaError as error:
        raise InvalidOption(f"that is not a JSON schema: {error.message}") from error
    except RecursionError as error:
        raise InvalidOption("the JSON schema is nested too deeply") from error
    return draft


# Not draft 3, of 2010: jsonschema raises an error where its lists of types contain schemas.
_DRAFTS: Final = ("4", "6", "7", "201909", "202012")
_LATEST: Final = "https://json-schema.org/draft/2020-12/schema"


def _named(uri: object) -> Draft:
    jsonschema = schema_package("jsonschema")
    drafts = [cast("Draft", getattr(jsonschema, f"Draft{name}Validator")) for name in _DRAFTS]
    for draft in drafts:
        if isinstance(uri, str) and uri.rstrip("#") == _uri(draft):
            return draft
    known = ", ".join(map(_uri, drafts))
    raise InvalidOption(f"the JSON schema is of the draft {uri!r}; known are {known}")


def _uri(draft: Draft) -> str:
    return str(draft.META_SCHEMA["$schema"]).rstrip("#")


# --- references -----------------------------------------------------------------------------------

_SAME_VALUE: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else"})
_SAME_VALUE_BY_KEY: Final = frozenset({"dependentSchemas", "dependencies"})
"""The keywords whose schemas validate the same value as the schema that contains them."""


class _References:
    """Follows every reference of a schema.

    Args:
        draft: The URI of the schema's draft.
    """

    def __init__(self, draft: str) -> None:
        drafts = schema_package("referencing.jsonschema")
        self._specification: Specification[object] = drafts.specification_with(draft)
        self._ref_is_alone = "draft-0" in draft  # the keywords beside a $ref are ignored
        exceptions = schema_package("referencing.exceptions")
        self._unresolvable: type[Exception] = exceptions.Unresolvable
        self._path: set[int] = set()
        self._done: set[int] = set()
        self._deeper: list[tuple[object, Resolver[object]]] = []

    def follow_all(self, schema: object) -> None:
        """Follow the references of a schema, and of all schemas that it contains and refers to.

        Raises:
            InvalidOption: a reference leads nowhere or in a circle, or a draft is unknown.
        """
        known = schema_package("jsonschema_specifications").REGISTRY  # the schemas of the drafts
        root = self._specification.create_resource(schema)
        self._deeper.append((schema, known.resolver_with_root(root)))
        while self._deeper:
            self._follow(*self._deeper.pop())

    def _follow(self, given: object, resolver: Resolver[object]) -> None:
        if not isinstance(given, dict):
            return
        schema = cast("dict[str, object]", given)
        if id(schema) in self._path:
            raise InvalidOption("a reference in the schema goes in a circle: it would never end")
        if id(schema) in self._done:
            return
        if "$schema" in schema:
            _named(schema["$schema"])
        self._path.add(id(schema))
        for target in self._targets(schema, resolver):
            self._follow(target.contents, target.resolver)
        if not (self._ref_is_alone and "$ref" in schema):
            for part in _of_same_value(schema):
                self._follow(part, self._inside(part, resolver))
        self._path.remove(id(schema))
        self._done.add(id(schema))
        for part in _objects(self._specification.subresources_of(schema)):
            self._deeper.append((part, self._inside(part, resolver)))

    def _inside(self, part: object, resolver: Resolver[object]) -> Resolver[object]:
        return resolver.in_subresource(self._specification.create_resource(part))

    def _targets(
        self, schema: Mapping[str, object], resolver: Resolver[object]
    ) -> Iterator[Resolved[object]]:
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            reference = schema.get(keyword)
            if not isinstance(reference, str):
                continue
            try:
                target = resolver.lookup(reference)
            # ValueError and TypeError come from a pointer into a value that is no object
            except (self._unresolvable, ValueError, TypeError) as error:
                raise InvalidOption(f"a reference in the schema leads nowhere: {error}") from error
            if not isinstance(target.contents, dict | bool):
                raise InvalidOption(f"a reference in the schema leads to no schema: {reference}")
            yield target


def _of_same_value(schema: Mapping[str, object]) -> Iterator[dict[str, object]]:
    for keyword, given in schema.items():
        if keyword in _SAME_VALUE:
            yield from _objects(
                cast("list[object]", given) if isinstance(given, list) else (given,)
            )
        elif keyword in _SAME_VALUE_BY_KEY and isinstance(given, dict):
            yield from _objects(cast("dict[str, object]", given).values())


def _objects(several: Iterable[object]) -> Iterator[dict[str, object]]:
    """The schemas that are objects, and not ``true`` or ``false``."""
    for one in several:
        if isinstance(one, dict):
            yield cast("dict[str, object]", one)
