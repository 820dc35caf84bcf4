"""The requirements behind --max-sentences, --max-words and --must-not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc import (
    InvalidOption,
    MaxSentences,
    MaxWords,
    MustNotMatch,
    Requirement,
    SimpleContext,
    start_session,
)
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.stdlib import StreamChunkingResult
from mellea_sc.stdlib.chunking import resolve_chunking
from mellea_sc.testing import ScriptedBackend, run_virtual

PATTERNS = [
    "cab",
    r"\bcab\b",
    r"\bab",
    r"a+b?c",
    r"(?i)CA b",
    r"(?m)^a.$",
    r"(?<=b )a",
    r"ab(?!c)",
    r"c\Z",
    r"^b",
]
texts = st.text(alphabet="abc \n", max_size=40)


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A text, and the same in deltas."""
    text = draw(texts)
    at = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return text, [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]


def pieces_of(requirement: Requirement, deltas: list[str]) -> list[str]:
    strategy = resolve_chunking(requirement.chunking)
    pieces = [piece for delta in deltas for piece in strategy.feed(delta)]
    return [*pieces, *strategy.flush()]


async def verdicts(requirement: Requirement, pieces: list[str]) -> list[str]:
    backend = ScriptedBackend()
    return [
        (await requirement.stream_validate(p, backend=backend, ctx=SimpleContext())).success
        for p in pieces
    ]


async def passes(requirement: Requirement, text: str) -> bool:
    ctx = SimpleContext().add("prompt").add(ModelOutputThunk.computed(text))
    return bool(await requirement.validate(ScriptedBackend(), ctx))


def first_match(pattern: re.Pattern[str], text: str, window: int) -> int | None:
    """Where a match begins when each position is judged by its window."""
    return next((a for a in range(len(text)) if pattern.match(text, a, a + window)), None)


async def stream(
    deltas: list[str], requirement: Requirement, chunking: str | ChunkingStrategy | None
) -> StreamChunkingResult:
    async with (
        start_session(backend=ScriptedBackend(deltas)) as m,
        m.stream("go", requirements=[requirement], chunking=chunking) as result,
    ):
        await result.acomplete()
    return result


@given(cut_texts(), st.sampled_from(PATTERNS), st.integers(2, 12))
def test_the_pieces_are_the_whole_text_and_end_before_the_first_match_wherever_it_is_cut(
    cut: tuple[str, list[str]], pattern: str, window: int
) -> None:
    text, deltas = cut
    requirement = MustNotMatch(pattern, window=window)
    pieces = pieces_of(requirement, deltas)
    assert "".join(pieces) == text
    judged = run_virtual(verdicts, requirement, pieces)
    begins = first_match(requirement.pattern, text, window)
    if begins is None:
        assert "fail" not in judged
    else:
        assert "".join(pieces[: judged.index("fail")]) == text[:begins]


@given(cut_texts(), st.sampled_from(PATTERNS))
def test_with_a_window_that_is_long_enough_a_stream_is_judged_as_the_whole_text_is(
    cut: tuple[str, list[str]], pattern: str
) -> None:
    text, deltas = cut
    requirement = MustNotMatch(pattern, window=len(text) + 2)
    judged = run_virtual(verdicts, requirement, pieces_of(requirement, deltas))
    found = requirement.pattern.search(text)
    # A match of nothing, behind the last character, is for validate() to find.
    assert ("fail" in judged) == (found is not None and found.start() < len(text))
    assert run_virtual(passes, requirement, text) == (found is None)


@given(
    cut_texts(),
    st.sampled_from(PATTERNS),
    st.sampled_from(["sentence", "word", "paragraph", None]),
    st.sampled_from(["asyncio", "trio"]),
)
def test_no_character_of_a_match_is_released_whatever_the_chunking_and_the_cuts(
    cut: tuple[str, list[str]], pattern: str, chunking: str | None, loop: str
) -> None:
    text, deltas = cut
    requirement = MustNotMatch(pattern)
    result = run_virtual(stream, deltas, requirement, chunking, backend=loop)
    found = requirement.pattern.search(text)
    if found is None or found.start() == len(text):
        assert result.full_text == text
        assert result.completed
    else:
        assert not result.completed
        assert text[: found.start()].startswith(result.full_text)
        assert [failed.description for failed, _ in result.streaming_failures] == [
            requirement.description
        ]


def test_plain_text_is_found_when_its_last_character_is_certain_and_held_back_no_longer() -> None:
    strategy = resolve_chunking(MustNotMatch("secret").chunking)
    assert strategy.feed("a secre") == ["a "]
    assert strategy.feed("t") == []  # an accent may follow
    assert strategy.feed("!") == ["secret", "!"]
    as_it_is = resolve_chunking(MustNotMatch("secret", normalize=None).chunking)
    assert as_it_is.feed("a secre") == ["a "]
    assert as_it_is.feed("t") == ["secret"]


def test_a_long_match_fails_when_its_window_is_full_of_it() -> None:
    requirement = MustNotMatch(r"key=\S+", window=8)
    pieces = pieces_of(requirement, ["the key=0123456789"])
    assert run_virtual(verdicts, requirement, pieces[:2]) == ["unknown", "fail"]


async def _never_said() -> None:
    hushed, told = MustNotMatch("secret"), MustNotMatch("secret", "no word about the project")
    backend = ScriptedBackend("fine.", "fine.")
    async with start_session(backend=backend) as m:
        for requirement in (hushed, told):
            async with m.stream("go", requirements=[requirement]) as result:
                await result.acomplete()
    assert "secret" not in backend.calls[0].prompt
    assert "- no word about the project" in backend.calls[1].prompt


def test_a_pattern_stays_out_of_the_prompt_and_its_description_does_not() -> None:
    run_virtual(_never_said)


def test_a_reason_does_not_quote_what_must_not_be_shown() -> None:
    async def reason() -> str | None:
        requirement = MustNotMatch(r"\d{4}")
        (piece,) = pieces_of(requirement, ["1234"])
        verdict = await requirement.stream_validate(
            piece, backend=ScriptedBackend(), ctx=SimpleContext()
        )
        return verdict.reason

    assert run_virtual(reason) == "there is a match of '\\d{4}'"


@pytest.mark.parametrize("bad", ["(", "*", "(?P<a", "a{2,1}"])
def test_a_bad_expression_is_refused_when_the_requirement_is_made(bad: str) -> None:
    with pytest.raises(InvalidOption, match="is not a regular expression"):
        MustNotMatch(bad)


@pytest.mark.parametrize("window", [0, -1, True, 1.5])
def test_a_bad_window_is_refused(window: int) -> None:
    with pytest.raises(InvalidOption, match="window"):
        MustNotMatch("a+", window=window)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3"])
@pytest.mark.parametrize("kind", [MaxSentences, MaxWords])
def test_a_bad_limit_is_refused(kind: type[MaxSentences | MaxWords], limit: int) -> None:
    with pytest.raises(InvalidOption, match="at least 1"):
        kind(limit)


@given(cut_texts(), st.integers(1, 6), st.sampled_from(["sentence", "word", None]))
def test_at_most_so_many_words_are_released_whatever_the_chunking(
    cut: tuple[str, list[str]], limit: int, chunking: str | None
) -> None:
    text, deltas = cut
    result = run_virtual(stream, deltas, MaxWords(limit), chunking)
    assert result.completed == (len(text.split()) <= limit)
    assert len(result.full_text.split()) <= limit
    assert run_virtual(passes, MaxWords(limit), text) == result.completed


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("chunking", ["sentence", "word", "paragraph", None])
def test_the_sentence_that_is_one_too_many_is_never_shown(loop: str, chunking: str | None) -> None:
    text = "One. Two! Three? Four."
    deltas = list(text)
    kept = run_virtual(stream, deltas, MaxSentences(4), chunking, backend=loop)
    assert kept.completed
    assert [bool(verdict) for verdict in kept.final_validations] == [True]
    cut = run_virtual(stream, deltas, MaxSentences(2), chunking, backend=loop)
    assert not cut.completed
    assert "One. Two!".startswith(cut.full_text.strip())
    assert [verdict.reason for _, verdict in cut.streaming_failures] == ["more than 2 sentences"]


def test_the_original_counts_nothing_so_it_can_be_used_again() -> None:
    requirement = MaxSentences(2)
    for _ in range(3):
        assert run_virtual(stream, ["One. Two."], requirement, "sentence").completed
