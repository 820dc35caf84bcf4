"""What holds of every ready-made requirement that judges a text by itself."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Callable
from functools import cache

import attrs
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from requirement_help import edited, first, marks, passes, streamed

from mellea_sc import (
    CodeBlocks,
    MaxCharacters,
    MustMatch,
    MustNotMatch,
    NoPII,
    NoRepetition,
    NoSecrets,
    Requirement,
    SimpleContext,
    ValidJSON,
)
from mellea_sc.stdlib.chunking import resolve_chunking
from mellea_sc.stdlib.requirements.markdown import LineIs, Lines
from mellea_sc.testing import ScriptedBackend, check_requirement, run_virtual
from mellea_sc.testing.strategies import cuts

# --- plain references ---------------------------------------------------------------------------------


def from_on(text: str, at: int | None) -> str:
    """The marks of a text in which everything fails from a position on."""
    return "." * len(text) if at is None else "." * at + "x" * (len(text) - at)


def characters(text: str) -> str:
    return from_on(text, 7 if len(text.rstrip()) > 7 else None)


FULL = [r"(ab)*", r"a+b? ", r"(a|b)\1", r"[ab]{2}-?a", r"(?i)AB*-", r"a{2,4}(?!b)", r"(?s).*-a"]


def full_match(pattern: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    @cache
    def can_match(prefix: str) -> bool:
        return any(
            compiled.fullmatch(prefix + "".join(more))
            for length in range(4)
            for more in itertools.product("ab- ", repeat=length)
        )

    def reference(text: str) -> str:
        ends = range(1, len(text) + 1)
        return from_on(text, next((end - 1 for end in ends if not can_match(text[:end])), None))

    return reference


class NotJSON(Exception):
    """At a position of the text; ``None``: it ends too early."""

    def __init__(self, at: int | None) -> None:
        self.at = at


_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_NUMBER_SO_FAR = re.compile(
    r"-?(?:(?:0|[1-9]\d*)(?:\.(?:\d+(?:[eE](?:[+-]?\d*)?)?)?|[eE](?:[+-]?\d*)?)?)?", re.ASCII
)


class PlainJSON:
    """JSON by recursive descent: raises where the first character is that cannot come."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def read(self) -> None:
        self.value()
        self.space()
        if self.at < len(self.text):
            raise NotJSON(self.at)

    def space(self) -> None:
        while self.text[self.at : self.at + 1] in (" ", "\t", "\n", "\r"):
            self.at += 1

    def one_of(self, allowed: str) -> str:
        char = self.text[self.at : self.at + 1]
        if not char:
            raise NotJSON(None)
        if char not in allowed:
            raise NotJSON(self.at)
        self.at += 1
        return char

    def value(self) -> None:
        self.space()
        begins = self.one_of('{["-0123456789tfn')
        if begins == "{":
            self.members()
        elif begins == "[":
            self.items()
        elif begins == '"':
            self.string()
        elif begins in "tfn":
            for char in {"t": "rue", "f": "alse", "n": "ull"}[begins]:
                self.one_of(char)
        else:
            self.number()

    def number(self) -> None:
        so_far = _NUMBER_SO_FAR.match(self.text, self.at - 1)
        assert so_far is not None
        self.at = so_far.end()
        if not _NUMBER.fullmatch(so_far[0]):
            raise NotJSON(self.at if self.at < len(self.text) else None)

    def string(self) -> None:
        while True:
            char = self.text[self.at : self.at + 1]
            if not char:
                raise NotJSON(None)
            if char < " ":
                raise NotJSON(self.at)
            self.at += 1
            if char == '"':
                return
            if char == "\\" and self.one_of('"\\/bfnrtu') == "u":
                for _ in range(4):
                    self.one_of("0123456789abcdefABCDEF")

    def items(self) -> None:
        self.space()
        if self.text[self.at : self.at + 1] == "]":
            self.at += 1
            return
        while True:
            self.value()
            self.space()
            if self.one_of(",]") == "]":
                return

    def members(self) -> None:
        self.space()
        if self.one_of('"}') == "}":
            return
        while True:
            self.string()
            self.space()
            self.one_of(":")
            self.value()
            self.space()
            if self.one_of(",}") == "}":
                return
            self.space()
            self.one_of('"')


def json_so_far(text: str) -> str:
    try:
        PlainJSON(text).read()
    except NotJSON as error:
        return from_on(text, error.at)
    return "." * len(text)


def is_json(text: str) -> bool:
    def refused(_: str) -> None:
        raise ValueError

    try:
        json.loads(text, parse_constant=refused)
    except ValueError:
        return False
    return True


def blocks(text: str) -> str:
    """The marks, by a parser of CommonMark that sees the whole text."""
    text_lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text)
    failing: set[int] = set()
    for token in MarkdownIt("commonmark").parse(text):
        if (
            token.type == "fence"
            and re.split(r"[\s{:,]", token.info.strip())[0].lower() != "python"
        ):
            assert token.map is not None
            failing |= set(range(*token.map))
    return "".join(("x" if n in failing else ".") * len(line) for n, line in enumerate(text_lines))


def is_left_open(text: str) -> bool:
    """Whether a text without containers ends in a block: a line behind it would belong to it."""
    [*_, last] = MarkdownIt("commonmark").parse(f"{text}\n\nqq\n")
    return last.type == "fence"


def loops(text: str) -> str:
    def is_loop(end: int, length: int) -> bool:
        size = max(3 * length, 6)
        unit = text[end - length : end]
        return (
            size <= end
            and text[end - size + length : end] == text[end - size : end - length]
            and any(char.isalnum() for char in unit)
        )

    ends = range(1, len(text) + 1)
    return "".join("x" if any(is_loop(end, n) for n in range(1, 6)) else "." for end in ends)


# --- the table ----------------------------------------------------------------------------------------------


def of(*parts: str, most: int = 16) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(parts), max_size=most).map("".join)


def text_line(text: str) -> str:
    """Ends with a line: what a parser says of lines is not clear for a last one of white space."""
    return text.rstrip(" \t") + "\n"


@attrs.frozen
class Case:
    """A requirement, texts for it, and what is plainly so of them.

    Args:
        make: Makes the requirement.
        texts: To judge.
        marks: Those of a whole text.
        passes: Whether a whole text does; ``None``: if nothing fails.
    """

    make: Callable[[], Requirement]
    texts: st.SearchStrategy[str]
    marks: Callable[[str], str]
    passes: Callable[[str], bool] | None = None

    def is_good(self, text: str) -> bool:
        return "x" not in self.marks(text) if self.passes is None else self.passes(text)


JSON_PARTS = (
    *'{}[],:"\\-0123.eE+ \ntfnu`',
    *('"a"', '{"a":', "[1", "true", "null", "\\u00e9", "\x0b", "\x01", "é", "NaN"),
)
CASES = {
    "characters": Case(lambda: MaxCharacters(7), of("a", "bc", " ", "\n", ". "), characters),
    "json": Case(ValidJSON, of(*JSON_PARTS, most=10), json_so_far, is_json),
    "blocks": Case(
        lambda: CodeBlocks(["Python"]),
        of("```", "~~~", "\n", "\n", "python", "js", "x", "`", "\r\n", "\r", "``", "# ").map(
            text_line
        ),
        blocks,
        lambda text: "x" not in blocks(text) and not is_left_open(text),
    ),
    "loops": Case(lambda: NoRepetition(3, at_least=6, longest=5), of(*"aab- ", most=30), loops),
    **{
        f"full {pattern}": Case(
            lambda pattern=pattern: MustMatch(pattern, full=True),
            of(*"ab- ", "ab", most=8),
            full_match(pattern),
            lambda text, pattern=pattern: re.fullmatch(pattern, text) is not None,
        )
        for pattern in FULL
    },
}
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@each
@given(data=st.data())
def test_a_stream_is_judged_as_the_whole_text_plainly_is_wherever_it_is_cut(
    case: Case, data: st.DataObject
) -> None:
    text = data.draw(case.texts)
    expected = case.marks(text)
    requirement = case.make()
    assert marks(requirement, data.draw(cuts(text))) == expected
    assert marks(requirement, [text]) == expected
    assert marks(requirement, list(text)) == expected


@each
@given(data=st.data(), loop=st.sampled_from(["asyncio", "trio"]))
def test_the_final_verdict_is_the_plain_one_and_never_contradicts_the_stream(
    case: Case, data: st.DataObject, loop: str
) -> None:
    text = data.draw(case.texts)
    good = run_virtual(passes, case.make(), text, backend=loop)
    assert good == case.is_good(text)
    assert not (good and "x" in marks(case.make(), [text]))


@each
@given(
    data=st.data(),
    chunking=st.sampled_from(["sentence", "word", "paragraph", None]),
    loop=st.sampled_from(["asyncio", "trio"]),
)
def test_a_run_releases_nothing_that_fails_and_validates_what_passed_to_the_end(
    case: Case, data: st.DataObject, chunking: str | None, loop: str
) -> None:
    text = data.draw(case.texts)
    deltas = data.draw(cuts(text, max_deltas=6))
    result = run_virtual(streamed, case.make(), deltas, chunking, backend=loop)
    begins = first(case.marks(text))
    if begins is None:
        assert text.startswith(result.full_text) or text.strip() == result.full_text.strip()
        assert [bool(verdict) for verdict in result.final_validations] == [case.is_good(text)]
    else:
        assert not result.completed
        assert len(result.streaming_failures) == 1
        assert text[:begins].startswith(result.full_text)


@given(data=st.data(), chunking=st.sampled_from(["sentence", "word", "paragraph"]))
def test_what_is_released_within_a_number_of_characters_depends_on_the_text_alone(
    data: st.DataObject, chunking: str
) -> None:
    text = data.draw(CASES["characters"].texts)
    released = {
        run_virtual(streamed, MaxCharacters(7), deltas, chunking).full_text
        for deltas in ([text], list(text), data.draw(cuts(text)))
    }
    assert len(released) == 1


@given(data=st.data())
def test_a_text_without_what_failed_is_good_where_only_a_span_was_wrong(
    data: st.DataObject,
) -> None:
    for name in ("characters", "blocks"):
        case = CASES[name]
        text = data.draw(case.texts)
        deltas = data.draw(cuts(text))
        rest = edited(case.make(), deltas, "filter")
        if name == "blocks" and is_left_open(rest):
            continue  # left open: nothing to take away
        assert case.is_good(rest)


CONTAINED = [
    *(
        "```",
        "~~~",
        "````",
        "`",
        " ",
        "  ",
        "\n",
        "\n",
        "\n",
        "\n\n",
        "> ",
        ">",
        "- ",
        "* ",
        "-",
        "1. ",
    ),
    *(
        "2) ",
        "python",
        "js",
        "x",
        "# ",
        "---",
        "===",
        "<div>",
        "<!--",
        "-->",
        "<b>",
        "</div>",
        "<pre>",
    ),
]


@given(of(*CONTAINED).map(text_line), st.data())
@example("> ```js\n\n```   \nx\n", None)
def test_blocks_in_quotes_lists_and_html_are_those_of_commonmark(
    text: str, data: st.DataObject | None
) -> None:
    # markdown-it takes a ">" for a quote's that is indented too far for one
    assume(not re.search(r"(?m)^[> ]*    +>", text))
    requirement = CodeBlocks(["python"])
    expected = blocks(text)
    assert marks(requirement, [text]) == expected
    assert marks(requirement, list(text) if data is None else data.draw(cuts(text))) == expected


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("1. ```python\n   x\n   ```\nok\n", True),
        ("* one\n\n  ```python\n  x\n  ```\n\n* two\n", True),
        ("> - ```python\n>   x\n>   ```\n\nok\n", True),
        ("- > ~~~python\n  > x\n  > ~~~\n\nok\n", True),
        ("```python\n> ```js\n```\n", True),
        ("-\t```python\n\tx\n\t```\n", True),
        ("    ```js\n", True),
        ("<!--\n```js\n-->\n", True),
        ("<!-- " + "x" * 400 + " -->\n```js\nx\n```\n", False),
        ("> ```js\n> x\n> ```\nok\n", False),
        ("- a\n  ```js\n  x\n  ```\n", False),
        ("> > ~~~js\n> > x\n> > ~~~\n", False),
        ("> ```python\n> x\n```js\ny\n```\n", False),
        ("1.\n\n    ```js\n", True),
        ("1. \n   \n    ```js\n", True),
        ("1. \n   \n   ```js\n", False),
        ("1. ```python\n   x\n", False),
        ("a\r```js\rx\r```\rb", False),
        ("a\r\n```python\r\nx\r```\r\r b", True),
    ],
)
def test_a_block_is_judged_wherever_markdown_allows_one(text: str, good: bool) -> None:
    assert run_virtual(passes, CodeBlocks(["python"]), text) == good
    assert marks(CodeBlocks(["python"]), list(text)) == marks(CodeBlocks(["python"]), [text])
    if "js" in text and not good:
        assert "js" not in edited(CodeBlocks(["python"]), list(text), "filter")


@pytest.mark.parametrize("unit", ["\n", "x\n> y\n", "> ```python\n", "-", "> ", "1. x\n"])
def test_the_work_on_lines_does_not_grow(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0
    plain = Lines.read

    def counting(self: Lines, line: str) -> LineIs:
        nonlocal read
        read += len(line) + len(self._containers) + 1
        return plain(self, line)

    monkeypatch.setattr(Lines, "read", counting)
    text = unit * 20_000
    pieces = CodeBlocks(["python"]).chunking
    assert not isinstance(pieces, str | None)
    assert sum(len(piece) for piece in pieces.fresh().feed(text)) >= len(text) - 256
    assert read <= 4 * len(text)


# --- all of them --------------------------------------------------------------------------------------------

READY: dict[str, Callable[[], Requirement]] = {
    "characters": lambda: MaxCharacters(40),
    "match": lambda: MustMatch(r"\d"),
    "full match": lambda: MustMatch(r"(?s)[A-Z{].*", full=True),
    "no match": lambda: MustNotMatch(r"key=\S+", window=12),
    "json": ValidJSON,
    "schema": lambda: ValidJSON({"type": "object", "required": ["answer"]}, fenced=True),
    "blocks": lambda: CodeBlocks(["python"]),
    "loops": NoRepetition,
    "pii": NoPII,
    "secrets": NoSecrets,
}
ready = pytest.mark.parametrize("make", READY.values(), ids=READY.keys())


@ready
@pytest.mark.anyio
async def test_it_keeps_the_promises_of_requirements(make: Callable[[], Requirement]) -> None:
    await check_requirement(make)


@ready
@given(data=st.data())
def test_any_text_gets_the_same_verdicts_wherever_it_is_cut(
    make: Callable[[], Requirement], data: st.DataObject
) -> None:
    text = data.draw(st.text(max_size=60) | of(*'"{}[]`~-+@. \n1aé', "key=", "1234", most=40))
    requirement = make()
    if requirement.chunking is None:
        return
    expected = marks(requirement, [text])
    assert marks(requirement, data.draw(cuts(text))) == expected
    assert marks(requirement, list(text)) == expected
    if run_virtual(passes, make(), text):
        assert "x" not in expected


@ready
def test_each_takes_what_follows_a_fail_by_name(make: Callable[[], Requirement]) -> None:
    kind = type(make())
    required: dict[str, object] = {
        "MaxCharacters": {"limit": 5},
        "MustMatch": {"pattern": "a"},
        "MustNotMatch": {"pattern": "a"},
    }.get(kind.__name__, {})
    made = kind(**required, on_fail="filter", blocking=False, check_only=True)
    assert (made.on_fail, made.blocking, made.check_only) == ("filter", False, True)
    again = copy.copy(made)
    assert (again.on_fail, again.blocking, again.check_only) == ("filter", False, True)
    assert kind(**required).on_fail is None
    assert kind(**required).blocking


@pytest.mark.anyio
async def test_other_text_than_a_piece_is_judged_alone() -> None:
    ask = {"backend": ScriptedBackend(), "ctx": SimpleContext()}
    requirement = ValidJSON()
    assert (await requirement.stream_validate("[1, 2", **ask)).success == "unknown"
    assert (await requirement.stream_validate("[1, 2", **ask)).success == "unknown"
    assert (await requirement.stream_validate("[1; 2", **ask)).success == "fail"
    assert (await MustMatch("a").stream_validate("b", **ask)).success == "unknown"


LONG = ["a word ", "a", "9", "-", "`", '"', "[", "A1 ", "@a.", "\n", "京"]


@ready
@pytest.mark.parametrize("unit", LONG)
def test_what_is_held_back_does_not_grow_with_the_text(
    make: Callable[[], Requirement], unit: str
) -> None:
    requirement = make()
    if requirement.chunking is None:
        return
    strategy = resolve_chunking(requirement.chunking)
    fed = given = 0
    for _ in range(4000):
        fed += len(unit)
        given += sum(map(len, strategy.feed(unit)))
        assert fed - given <= max(320, fed / 32)
