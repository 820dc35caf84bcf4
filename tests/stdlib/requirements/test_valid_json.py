"""JSON while it streams, and what may stand around it. Schemas: test_json_schema.py."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kit import growth
from requirement_help import edited, first, marks, passes, pieces_of, streamed

from mellea_sc import SimpleContext, ValidJSON
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.stdlib.requirements.valid_json import JsonAnswer
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
loops = st.sampled_from(["asyncio", "trio"])
documents = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent),
    values,
    st.booleans(),
    st.sampled_from([None, 1, "\t", 8]),
)
PARTS = (
    *"{}[],:\"\\-0123.eE+ \ntfnu/bx'",
    *('"a"', '{"a":', "[1", "true", "null", "\\u00e9", "\\ud800", "\x0b", "\x01", "é", "NaN"),
)


async def reason(requirement: ValidJSON, text: str) -> str | None:
    ctx = SimpleContext().add("prompt").add(ModelOutputThunk.computed(text))
    return (await requirement.validate(ScriptedBackend(), ctx)).reason


def reason_of(text: str) -> str | None:
    """Of the stream's fail; that of the final verdict is the same."""
    fails = [p.verdict for p in pieces_of(ValidJSON(), list(text)) if p.verdict.success == "fail"]
    said = fails[0].reason if fails else None
    assert run_virtual(reason, ValidJSON(), text) == said or said is None
    return said


def is_json(text: str) -> bool:
    """Whether ``json.loads`` reads it, which without this would read NaN too."""

    def refused(_: str) -> None:
        raise ValueError

    try:
        json.loads(text, parse_constant=refused)
    except ValueError:
        return False
    return True


# --- character by character -------------------------------------------------------------------------


@given(documents, st.data(), loops)
def test_whatever_python_writes_as_json_passes(text: str, data: st.DataObject, loop: str) -> None:
    assert "x" not in marks(ValidJSON(), data.draw(cuts(text)))
    assert run_virtual(passes, ValidJSON(), text, backend=loop)
    assert ValidJSON().json_in(f" {text}\n") == text
    for fenced in (
        f"```json\n{text}\n```",
        f" ```\n{text}```\n",
        f"\ufeff~~~\r\n{text}\r\n~~~",
        text,
    ):
        assert "x" not in marks(ValidJSON(fenced=True), data.draw(cuts(fenced)))
        assert run_virtual(passes, ValidJSON(fenced=True), fenced, backend=loop)
        assert ValidJSON(fenced=True).json_in(fenced) == text
        reader = JsonAnswer(fenced=True)
        assert all(reader.take(delta) == len(delta) for delta in data.draw(cuts(fenced)))
        span = reader.find(fenced)
        assert not isinstance(span, str)
        assert fenced[slice(*span)] == text


ENDS = (
    *("", '"', '\\"', 'n"', *("0" * count + '"' for count in range(1, 5))),
    *("rue", "ue", "e", "alse", "lse", "se", "ull", "ll", "l", "0"),
)


def can_go_on(text: str) -> bool:
    """Whether some end makes JSON of it: of a token, of a member, of what is open."""
    closing = ""
    for token in re.findall(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', text, re.DOTALL):
        if token in "[{":
            closing = ("]" if token == "[" else "}") + closing
        elif token in "]}":
            closing = closing[1:]
    return any(
        is_json(text + end + more + closing)
        for end, more in itertools.product(ENDS, ("", ":0", '"":0', "0"))
    )


EACH_STATE = (
    *("", "[", "[1,", "[1", "[] ", "{", '{"a"', '{"a":', '{"a":1', '{"a":1,', "[true", '["a"'),
    *('"', '"\\', '"\\u', '"\\uA', '"\\ua0', '"\\u00e', '{"', '{"\\'),
    *("t", "tr", "tru", "f", "fa", "fal", "fals", "n", "nu", "nul"),
    *("-", "0", "-0", "1", "0.", "1.5", "1e", "1E+", "1e-5", "1e5"),
)


@pytest.mark.parametrize("before", EACH_STATE)
def test_each_character_is_judged_right_in_each_state(before: str) -> None:
    for char in (*map(chr, range(0x80)), *"\x85\xa0\u0660\u2028\u3000\ufeff\uff11\ud800\U0001f600"):
        is_bad = marks(ValidJSON(), [before + char]) == "." * len(before) + "x"
        assert is_bad == (not can_go_on(before + char)), repr(char)


@given(documents, st.data())
def test_it_fails_exactly_where_no_more_text_would_make_it_json(
    text: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(text)))
    taken = data.draw(st.sampled_from([0, 1]))
    bad = text[:at] + data.draw(st.sampled_from(["", *PARTS])) + text[at + taken :]
    assume(len(bad) < 200)
    fails = first(marks(ValidJSON(), data.draw(cuts(bad))))
    assert (fails is None) == can_go_on(bad)
    assert run_virtual(passes, ValidJSON(), bad) == is_json(bad)
    if fails is not None:
        assert can_go_on(bad[:fails])
        assert not can_go_on(bad[: fails + 1])


@given(st.lists(st.sampled_from(PARTS), max_size=12).map("".join))
def test_what_passes_to_the_end_is_what_python_reads(text: str) -> None:
    good = run_virtual(passes, ValidJSON(), text)
    assert good == is_json(text)
    assert not (good and "x" in marks(ValidJSON(), list(text)))


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
        ("\ufeff{}", ""),
    ],
)
def test_it_fails_at_the_first_character_that_cannot_be_json(text: str, shown: str) -> None:
    for on_fail in ("filter", "fix"):
        assert edited(ValidJSON(), list(text), on_fail) == shown
    assert not run_virtual(passes, ValidJSON(), text)


def test_whatever_follows_a_fail_fails_too_and_says_so() -> None:
    verdicts = [p.verdict for p in pieces_of(ValidJSON(), ["[1, ", "2; ", "3", "]"])]
    assert [v.success for v in verdicts] == ["unknown", "unknown", "fail", "fail", "fail"]
    assert all(v.cuts_off for v in verdicts[2:])
    assert {v.reason for v in verdicts[2:]} == {"at character 6: ',' or ']' is missing"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": [1, 2],}', "at character 14: a trailing comma before '}'"),
        ("[1, \n]", "at character 6: a trailing comma before ']'"),
        ("{'a': 1}", "at character 2: strings stand in double quotes"),
        ('{"a": \u201cb\u201d}', "at character 7: strings stand in double quotes"),
        ("{a: 1}", "at character 2: a key in double quotes or '}' is missing"),
        ('{"a": 1, b: 2}', "at character 10: a key in double quotes is missing"),
        ('{"a": None}', "at character 7: None is written null, and JSON has no NaN"),
        ('{"a": True}', "at character 7: True is written true"),
        ("[1, False]", "at character 5: False is written false"),
        ("[-Infinity]", "at character 3: JSON has no Infinity"),
        ("[undefined]", "at character 2: undefined is written null"),
        ("[nil]", "at character 3: the words of JSON are true, false and null"),
        ("[1, ...]", "at character 5: nothing may be left out, and a number begins with a digit"),
        ("[+1]", "at character 2: a number has no '+' before it"),
        ("[007]", "at character 3: a number has no needless zero at its beginning"),
        ("[1.]", "at character 4: a digit of a number is missing"),
        ("[1 2]", "at character 4: ',' or ']' is missing"),
        (
            '{"a": "the "big" one"}',
            "at character 13: ',' or '}' is missing, or a double quote inside a string is not written \\\"",
        ),
        ('{"a" 1}', "at character 6: ':' is missing after a key"),
        ('{"a":}', "at character 6: a value is missing, or the double quotes of a string"),
        ("[1, me]", "at character 5: a value is missing, or the double quotes of a string"),
        ('[{"a": "b"]', "at character 11: ',' or '}' is missing"),
        (
            '["a\tb"]',
            "at character 4: a line break or control character inside a string has to be escaped, as \\n",
        ),
        (
            '["C:\\dir"]',
            "at character 6: no escape begins so: a backslash inside a string is written \\\\",
        ),
        ('["it\\\'s"]', "at character 6: a single quote inside a string is not escaped"),
        ('["\\u00g0"]', "at character 7: \\u takes four hexadecimal digits"),
        ("[1, // one\n2]", "at character 5: JSON has no comments"),
        ("[1] # one", "at character 5: JSON has no comments"),
        ("[1] [2]", "at character 5: the JSON text has ended, and nothing may follow it"),
        ("Sure: []", "at character 1: the JSON text has to begin here, with nothing before it"),
        ("```\n[]\n```", "at character 1: no code fence may stand before the JSON text"),
        ("\ufeff[]", "at character 1: no byte order mark may stand before the JSON text"),
        ("[" * 201, "at character 201: more than 200 brackets are open"),
    ],
)
def test_a_fail_says_where_and_why_in_words_that_a_model_can_follow(text: str, said: str) -> None:
    assert reason_of(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no JSON text"),
        (" \n", "there is no JSON text"),
        ('{"a": [1, 2', "the JSON text is not complete, with 2 brackets open"),
        ('["abc', "the JSON text is not complete: it ends inside a string, with 1 bracket open"),
        ('"\\u00', "the JSON text is not complete: it ends inside a string"),
        ("-", "the JSON text is not complete: it ends inside a number"),
        ("[tru", "the JSON text is not complete: it ends inside a word, with 1 bracket open"),
        ('{"a"', "the JSON text is not complete, with 1 bracket open"),
    ],
)
def test_an_answer_that_broke_off_is_told_what_it_lacks(text: str, said: str) -> None:
    assert "x" not in marks(ValidJSON(), list(text))
    assert run_virtual(reason, ValidJSON(), text) == said


# --- what does not end ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "most", "after"),
    [
        ("", 128, "[]"),
        ("[]", 128, ""),
        ("12", 128, ""),
        ("[", 144, "]"),
        ('{"a": 1,', 144, '"b": 2}'),
        ('{"a"', 144, ": 2}"),
        ('{"a": [[', 176, "]]}"),
        ("[" * 200, 128 + 16 * 200, "]" * 200),
    ],
)
@pytest.mark.parametrize("white", [" ", "\n", " \r\n\t"])
def test_white_space_may_be_so_long_and_no_longer(
    before: str, most: int, after: str, white: str
) -> None:
    space = (white * most)[:most]
    assert run_virtual(passes, ValidJSON(), before + space + after)
    too_long = before + space + white[0] + after
    expected = "." * len(before + space) + "x" * len(white[0] + after)
    for deltas in ([too_long], list(too_long)):
        assert marks(ValidJSON(), deltas) == expected
    said = run_virtual(reason, ValidJSON(), too_long)
    assert f"more than {most} characters of white space in a row" in (said or "")


@pytest.mark.parametrize("find", [False, True])
@pytest.mark.parametrize(
    "text", ["{" + " \n" * 4000, "[1, 2" + "\t" * 8000, "[]" + "\n" * 8000, " " * 8000]
)
@given(loop=loops, chunking=st.sampled_from([None, "sentence"]))
def test_a_model_that_goes_on_with_white_space_is_stopped(
    text: str, find: bool, loop: str, chunking: str | None
) -> None:
    deltas = [text[at : at + 4] for at in range(0, len(text), 4)]
    result = run_virtual(streamed, ValidJSON(find=find), deltas, chunking, backend=loop)
    assert not result.completed
    assert len(result.full_text) < 4000


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, {"b": [True, None, "x y"]}]},
        {"a": " " * 3000, "b": "\n" * 3000},
        json.loads("[" * 199 + "1" + "]" * 199),
    ],
)
@pytest.mark.parametrize("indent", [0, 2, 8, 16, "\t"])
def test_indentation_is_not_taken_for_white_space_without_end(
    value: object, indent: int | str
) -> None:
    text = "\n" + json.dumps(value, indent=indent) + "\n\n"
    assert "x" not in marks(ValidJSON(), [text])
    assert run_virtual(passes, ValidJSON(), text)


@pytest.mark.parametrize("begins", ["1", "-1", "0.", "1e", "1.5E-"])
def test_a_number_is_no_longer_than_python_reads_integers(begins: str) -> None:
    text = begins + "1" * (4300 - len(begins))
    assert run_virtual(passes, ValidJSON(), text)
    assert json.loads(text) == json.loads(text)
    assert marks(ValidJSON(), [f"[{text}, {text}1"]).count("x") == 1
    assert "4300" in (run_virtual(reason, ValidJSON(), text + "1") or "")


@pytest.mark.parametrize(
    "text", ["1e99999", "-1E99999", "1e-99999", "[1e400, 123456789012345678901]"]
)
def test_numbers_of_any_size_are_json(text: str) -> None:
    assert run_virtual(passes, ValidJSON(), text)


@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udead": "\\ud83d x"}', '{"a": 1, "a": 2}'])
def test_lone_surrogates_and_doubled_keys_pass_as_python_reads_them(text: str) -> None:
    assert run_virtual(passes, ValidJSON(), text)
    assert json.loads(text) is not None


LONG = {
    "records": (ValidJSON(), '[{"a": [1.5, null, "x\\n"]}, '),
    "deep": (ValidJSON(), "[[[[]]]"),
    "a string": (ValidJSON(), '"' + "long " * 100),
    "a string of escapes": (ValidJSON(), '"' + "\\u00e9\\n" * 100),
    "brackets to find": (ValidJSON(find=True), "["),
    "members to find": (ValidJSON(find=True), '{"a":'),
    "brackets in strings": (ValidJSON(find=True), '["[",'),
    "strings between brackets": (ValidJSON(find=True), '[",'),
    "words in brackets": (ValidJSON(find=True), "[a] {b} "),
    "prose": (ValidJSON(find=True), "Some words are here. "),
}


@pytest.mark.parametrize(("requirement", "unit"), LONG.values(), ids=LONG.keys())
def test_the_work_grows_as_the_text_does(requirement: ValidJSON, unit: str) -> None:
    def work(size: int) -> None:
        text = (unit * (size // len(unit) + 1))[:size]
        deltas: Sequence[str]
        for deltas in ([text], list(text)):
            watch = requirement.chunking.fresh()  # type: ignore[union-attr]
            for delta in deltas:
                watch.feed(delta)
        requirement.json_in(text)

    assert growth(work, 10_000, 8) < 16


# --- a fence ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("```json\n{}\n```", "{}"),
        ("```JSON5\r\n{}\r\n```\r\n", "{}"),
        ("```\n[1]```", "[1]"),
        ("~~~ jsonc\n[1]\n~~~~", "[1]"),
        ("````json\n{}\n````", "{}"),
        ("\n   ```json\n   {}\n   ```  \n", "{}"),
        ('```json title="a.json"\n{}\n```', "{}"),
        ('~~~ json\n"```"\n~~~', '"```"'),
        ('```\n"```\\n~~~"\n```', '"```\\n~~~"'),
        ("\ufeff```\n42\n```", "42"),
        ("\ufeff\n{}", "{}"),
        (" 42 ", "42"),
    ],
)
def test_a_fence_may_stand_around_and_is_not_part_of_the_json(text: str, inside: str) -> None:
    for deltas in ([text], list(text)):
        assert "x" not in marks(ValidJSON(fenced=True), deltas)
    assert run_virtual(passes, ValidJSON(fenced=True), text)
    assert ValidJSON(fenced=True).json_in(text) == inside


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("```python\nprint()", "```python\n"),
        ("```json\n{}\n``` and", "```json\n{}\n``` "),
        ("```json\n{\n```", "```json\n{\n"),
        ("``{}", "``"),
        ("``\n{}\n``", "``"),
        ('```json {"a": 1}\n```', "```json "),
        ("```\n{}\n~~~", "```\n{}\n"),
        ("~~~\n{}\n```", "~~~\n{}\n"),
        ("```\n{}\n`` `", "```\n{}\n``"),
        ("{}\n```", "{}\n"),
        ("Sure:\n```json\n{}\n```", ""),
        ("```\n```", "```\n"),
        ("```\n```\n{}\n```\n```", "```\n"),
        ("`" * 40, "`" * 16),
        ("```" + "json" * 40, "```" + "json" * 16),
        ("```\n{}\n```" + " " * 129, "```\n{}\n```" + " " * 128),
        ("{}\ufeff", "{}"),
    ],
)
def test_a_fence_has_to_be_one(text: str, shown: str) -> None:
    for deltas in ([text], list(text)):
        assert edited(ValidJSON(fenced=True), deltas, "filter") == shown
    assert not run_virtual(passes, ValidJSON(fenced=True), text)
    assert ValidJSON(fenced=True).json_in(text) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```json\n{}", "the code fence is not closed"),
        ("```json\n{}\n``", "the code fence is not closed"),
        ("````json\n{}\n```", "the code fence is not closed"),
        ("```json\n{", "the JSON text is not complete, with 1 bracket open"),
        ("```", "there is no JSON text"),
        ("``", "there is no JSON text"),
        ("~~~json\n", "there is no JSON text"),
        ("\ufeff", "there is no JSON text"),
    ],
)
def test_what_could_go_on_streams_and_is_not_complete(text: str, said: str) -> None:
    assert "x" not in marks(ValidJSON(fenced=True), list(text))
    assert run_virtual(reason, ValidJSON(fenced=True), text) == said
    assert ValidJSON(fenced=True).json_in(text) is None


FENCE_PARTS = (
    "```",
    "~~~",
    "`",
    "json",
    "\n",
    "\r\n",
    " ",
    "{}",
    "[",
    "]",
    "\ufeff",
    "1",
    '"',
    "x",
)


@given(st.lists(st.sampled_from(FENCE_PARTS), max_size=9).map("".join), st.data())
def test_a_fence_is_read_alike_wherever_it_is_cut(text: str, data: st.DataObject) -> None:
    expected = marks(ValidJSON(fenced=True), list(text))
    assert marks(ValidJSON(fenced=True), data.draw(cuts(text))) == expected
    assert expected == "." * expected.count(".") + "x" * expected.count("x")
    found = ValidJSON(fenced=True).json_in(text)
    assert run_virtual(passes, ValidJSON(fenced=True), text) == (found is not None)
    if found is not None:
        assert is_json(found)
        assert "x" not in expected
    if is_json(text):
        assert found == text.strip()


# --- somewhere in prose -----------------------------------------------------------------------------


def first_complete(text: str) -> str | None:
    """The object or array that begins first, found by trying all."""
    for began, ended in itertools.combinations(range(len(text) + 1), 2):
        if text[began] in "[{" and is_json(text[began:ended]):
            return text[began:ended]
    return None


@given(st.lists(st.sampled_from((*PARTS, "[]", "{", "]", "}")), max_size=12).map("".join))
def test_of_all_that_is_complete_the_first_to_begin_is_found(text: str) -> None:
    expected = first_complete(text)
    assert ValidJSON(find=True).json_in(text) == expected
    assert run_virtual(passes, ValidJSON(find=True), text) == (expected is not None)
    assert "x" not in marks(ValidJSON(find=True), list(text))


@given(documents, st.text(alphabet="ab {[\"'\n:,", max_size=8), st.text(max_size=8))
def test_json_is_found_between_any_words(text: str, before: str, after: str) -> None:
    assume(text[0] in "[{" and first_complete(before + text) == text)
    assert ValidJSON(find=True).json_in(before + text + after) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('Sure! {"a": 1}. Bye {', '{"a": 1}'),
        ('```json\n{"a": 1}\n```\nHope this helps.', '{"a": 1}'),
        ('{"a": 1}\n{"b": 2}', '{"a": 1}'),
        ("see [1] and {}", "[1]"),
        ('A set {x} or [y], then {"a": [1]}', '{"a": [1]}'),
        ('{{"a": 1}}', '{"a": 1}'),
        ('[{"a": 1}, ...]', '{"a": 1}'),
        ('"not [1" [2]', "[2]"),
        ("42 or true", None),
        ('{"a": 1', None),
        ("nothing", None),
    ],
)
def test_what_is_found_in_an_answer(text: str, found: str | None) -> None:
    assert ValidJSON(find=True).json_in(text) == found
    assert ValidJSON(find=True, fenced=True).json_in(text) == found


def test_what_is_found_is_bounded_as_any_json() -> None:
    deep = "Here: " + "[" * 201 + "]" * 201
    said = run_virtual(reason, ValidJSON(find=True), deep)
    assert said == "at character 207: more than 200 brackets are open"
    assert ValidJSON(find=True).json_in("a" + deep[7:-1]) == deep[7:-1]
    said = run_virtual(reason, ValidJSON(find=True), "no")
    assert said == "there is no complete JSON object or array"


@given(st.lists(st.sampled_from((" " * 1000, "\n" * 2328, "x", "[")), max_size=6), st.data())
def test_prose_without_end_of_white_space_is_cut_alike_everywhere(
    parts: list[str], data: st.DataObject
) -> None:
    text = "".join(parts)
    too_long = re.search(r"\s{3329}", text)
    expected = None if too_long is None else too_long.end() - 1
    for deltas in ([text], list(text), data.draw(cuts(text))):
        assert first(marks(ValidJSON(find=True), deltas)) == expected


def test_what_may_stand_around_is_in_the_prompt() -> None:
    alone, fenced, found = (
        ValidJSON().description,
        ValidJSON(fenced=True).description,
        ValidJSON(find=True).description,
    )
    assert "nothing around it" in str(alone)
    assert "code block" in str(fenced)
    assert "holds" in str(found)
