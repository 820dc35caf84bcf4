"""A template is a text or a typed error, whatever is in it; and what fills it in is never a template."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc import (
    CBlock,
    Instruction,
    LLMJudge,
    MaxWords,
    Message,
    MustMatch,
    MustNotMatch,
    PromptTemplateError,
    Requirement,
    ValidJSON,
    req,
)

PIECES = st.sampled_from(
    [
        *("{{", "}}", "{%", "%}", "{#", "#}", "x", "y", " x ", "|", "upper", ".", "[0]", "(", ")"),
        *(" for i in x ", " endfor ", " if x ", " endif ", "\n", "'", '"', "__class__", "range(3)"),
        *("1/0", "é", "\x00", "\ud800", " set z = x ", "raw", " include 'f' ", "~"),
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join), st.text(max_size=20))
def test_any_template_is_a_text_or_a_typed_error(template: str, value: str) -> None:
    try:
        said = Instruction(template, user_variables={"x": value}).format_for_llm()
    except PromptTemplateError:
        return
    assert isinstance(said, str)


@given(st.text(max_size=40))
def test_what_a_variable_holds_is_never_a_template(value: str) -> None:
    braced = "{{ x }} {% if y %} {{ 7 * 7 }}" + value
    instruction = Instruction("Say {{ x }}", user_variables={"x": braced})
    assert instruction.format_for_llm() == f"Say {braced}"


def test_without_variables_nothing_is_a_template() -> None:
    assert Instruction("Say {{ x }}").format_for_llm() == "Say {{ x }}"


def test_blocks_and_grounding_are_data() -> None:
    instruction = Instruction(
        CBlock("{{ x }}"), grounding_context={"doc": "{{ x }}"}, user_variables={"x": "filled in"}
    )
    assert "filled in" not in instruction.format_for_llm()
    assert Message("user", CBlock("{{ x }}"), user_variables={"x": "no"}).content == "{{ x }}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("Hello {{ nobody }}", "nobody"),
        ("Hello {{ x", "line 1"),
        ("{{ x.__class__.__mro__ }}", "unsafe|not|attribute"),
        ("{{ x.index('q') }}", "substring not found"),
        ("{{ 1 // 0 }}", "zero"),
        ("{{ x + 1 }}", "str"),
        ("{{ 'a' * 10**11 }}", "MemoryError"),
        ("{{ " + "(" * 5000 + "x" + ")" * 5000 + " }}", "recursion"),
    ],
)
def test_a_wrong_template_says_what_is_wrong(template: str, message: str) -> None:
    with pytest.raises(PromptTemplateError, match=message):
        Instruction(template, user_variables={"x": "y"}).format_for_llm()


def test_every_written_text_of_an_instruction_is_filled_in() -> None:
    instruction = Instruction(
        "Describe {{ x }}.",
        ["be brief about {{ x }}", Requirement("silent {{ x }}", check_only=True)],
        ["An example of {{ x }}."],
        {"source": "a text"},
        {"x": "tea"},
        "First of all: {{ x }}.",
        "The {{ x }} is",
    )
    said = instruction.format_for_llm()
    for text in ("Describe tea.", "be brief about tea", "An example of tea.", "First of all: tea."):
        assert text in said
    assert "silent" not in said
    assert instruction.assistant_prefix() == "The tea is"


READY_MADE = [
    MustNotMatch(r"\{\{x\}\}", description="no {{ braces }}"),
    MustNotMatch(r"{{x", check_only=False),
    MustMatch(r"{% if %}"),
    MustMatch(r"[{]{2}x}}", full=True),
    ValidJSON({"type": "object", "description": "{{ nobody }} {%"}),
    LLMJudge("How {{ kind }}?", description="be {{ kind }}"),
    MaxWords(5),
]


@pytest.mark.parametrize("ready_made", READY_MADE, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("variables", [None, {}, {"x": "tea"}])
def test_what_a_class_of_requirements_says_of_itself_is_no_template(
    ready_made: Requirement, variables: dict[str, str] | None
) -> None:
    said = Instruction("Write.", [ready_made], user_variables=variables).format_for_llm()
    assert f"- {ready_made.format_for_llm()}\n" in said


def test_requirements_of_the_programs_own_words_are_templates() -> None:
    class Own(Requirement):
        """Its description may be made of anything."""

    requirements = ["a {{ x }}", Requirement("b {{ x }}"), req("c {{ x }}"), Own("d {{ x }}")]
    instruction = Instruction("Write.", requirements, user_variables={"x": "tea"})
    assert instruction.format_for_llm() == (
        "Requirements:\n- a tea\n- b tea\n- c tea\n- d {{ x }}\n\nWrite."
    )


def test_what_must_hold_stands_before_what_to_do() -> None:
    instruction = Instruction(
        "Write.", ["be brief"], ["Tea."], {"doc": "Text."}, prefix="First of all:"
    )
    said = instruction.format_for_llm()
    parts = ["Requirements:\n- be brief", "First of all:", "Write.", "Tea.", "Text."]
    assert said.startswith(parts[0])
    assert [said.index(part) for part in parts] == sorted(said.index(part) for part in parts)
