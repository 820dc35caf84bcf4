"""A run tells of what a model says besides its text; requirements judge the text."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise

import anyio
import pydantic
import pytest
from kit import Check, always, by_chunk

from mellea_sc import (
    BacktrackStrategy,
    ChunkEvent,
    CompletedEvent,
    Delta,
    EmptyAnswer,
    MelleaSession,
    MustMatch,
    MustNotMatch,
    PreconditionFailed,
    RejectionSamplingStrategy,
    SimpleComponent,
    UnexpectedToolCalls,
    ValidationResult,
    check,
    simple_validate,
    start_session,
)
from mellea_sc.backends import ToolCall, ToolCallDelta, Usage
from mellea_sc.stdlib import (
    ErrorEvent,
    InputCheckEvent,
    QuickCheckEvent,
    RacingStrategy,
    ReasoningEvent,
    RetryEvent,
    StreamEvent,
    StreamingDoneEvent,
)
from mellea_sc.testing import Pause, Script, ScriptedBackend, Stall, Step

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]

TOOLS: dict[str, object] = {
    "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}]
}
CALL = Delta(tool_calls=(ToolCallDelta("c1", "look", "{}", 0),))
CALLS = (ToolCall("c1", "look", "{}"),)


def thought(*texts: str) -> list[Step]:
    return [Delta(reasoning=text) for text in texts]


async def told(m: MelleaSession, **settings: object) -> list[StreamEvent]:
    async with m.stream("?", **settings) as result:  # type: ignore[arg-type]
        return [event async for event in result.events()]


def kinds(events: Sequence[StreamEvent]) -> list[str]:
    return [type(event).__name__.removesuffix("Event") for event in events]


def reasoned(events: Sequence[StreamEvent]) -> list[tuple[str, int]]:
    return [(one.text, one.attempt) for one in events if isinstance(one, ReasoningEvent)]


# --- reasoning --------------------------------------------------------------------------------------


async def test_reasoning_is_told_as_it_comes_and_is_in_no_text() -> None:
    backend = ScriptedBackend(
        [*thought("Let ", "me see."), "One. ", Pause(0), *thought("And?"), "Two."]
    )
    seen: list[str] = []

    async def judge(chunk: str, *_: object) -> str:
        seen.append(chunk)
        return "pass"

    async with start_session(backend=backend) as m:
        async with m.stream("?", requirements=[Check(judge)]) as result:
            events = [event async for event in result.events()]
            assert [chunk async for chunk in result.astream()] == ["One.", "Two."]
        assert result.full_text == "One. Two."
        assert result.reasoning == result.as_thunk.reasoning == "Let me see.And?"
        assert result.generation.reasoning == result.reasoning
        output = m.ctx.last_output()
        assert output is not None
        assert output.value == "One. Two."
    assert seen == ["One.", "Two."]
    assert reasoned(events) == [("Let ", 1), ("me see.", 1), ("And?", 1)]
    assert kinds(events)[:2] == ["Reasoning", "Reasoning"]
    rest = [kind for kind in kinds(events) if kind != "Reasoning"]
    assert rest == [
        *["QuickCheck", "Chunk"] * 2,
        *["StreamingDone", "FullValidation", "Completed"],
    ]


async def test_reasoning_stands_before_the_end_of_its_attempt_and_never_inside_a_chunks_events() -> (
    None
):
    steps = [step for n in range(9) for step in (Delta(f"S{n}. ", reasoning=f"r{n}"), Pause(0))]
    slow = Check(always("pass", after=0.5))
    async with start_session(backend=ScriptedBackend(steps)) as m:
        events = await told(m, requirements=[slow])
    names = kinds(events)
    assert "Reasoning" not in names[names.index("StreamingDone") :]
    for before, after in pairwise(events):
        if isinstance(before, QuickCheckEvent):
            assert isinstance(after, ChunkEvent)
    assert [text for text, _ in reasoned(events)] == [f"r{n}" for n in range(9)]


async def test_reasoning_is_told_while_the_model_thinks() -> None:
    backend = ScriptedBackend([*thought("Hm"), Pause(5), "Yes."])
    async with start_session(backend=backend) as m, m.stream("?") as result:
        began = anyio.current_time()
        event = await anext(aiter(result.events()))
        assert isinstance(event, ReasoningEvent)
        assert anyio.current_time() == began
        assert (result.reasoning, result.generation.reasoning, result.full_text) == ("Hm", "", "")


@pytest.mark.parametrize("met", [True, False])
async def test_reasoning_waits_for_the_preconditions(met: bool) -> None:
    backend = ScriptedBackend([*thought("Hm"), Stall()] if not met else [*thought("Hm"), "Yes."])

    async def judge(_: object) -> ValidationResult:
        await anyio.sleep(1)
        return ValidationResult(met)

    async with start_session(backend=backend) as m:
        result = await m.stream("?", preconditions=[check("fine", judge)])
        events = [event async for event in result.events()]
        with nullcontext() if met else pytest.raises(PreconditionFailed):
            await result.acomplete()
    assert isinstance(events[0], InputCheckEvent)
    assert reasoned(events) == ([("Hm", 1)] if met else [])


async def test_what_is_held_back_holds_its_reasoning_back() -> None:
    answers = [[*thought("Bad idea."), "bad"], [*thought("Good idea."), "good"]]
    for settings in (
        {"hold_back": True, "strategy": RejectionSamplingStrategy(loop_budget=2)},
        {"strategy": RacingStrategy(n=2)},
    ):
        backend = ScriptedBackend(*answers)
        async with start_session(backend=backend) as m:
            events = await told(m, requirements=[MustMatch("good")], **settings)
        [text] = [text for text, _ in reasoned(events)]
        assert text == "Good idea."
        assert kinds(events)[-1] == "Completed"
        assert kinds(events).index("Reasoning") < kinds(events).index("Chunk")


async def test_nothing_of_an_attempt_that_is_not_shown_is_on_the_result() -> None:
    backend = ScriptedBackend([*thought("Bad idea."), CALL, "bad"])
    async with start_session(backend=backend, model_options=TOOLS) as m:
        async with m.stream("?", requirements=[MustMatch("good")], hold_back=True) as result:
            await result.acomplete()
        assert (result.full_text, result.reasoning, result.tool_calls) == ("", "", ())
        assert (result.as_thunk.reasoning, result.as_thunk.tool_calls) == ("", ())
        assert result.generation.usage is not None


async def test_each_attempt_tells_its_own() -> None:
    backend = ScriptedBackend([*thought("a"), "bad"], [*thought("b"), "good"])
    async with (
        start_session(backend=backend) as m,
        m.stream(
            "?",
            requirements=[MustNotMatch("bad")],
            strategy=RejectionSamplingStrategy(loop_budget=2),
        ) as result,
    ):
        events = [event async for event in result.events()]
    assert reasoned(events) == [("a", 1), ("b", 2)]
    retry = next(n for n, event in enumerate(events) if isinstance(event, RetryEvent))
    assert kinds(events[:retry])[0] == "Reasoning"
    assert result.reasoning == "b"


async def test_nobody_has_to_read_it() -> None:
    backend = ScriptedBackend([*thought(*["x"] * 500), "Yes."])
    async with start_session(backend=backend) as m, m.stream("?", lookahead=1) as result:
        assert [chunk async for chunk in result.astream()] == ["Yes."]
        await result.acomplete()
        assert len(result.reasoning) == 500


# --- calls, and no answer ---------------------------------------------------------------------------


async def test_calls_are_on_the_result() -> None:
    backend = ScriptedBackend(Script(["Let me look.", CALL], finish_reason="tool_calls"))
    async with start_session(backend=backend) as m:
        async with m.stream("?", model_options=TOOLS, requirements=[Check()]) as result:
            await result.acomplete()
        assert result.completed
        assert result.full_text == "Let me look."
        assert result.tool_calls == result.as_thunk.tool_calls == CALLS
        assert result.finish_reason == "tool_calls"


async def test_calls_alone_are_an_answer_without_text() -> None:
    async with (
        start_session(backend=ScriptedBackend([CALL])) as m,
        m.stream("?", model_options=TOOLS) as result,
    ):
        assert [chunk async for chunk in result.astream()] == []
    assert result.completed
    assert (result.full_text, result.tool_calls) == ("", CALLS)


async def test_calls_that_nobody_asked_for_end_the_run_with_an_error_after_the_text() -> None:
    async with start_session(backend=ScriptedBackend(["Let me look.", CALL])) as m:
        result = await m.stream("?")
        shown: list[str] = []
        with pytest.raises(UnexpectedToolCalls, match=r"look\(\)"):
            async for chunk in result.astream():
                shown.append(chunk)  # noqa: PERF401 - what comes before the error
        assert shown == ["Let me look."]
        assert not result.completed
        assert result.tool_calls == CALLS


async def test_a_run_that_only_thinks_ends_with_an_error() -> None:
    backend = ScriptedBackend(Script(thought("Hm."), finish_reason="length"))
    async with start_session(backend=backend) as m:
        result = await m.stream("?", requirements=[Check()])
        with pytest.raises(EmptyAnswer) as caught:
            await result.acomplete()
        assert caught.value.reasoning == result.reasoning == "Hm."
        events = [event async for event in result.events()]
        assert [type(event) for event in events] == [ReasoningEvent, ErrorEvent, CompletedEvent]


async def test_a_text_that_goes_on_from_a_kept_beginning_may_have_nothing_to_add() -> None:
    backend = ScriptedBackend(
        "Good. Bad. Good.", Script([*thought("That is all.")], finish_reason="stop")
    )
    async with (
        start_session(backend=backend) as m,
        m.stream("?", requirements=[MustNotMatch("Bad")], strategy=BacktrackStrategy()) as result,
    ):
        await result.acomplete()
    assert result.completed
    assert result.full_text == "Good."


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
async def test_the_reason_to_stop_is_on_the_result(reason: str) -> None:
    backend = ScriptedBackend(Script("One. Two", finish_reason=reason))
    async with start_session(backend=backend) as m:
        async with m.stream("?") as result:
            assert result.finish_reason is None
            await result.acomplete()
        assert result.completed
        assert result.finish_reason == reason
        assert result.generation.is_broken_off is (reason != "stop")


async def test_a_run_that_a_check_has_ended_has_no_reason_of_the_models() -> None:
    async with start_session(backend=ScriptedBackend(["bad", Stall()])) as m:
        async with m.stream("?", chunking=None, requirements=[Check(always("fail"))]) as result:
            await result.acomplete()
        assert result.finish_reason is None


# --- what the text means ----------------------------------------------------------------------------


class City(pydantic.BaseModel):
    """What is asked for."""

    name: str


LIMA = '{"name": "Lima"}'


async def test_the_instance_of_a_format_is_on_the_thunk(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        start_session(backend=ScriptedBackend(LIMA)) as m,
        m.stream("A city.", format=City, chunking=None) as result,
    ):
        await result.acomplete()
    assert result.as_thunk.parsed_repr == City(name="Lima")
    assert result.as_thunk.format_error is None
    assert not caplog.records


@pytest.mark.parametrize("requirements", [[], [Check()]])
async def test_a_text_that_does_not_fit_is_shown_and_told(
    requirements: list[Check], caplog: pytest.LogCaptureFixture
) -> None:
    backend = ScriptedBackend(Script('{"name": "Li', finish_reason="length"))
    async with (
        start_session(backend=backend) as m,
        m.stream("A city.", format=City, chunking=None, requirements=requirements) as result,
    ):
        await result.acomplete()
    assert result.completed
    assert (result.full_text, result.as_thunk.parsed_repr) == ('{"name": "Li', None)
    assert result.as_thunk.format_error is not None
    [record] = caplog.records
    assert "A city." in record.getMessage()
    assert "broken off (finish reason 'length')" in record.getMessage()


async def test_what_is_held_back_is_not_shown_if_it_does_not_fit() -> None:
    async with (
        start_session(backend=ScriptedBackend("no city")) as m,
        m.stream("?", format=City, hold_back=True) as result,
    ):
        assert [chunk async for chunk in result.astream()] == []
    assert not result.completed
    assert result.full_text == ""


async def test_a_strategy_asks_again_for_a_text_that_does_not_fit() -> None:
    backend = ScriptedBackend("no city", LIMA)
    async with (
        start_session(backend=backend) as m,
        m.stream(
            "?", format=City, hold_back=True, strategy=RejectionSamplingStrategy(loop_budget=2)
        ) as result,
    ):
        events = [event async for event in result.events()]
    assert result.as_thunk.parsed_repr == City(name="Lima")
    [retry] = [event for event in events if isinstance(event, RetryEvent)]
    assert "no City" in retry.reason


async def test_a_components_own_reading_is_on_the_thunk() -> None:
    class Number(SimpleComponent):
        def parse(self, text: str) -> object:
            return int(text)

    async with start_session(backend=ScriptedBackend("12", "twelve")) as m:
        async with m.stream(Number(q="?"), chunking=None) as result:
            await result.acomplete()
        assert result.as_thunk.parsed_repr == 12
        run = await m.stream(Number(q="?"), chunking=None)
        with pytest.raises(ValueError, match="invalid literal"):
            await run.acomplete()
        assert not run.completed


# --- what it costs ----------------------------------------------------------------------------------


async def test_a_trace_tells_reasoning_from_text() -> None:
    answer = Script([*thought(*["hm"] * 6), *["a "] * 4, "Bad."], usage=Usage(3, 11))
    backend = ScriptedBackend(answer)
    async with start_session(backend=backend) as m, m.stream("?", chunking="word") as result:
        await result.acomplete()
    tokens = result.trace.tokens
    assert (tokens.generated, tokens.reasoning, tokens.released, tokens.wasted) == (11, 6, 5, 0)
    assert "11 tokens, 6 of reasoning" in str(result.trace)


async def test_a_trace_estimates_reasoning_and_counts_it_as_wasted_with_its_attempt() -> None:
    answers = (
        [*thought(*["hm"] * 6), *["a "] * 3, "Bad. ", Stall()],
        Script([*thought("ok"), CALL, "Good"], usage=Usage(3, 40, 0, 30)),
    )
    async with (
        start_session(backend=ScriptedBackend(*answers), model_options=TOOLS) as m,
        m.stream(
            "?",
            chunking="word",
            requirements=[
                check("good", simple_validate(lambda text: "Bad" not in text)),
                Check(by_chunk({"Bad.": "fail"})),
            ],
            strategy=RejectionSamplingStrategy(loop_budget=2),
        ) as result,
    ):
        await result.acomplete()
    first, second = (child.tokens for child in result.trace.children)
    assert (first.generated, first.reasoning, first.wasted, first.estimated) == (10, 6, 10, True)
    assert (second.generated, second.reasoning, second.wasted) == (40, 30, 0)


async def test_streaming_done_has_the_text_alone() -> None:
    backend = ScriptedBackend([*thought("Hm."), "Yes."])
    async with start_session(backend=backend) as m:
        events = await told(m)
    assert [one.full_text for one in events if isinstance(one, StreamingDoneEvent)] == ["Yes."]
    assert isinstance(events[-1], CompletedEvent)
    assert events[-1].full_text == "Yes."
