"""JSON while it streams, a fence around it, and schemas."""

from __future__ import annotations

import json
import sys

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirement_help import edited, marks, passes, pieces_of

from mellea_sc import InvalidOption, MissingExtra, SimpleContext, ValidJSON
from mellea_sc.runtime.thunk import ModelOutputThunk
from mellea_sc.testing import ScriptedBackend, run_virtual
from mellea_sc.testing.strategies import cuts

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


class Person(pydantic.BaseModel):
    """What an answer may have to be."""

    name: str
    age: int


async def reason(requirement: ValidJSON, text: str) -> str | None:
    ctx = SimpleContext().add("prompt").add(ModelOutputThunk.computed(text))
    return (await requirement.validate(ScriptedBackend(), ctx)).reason


@given(values, st.booleans(), st.sampled_from([None, 1]), st.data())
def test_whatever_python_writes_as_json_passes(
    value: object, ascii_only: bool, indent: int | None, data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert "x" not in marks(ValidJSON(), data.draw(cuts(text)))
    assert run_virtual(passes, ValidJSON(), text)
    for fenced in (f"```json\n{text}\n```", f" ```\n{text}```\n", text):
        assert "x" not in marks(ValidJSON(fenced=True), data.draw(cuts(fenced)))
        assert run_virtual(passes, ValidJSON(fenced=True), fenced)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('Here it is: {"a": 1}', ""),
        ('{"a": 1} Hope this helps!', '{"a": 1} '),
        ("```json\n{}\n```", ""),
        ("{'a': 1}", "{"),
        ('{"a": 01}', '{"a": 0'),
        ('{"a": tru}', '{"a": tru'),
        ('["a\nb"]', '["a'),
        ("[1,]", "[1,"),
        ("[1 2]", "[1 "),
        ("NaN", ""),
        ("[" * 300, "[" * 200),
    ],
)
def test_it_fails_at_the_first_character_that_cannot_be_json(text: str, shown: str) -> None:
    assert edited(ValidJSON(), list(text), "filter") == shown
    assert not run_virtual(passes, ValidJSON(), text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("```python\n{}", "```"),
        ("```json\n{}\n``` and", "```json\n{}\n``` "),
        ("```json\n{\n```", "```json\n{\n"),
        ("````json\n{}", "```"),
        ("``{}", "``"),
        ("{}\n```", "{}\n"),
        ("Sure:\n```json\n{}\n```", ""),
    ],
)
def test_a_fence_has_to_be_one(text: str, shown: str) -> None:
    assert edited(ValidJSON(fenced=True), list(text), "filter") == shown
    assert not run_virtual(passes, ValidJSON(fenced=True), text)


@pytest.mark.parametrize(
    "text", ["```json\n{}", "```", "``", "```json\n{}\n``", "", " ", '"', "[1"]
)
def test_what_could_go_on_streams_and_is_not_complete(text: str) -> None:
    assert "x" not in marks(ValidJSON(fenced=True), list(text))
    assert run_virtual(reason, ValidJSON(fenced=True), text) == "the JSON text is not complete"


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


@pytest.mark.parametrize("schema", [SCHEMA, Person])
def test_at_the_end_it_has_to_fit_a_schema(schema: type[Person] | dict[str, object]) -> None:
    good, bad = '{"name": "Ann", "age": 3}', '{"name": "Ann", "age": "three"}'
    assert run_virtual(passes, ValidJSON(schema), good)
    assert run_virtual(passes, ValidJSON(schema, fenced=True), f"```json\n{good}\n```")
    assert "x" not in marks(ValidJSON(schema), [bad])
    for text in (bad, "{}", "[]"):
        said = run_virtual(reason, ValidJSON(schema), text)
        assert said is not None
        assert said.startswith("it does not fit")
    assert "age" in (run_virtual(reason, ValidJSON(schema), bad) or "")
    assert '"name"' in ValidJSON(schema).format_for_llm()


@pytest.mark.parametrize("schema", [{"type": "nothing"}, 3, int])
def test_what_is_no_schema_is_refused(schema: object) -> None:
    with pytest.raises(InvalidOption, match="schema"):
        ValidJSON(schema)


def test_a_number_of_too_many_digits_is_json_and_fits_nothing() -> None:
    text = "1" * 5000
    assert run_virtual(passes, ValidJSON(), text)
    assert "cannot be read" in (run_virtual(reason, ValidJSON({}), text) or "")


def test_a_reference_to_elsewhere_is_not_fetched() -> None:
    requirement = ValidJSON({"$ref": "http://127.0.0.1:9/schema.json"})
    with pytest.raises(InvalidOption, match="reference"):
        run_virtual(passes, requirement, "{}")


@pytest.mark.parametrize(
    ("module", "make", "extra"),
    [
        ("ijson", ValidJSON, "json"),
        ("jsonschema", lambda: ValidJSON({}), "json"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, make: type[ValidJSON], extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{module}.*mellea_sc\[{extra}\]"):
        make()


def test_a_long_text_is_read_in_time_and_keeps_nothing() -> None:
    requirement = ValidJSON()
    text = '{"a": "' + "long " * 20_000 + '", "b": ' + "1" * 50_000 + "}"
    assert len(pieces_of(requirement, [text[at : at + 5] for at in range(0, len(text), 5)])) > 1000


def test_both_parsers_of_ijson_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import ijson

    usual = [
        marks(ValidJSON(), [text]) for text in ('{"a": [1, 2}', '{"a" "b"}', "[1, :]", "{} {}")
    ]
    assert all("x" in said for said in usual)
    plain = ijson.get_backend("python")
    monkeypatch.setattr(ijson, "basic_parse_coro", plain.basic_parse_coro)
    again = [
        marks(ValidJSON(), [text]) for text in ('{"a": [1, 2}', '{"a" "b"}', "[1, :]", "{} {}")
    ]
    assert again == usual
    assert run_virtual(passes, ValidJSON(), '{"a": [true, null]}')
    assert not run_virtual(passes, ValidJSON(), '{"a": [true, null]')
