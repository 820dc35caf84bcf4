"""What follows a fail, requirement by requirement; advisory, windowed and grouped judging."""

from __future__ import annotations

import anyio
import pytest
from kit import Without, read_chunks, sentences

from mellea_sc import (
    BacktrackStrategy,
    ChunkEvent,
    ModelOption,
    RejectionSamplingStrategy,
    start_session,
)
from mellea_sc.core.requirement import OnFail
from mellea_sc.stdlib import PlannedStrategy
from mellea_sc.stdlib.streaming.events import EditEvent, QuickCheckEvent
from mellea_sc.testing import Pause, Script, ScriptedBackend

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]

BAD = ("One.", "A curse.", "Three.")


@pytest.mark.parametrize("strategy", [None, RejectionSamplingStrategy(loop_budget=2)])
@pytest.mark.parametrize(
    ("on_fail", "completed", "text", "calls"),
    [
        ("stop", False, "One.", 1),
        ("retry", True, "Good.", 2),
        ("backtrack", True, "One. Good.", 2),
        ("filter", True, "One.  Three. ", 1),
        ("fix", True, "One. A rose. Three. ", 1),
        ("noop", True, "One. A curse. Three. ", 1),
    ],
)
async def test_what_a_requirement_says_goes_before_the_strategy(
    on_fail: OnFail,
    completed: bool,
    text: str,
    calls: int,
    strategy: PlannedStrategy | None,
) -> None:
    backend = ScriptedBackend(*[sentences(*BAD), "Good."][:calls])
    requirement = Without("curse", on_fail=on_fail, replacement="A rose.")
    async with start_session(backend=backend) as m:
        result = await m.stream("?", requirements=[requirement], strategy=strategy)
        chunks = await read_chunks(result)
        await result.acomplete()
    assert (result.completed, result.full_text) == (completed, text)
    assert " ".join(chunks).split() == text.split()
    assert len(backend.calls) == len(result.attempts) == calls
    recorded = [verdict.success for _, verdict in result.recorded_failures]
    assert recorded == (["fail"] if on_fail in ("filter", "fix", "noop") else [])
    assert result.as_thunk.value == text


@pytest.mark.parametrize(
    ("on_fail", "text"),
    [
        ("filter", "One.  Three. "),
        ("fix", "One. A rose. Three. "),
        ("noop", "One. A curse. Three. "),
        ("retry", "Good."),
        ("backtrack", "One. Good."),
    ],
)
async def test_the_text_of_a_thunk_is_the_edited_one(on_fail: OnFail, text: str) -> None:
    backend = ScriptedBackend(sentences(*BAD), "Good.")
    requirement = Without("curse", on_fail=on_fail, replacement="A rose.")
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", requirements=[requirement])
        assert await thunk == text
        assert thunk.sampling is not None
        assert thunk.sampling.success


async def test_a_fix_without_a_replacement_is_the_strategys_business() -> None:
    for strategy, calls in ((None, 1), (RejectionSamplingStrategy(loop_budget=2), 2)):
        backend = ScriptedBackend(*[sentences(*BAD), "Good."][:calls])
        async with start_session(backend=backend) as m:
            requirement = Without("curse", on_fail="fix")
            result = await m.stream("?", requirements=[requirement], strategy=strategy)
            await result.acomplete()
        assert result.completed is (calls == 2)
        assert len(backend.calls) == calls


async def test_without_a_say_a_fail_stops_or_is_repaired() -> None:
    backend = ScriptedBackend(sentences(*BAD))
    async with start_session(backend=backend) as m:
        result = await m.stream("?", requirements=[Without("curse")])
        await result.acomplete()
    assert (result.completed, result.full_text) == (False, "One.")


@pytest.mark.parametrize(
    ("first", "second", "calls"),
    [("stop", "retry", 1), ("retry", "backtrack", 2), ("backtrack", "noop", 2)],
)
async def test_of_several_that_fail_the_strictest_decides(
    first: OnFail, second: OnFail, calls: int
) -> None:
    for pair in ((first, second), (second, first)):
        backend = ScriptedBackend(*["A curse.", "Good."][:calls])
        async with start_session(backend=backend) as m:
            requirements = [Without("curse", on_fail=one) for one in pair]
            result = await m.stream("?", requirements=requirements)
            await result.acomplete()
        assert result.completed is (calls == 2)
        assert len(backend.calls) == calls


@pytest.mark.parametrize(
    ("on_fail", "shown"),
    [
        ("filter", ["One.", "edit", "Three.", ""]),
        ("fix", ["One.", "edit", "A rose.", "Three.", ""]),
    ],
)
async def test_an_edit_has_an_event_before_the_chunk_that_follows_it(
    on_fail: OnFail, shown: list[str]
) -> None:
    requirements = [Without("x"), Without("curse", on_fail=on_fail, replacement="A rose.")]
    async with start_session(backend=ScriptedBackend(sentences(*BAD))) as m:
        result = await m.stream("?", requirements=requirements)
        events = [event async for event in result.events()]
    told = [one for one in events if isinstance(one, ChunkEvent | EditEvent)]
    assert ["edit" if isinstance(one, EditEvent) else one.text for one in told] == shown
    [edit] = [one for one in told if isinstance(one, EditEvent)]
    assert (edit.chunk_index, edit.attempt, edit.requirement) == (1, 1, 1)
    assert edit.result.reason == "curse in 'A curse.'"
    assert [one.chunk_index for one in told if isinstance(one, ChunkEvent)] == [
        *range(len(shown) - 1)
    ]
    assert all(one.passed for one in events if isinstance(one, QuickCheckEvent))


async def test_what_is_left_out_at_the_end_has_an_event_too() -> None:
    async with start_session(backend=ScriptedBackend(["Fine. ", "A curse."])) as m:
        result = await m.stream("?", requirements=[Without("curse", on_fail="filter")])
        events = [event async for event in result.events()]
    assert result.full_text == "Fine. "
    kinds = [type(one).__name__.removesuffix("Event") for one in events]
    assert kinds[:2] == ["QuickCheck", "Chunk"]
    assert kinds[-4:] == ["Edit", "StreamingDone", "FullValidation", "Completed"]


async def test_what_was_filtered_is_not_judged_again_after_going_back() -> None:
    backend = ScriptedBackend(sentences("Fine.", "A curse.", "An oath."), "Good.")
    filters = Without("curse", on_fail="filter")
    async with start_session(backend=backend) as m:
        result = await m.stream(
            "?", requirements=[filters, Without("oath")], strategy=BacktrackStrategy()
        )
        await result.acomplete()
    assert (result.completed, result.full_text) == (True, "Fine.  Good.")
    assert len(result.recorded_failures) == 1
    assert filters.seen[0].count("A curse.") == 1


async def test_an_advisory_requirement_delays_no_chunk_and_stops_late() -> None:
    class Late(Without):
        async def stream_validate(self, chunk: str, **rest: object):  # type: ignore[no-untyped-def, override]
            await anyio.sleep(10)
            return await super().stream_validate(chunk, **rest)  # type: ignore[arg-type]

    backend = ScriptedBackend(Script(["A curse. ", "Two. ", Pause(60), "Three."]))
    async with start_session(backend=backend) as m:
        began = anyio.current_time()
        requirements = [Late("curse", blocking=False)]
        result = await m.stream("?", requirements=requirements, lane_buffer=1)
        reader = result.astream()
        assert [await anext(reader), await anext(reader)] == ["A curse.", "Two."]
        assert anyio.current_time() == began
        assert [chunk async for chunk in reader] == []
        assert anyio.current_time() == pytest.approx(began + 10)
    assert not result.completed
    assert len(result.streaming_failures) == 1
    assert backend.calls[0].outcome == "cancelled"


@pytest.mark.parametrize("call", ["stream", "instruct"])
async def test_a_window_is_the_text_before_a_chunk_and_every_groups_chunks(call: str) -> None:
    windowed, grouped = Without("x", window=5), Without("y", every=2)
    backend = ScriptedBackend("One. Two. Three.")
    async with start_session(backend=backend) as m:
        if call == "stream":
            await (await m.stream("?", requirements=[windowed, grouped])).acomplete()
        else:
            await (await m.ainstruct("?", requirements=[windowed, grouped]))
    assert windowed.seen == (["One.", "Two.", "Three."], ["", "One. ", "Two. "])
    assert grouped.seen[0] == ["One. Two.", "Three."]


async def test_a_groups_fail_goes_back_to_before_the_group() -> None:
    backend = ScriptedBackend("One. Two. Three. A curse.", "Good.")
    async with start_session(backend=backend) as m:
        result = await m.stream(
            "?", requirements=[Without("curse", every=2)], strategy=BacktrackStrategy()
        )
        assert await read_chunks(result) == ["One.", "Two.", "Good."]
    assert result.full_text == "One. Two. Good."


async def test_a_streamed_thunk_of_a_repairing_call_hands_out_the_accepted_text_only() -> None:
    backend = ScriptedBackend(sentences(*BAD), "Good.")
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct(
            "?", requirements=[Without("curse")], model_options={ModelOption.STREAM: True}
        )
        assert [delta async for delta in thunk] == ["Good."]
