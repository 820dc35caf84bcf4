"""Validation of a JSON text: by a pydantic model class, or against a JSON schema, in bounded time.

The package ``jsonschema`` gives a pattern as much time as it takes. It compares each item with each other one for
``uniqueItems``. And it validates a value once for each way in which references lead to it: where a schema refers to
itself in three branches, as that of an expression with three operators does, three times as often for each level of the
value. So these keywords are replaced by those at the end of this module.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from itertools import chain
from typing import Final, Protocol, TypeAlias, cast

import attrs

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


class _Validator(Protocol):
    def descend(
        self, instance: object, schema: object, path: object = ..., schema_path: object = ...
    ) -> Iterable[Invalid]: ...


Keyword: TypeAlias = Callable[[_Validator, object, object, Mapping[str, object]], Iterable[Invalid]]
"""The errors of a value. Its arguments are the validator, the value of the keyword, the value that is validated, and the
schema that has the keyword."""


@attrs.define
class _Work:
    """What is shared by the keywords of one validation.

    Args:
        allowance: The time for all patterns.
        referred: The first error of each array or object by each reference, ``None`` where there is none.
    """

    allowance: Allowance
    referred: dict[tuple[int, int], Invalid | None]


_work: Final[ContextVar[_Work]] = ContextVar("_work")


@contextmanager
def bounded_work(length: int) -> Generator[None]:
    """A block for the validation of one text of ``length`` characters; the keywords work only in it."""
    token = _work.set(_Work(Allowance.of(length), {}))
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
    # With a dynamic reference, the result of another reference depends on the way that led to it.
    if "$dynamicRef" not in schema and "$recursiveRef" not in schema:
        keywords["$ref"] = partial(_ref, packages["$ref"])
    return keywords


def _ref(
    package: Keyword,
    validator: _Validator,
    ref: object,
    value: object,
    schema: Mapping[str, object],
) -> Iterable[Invalid]:
    if not _has_parts(value):
        return package(validator, ref, value, schema)
    referred, key = _work.get().referred, (id(schema), id(value))
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


def _unique_items(
    _validator: _Validator, is_asked: object, value: object, _schema: Mapping[str, object]
) -> Iterator[Invalid]:
    if is_asked and isinstance(value, list):
        items = cast("list[object]", value)
        if len(set(map(_key, items))) < len(items):
            yield _invalid("its items are not all different")


def _pattern(
    _validator: _Validator, pattern: object, value: object, _schema: Mapping[str, object]
) -> Iterator[Invalid]:
    if isinstance(pattern, str) and isinstance(value, str) and not _matches(pattern, value):
        yield _invalid(f"a string in it does not match {pattern!r}")


def _pattern_properties(
    validator: _Validator, patterns: object, value: object, _schema: Mapping[str, object]
) -> Iterator[Invalid]:
    if isinstance(patterns, dict) and isinstance(value, dict):
        members = cast("dict[str, object]", value)
        for pattern, schema in cast("dict[str, object]", patterns).items():
            for name, member in members.items():
                if _matches(pattern, name):
                    yield from validator.descend(member, schema, path=name, schema_path=pattern)


def _additional_properties(
    package: Keyword,
    validator: _Validator,
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
