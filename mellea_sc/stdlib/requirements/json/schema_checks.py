"""Validates a JSON schema when a requirement is made, before any answer.

The schema must be valid and of a known draft. Each reference must lead to a schema in it, or to the schema of its
draft; nothing is fetched. A reference may lead back to a schema that contains it only if a step into the value lies
between, as with the branches of a tree::

    {"properties": {"left": {"$ref": "#"}}}     a part of the value is validated against the same schema
    {"anyOf": [{"$ref": "#"}]}                  the same value is, for ever: refused
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Final, Protocol, cast

from mellea_sc.core.errors import InvalidOption
from mellea_sc.stdlib.requirements.scanned import import_extra

if TYPE_CHECKING:
    from referencing import Specification
    from referencing._core import Resolved, Resolver  # no public module has them

    from mellea_sc.stdlib.requirements.json.keywords import Keyword, Validator


class Draft(Protocol):
    """The part of a ``jsonschema`` validator class that is used here."""

    META_SCHEMA: Mapping[str, object]
    VALIDATORS: Mapping[str, Keyword]

    def __call__(self, schema: object, /, **settings: object) -> Validator:
        """A validator for a schema."""
        ...

    def check_schema(self, schema: object, /) -> None:
        """Raise an error if the schema is invalid."""
        ...


def schema_package(name: str) -> ModuleType:
    """Import a module of the extra ``json``."""
    return import_extra(name, "json", "ValidJSON with a schema")


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
