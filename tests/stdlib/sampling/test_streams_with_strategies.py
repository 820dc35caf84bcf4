"""Repair inside the stream: one event stream over all attempts, and nothing silently mixed."""

from __future__ import annotations

import anyio
import pytest
from kit import Without, is_, read_chunks, sentences, slow

from mellea_sc import (
    BackendError,
    BacktrackStrategy,
    BestOfNStrategy,
    ChunkEvent,
    CompletedEvent,
    MajorityVotingStrategy,
    RejectionSamplingStrategy,
    RepairTemplateStrategy,
    RetractEvent,
    start_session,
)
from mellea_sc.stdlib import PlannedStrategy, RacingStrategy, RetryEvent, StreamEvent
from mellea_sc.testing import Fail, ScriptedBackend

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


def story(events: list[StreamEvent]) -> list[tuple[object, ...]]:
    told: list[tuple[object, ...]] = []
    for event in events:
        name = type(event).__name__.removesuffix("Event")
        match event:
            case ChunkEvent():
                told.append((name, event.attempt, event.chunk_index, event.text))
            case RetractEvent():
                told.append((name, event.attempt, event.chunk_index))
            case RetryEvent():
                told.append((name, event.attempt))
            case CompletedEvent():
                told.append((name, event.success, event.attempts_used))
            case _:
                told.append((name, getattr(event, "attempt", None)))
    return told


BAD = sentences("One.", "A curse.")


async def test_what_a_new_attempt_replaces_is_retracted_and_the_reader_of_text_never_sees_it() -> (
    None
):
    async with start_session(backend=ScriptedBackend(BAD, "Good. Day.")) as m:
        result = await m.stream(
            "?", requirements=[Without("curse")], strategy=RepairTemplateStrategy(loop_budget=2)
        )
        events = [event async for event in result.events()]
        assert await read_chunks(result) == ["Good.", "Day."]
    assert story(events) == [
        ("QuickCheck", 1),
        ("Chunk", 1, 0, "One."),
        ("QuickCheck", 1),
        ("Retract", 1, 0),
        ("Retry", 2),
        ("QuickCheck", 2),
        ("Chunk", 2, 0, "Good."),
        ("QuickCheck", 2),
        ("Chunk", 2, 1, "Day."),
        ("StreamingDone", 2),
        ("FullValidation", 2),
        ("Completed", True, 2),
    ]
    assert (result.completed, result.full_text) == (True, "Good. Day.")
    assert [one.end for one in result.attempts] == ["failed", "completed"]
    assert result.generation.attempts == 2
    assert not result.streaming_failures


async def test_with_backtracking_the_indices_go_on_and_nothing_is_retracted() -> None:
    async with start_session(backend=ScriptedBackend(BAD, "Good.")) as m:
        result = await m.stream("?", requirements=[Without("curse")], strategy=BacktrackStrategy())
        events = [event async for event in result.events()]
        assert await read_chunks(result) == ["One.", "Good."]
    shown = [one for one in story(events) if one[0] in ("Chunk", "Retract", "Retry")]
    assert shown == [("Chunk", 1, 0, "One."), ("Retry", 2), ("Chunk", 2, 1, "Good.")]
    assert result.full_text == "One. Good."


@pytest.mark.parametrize("hold_back", [True, 1, 2, 9])
async def test_what_is_held_back_is_shown_when_its_attempt_is_accepted(
    hold_back: bool | int,
) -> None:
    bad = sentences("One.", "Two.", "A curse.")
    async with start_session(backend=ScriptedBackend(bad, sentences("A.", "B.", "C."))) as m:
        began = anyio.current_time()
        result = await m.stream(
            "?",
            requirements=[Without("curse")],
            strategy=RejectionSamplingStrategy(loop_budget=2),
            hold_back=hold_back,
        )
        events: list[StreamEvent] = []
        times: list[float] = []
        async for event in result.events():
            events.append(event)
            if isinstance(event, ChunkEvent) and event.text and event.attempt == 2:
                times.append(anyio.current_time() - began)
        assert await read_chunks(result) == ["A.", "B.", "C."]
    told = story(events)
    shown_of_first = sum(1 for one in told if one[:2] == ("Chunk", 1))
    assert shown_of_first == (1 if hold_back == 1 and hold_back is not True else 0)
    assert (("Retract", 1, 0) in told) is (shown_of_first > 0)
    assert told[-3:] == [("StreamingDone", 2), ("FullValidation", 2), ("Completed", True, 2)]
    if hold_back is True or hold_back == 9:
        assert times == pytest.approx([6.0] * 3)


STRATEGIES = [
    RejectionSamplingStrategy(loop_budget=3),
    RepairTemplateStrategy(loop_budget=2, concurrency_budget=2),
    RacingStrategy(2, budget=4),
    BacktrackStrategy(),
    BestOfNStrategy(3),
    MajorityVotingStrategy(3),
]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("hold_back", [False, 1, True])
@pytest.mark.parametrize("reader", ["chunks", "events", "neither"])
async def test_a_lookahead_holds_up_no_strategy(
    strategy: PlannedStrategy, hold_back: bool, reader: str
) -> None:
    good = "A. B. C. D."
    several = isinstance(strategy, BestOfNStrategy | MajorityVotingStrategy)
    answers = [good] * 3 if several else ["A. A curse.", *[good] * 4]
    async with start_session(backend=ScriptedBackend(*answers)) as m:
        result = await m.stream(
            "?",
            requirements=[Without("curse")],
            strategy=strategy,
            hold_back=hold_back,
            lookahead=1,
        )
        if reader == "chunks":
            joined = " ".join(await read_chunks(result))
            assert joined == result.full_text
        elif reader == "events":
            events = [event async for event in result.events()]
            assert isinstance(events[-1], CompletedEvent)
            assert events[-1].full_text == result.full_text
        await result.acomplete()
    assert result.completed
    assert result.full_text.endswith("B. C. D.")
    assert result.as_thunk.value == result.full_text


async def test_of_several_at_once_only_the_winner_is_shown() -> None:
    backend = ScriptedBackend(slow("Slow.", 9), sentences("Good.", "Day."))
    async with start_session(backend=backend) as m:
        result = await m.stream("?", requirements=[Without("x")], strategy=RacingStrategy(2))
        assert await read_chunks(result) in (["Good.", "Day."], ["Slow."])
        await result.acomplete()
    assert sorted(call.outcome for call in backend.calls) == ["cancelled", "ended"]


@pytest.mark.parametrize("end", ["fail", "error", "cancel"])
async def test_what_stays_released_is_read_also_where_no_attempt_is_accepted(end: str) -> None:
    last = {
        "fail": sentences("Two.", "A curse."),
        "error": sentences("Two.", "Three."),
        "cancel": sentences("Two.", *["More."] * 99),
    }[end]
    second = ["Two. ", Fail(BackendError("cut"))] if end == "error" else last
    async with start_session(backend=ScriptedBackend(BAD, second)) as m:
        result = await m.stream(
            "?", requirements=[Without("curse")], strategy=RejectionSamplingStrategy(loop_budget=2)
        )
        async for event in result.events():
            if end == "cancel" and isinstance(event, ChunkEvent) and event.attempt == 2:
                result.cancel()
        chunks: list[str] = []
        said: str | None = None
        try:
            async for chunk in result.astream():
                chunks.append(chunk)  # noqa: PERF401 - the iteration may raise
        except BackendError as error:
            said = str(error)
        assert said == ("cut" if end == "error" else None)
    assert chunks == ["Two."]
    assert result.full_text == "Two."
    assert not result.completed
    assert bool(result.streaming_failures) is (end == "fail")


async def test_an_answer_that_none_accepts_stays_shown_and_the_events_say_so() -> None:
    async with start_session(backend=ScriptedBackend("Bad.", "Worse.")) as m:
        result = await m.stream(
            "?",
            requirements=[is_("Good.")],
            strategy=RejectionSamplingStrategy(loop_budget=2),
        )
        assert await read_chunks(result) == ["Worse."]
    assert (result.completed, result.full_text) == (True, "Worse.")
    assert [bool(one) for one in result.final_validations] == [False]
