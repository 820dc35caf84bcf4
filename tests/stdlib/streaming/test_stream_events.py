"""4.5, 4.10 and 4.13: what happened is told in order and without gaps, and how it ended, once."""

from __future__ import annotations

import time

import anyio
import pytest
from kit import Check, always, by_chunk, kinds, read_chunks, read_events, session

from mellea_sc.core.backend import Backend, Usage
from mellea_sc.core.base import Context
from mellea_sc.core.errors import GenerationCancelled, ModelError
from mellea_sc.core.requirement import PartialValidationResult, ValidationResult
from mellea_sc.stdlib.session import start_session
from mellea_sc.stdlib.streaming.events import (
    ChunkEvent,
    CompletedEvent,
    ErrorEvent,
    FullValidationEvent,
    QuickCheckEvent,
    StreamEvent,
    StreamingDoneEvent,
)
from mellea_sc.testing.scripted import Fail, Pause, Script, ScriptedBackend, Stall

pytestmark = pytest.mark.anyio


async def test_an_event_has_the_time_when_it_happened_whenever_it_is_read() -> None:
    m, _ = session("One. ", "Two.  ")
    began = time.time()
    async with m:
        result = await m.stream("?", requirements=[Check(always("pass"))])
        await result.acomplete()
    ended = time.time()
    times = [event.timestamp for event in await read_events(result)]
    assert len(times) == 9
    assert times == sorted(times)
    assert began <= times[0]
    assert times[-1] <= ended


async def test_4_10_a_natural_end_with_the_missions_names_and_fields() -> None:
    m, _ = session("One. ", "Two.  ")
    async with m:
        checks = [Check(always("pass")), Check(always("unknown"))]
        result = await m.stream("?", requirements=checks)
        events = await read_events(result)
    passed = [PartialValidationResult("pass", reason="One.")]
    one, two = "One.", "Two."
    for event in events:
        assert event.timestamp > 0
    quick_one, chunk_one, quick_two, chunk_two, quick_end, space, done, full, completed = events
    assert isinstance(quick_one, QuickCheckEvent)
    assert (quick_one.chunk_index, quick_one.attempt, quick_one.passed) == (0, 1, True)
    assert [*quick_one.results][:1] == passed
    assert quick_one.results[1] == PartialValidationResult("unknown", reason=one)
    assert isinstance(chunk_one, ChunkEvent)
    assert (chunk_one.text, chunk_one.chunk_index, chunk_one.attempt) == (one, 0, 1)
    assert chunk_one.before == ""
    assert isinstance(quick_two, QuickCheckEvent)
    assert quick_two.chunk_index == 1
    assert isinstance(chunk_two, ChunkEvent)
    assert (chunk_two.text, chunk_two.chunk_index, chunk_two.attempt) == (two, 1, 1)
    assert chunk_two.before == " "
    assert isinstance(quick_end, QuickCheckEvent)
    assert (quick_end.chunk_index, quick_end.passed) == (2, True)
    assert isinstance(space, ChunkEvent)  # white space that no chunk follows has no other place
    assert (space.text, space.before, space.chunk_index) == ("", "  ", 2)
    assert isinstance(done, StreamingDoneEvent)
    assert (done.full_text, done.attempt) == ("One. Two.  ", 1)
    assert isinstance(full, FullValidationEvent)
    assert (full.passed, full.attempt) == (True, 1)
    assert full.results == [ValidationResult(True)] * 2
    assert isinstance(completed, CompletedEvent)
    assert (completed.success, completed.full_text, completed.attempts_used) == (
        True,
        "One. Two.  ",
        1,
    )


async def test_4_10_without_requirements_there_are_no_checks_among_the_events() -> None:
    for requirements in (None, []):
        m, _ = session("One. ", "Two.")
        async with m:
            result = await m.stream("?", requirements=requirements)
            events = await read_events(result)
        assert kinds(events) == ["Chunk", "Chunk", "StreamingDone", "Completed"]
        assert result.final_validations == []


@pytest.mark.parametrize("text", [(), ("  ", "\n\n")])
async def test_4_10_an_answer_without_a_chunk_comes_to_its_natural_end_too(
    text: tuple[str, ...],
) -> None:
    m, _ = session(*text)
    async with m:
        check = Check()
        result = await m.stream("?", requirements=[check])
        events = await read_events(result)
    space = ["QuickCheck", "Chunk"] if text else []
    assert kinds(events) == [*space, "StreamingDone", "FullValidation", "Completed"]
    assert result.completed
    assert result.full_text == "".join(text)
    assert [chunk async for chunk in result.astream()] == []
    assert check.seen.started == []
    assert check.seen.validated == ["".join(text)]


async def test_4_10_every_event_comes_when_it_happens() -> None:
    m, _ = session("One. ", Pause(5), "Two.")
    times: list[tuple[str, float]] = []
    async with m:
        result = await m.stream("?", requirements=[Check(always("pass", after=1), final=late)])
        async for event in result.events():
            times += [(kind, anyio.current_time()) for kind in kinds([event])]
    assert times == [
        ("QuickCheck", 1),
        ("Chunk", 1),
        ("QuickCheck", 6),
        ("Chunk", 6),
        ("StreamingDone", 6),
        ("FullValidation", 16),
        ("Completed", 16),
    ]


async def late(*_: object) -> ValidationResult:
    await anyio.sleep(10)
    return ValidationResult(True)


@pytest.mark.parametrize("end", ["natural", "fail", "error", "cancel", "final error"])
@pytest.mark.parametrize("at", [0, 3, 7])
async def test_4_10_indices_have_no_gaps_and_completed_is_last_exactly_once(
    end: str, at: int
) -> None:
    words = [f"w{n} " for n in range(8)]
    steps: list[object] = [step for word in words for step in (Pause(1), word)]
    judge = always("pass")
    if end == "fail":
        judge = by_chunk({f"w{at}": "fail"})
    elif end == "error":
        steps.insert(at * 2, Fail(ModelError("broken")))
    final = broken if end == "final error" else None
    m, _ = session(*steps)  # type: ignore[arg-type]
    async with m:
        result = await m.stream("?", requirements=[Check(judge, final=final)], chunking="word")
        if end == "cancel":
            await anyio.sleep(at)
            result.cancel()
        try:
            await result.acomplete()
        except (ModelError, LookupError):
            assert "error" in end
        events = await read_events(result)
    assert [type(event) for event in events].count(CompletedEvent) == 1
    assert isinstance(events[-1], CompletedEvent)
    assert events[-1].success is (end == "natural") is result.completed
    assert events[-1].full_text == result.full_text
    chunks = [event for event in events if isinstance(event, ChunkEvent)]
    checks = [event for event in events if isinstance(event, QuickCheckEvent)]
    assert [event.chunk_index for event in chunks] == [*range(len(chunks))]
    assert [event.chunk_index for event in checks] == [*range(len(checks))]
    assert [event.passed for event in checks] == [True] * len(chunks) + [False] * (end == "fail")
    assert any(isinstance(event, ErrorEvent) for event in events) is ("error" in end)


async def broken(*_: object) -> object:
    raise LookupError("a bug")


async def test_4_10_a_final_check_that_does_not_pass_is_told_and_the_run_has_completed() -> None:
    async def no(*_: object) -> ValidationResult:
        return ValidationResult(False, reason="too bland")

    m, _ = session("One.")
    async with m:
        result = await m.stream("?", requirements=[Check(), Check(final=no)])
        events = await read_events(result)
    (full,) = [event for event in events if isinstance(event, FullValidationEvent)]
    assert not full.passed
    assert [bool(verdict) for verdict in result.final_validations] == [True, False]
    assert result.completed


async def test_4_5_every_requirement_validates_the_full_text_at_the_same_time() -> None:
    async def after(seconds: float) -> ValidationResult:
        await anyio.sleep(seconds)
        return ValidationResult(True, score=seconds)

    checks = [
        Check(always(verdict), final=lambda *_, seconds=seconds: after(seconds))  # type: ignore[misc]
        for verdict, seconds in (("pass", 3), ("unknown", 1), ("pass", 2))
    ]
    m, _ = session("One. ", "And more")
    async with m:
        result = await m.stream("?", requirements=checks)
        await result.acomplete()
    assert anyio.current_time() == 3
    assert [verdict.score for verdict in result.final_validations] == [3, 1, 2]
    assert [check.seen.validated for check in checks] == [["One. And more"]] * 3


async def test_4_5_the_copy_that_judged_the_chunks_validates_the_text() -> None:
    class Gathers(Check):
        def __init__(self) -> None:
            super().__init__()
            self.chunks: list[str] = []

        async def stream_validate(
            self, chunk: str, *, backend: Backend, ctx: Context
        ) -> PartialValidationResult:
            self.chunks.append(chunk)
            return await super().stream_validate(chunk, backend=backend, ctx=ctx)

        async def validate(self, *_args: object, **_options: object) -> ValidationResult:
            return ValidationResult(self.chunks == ["One.", "Two."])

    m, _ = session("One. Two.")
    async with m:
        result = await m.stream("?", requirements=[Gathers()])
        await result.acomplete()
    assert result.final_validations == [ValidationResult(True)]


async def test_4_5_a_string_is_a_requirement_that_a_model_judges_at_the_end() -> None:
    backend = ScriptedBackend("One.", judge=lambda _: False)
    async with start_session(backend=backend) as m:
        result = await m.stream("?", requirements=["be polite"])
        await result.acomplete()
    assert [bool(verdict) for verdict in result.final_validations] == [False]
    assert [call.judged for call in backend.calls] == [False, True]
    assert "be polite" in backend.calls[1].prompt


async def test_4_5_a_fail_during_the_final_validation_of_another_does_not_exist() -> None:
    """After the natural end nothing is streamed any more: verdicts are those of ``validate``."""
    m, _ = session("One.")
    async with m:
        check = Check(final=late)
        async with m.stream("?", requirements=[check]) as result:
            async for event in result.events():
                if isinstance(event, StreamingDoneEvent):
                    break
            await anyio.sleep(1)
        assert result.cancelled
        assert not result.completed
    assert result.final_validations == []
    assert result.streaming_failures == []


@pytest.mark.parametrize("end", ["natural", "fail", "error", "cancel"])
async def test_4_13_acomplete_waits_for_the_end_and_as_thunk_is_the_released_text(end: str) -> None:
    steps: list[object] = ["One. ", "Two. ", Pause(3)]
    match end:
        case "natural":
            steps.append("Three.")
        case "fail":
            steps += ["No. ", Stall()]
        case "error":
            steps.append(Fail(ModelError("broken")))
        case _:
            steps.append(Stall())
    usage = Usage(5, 7)
    backend = ScriptedBackend(Script(steps, usage=usage))  # type: ignore[arg-type]
    async with start_session(backend=backend) as m:
        judge = by_chunk({"No.": "fail"} if end == "fail" else {})
        result = await m.stream("?", requirements=[Check(judge)])
        if end == "cancel":
            await anyio.sleep(3)
            result.cancel("enough")
        try:
            await result.acomplete()
        except ModelError:
            assert end == "error"
        assert anyio.current_time() == 3
        thunk = result.as_thunk
    text = "One. Two. Three." if end == "natural" else "One. Two."
    assert result.full_text == text
    assert thunk.is_computed()
    assert (thunk.value, str(thunk), await thunk.avalue()) == (text, text, text)
    assert await thunk.astream() == text
    assert thunk.generation == result.generation
    assert thunk.generation.model == "scripted"
    assert thunk.generation.usage == (usage if end == "natural" else None)
    assert thunk.generation.finish_reason == ("stop" if end == "natural" else None)
    assert thunk.generation.time_to_first_token == 0
    assert thunk.generation.total_time == 3
    assert not isinstance(result.error, GenerationCancelled)


async def test_4_13_any_number_of_tasks_may_wait_for_the_end() -> None:
    m, _ = session(Pause(3), "One.")
    async with m:
        result = await m.stream("?")
        async with anyio.create_task_group() as tg:
            for _ in range(3):
                tg.start_soon(result.acomplete)
        assert anyio.current_time() == 3
        await result.acomplete()


async def test_4_9_chunks_and_events_are_independent_and_say_the_same() -> None:
    m, _ = session("One. ", Pause(1), "Two. ", Pause(1), "Three.")
    async with m:
        result = await m.stream("?", requirements=[Check()])
        chunks: list[str] = []
        events: list[StreamEvent] = []

        async def read() -> None:
            chunks.extend(await read_chunks(result))

        async with anyio.create_task_group() as tg:
            tg.start_soon(read)
            async for event in result.events():
                events.append(event)
                await anyio.sleep(7)
    assert chunks == [event.text for event in events if isinstance(event, ChunkEvent)]
    assert chunks == ["One.", "Two.", "Three."]


async def test_4_8_validators_see_the_conversation_up_to_and_with_the_action() -> None:
    seen: list[str] = []

    async def look(chunk: str, backend: Backend, ctx: Context) -> str:
        seen.append(repr(ctx))
        assert ctx.last_output() is None
        assert len(ctx.as_list()) == 1
        return "pass"

    m, _ = session("One. ", "Two.")
    async with m:
        await (await m.stream("?", requirements=[Check(look)])).acomplete()
    assert len(seen) == 2
