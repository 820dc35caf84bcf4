"""Keeping what is good: prefill or asking, further back, never before what was shown."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from kit import Check, Without, is_, read_chunks, sentences

from mellea_sc import (
    BacktrackStrategy,
    ChunkEvent,
    InvalidOption,
    MustMatch,
    MustNotMatch,
    Requirement,
    RetractEvent,
    ValidJSON,
    start_session,
)
from mellea_sc.stdlib import RetryEvent
from mellea_sc.testing import Pause, ScriptedBackend
from mellea_sc.testing.scripted import Step

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


class AskedTo(ScriptedBackend):
    """A model that does not write on where an assistant's message ends."""

    prefills = False


@pytest.mark.parametrize("context_type", ["simple", "chat"])
@pytest.mark.parametrize("kind", [ScriptedBackend, AskedTo])
async def test_the_model_goes_on_from_what_was_good(
    kind: type[ScriptedBackend], context_type: str
) -> None:
    backend = kind(sentences("One.", "A curse.", *["More."] * 9), " Two. Three.")
    async with start_session(backend=backend, context_type=context_type) as m:  # type: ignore[arg-type]
        thunk = await m.ainstruct(
            "Write.", requirements=[Without("curse")], strategy=BacktrackStrategy()
        )
        assert await thunk == "One. Two. Three."
    assert backend.calls[0].deltas_sent == 2
    messages = backend.calls[1].request.messages
    assert "Write." in messages[0].content
    assert "curse in 'A curse.'" in messages[0].content
    assert (messages[1].role, messages[1].content.rstrip()) == ("assistant", "One.")
    if kind is AskedTo:
        assert len(messages) == 3
        assert messages[2].content == "Continue your answer."
    else:
        assert len(messages) == 2


async def test_a_position_that_has_had_its_tries_is_left_for_one_further_back() -> None:
    bad = " A curse."
    backend = ScriptedBackend("One. Two. A curse.", bad, bad, bad, "Good.")
    async with start_session(backend=backend) as m:
        result = await m.ainstruct(
            "?",
            requirements=[Without("curse")],
            strategy=BacktrackStrategy(tries=2),
            return_sampling_results=True,
        )
    assert result.success
    beginnings = [
        call.request.messages[-1].content if call.request.messages[-1].role == "assistant" else ""
        for call in backend.calls
    ]
    assert beginnings == ["", "One. Two.", "One. Two.", "One.", "One."]
    assert result.value == "One. Good."


async def test_the_budget_bounds_all_attempts() -> None:
    backend = ScriptedBackend(lambda _: "A curse.")
    async with start_session(backend=backend) as m:
        result = await m.ainstruct(
            "?",
            requirements=[Without("curse")],
            strategy=BacktrackStrategy(tries=9, budget=4),
            return_sampling_results=True,
        )
    assert not result.success
    assert len(backend.calls) == 4
    for wrong in ({"tries": 0}, {"budget": 0}):
        with pytest.raises(InvalidOption):
            BacktrackStrategy(**wrong)


async def test_in_a_stream_it_never_goes_back_before_what_was_shown() -> None:
    backend = ScriptedBackend(sentences("One.", "A curse."), "A curse.", "A curse.")
    async with start_session(backend=backend) as m:
        result = await m.stream(
            "?", requirements=[Without("curse")], strategy=BacktrackStrategy(tries=2)
        )
        events = [event async for event in result.events()]
        assert await read_chunks(result) == ["One."]
    assert (result.completed, result.full_text) == (False, "One.")
    assert len(backend.calls) == 3
    assert not [event for event in events if isinstance(event, RetractEvent)]
    assert [one.attempt for one in events if isinstance(one, RetryEvent)] == [2, 3]


async def test_a_text_that_fails_only_at_its_end_is_asked_for_anew_unless_it_was_shown() -> None:
    backend = ScriptedBackend("Bad.", "Good.")
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", requirements=[is_("Good.")], strategy=BacktrackStrategy())
        assert await thunk == "Good."
    for hold_back, text in ((False, "Bad."), (True, "Good.")):
        backend = ScriptedBackend("Bad.", "Good.")
        async with start_session(backend=backend) as m:
            result = await m.stream(
                "?",
                requirements=[is_("Good.")],
                strategy=BacktrackStrategy(),
                hold_back=hold_back,
            )
            assert await read_chunks(result) == [text]
        assert result.full_text == text


async def read(
    *answers: str | Sequence[Step],
    chunking: str = "word",
    requirements: Sequence[Requirement],
    hold_back: bool | int = False,
) -> tuple[str, list[str], list[str]]:
    """The text, and it as its readers have got it: as text, and in chunks by the events."""
    async with start_session(backend=ScriptedBackend(*map(list, answers))) as m:
        result = await m.stream(
            "?",
            requirements=requirements,
            chunking=chunking,
            strategy=BacktrackStrategy(),
            hold_back=hold_back,
        )
        texts = [text async for text in result.atext()]
        events = [one async for one in result.events()]
    chunks = [one for one in events if isinstance(one, ChunkEvent)]
    assert [one.chunk_index for one in chunks] == list(range(len(chunks)))
    return result.full_text, texts, [one.text for one in chunks]


@pytest.mark.parametrize(
    ("chunking", "answers", "shown", "held_back"),
    [
        ("word", ("OK\u574f", "AY then."), ["OK", "AY", "then."], ["OKAY", "then."]),
        ("word", ("OK\u574f", ", then."), ["OK", ",", "then."], ["OK,", "then."]),
        (
            "sentence",
            ("\u201c\u4f60\u597d\u3002\u574f", "\u201d\u4ed6\u8bf4\u3002"),
            ["\u201c\u4f60\u597d\u3002", "\u201d\u4ed6\u8bf4\u3002"],
            ["\u201c\u4f60\u597d\u3002\u201d", "\u4ed6\u8bf4\u3002"],
        ),
    ],
)
async def test_4_14_text_that_goes_on_directly_after_a_shown_chunk_is_read_too(
    chunking: str, answers: tuple[str, str], shown: list[str], held_back: list[str]
) -> None:
    rules = [MustNotMatch("\u574f")]
    text, texts, chunks = await read(*answers, chunking=chunking, requirements=rules)
    assert text == "".join(texts) == answers[0][:-1] + answers[1]
    assert chunks == shown
    _, texts, chunks = await read(*answers, chunking=chunking, requirements=rules, hold_back=True)
    assert "".join(texts) == text
    assert chunks == held_back


async def test_4_14_no_text_is_added_to_a_shown_chunk_by_a_later_attempt_either() -> None:
    rules = [MustNotMatch("\u574f"), Check(chunking="sentence")]
    first, second = (
        [*"\u4f60\u597d\u3002\u574f", Pause(60)],
        [*"\uff0c\u4ed6\u8bf4\u574f", Pause(60)],
    )
    text, texts, chunks = await read(first, second, "\u4e86\u3002", requirements=rules)
    # of the second attempt nothing is shown, as its sentence does not end; the third one keeps more than was shown
    assert chunks[:3] == ["\u4f60", "\u597d\u3002", "\uff0c\u4ed6"]
    assert text == "".join(texts) == "".join(chunks)


async def test_4_4_white_space_that_has_failed_is_not_kept() -> None:
    rules = [MustNotMatch("\n\n", window=2)]
    text, texts, _ = await read("One.\n\nTwo.", " Two.", chunking="sentence", requirements=rules)
    assert text == "".join(texts) == "One. Two."


async def test_white_space_after_a_limit_is_not_kept_however_it_came() -> None:
    rules = [MustMatch(r"(?s).{0,8}", full=True)]
    for answer in (["One. Two. \n\n three"], [*"One. Two. \n\n three"]):
        backend = ScriptedBackend(answer, ["."])
        async with start_session(backend=backend) as m:
            strategy = BacktrackStrategy(tries=1)
            result = await m.stream("?", requirements=rules, chunking="word", strategy=strategy)
            await result.acomplete()
        assert result.full_text == "One. ."
        assert len(backend.calls) == 2


@pytest.mark.parametrize(
    ("first", "second", "want"),
    [
        (["Hello ", "bad"], [], "Hello "),
        (["Hello ", "bad"], [" ", "world"], "Hello world"),
        (["Hello", "\n\n", "bad"], ["\n\n", "world"], "Hello\n\nworld"),
        (["def f():\n", "    bad"], ["    return 1\n"], "def f():\n    return 1\n"),
        (["def f():\n", "    bad"], ["\n", "  ", "  return 1"], "def f():\n    return 1"),
    ],
)
@pytest.mark.parametrize("hold_back", [False, True])
async def test_4_14_white_space_of_a_raw_delta_is_neither_lost_nor_doubled(
    first: list[str], second: list[str], want: str, hold_back: bool
) -> None:
    async with start_session(backend=ScriptedBackend(first, second)) as m:
        result = await m.stream(
            "?",
            requirements=[MustNotMatch("bad")],
            chunking=None,
            strategy=BacktrackStrategy(),
            hold_back=hold_back,
        )
        texts = [text async for text in result.atext()]
    assert result.full_text == "".join(texts) == want


async def test_4_14_white_space_that_was_shown_alone_is_not_taken_back() -> None:
    rules = [ValidJSON(fenced=True, on_fail="filter"), ValidJSON(find=True)]
    text, texts, _ = await read("  x", "12", requirements=rules)
    assert text == "".join(texts) == "  "
