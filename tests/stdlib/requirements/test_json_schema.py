"""JSON that has to fit a schema, and which schemas can be judged with."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable

import jsonschema
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirement_help import marks, passes

from mellea_sc import (
    InvalidOption,
    MissingExtra,
    PatternTooSlow,
    SimpleContext,
    ValidJSON,
    start_session,
)
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.testing import ScriptedBackend, run_virtual


class Person(pydantic.BaseModel):
    """What an answer may have to be."""

    name: str
    age: int


async def reason(requirement: ValidJSON, text: str) -> str | None:
    ctx = SimpleContext().add("prompt").add(ModelOutputThunk.computed(text))
    return (await requirement.validate(ScriptedBackend(), ctx)).reason


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
TREE = {"properties": {"left": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["n"]}
OLD = "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("schema", [SCHEMA, Person])
def test_at_the_end_it_has_to_fit_a_schema(
    schema: type[Person] | dict[str, object], loop: str
) -> None:
    good, bad = '{"name": "Ann", "age": 3}', '{"name": "Ann", "age": "three"}'
    for around in ({}, {"fenced": True}, {"find": True}):
        assert run_virtual(passes, ValidJSON(schema, **around), good, backend=loop)
        assert not run_virtual(passes, ValidJSON(schema, **around), bad, backend=loop)
    fenced, found = f"```json\n{good}\n```", f"It is {good}."
    assert run_virtual(passes, ValidJSON(schema, fenced=True), fenced, backend=loop)
    assert run_virtual(passes, ValidJSON(schema, find=True), fenced, backend=loop)
    assert run_virtual(passes, ValidJSON(schema, find=True), found, backend=loop)
    assert not run_virtual(passes, ValidJSON(schema, find=True), f"[1] {found}", backend=loop)
    assert "x" not in marks(ValidJSON(schema), [bad])
    for text in (bad, "{}", "[]"):
        said = run_virtual(reason, ValidJSON(schema), text, backend=loop)
        assert said is not None
        assert said.startswith("it does not fit")
    assert "age" in (run_virtual(reason, ValidJSON(schema), bad, backend=loop) or "")
    assert '"name"' in ValidJSON(schema).format_for_llm()


@pytest.mark.parametrize("schema", [{"type": "string"}, Person])
def test_a_reason_does_not_quote_a_long_answer(
    schema: type[Person] | dict[str, object],
) -> None:
    text = json.dumps({"name": ["long"] * 2000, "age": 1})
    assert len(run_virtual(reason, ValidJSON(schema), text) or "") < 500


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nothing"},
        {"pattern": "["},
        {"$ref": 3},
        {"enum": {1, 2}},
        {"a": object()},
        3,
        int,
    ],
)
def test_what_is_no_schema_is_refused(schema: object) -> None:
    with pytest.raises(InvalidOption, match=r"schema"):
        ValidJSON(schema)  # type: ignore[arg-type]


def test_a_schema_that_is_too_deep_or_contains_itself_is_refused() -> None:
    deep: dict[str, object] = {}
    for _ in range(3000):
        deep = {"not": deep}
    endless: dict[str, object] = {}
    endless["not"] = endless
    for schema in (deep, endless):
        with pytest.raises(InvalidOption, match="schema"):
            ValidJSON(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"anyOf": [True, {"not": {"$ref": "#"}}]},
        {"if": {"$ref": "#"}},
        {"dependentSchemas": {"a": {"$ref": "#"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {
            "properties": {"a": {"$ref": "#/$defs/a"}},
            "$defs": {"a": {"oneOf": [{"$ref": "#/$defs/a"}]}},
        },
        {"$defs": {"never used": {"$ref": "#/$defs/never used"}}},
        {"$anchor": "here", "allOf": [{"$ref": "#here"}]},
        {"$id": "http://a.example/b", "allOf": [{"$ref": "/b"}]},
        {"$dynamicRef": "#"},
        {"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveRef": "#"},
        {"$schema": OLD, "dependencies": {"a": {"$ref": "#"}}},
        {"items": {"$ref": "#/items"}},
    ],
)
def test_a_reference_in_a_circle_is_refused(schema: dict[str, object]) -> None:
    with pytest.raises(InvalidOption, match="circle"):
        ValidJSON(schema)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (TREE, '{"n": 1, "left": {"n": 2, "left": null}}', '{"n": 1, "left": {}}'),
        (
            {
                "$defs": {"a": {"type": "integer"}},
                "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}],
            },
            "1",
            "true",
        ),
        (
            {
                "$schema": OLD,
                "definitions": {
                    "a": {"type": "integer"},
                    # up to draft 7 what stands beside a reference is ignored
                    "b": {"$ref": "#/definitions/a", "allOf": [{"$ref": "#/definitions/b"}]},
                },
                "$ref": "#/definitions/b",
            },
            "1",
            "true",
        ),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, '{"type": "string"}', "1"),
        ({"enum": [{"$ref": "#/nowhere"}]}, '{"$ref": "#/nowhere"}', "{}"),
        ({"properties": {"$ref": {"type": "string"}}}, '{"$ref": "a"}', '{"$ref": 1}'),
        (
            {
                "$ref": "#/$defs/a",
                "$defs": {"a": {"items": {"$ref": "#/$defs/a"}, "type": "array"}},
            },
            "[[]]",
            "[1]",
        ),
    ],
)
def test_other_references_are_followed(schema: dict[str, object], good: str, bad: str) -> None:
    assert run_virtual(passes, ValidJSON(schema), good)
    assert not run_virtual(passes, ValidJSON(schema), bad)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "https://example.com/schema.json#/$defs/a"},
        {"$ref": "file:///etc/hostname"},
        {"properties": {"a": {"$ref": "other.json"}}},
        {"$ref": "#/$defs/none"},
        {"$ref": "#none"},
        {"$dynamicRef": "#none"},
        {"$ref": "#/allOf/x", "allOf": [True]},
        {"$ref": "#/minLength/x", "minLength": 3},
        {"$ref": "#/title", "title": "no schema"},
    ],
)
def test_a_reference_to_nowhere_or_elsewhere_is_refused_and_never_fetched(
    monkeypatch: pytest.MonkeyPatch, schema: dict[str, object]
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("it has asked the network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    with pytest.raises(InvalidOption, match="reference"):
        ValidJSON(schema)


@pytest.mark.parametrize(
    "draft",
    [
        "https://json-schema.org/v1",
        "http://json-schema.org/draft-03/schema#",
        "https://json-schema.org/draft-07/schema",
        "",
        7,
        ["x"],
    ],
)
def test_an_unknown_draft_is_refused_and_the_known_are_named(draft: object) -> None:
    inner = {"$defs": {"a": {"$id": "http://a.example/", "$schema": draft}}}
    for schema in ({"$schema": draft}, inner):
        with pytest.raises(InvalidOption, match=r"draft.*2020-12|schema"):
            ValidJSON(schema)


@pytest.mark.parametrize(
    "draft",
    [
        *(f"http://json-schema.org/draft-0{number}/schema#" for number in (4, 6, 7)),
        "http://json-schema.org/draft-07/schema",
        *(f"https://json-schema.org/draft/{year}/schema" for year in ("2019-09", "2020-12")),
    ],
)
def test_a_known_draft_is_used(draft: str) -> None:
    requirement = ValidJSON(
        {"$schema": draft, "exclusiveMinimum": True, "minimum": 3}
        if "04" in draft
        else {"$schema": draft, "exclusiveMinimum": 3}
    )
    assert run_virtual(passes, requirement, "4")
    assert not run_virtual(passes, requirement, "3")


scalars = st.none() | st.booleans() | st.integers(0, 1) | st.sampled_from([0.0, 1.0, "", "1"])
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
)


def equal(one: object, other: object) -> bool:
    """As JSON has it."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return one == other


@given(st.lists(nested, max_size=4))
def test_items_are_unique_as_json_has_it(items: list[object]) -> None:
    expected = not any(equal(one, other) for at, one in enumerate(items) for other in items[:at])
    assert run_virtual(passes, ValidJSON({"uniqueItems": True}), json.dumps(items)) == expected
    assert run_virtual(passes, ValidJSON({"uniqueItems": False}), json.dumps(items))


def test_many_objects_are_compared_in_time() -> None:
    text = json.dumps([{"a": number} for number in range(5000)])
    began = time.process_time()
    assert run_virtual(passes, ValidJSON({"uniqueItems": True}), text)
    assert time.process_time() - began < 5


OPERATORS = ("+", "-", "*", "/")


def expressions(branches: str, **schema: object) -> dict[str, object]:
    """The schema of numbers and of two expressions with an operator between them."""
    expression: dict[str, object] = {"$ref": "#/definitions/expression"}
    of_each = [
        {
            "properties": {"op": {"const": op}, "left": expression, "right": expression},
            "required": ["op", "left", "right"],
            "additionalProperties": False,
            "type": "object",
        }
        for op in OPERATORS
    ]
    return {
        **schema,
        "definitions": {"expression": {branches: [{"type": "number"}, *of_each]}},
        **expression,
    }


@pytest.mark.parametrize("branches", ["oneOf", "anyOf"])
@pytest.mark.parametrize("draft", [{}, {"$schema": OLD}])
def test_4_16_a_schema_that_refers_to_itself_in_every_branch_takes_linear_time(
    branches: str, draft: dict[str, str]
) -> None:
    schema = expressions(branches, **draft)
    began = time.process_time()
    for last, good in (("1", True), ('"1"', False), ('{"op": "/", "left": 1}', False)):
        text = last
        for _ in range(20):
            text = f'{{"op": "/", "left": {text}, "right": 2}}'
        assert run_virtual(passes, ValidJSON(schema), text) == good
    assert time.process_time() - began < 5


expression_texts = st.recursive(
    st.integers(0, 2) | st.sampled_from(["1", None, {}, {"op": "+"}]),
    lambda inner: st.fixed_dictionaries(
        {"op": st.sampled_from([*OPERATORS, "?"]), "left": inner, "right": inner}
    ),
    max_leaves=6,
)


@given(expression_texts, st.sampled_from(["oneOf", "anyOf"]))
def test_what_is_known_of_a_part_is_the_same_by_each_branch(value: object, branches: str) -> None:
    def is_expression(value: object) -> bool:
        if not isinstance(value, dict):
            return isinstance(value, int)
        return (
            value.keys() == {"op", "left", "right"}
            and value["op"] in OPERATORS
            and is_expression(value["left"])
            and is_expression(value["right"])
        )

    schema = ValidJSON(expressions(branches))
    assert run_virtual(passes, schema, json.dumps(value)) == is_expression(value)


SLOW = "^(a|a)*$"


@pytest.mark.parametrize(
    "schema",
    [
        {"items": {"pattern": SLOW}},
        {"patternProperties": {SLOW: {"type": "number"}}},
        {"patternProperties": {SLOW: True}, "additionalProperties": False},
        {"propertyNames": {"pattern": SLOW}},
    ],
)
def test_4_16_all_patterns_of_a_schema_have_a_bounded_time_together(
    schema: dict[str, object],
) -> None:
    names = [f"{'a' * 40}{number}" for number in range(40)]
    text = json.dumps(names if "items" in schema else dict.fromkeys(names, 1))
    began = time.process_time()
    with pytest.raises(PatternTooSlow):
        run_virtual(passes, ValidJSON(schema), text)
    assert time.process_time() - began < 3


def test_members_whose_names_match_a_pattern_are_validated_and_no_others() -> None:
    schema = ValidJSON(
        {
            "properties": {"n": True},
            "patternProperties": {"^x-": {"type": "string"}, r"\d": {"minLength": 2}},
            "additionalProperties": {"type": "integer"},
        }
    )
    for good in ('{"n": [], "x-a": "b", "c": 1}', '{"x-1": "ab"}', "{}", "[1]"):
        assert run_virtual(passes, schema, good)
    for bad in ('{"x-a": 1}', '{"x-1": "a"}', '{"c": "d"}'):
        assert not run_virtual(passes, schema, bad)
    said = run_virtual(
        reason, ValidJSON({"patternProperties": {"^x": {"type": "string"}}}), '{"xa": 1}'
    )
    assert said == "it does not fit the schema: $.xa: 1 is not of type 'string'"


@pytest.mark.parametrize("text", ["1e999", "-1e999", "9" * 400, "9" * 400 + ".5", "1e-999"])
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer"},
        {"multipleOf": 0.01},
        {"multipleOf": 3},
        {"maximum": 1e308},
        {"const": 1},
    ],
)
def test_a_number_of_any_size_gets_a_verdict(text: str, schema: dict[str, object]) -> None:
    said = run_virtual(reason, ValidJSON(schema), text)
    assert said is None or said.startswith(("it does not fit", "a number is too large"))


def test_a_value_too_deep_for_a_schema_fails_and_says_so() -> None:
    nested = {"allOf": [{"allOf": [{"properties": {"a": {"allOf": [{"$ref": "#"}]}}}]}]}
    deep = '{"a":' * 199 + "1" + "}" * 199
    said = run_virtual(reason, ValidJSON(nested), deep)
    assert said == "it is nested too deeply to be held against the schema"
    assert run_virtual(passes, ValidJSON(nested), '{"a":' * 5 + "1" + "}" * 5)


def test_fewer_digits_than_python_was_told_to_read_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(700)
    try:
        assert run_virtual(passes, ValidJSON(), "1" * 800)
        assert "cannot be read" in (run_virtual(reason, ValidJSON({}), "1" * 800) or "")
    finally:
        sys.set_int_max_str_digits(before)


def ask_for(schema: dict[str, object]) -> None:
    with start_session(backend=ScriptedBackend("{}")) as m:
        m.instruct("?", format=schema)


@pytest.mark.parametrize(
    ("module", "make", "extra"),
    [
        ("jsonschema", lambda: ValidJSON({"title": "1"}), "json"),
        ("referencing", lambda: ValidJSON({"title": "2"}), "json"),
        ("jsonschema_specifications", lambda: ValidJSON({"title": "3"}), "json"),
        ("jsonschema", lambda: ask_for({"title": "4"}), "json"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, make: Callable[[], object], extra: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{module}.*mellea_sc\[{extra}\]"):
        make()


def test_without_a_schema_no_package_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("jsonschema", "referencing", "jsonschema_specifications", "pydantic"):
        monkeypatch.setitem(sys.modules, module, None)
    assert run_virtual(passes, ValidJSON(fenced=True), "{}")


# --- what other keywords have not evaluated, and dynamic references ------------------------------------


def levels(count: int, leaf: str, before: str = '{"a":', behind: str = "}") -> str:
    return before * count + leaf + behind * count


BRANCHES = [
    {"required": ["op"], "properties": {"op": {"const": op}, "a": {"$dynamicRef": "#e"}}}
    for op in OPERATORS
]
OF_2019 = json.loads(json.dumps(BRANCHES).replace('"$dynamicRef": "#e"', '"$recursiveRef": "#"'))
DRAFT_2019 = "https://json-schema.org/draft/2019-09/schema"
OF_ONE_VALUE = {
    f"d{at}": {"allOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} if at < 20 else {} for at in range(21)
}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (
            {"$dynamicAnchor": "e", "oneOf": [{"type": "number"}, *BRANCHES]},
            levels(15, "1", '{"op": "/", "a":'),
        ),
        (
            {
                "$schema": DRAFT_2019,
                "$recursiveAnchor": True,
                "oneOf": [{"type": "number"}, *OF_2019],
            },
            levels(15, "1", '{"op": "/", "a":'),
        ),
        (
            {
                "$dynamicAnchor": "e",
                "type": "object",
                "unevaluatedProperties": {"$dynamicRef": "#e"},
            },
            levels(22, "1"),
        ),
        ({"$defs": OF_ONE_VALUE, "$ref": "#/$defs/d0", "unevaluatedProperties": False}, '{"a": 1}'),
        (
            {"anyOf": [{"patternProperties": {"^k": True}}], "unevaluatedProperties": False},
            json.dumps(dict.fromkeys(map("k{}".format, range(30_000)), 1)),
        ),
        ({"contains": {"type": "number"}, "unevaluatedItems": False}, json.dumps([1] * 30_000)),
    ],
)
def test_4_16_what_is_not_evaluated_and_dynamic_references_take_linear_time(
    schema: dict[str, object], text: str
) -> None:
    requirement = ValidJSON(schema)
    began = time.process_time()
    run_virtual(passes, requirement, text)
    assert time.process_time() - began < 3


def test_4_16_a_pattern_is_bounded_where_what_is_not_evaluated_depends_on_it() -> None:
    schema = {"patternProperties": {SLOW: True}, "unevaluatedProperties": False}
    with pytest.raises(PatternTooSlow):
        run_virtual(passes, ValidJSON(schema), json.dumps({"a" * 40 + "b": 1}))


def test_4_16_a_pattern_is_bounded_in_a_schema_that_names_its_draft_and_refers_to_itself() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": {"a": {"$ref": "#"}, "s": {"pattern": SLOW}},
    }
    with pytest.raises(PatternTooSlow):
        run_virtual(passes, ValidJSON(schema), json.dumps({"a": {"s": "a" * 40 + "b"}}))


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"properties": {"a": True}}, ['{"a": 1}', "[]"], ['{"b": 1}', '{"a": 1, "b": 2}']),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"a": True}}}}, ['{"a": 1}'], ['{"b": 1}']),
        (
            {"anyOf": [{"required": ["a"], "properties": {"a": True}}, {"patternProperties": {"^x": True}}]},
            ['{"a": 1}', '{"x": 1}', '{"a": 1, "x": 2}'],
            ['{"b": 1}'],
        ),
        (
            {
                "if": {"required": ["a"], "properties": {"a": {"type": "integer"}}},
                "then": {"properties": {"b": True}},
                "else": {"properties": {"c": True}},
            },
            ['{"a": 1, "b": 2}', '{"c": 1}'],
            ['{"a": 1, "c": 2}', '{"b": 1}'],
        ),
        ({"dependentSchemas": {"a": {"properties": {"a": True, "b": True}}}}, ['{"a": 1, "b": 2}'], ['{"b": 1}']),
        ({"allOf": [{"additionalProperties": {"type": "integer"}}]}, ['{"a": 1}'], ['{"a": "b"}']),
        ({"prefixItems": [True]}, ["[1]", "[]"], ["[1, 2]"]),
        ({"contains": {"type": "integer"}}, ["[1, 2]"], ['[1, "a"]']),
        ({"anyOf": [{"items": {"type": "integer"}}]}, ["[1, 2]"], ['["a"]']),
    ],
)  # fmt: skip
def test_what_no_keyword_has_evaluated_is_refused(
    schema: dict[str, object], good: list[str], bad: list[str]
) -> None:
    strict = {**schema, "unevaluatedProperties": False, "unevaluatedItems": False}
    package = jsonschema.Draft202012Validator(strict)
    requirement = ValidJSON(strict)
    for text in (*good, *bad):
        assert run_virtual(passes, requirement, text) == (text in good), text
        assert package.is_valid(json.loads(text)) == (text in good), text


def test_what_was_not_evaluated_is_named() -> None:
    requirement = ValidJSON({"properties": {"a": True}, "unevaluatedProperties": False})
    said = run_virtual(reason, requirement, '{"a": 1, "b": 2, "c": 3}')
    assert said == (
        "it does not fit the schema: $: Unevaluated properties are not allowed ('b', 'c' were unexpected)"
    )
