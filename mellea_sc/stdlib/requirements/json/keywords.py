"""Keywords of JSON schemas in the place of those of the package ``jsonschema``, so that a validation has a bounded time.

The package gives a pattern as much time as it takes. It compares each item with each other one for ``uniqueItems``. And
it validates a value once for each way in which references lead to it: where a schema refers to itself in three
branches, as that of an expression with three operators does, three times as often for each level of the value; twice
as often where it has ``unevaluatedProperties``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeGuard, cast

import attrs

from mellea_sc.stdlib.requirements.expressions.expression import (
    Allowance,
    compile_pattern,
    expression_of,
)
from mellea_sc.stdlib.requirements.json.schema_checks import schema_package

if TYPE_CHECKING:
    from referencing._core import Resolver  # no public module has it


class Invalid(Protocol):
    """The part of a ``jsonschema`` validation error that is used here."""

    @property
    def message(self) -> str:
        """What is wrong."""
        ...

    @property
    def json_path(self) -> str:
        """Where it is in the text."""
        ...

    @property
    def relative_path(self) -> Iterable[object]:
        """Where it is in the value of the keyword that has found it."""
        ...

    @property
    def validator(self) -> str | None:
        """The name of the keyword; ``None``: the schema is ``false``."""
        ...

    @property
    def validator_value(self) -> object:
        """The value of the keyword."""
        ...


class Validator(Protocol):
    """The part of a ``jsonschema`` validator that is used here; the package has no types."""

    def iter_errors(self, instance: object, /) -> object:
        """The errors of a value."""
        ...

    def descend(
        self, instance: object, schema: object, path: object = ..., schema_path: object = ...
    ) -> Iterable[Invalid]:
        """The errors of a part of the value by a part of the schema."""
        ...

    def evolve(self, **changes: object) -> Validator:
        """The same validator for another schema."""
        ...


Keyword: TypeAlias = Callable[[Validator, object, object, Mapping[str, object]], Iterable[Invalid]]
"""The errors of a value. Its arguments are the validator, the value of the keyword, the value that is validated, and the
schema that has the keyword."""


_Case: TypeAlias = tuple[int, int, tuple[str, ...]]


@attrs.define
class _Work:
    """What is shared by the keywords of one validation.

    What is known of a value is kept by the identities of the schema and of the value, and by the scope: the resources
    through which references have led there, as far as results depend on them.

    Args:
        allowance: The time for all patterns.
        referred: The first error of each array or object by each reference, ``None`` where there is none.
        fitting: Whether a value fits a schema.
        evaluated: The names or indexes that a schema evaluates in a value that fits it.
    """

    allowance: Allowance
    referred: dict[tuple[str, _Case], Invalid | None] = attrs.field(
        factory=dict[tuple[str, _Case], "Invalid | None"]
    )
    fitting: dict[_Case, bool] = attrs.field(factory=dict[_Case, bool])
    evaluated: dict[_Case, set[object]] = attrs.field(factory=dict[_Case, set[object]])


_work: Final[ContextVar[_Work]] = ContextVar("_work")


@contextmanager
def bounded_work(length: int) -> Generator[None]:
    """A block for the validation of one text of ``length`` characters; the keywords work only in it."""
    token = _work.set(_Work(Allowance.of(length)))
    try:
        yield
    finally:
        _work.reset(token)


def bounded_keywords(packages: Mapping[str, Keyword], schema: str) -> dict[str, Keyword]:
    """The keywords for a schema.

    Args:
        packages: The keywords of the schema's draft.
        schema: The schema as JSON.
    """
    keywords: dict[str, Keyword] = {
        "uniqueItems": _unique_items,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": partial(_additional_properties, packages["additionalProperties"]),
    }
    scope = _scope_of(schema)
    for name in _REFERENCES & packages.keys():
        keywords[name] = partial(_ref, name, packages[name], scope)
    if "unevaluatedProperties" in packages:
        errors = _Unevaluated(scope, packages.keys()).errors
        for name in ("unevaluatedProperties", "unevaluatedItems"):
            keywords[name] = partial(errors, name)
    return keywords


_REFERENCES: Final = {"$ref", "$dynamicRef", "$recursiveRef"}
_Scope: TypeAlias = Callable[[Validator], tuple[str, ...]]


def _scope_of(schema: str) -> _Scope:
    """A function that returns the resources that results may depend on, for the references of a schema."""

    def resources(validator: Validator) -> Iterator[str]:
        return (uri for uri, _ in resolver_of(validator).dynamic_scope())

    if "$recursiveRef" in schema:
        return lambda validator: tuple(resources(validator))
    if "$dynamicRef" in schema:  # the outermost resource with the anchor counts, so each only once
        return lambda validator: tuple(dict.fromkeys(reversed([*resources(validator)])))
    return lambda _: ()


def resolver_of(validator: Validator) -> Resolver[object]:
    """What resolves the references of a validator's schema; there is no public way to it."""
    return cast("Resolver[object]", getattr(validator, "_resolver", None))


def _ref(
    name: str,
    package: Keyword,
    scope: _Scope,
    validator: Validator,
    ref: object,
    value: object,
    schema: Mapping[str, object],
) -> Iterable[Invalid]:
    if not _has_parts(value):
        return package(validator, ref, value, schema)
    referred, key = _work.get().referred, (name, (id(schema), id(value), scope(validator)))
    if key in referred:
        known = referred[key]
        return () if known is None else (_again(known),)

    def note(error: Invalid) -> Invalid:
        # copied now, because the validator adds to the path of the error itself
        referred.setdefault(key, _again(error))
        return error

    def end() -> Iterator[Invalid]:
        referred.setdefault(key, None)
        yield from ()

    # No generator around the package's: with one more frame for each level, Python's limit on recursion would be
    # exceeded by values that are less deep.
    return chain(map(note, package(validator, ref, value, schema)), end())


def _has_parts(value: object) -> bool:
    return isinstance(value, list | dict)


def _again(error: Invalid) -> Invalid:
    """The same error, without those of the branches that it comes from."""
    return _invalid(
        error.message,
        path=error.relative_path,
        validator=error.validator,
        validator_value=error.validator_value,
    )


class _Unevaluated:
    """The keywords for the parts of a value that no other keyword evaluates.

    Args:
        scope: Returns the resources that results may depend on.
        known: The keywords of the draft.
    """

    def __init__(self, scope: _Scope, known: Set[str]) -> None:
        self._scope = scope
        self._known = known

    def errors(
        self,
        keyword: str,
        validator: Validator,
        wanted: object,
        value: object,
        schema: Mapping[str, object],
    ) -> Iterator[Invalid]:
        """The error of ``unevaluatedProperties`` or ``unevaluatedItems``, if there is one."""
        is_of_objects = keyword == "unevaluatedProperties"
        if not isinstance(value, dict if is_of_objects else list):
            return
        others = {name: given for name, given in schema.items() if name != keyword}
        evaluated = self._find(validator, others, cast("object", value))
        parts: dict[object, object] = dict(
            cast("dict[object, object]", value).items()
            if isinstance(value, dict)
            else enumerate(cast("list[object]", value))
        )
        left = [
            repr(name if is_of_objects else part)
            for name, part in parts.items()
            if name not in evaluated and not self._fits(validator, wanted, part)
        ]
        if left:
            what = keyword.removeprefix("unevaluated").lower()
            verb = "was" if len(left) == 1 else "were"
            yield _invalid(
                f"Unevaluated {what} are not allowed ({', '.join(left)} {verb} unexpected)"
            )

    def _fits(self, validator: Validator, schema: object, value: object) -> bool:
        fitting, case = _work.get().fitting, (id(schema), id(value), self._scope(validator))
        if case not in fitting:
            fitting[case] = next(iter(validator.descend(value, schema)), None) is None
        return fitting[case]

    def _evaluated(self, validator: Validator, given: object, value: object) -> set[object]:
        """The names or indexes of the parts that a schema evaluates in a value that fits it."""
        if not isinstance(given, dict):
            return set()
        schema = cast("dict[str, object]", given)
        evaluated, case = _work.get().evaluated, (id(schema), id(value), self._scope(validator))
        if case not in evaluated:
            evaluated[case] = self._find(validator, schema, value)
        return evaluated[case]

    def _find(
        self, validator: Validator, schema: Mapping[str, object], value: object
    ) -> set[object]:
        found = set(self._found_by_itself(validator, schema, value))
        for there, part in self._in_place(validator, schema, value):
            found |= self._evaluated(there, part, value)
        return found

    def _found_by_itself(
        self, validator: Validator, schema: Mapping[str, Any], value: object
    ) -> Iterable[object]:
        if isinstance(value, dict):
            names = cast("dict[str, object]", value).keys()
            if "additionalProperties" in schema or "unevaluatedProperties" in schema:
                return names
            patterns = schema.get("patternProperties", ())
            matching = (name for name in names if any(_matches(each, name) for each in patterns))
            return {*(schema.get("properties", {}).keys() & names), *matching}
        items = cast("list[object]", value)
        # Before "prefixItems", an array of "items" had the schemas of the first ones, and "additionalItems" that of the others.
        first = schema.get("prefixItems" if "prefixItems" in self._known else "items", [])
        others = "additionalItems" if isinstance(schema.get("items"), list) else "items"
        if "unevaluatedItems" in schema or others in schema:
            return range(len(items))
        contained = (
            index
            for index, item in enumerate(items)
            if "contains" in schema and self._fits(validator, schema["contains"], item)
        )
        return chain(range(len(cast("list[object]", first))), contained)

    def _in_place(
        self, validator: Validator, schema: Mapping[str, Any], value: object
    ) -> Iterator[tuple[Validator, object]]:
        """The schemas that a schema applies to the same value and that it fits, each with its validator."""
        for name in _REFERENCES & schema.keys() & self._known:
            resolver = resolver_of(validator)
            if name == "$recursiveRef":
                target = schema_package("referencing.jsonschema").lookup_recursive_ref(resolver)
            else:
                target = resolver.lookup(schema[name])
            yield (
                validator.evolve(schema=target.contents, _resolver=target.resolver),
                target.contents,
            )
        branches = [
            branch for name in ("allOf", "anyOf", "oneOf") for branch in schema.get(name, ())
        ]
        if "if" in schema:
            holds = self._fits(validator, schema["if"], value)
            branches += [schema["if"]] if holds else []
            branches.append(schema.get("then" if holds else "else", True))
        dependent: dict[str, object] = schema.get("dependentSchemas", {})
        if dependent and _is_object(value):
            branches += [dependent[name] for name in dependent if name in value]
        for branch in branches:
            if self._fits(validator, branch, value):
                yield validator, branch


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _unique_items(
    _validator: Validator, is_asked: object, value: object, _schema: Mapping[str, object]
) -> Iterator[Invalid]:
    if is_asked and isinstance(value, list):
        items = cast("list[object]", value)
        if len(set(map(_key, items))) < len(items):
            yield _invalid("its items are not all different")


def _pattern(
    _validator: Validator, pattern: object, value: object, _schema: Mapping[str, object]
) -> Iterator[Invalid]:
    if isinstance(pattern, str) and isinstance(value, str) and not _matches(pattern, value):
        yield _invalid(f"a string in it does not match {pattern!r}")


def _pattern_properties(
    validator: Validator, patterns: object, value: object, _schema: Mapping[str, object]
) -> Iterator[Invalid]:
    if isinstance(patterns, dict) and isinstance(value, dict):
        members = cast("dict[str, object]", value)
        for pattern, schema in cast("dict[str, object]", patterns).items():
            for name, member in members.items():
                if _matches(pattern, name):
                    yield from validator.descend(member, schema, path=name, schema_path=pattern)


def _additional_properties(
    package: Keyword,
    validator: Validator,
    additional: object,
    value: object,
    schema: Mapping[str, object],
) -> Iterable[Invalid]:
    patterns = schema.get("patternProperties")
    if not patterns or not isinstance(value, dict):
        return package(validator, additional, value, schema)
    known = cast("dict[str, object]", schema.get("properties", {}))
    others = {
        name: member
        for name, member in cast("dict[str, object]", value).items()
        if name not in known
        and not any(_matches(pattern, name) for pattern in cast("dict[str, object]", patterns))
    }
    return package(validator, additional, others, {})


def _matches(pattern: str, text: str) -> bool:
    expression = expression_of(compile_pattern(pattern), None)
    return expression.search(text, 0, len(text), _work.get().allowance) is not None


def _invalid(message: str, **details: object) -> Invalid:
    error = schema_package("jsonschema.exceptions").ValidationError
    return cast("Invalid", error(message, **details))


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
