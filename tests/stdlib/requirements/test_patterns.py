"""Patterns: of a match not a character is shown, nothing else is held back, and the cuts never matter."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable
from math import inf

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kit import growth
from pattern_table import ALL, KINDS
from requirement_help import edited, marks, passes, pieces_of, streamed

from mellea_sc import (
    InvalidOption,
    MustMatch,
    MustNotMatch,
    PatternTooSlow,
    Requirement,
    RunError,
    SimpleContext,
)
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.stdlib.requirements import patterns
from mellea_sc.stdlib.requirements.expressions.expression import (
    Allowance,
    Expression,
    expression_of,
)
from mellea_sc.testing import ScriptedBackend, run_virtual
from mellea_sc.testing.strategies import cuts

LONGEST = 60
"""Shorter than the window of an unbounded expression: then a stream is judged as the whole text is."""
each = pytest.mark.parametrize(("pattern", "example"), ALL, ids=[pattern for pattern, _ in ALL])


def texts_like(example: str) -> st.SearchStrategy[str]:
    """Parts of an example in any order."""
    parts = [*example.split(" "), *example]
    return st.lists(st.sampled_from(parts), max_size=12).map("".join).map(lambda t: t[:LONGEST])


def plain_marks(pattern: re.Pattern[str], text: str) -> str:
    """The standard library's matches, one after the other; an empty one fails a character."""
    said = ["."] * len(text)
    at = 0
    while (match := pattern.search(text, at)) and match.start() < len(text):
        at = max(match.end(), match.start() + 1)
        said[match.start() : at] = "x" * (at - match.start())
    return "".join(said)


# --- nothing may match ------------------------------------------------------------------------------------


def test_there_are_ten_of_each_kind() -> None:
    assert {len(pairs) for pairs in KINDS.values()} == {10}
    for pattern, example in ALL:
        assert re.search(pattern, example), pattern


@each
@given(data=st.data())
def test_a_stream_is_judged_as_the_standard_library_searches_the_whole_text(
    pattern: str, example: str, data: st.DataObject
) -> None:
    text = data.draw(texts_like(example))
    compiled = re.compile(pattern)
    expected = plain_marks(compiled, text)
    normalize = data.draw(st.sampled_from(["NFC", None]))
    requirement = MustNotMatch(data.draw(st.sampled_from([pattern, compiled])), normalize=normalize)
    assert marks(requirement, [text]) == expected
    assert marks(requirement, list(text)) == expected
    assert marks(requirement, data.draw(cuts(text))) == expected
    assert run_virtual(passes, requirement, text) == (compiled.search(text) is None)


@given(
    data=st.data(),
    pair=st.sampled_from(ALL),
    chunking=st.sampled_from(["sentence", "word", "paragraph", None]),
    loop=st.sampled_from(["asyncio", "trio"]),
)
def test_of_a_match_not_a_character_is_released(
    data: st.DataObject, pair: tuple[str, str], chunking: str | None, loop: str
) -> None:
    pattern, example = pair
    text = data.draw(texts_like(example))
    expected = plain_marks(re.compile(pattern), text)
    deltas = data.draw(cuts(text))
    result = run_virtual(streamed, MustNotMatch(pattern), deltas, chunking, backend=loop)
    if "x" in expected:
        assert not result.completed
        assert text[: expected.index("x")].startswith(result.full_text)
    else:
        assert text.strip() == result.full_text.strip()


WIDTHS = [
    ("bomb", 4),
    (r"\bbomb\b", 5),
    (r"(?i)\bgr[ae]y\b", 5),
    (r"\d{3}-\d{4}", 8),
    (r"cat|zebra|ox", 5),
    (r"x{2,10}", 10),
    (r"(?<=\$)\d\d", 2),
    (r"(?:ab){1,3}c?", 7),
    (r"a(?=bcd)", 4),
    (r"a(?!bcd)b?", 4),
    (r"ab$", 4),
    (r"(?m)ab$", 3),
    (r"ab\Z", 3),
    (r"(a{2})\1", 4),
    (r"(a)?(?(1)bcd|e)", 4),
    (r"(?>ab|c)d?+", 3),
    (r"(?<=ab\b)c", 1),
    (r"a+", inf),
    (r"a(?=.*b)", inf),
    (r"(a+)b\1", inf),
]


@pytest.mark.parametrize(("pattern", "width"), WIDTHS)
def test_its_width_is_what_a_match_needs_with_what_is_looked_at_behind_it(
    pattern: str, width: float
) -> None:
    assert expression_of(re.compile(pattern), None).size.seen == width
    assert MustNotMatch(pattern).reach == (64 if width == inf else width)


@each
@given(data=st.data())
def test_no_more_is_held_back_than_its_width_and_what_may_still_be_composed(
    pattern: str, example: str, data: st.DataObject
) -> None:
    requirement = MustNotMatch(pattern)
    text = data.draw(texts_like(example))
    given = 0
    watch = requirement.chunking
    assert watch is not None
    assert not isinstance(watch, str)
    watch = watch.fresh()
    for at, char in enumerate(text):
        given += sum(map(len, watch.feed(char)))
        assert at + 1 - given <= requirement.reach


HELD = [  # what has come, and what of it is held back
    (r"(?i)\bgas\b", "When a volcano ", ""),
    (r"(?i)\bgas\b", "When a volcano", ""),
    (r"(?i)\bgas\b", "When a volcano g", "g"),
    (r"(?i)\bgas\b", "When a volcano ga", "ga"),
    (r"(?i)\bgas\b", "When a volcano gav", ""),
    (r"(?i)\bgas\b", "Vegas", ""),
    (r"\d{3}-\d{4}", "in 1999 and 555-01", "555-01"),
    (r"\d{3}-\d{4}", "in 1999", "999"),
    (r"cat|zebra|ox", "the zeb", "zeb"),
    (r"cat|zebra|ox", "the zebu ", ""),
    (r"key=\S+", "the key=", "key="),
    (r"key=\S+", "the keys", ""),
    (r"https?://\S+", "see http:// now ", ""),
    (r"https?://\S+", "see https:", "https:"),
    (r"\b(\w+) \1\b", "the so ", "so "),
    (r"\b(\w+) \1\b", "the cat sat. ", ""),
    (r"(?<!no )problem", "no problem", ""),
    (r"(?m)^#.*$", "a # b\n", ""),
    (r"a(?!b)", "ab ", ""),
    ("é", "caf", ""),
    ("é", "cafe", "e"),
    ("[\u4e00-\u9fff]{2}", "a 我", "我"),
]


@pytest.mark.parametrize(("pattern", "text", "held"), HELD)
def test_only_what_a_match_may_have_begun_in_is_held_back(
    pattern: str, text: str, held: str
) -> None:
    for deltas in ([text], list(text)):
        watch = MustNotMatch(pattern).chunking
        assert watch is not None
        assert not isinstance(watch, str)
        watch = watch.fresh()
        shown = "".join(piece for delta in deltas for piece in watch.feed(delta))
        assert shown == text.removesuffix(held)


# --- a text that goes on --------------------------------------------------------------------------------------


def patterns_of_parts() -> st.SearchStrategy[str]:
    """Expressions over a few letters, made of everything that there is."""
    leaf = st.sampled_from(
        [*"abc ", "a", "b", "ab", r"\w", ".", "[ab]", "[^a]", r"\b", r"\B", *"$^"]
    )
    behind = st.sampled_from(["(?<=a)", "(?<!b)", r"(?<=a\b)", "(?<!^a)", r"(?<!\ba)"])
    times = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{2,}"])

    def bigger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
            st.tuples(inner, times, st.sampled_from(["", "?", "+"])).map(
                lambda said: f"(?:{said[0]}){said[1]}{said[2]}"
            ),
            st.tuples(st.sampled_from(["=", "!", ">"]), inner).map(lambda s: f"(?{s[0]}{s[1]})"),
            st.tuples(inner, inner).map(lambda two: rf"({two[0]}){two[1]}\1"),
            st.tuples(inner, inner).map(lambda two: f"({two[0]})?(?(1){two[1]}|b)"),
        )

    return st.recursive(leaf | behind, bigger, max_leaves=6)


def spans(expression: Expression, text: str, at: int) -> int | None:
    return expression.match(text, at, len(text), Allowance.of(0))


MORE = [
    "",
    *"ab \n",
    "aa",
    "ab",
    "ba",
    "bb",
    "a ",
    "b ",
    "\na",
    " b",
    "aab",
    "abb",
    "bab",
    "ab ",
    "abab",
]


@given(pattern=patterns_of_parts(), text=st.text(alphabet="aabbc \n", min_size=1, max_size=5))
def test_what_is_certain_of_a_text_that_goes_on_is_so_however_it_goes_on(
    pattern: str, text: str
) -> None:
    try:
        expression = expression_of(re.compile(pattern), None)
    except re.error:
        assume(False)
        return
    assume(expression.open is not None)
    for at in range(len(text)):
        outcomes = {spans(expression, text + more, at) for more in MORE}
        spot = expression.spot(text, at, len(text), Allowance.of(0))
        if spot is None or spot.begin > at:
            assert outcomes == {None}
        elif spot.end is not None:
            assert outcomes == {spot.end}
    if any(expression.matches_wholly(text + more, Allowance.of(0)) for more in MORE):
        assert expression.may_match_wholly(text, Allowance.of(0))


# --- where nothing is known of the text that goes on --------------------------------------------------------------

UNREADABLE = [r"(?=(a+))\1b", r"(?<=a(?=b))b", r"(?<!a$)b", r"(?=(a|ab))\1c"]


@pytest.mark.parametrize("pattern", UNREADABLE)
@given(data=st.data())
def test_an_expression_that_cannot_be_asked_about_its_future_is_judged_by_windows(
    pattern: str, data: st.DataObject
) -> None:
    text = data.draw(st.text(alphabet="aabbc ", max_size=30))
    compiled = re.compile(pattern)
    assert expression_of(compiled, "NFC").open is None
    expected = plain_marks(compiled, text)
    assert marks(MustNotMatch(pattern, window=32), data.draw(cuts(text))) == expected
    assert run_virtual(passes, MustNotMatch(pattern), text) == (compiled.search(text) is None)
    full = MustMatch(pattern, full=True)
    assert full.chunking is None
    assert run_virtual(passes, full, text) == (compiled.fullmatch(text) is not None)


def test_without_the_parser_of_the_standard_library_everything_is_judged_by_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mellea_sc.stdlib.requirements.expressions import tree

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(tree.importlib, "import_module", missing)
    expression_of.cache_clear()
    try:
        requirement = MustNotMatch(r"(?i)\bGAS\b  # not verbose")
        assert requirement.reach == patterns.DEFAULT_WINDOW
        text = "a gas  # not verbose, gas"
        assert marks(requirement, list(text)) == "..xxxxxxxxxxxxxxxxxx....."
    finally:
        expression_of.cache_clear()


# --- the whole text has to match ----------------------------------------------------------------------------------

GOOD = [
    (r"(?!(?:True|False)\b).*", ["True", "st me."]),
    (r"(?!(?:yes|no)\b).*", ["no", "thing here."]),
    (r"(?:(?!halt\b).)*", ["a halt", "er here"]),
    (r"(?!dog$)\w+", ["dog", "ma"]),
    (r"(?!(?:admin|root)$)[a-z]+", ["root", "ed"]),
    (r"\w+(?<!ing)\.", ["runn", "ing", "s."]),
    (r"(?!.*\bnever\b).+", ["I never", "theless go"]),
    (r"(?=.*\d)[a-z0-9]+", ["abc", "def", "7"]),
    (r"(a|b)\1+", ["a", "a", "a"]),
    (r"(?s)Dear .*, bye\.", ["Dear ", "all,\n", "bye", ", bye."]),
    (r"\b\w+\b(?: \b\w+\b)*", ["on", "e tw", "o"]),
    (r"(?m)(?:^- .+$\n?)+", ["- a\n", "- b", "c\n"]),
    (r"caf\u00e9s?", ["cafe", "\u0301", "s"]),
]


@pytest.mark.parametrize(("pattern", "deltas"), GOOD)
@given(data=st.data(), loop=st.sampled_from(["asyncio", "trio"]))
def test_a_text_that_matches_in_the_end_is_never_stopped(
    pattern: str, deltas: list[str], data: st.DataObject, loop: str
) -> None:
    text = "".join(deltas)
    for cut in (deltas, list(text), data.draw(cuts(text))):
        result = run_virtual(streamed, MustMatch(pattern, full=True), cut, None, backend=loop)
        assert result.completed
        assert result.full_text == text
        assert [bool(verdict) for verdict in result.final_validations] == [True]


@each
@given(data=st.data())
def test_what_fails_of_a_text_that_has_to_match_cannot_be_made_good(
    pattern: str, example: str, data: st.DataObject
) -> None:
    text = data.draw(texts_like(example))
    compiled = re.compile(pattern)
    requirement = MustMatch(pattern, full=True)
    if requirement.chunking is None:
        return
    said = marks(requirement, data.draw(cuts(text)))
    assert said == marks(requirement, [text])
    assert run_virtual(passes, requirement, text) == (compiled.fullmatch(text) is not None)
    for end in range(len(text) + 1):
        if compiled.fullmatch(text[:end]):
            assert "x" not in said[:end]


# --- time -------------------------------------------------------------------------------------------------------------

SLOW: list[tuple[Callable[[], Requirement], str]] = [
    (lambda: MustNotMatch(r"(a|a)*b"), "a" * 60 + "! and so on"),
    (lambda: MustNotMatch(r"(?:a|aa)+[bc]"), "a" * 60 + "!"),
    (lambda: MustNotMatch(r"(?=(a|a))(?:\1|a)*[bc]"), "a" * 200 + "!"),
    (lambda: MustMatch(r"(?:a|a)*b.*", full=True), "a" * 60 + "! and"),
]


@pytest.mark.parametrize(("make", "text"), SLOW)
def test_an_expression_that_finds_no_end_is_an_error_in_bounded_time(
    make: Callable[[], Requirement], text: str
) -> None:
    deltas = [text[at : at + 5] for at in range(0, len(text), 5)]
    began = time.process_time()
    with pytest.raises(PatternTooSlow, match="took too long"):
        pieces_of(make(), deltas)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: MustNotMatch(r"(?:a|aa)+[bc]"),
        lambda: MustMatch(r"(?:a|aa)+[bc]"),
        lambda: MustMatch(r"(?:a|aa)+[bc]", full=True),
    ],
)
def test_the_final_verdict_is_found_in_bounded_time_too(make: Callable[[], Requirement]) -> None:
    began = time.process_time()
    with pytest.raises(PatternTooSlow):
        run_virtual(passes, make(), "a" * 60 + "! c")
    assert time.process_time() - began < 2
    assert issubclass(PatternTooSlow, (RunError, TimeoutError))


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_run_with_such_an_expression_shows_nothing_unjudged(loop: str) -> None:
    requirement = MustNotMatch(r"(a|a)*b", on_fail="filter")
    with pytest.raises(PatternTooSlow):
        run_virtual(streamed, requirement, ["a" * 30, "a" * 30, "! c"], None, backend=loop)


GROWING = [
    r"\bgas\b",
    r"\d{3}-\d{4}",
    r"(?i)secret project",
    r"key=\S+",
    r"\w+@\w+\.com",
    r"(?s)a.*z",
]


@pytest.mark.parametrize("pattern", GROWING)
@pytest.mark.parametrize("size", [1, 7, 10**9])
def test_the_work_grows_with_the_text_and_no_faster(pattern: str, size: int) -> None:
    watches = MustNotMatch(pattern).chunking
    assert watches is not None
    assert not isinstance(watches, str)

    def work(length: int) -> None:
        text = ("When a volcano erupts, key=0123 and Ga 555-01 come out of it. " * length)[:length]
        watch = watches.fresh()
        for at in range(0, length, size):
            watch.feed(text[at : at + size])
        watch.flush()

    assert growth(work, 8_000, 4, least=1e-3) < 6


# --- however it was composed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", ["café", "cafe\u0301", "caf[é]", "caf[e\u0301]", r"caf\u00e9", "(?i)CAFÉ"]
)
@pytest.mark.parametrize("text", ["a café.", "a cafe\u0301."])
def test_an_accented_letter_is_found_however_it_was_composed(pattern: str, text: str) -> None:
    for deltas in ([text], list(text)):
        assert edited(MustNotMatch(pattern), deltas, "fix") == "a […]."
    assert not run_virtual(passes, MustNotMatch(pattern), text)
    assert run_virtual(passes, MustMatch(pattern), text)
    whole = re.compile(f"a {pattern.removeprefix('(?i)')}\\.", re.IGNORECASE)
    assert run_virtual(passes, MustMatch(whole, full=True), text)


@pytest.mark.parametrize(
    "pattern",
    [
        *("(?i)istanbul", "(?i)ISTANBUL", "(?i)\u0130stanbul", "(?i)\u0131stanbul"),
        *(
            "(?i)[i]stanbul",
            "(?i)[h-j]stanbul",
            "(?i)[A-Z]stanbul",
            "(?i)[^i]stanbul",
            "(?i)[^x]stanbul",
        ),
        *("(?ai)istanbul", "(?ai)[a-z]stanbul", "istanbul", "[^i]stanbul"),
    ],
)
@pytest.mark.parametrize("text", ["istanbul", "Istanbul", "\u0130stanbul", "\u0131stanbul"])
def test_the_turkish_letters_i_have_the_case_that_re_gives_them(pattern: str, text: str) -> None:
    mark = "x" if re.search(pattern, text) else "."
    assert marks(MustNotMatch(pattern), [text]) == mark * len(text)
    assert marks(MustNotMatch(pattern), list(text)) == mark * len(text)
    assert run_virtual(passes, MustMatch(pattern, full=True), text) == (mark == "x")


def test_a_letter_without_its_accent_is_another_one() -> None:
    for text in ("cafe\u0301", "café"):
        assert marks(MustNotMatch("cafe"), list(text)) == "." * len(text)
        assert run_virtual(passes, MustNotMatch("cafe"), text)
        assert marks(MustNotMatch("caf"), list(text)) == "xxx" + "." * (len(text) - 3)
    assert marks(MustNotMatch("cafe", normalize=None), ["cafe\u0301"]) == "xxxx."
    assert marks(MustNotMatch("é", normalize=None), ["cafe\u0301"]) == "....."


def test_compatible_characters_are_the_same_where_it_is_asked_for() -> None:
    fullwidth = "".join(chr(ord(char) + 0xFEE0) for char in "the.file")
    bold = "the " + "".join(chr(ord(char) - ord("a") + 0x1D41A) for char in "file")
    texts = ["the ﬁle", fullwidth, bold, "the file"]
    for text in texts:
        requirement = MustNotMatch("file", normalize="NFKC")
        length = len("ﬁle") if "ﬁ" in text else 4
        for deltas in ([text], list(text)):
            assert marks(requirement, deltas) == "." * 4 + "x" * length
        assert run_virtual(passes, MustNotMatch("file"), text) == (text != "the file")
    assert marks(MustNotMatch("ﬁle", normalize="NFKC"), list("file ﬁle")) == "xxxx.xxx"
    assert marks(MustNotMatch("カ゛|ガ", normalize="NFKC"), list("ｶﾞ")) == "xx"


def test_a_word_with_marks_ends_where_its_last_mark_does() -> None:
    assert edited(MustNotMatch(r"\bनमस्ते\b"), list("नमस्ते दुनिया"), "filter") == " दुनिया"
    assert edited(MustNotMatch("😀"), list("a 😀 b"), "filter") == "a  b"
    assert edited(MustNotMatch("각"), ["가", "\u11a8 각"], "fix") == "[…] […]"


LETTERS = [
    *"eéocq1fi ",
    "e\u0301",
    "o\u0323\u0308",
    "\u0301",
    "\u0323",
    "\u0308",
    "가",
    "\u1100\u1161",
    "\u11a8",
    "ﬁ",
]


@given(
    data=st.data(),
    text=st.lists(st.sampled_from(LETTERS), max_size=10).map("".join),
    pattern=st.lists(
        st.sampled_from(
            ["e", "é", "[é]", "[^e]", "o", "ọ̈", "가", "각", r"\w", "c", "(?<!é)c", "fi", "q"]
        ),
        min_size=1,
        max_size=3,
    ).map("".join),
    form=st.sampled_from(["NFC", "NFKC"]),
)
def test_the_normalised_text_is_judged_and_the_text_as_it_came_is_cut(
    data: st.DataObject, text: str, pattern: str, form: str
) -> None:
    requirement = MustNotMatch(pattern, normalize=form)
    said = marks(requirement, [text])
    assert marks(requirement, list(text)) == said
    assert marks(requirement, data.draw(cuts(text))) == said
    normal = unicodedata.normalize(form, text)
    compiled = re.compile(unicodedata.normalize("NFC", pattern))
    assert ("x" in said) == (not run_virtual(passes, requirement, text))
    if all(unicodedata.category(char)[0] != "M" for char in normal):  # else \w is another
        assert ("x" in said) == ("x" in plain_marks(compiled, normal))
    if normal == text:
        assert said == marks(MustNotMatch(pattern, normalize=None), [text])


def test_marks_without_end_are_held_back_no_longer_than_any_language_has_them() -> None:
    watch = MustNotMatch("é").chunking
    assert watch is not None
    assert not isinstance(watch, str)
    watch = watch.fresh()
    given = 0
    for at, char in enumerate("e" + "\u0301" * 500):
        given += sum(map(len, watch.feed(char)))
        assert at + 1 - given <= 40


# --- what is said ---------------------------------------------------------------------------------------------------------


async def reason_of(requirement: Requirement, text: str) -> str | None:
    ctx = SimpleContext().add("prompt").add(ModelOutputThunk.computed(text))
    return (await requirement.validate(ScriptedBackend(), ctx)).reason


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda said: MustNotMatch("b+", said), "abc"),
        (lambda said: MustMatch("b+", said), "acd"),
        (lambda said: MustMatch("b+", said, full=True), "bbc"),
    ],
)
def test_a_description_is_what_a_fail_says(
    make: Callable[[str | None], Requirement], text: str
) -> None:
    assert run_virtual(reason_of, make("no word of it"), text) == "no word of it"
    assert "'b+'" in (run_virtual(reason_of, make(None), text) or "")
    if make("").chunking is not None:
        said = {p.verdict.reason for p in pieces_of(make("no word of it"), [text])} - {None}
        assert said == {"no word of it"}


@pytest.mark.parametrize("normalize", ["NFD", "nfc", "", 1])
def test_another_normalisation_is_refused(normalize: object) -> None:
    for kind in (MustMatch, MustNotMatch):
        with pytest.raises(InvalidOption, match="normalize must be one of 'NFC', 'NFKC' or None"):
            kind("a", normalize=normalize)  # type: ignore[arg-type]
