"""Input checks that race the model: in streams and in instruct."""

from __future__ import annotations

import anyio
import pytest
from kit import Check, Without, asking_a_model, read_chunks, sentences, slow

from mellea_sc import (
    CBlock,
    Context,
    GenerationRequest,
    ModelOption,
    PreconditionFailed,
    Requirement,
    ValidationResult,
    ValidatorTimeout,
    start_session,
)
from mellea_sc.core.requirement import OnFail
from mellea_sc.stdlib import InputCheckEvent, RacingStrategy
from mellea_sc.testing import Script, ScriptedBackend, Stall

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


def after(seconds: float, passed: bool, *, on_fail: OnFail | None = None) -> Requirement:
    async def judge(ctx: Context) -> ValidationResult:
        await anyio.sleep(seconds)
        return ValidationResult(passed, reason="not this")

    return Requirement("input", judge, on_fail=on_fail)


def raising(_: Context) -> ValidationResult:
    raise ZeroDivisionError


async def test_a_failing_one_cancels_the_stream_before_anything_is_shown() -> None:
    backend = ScriptedBackend(sentences("One.", "Two.", "Three.", *["More."] * 9))
    async with start_session(backend=backend, context_type="chat") as m:
        result = await m.stream("?", preconditions=[after(2.5, False)])
        events = [event async for event in result.events()]
        read: list[str] = []
        with pytest.raises(PreconditionFailed, match="not this") as caught:
            read += [chunk async for chunk in result.astream()]
        assert read == []
        assert caught.value.reasons == ["not this"]
        await result.acomplete()
        assert not m.ctx.as_list()
    assert [type(event).__name__ for event in events] == [
        "InputCheckEvent",
        "ErrorEvent",
        "CompletedEvent",
    ]
    (check,) = [event for event in events if isinstance(event, InputCheckEvent)]
    assert not check.passed
    assert (result.completed, result.full_text, result.cancelled) == (False, "", False)
    assert [verdict.reason for _, verdict in result.streaming_failures] == ["not this"]
    assert (backend.calls[0].outcome, backend.calls[0].deltas_sent) == ("cancelled", 2)


@pytest.mark.parametrize("seconds", [0.5, 2.5, 20])
@pytest.mark.parametrize("lookahead", [None, 1])
async def test_a_good_input_lets_the_text_go_whenever_it_is_found_good(
    seconds: float, lookahead: int | None
) -> None:
    class Slow(Without):
        async def validate(self, *args: object, **rest: object) -> ValidationResult:  # type: ignore[override]
            await anyio.sleep(30)
            return ValidationResult(True)

    async with start_session(backend=ScriptedBackend(sentences("One.", "Two.", "Three."))) as m:
        began = anyio.current_time()
        result = await m.stream(
            "?",
            requirements=[Slow("x")],
            preconditions=[after(seconds, True)],
            lookahead=lookahead,
        )
        reader = result.astream()
        assert await anext(reader) == "One."
        assert anyio.current_time() == pytest.approx(began + max(1, seconds), abs=0.01)
        assert [chunk async for chunk in reader] == ["Two.", "Three."]
        names = [type(event).__name__ async for event in result.events()]
    assert names.index("InputCheckEvent") < names.index("QuickCheckEvent")
    assert names[-3:] == ["StreamingDoneEvent", "FullValidationEvent", "CompletedEvent"]
    assert result.completed


async def test_one_that_raises_or_is_late_is_an_error_and_one_that_is_recorded_stops_nothing() -> (
    None
):
    def answer(request: GenerationRequest) -> Script:
        return Script(["Text." if request.messages[-1].content == "noted" else Stall()])

    async with start_session(backend=ScriptedBackend(answer)) as m:
        result = await m.stream("raises", preconditions=[Requirement("input", raising)])
        with pytest.raises(ZeroDivisionError):
            await result.acomplete()
        late = await m.stream("late", preconditions=[after(99, True)], validator_timeout=3)
        with pytest.raises(ValidatorTimeout, match="within 3 s"):
            await late.acomplete()
        noted = await m.stream("noted", preconditions=[after(1, False, on_fail="noop")])
        assert await read_chunks(noted) == ["Text."]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("how_long", [3, 300])
async def test_in_instruct_nothing_is_handed_out_before_the_input_is_good(
    streamed: bool, how_long: int
) -> None:
    for passed in (True, False):
        backend = ScriptedBackend(sentences(*["One."] * how_long, delay=0.01))
        async with start_session(backend=backend) as m:
            thunk = await m.ainstruct(
                "?", preconditions=[after(1, passed)], model_options={ModelOption.STREAM: streamed}
            )
            began = anyio.current_time()
            read: list[str] = []
            reasons: list[str] = []
            try:
                async for delta in thunk:
                    assert anyio.current_time() >= began + 0.99
                    read.append(delta)
            except PreconditionFailed as error:
                reasons = list(error.reasons)
            assert reasons == ([] if passed else ["not this"])
            assert "".join(read) == ("One. " * how_long if passed else "")


async def test_one_that_raises_in_instruct_is_an_error() -> None:
    backend = ScriptedBackend(Script([Stall()]))
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", preconditions=[Requirement("input", raising)])
        with pytest.raises(ZeroDivisionError):
            await thunk
    assert backend.calls[0].outcome == "cancelled"


@pytest.mark.parametrize("call", ["stream", "instruct"])
async def test_it_stops_every_candidate_of_a_race(call: str) -> None:
    backend = ScriptedBackend(lambda _: Script([Stall()]))
    async with start_session(backend=backend) as m:
        preconditions = [after(1, False)]
        if call == "stream":
            result = await m.stream("?", preconditions=preconditions, strategy=RacingStrategy(3))
            with pytest.raises(PreconditionFailed):
                await result.acomplete()
            assert not result.completed
        else:
            strategy = RacingStrategy(3)
            thunk = await m.ainstruct("?", preconditions=preconditions, strategy=strategy)
            with pytest.raises(PreconditionFailed):
                await thunk
    assert [one.outcome for one in backend.calls] == ["cancelled"] * 3


@pytest.mark.parametrize("read", [True, False])
async def test_text_is_handed_out_when_the_input_is_found_good_whether_somebody_waits_or_not(
    read: bool,
) -> None:
    async def good(_: Context) -> ValidationResult:
        await anyio.sleep(0.02)
        return ValidationResult(True)

    backend = ScriptedBackend(Script("one two", delay=0.001))
    async with start_session(backend=backend, model_options={ModelOption.STREAM: True}) as m:
        thunk = await m.ainstruct("?", preconditions=[Requirement("good", good)])
        if read:
            assert "".join([delta async for delta in thunk]) == "one two"
        else:
            assert await thunk == "one two"


async def test_it_is_handed_the_text_that_is_asked_and_the_backend_and_waits_for_a_thunk() -> None:
    check = Check(final=asking_a_model("is this fine: {}"))
    backend = ScriptedBackend(
        lambda request: "fine" if request.messages[-1].content.startswith("is") else slow("2", 5)
    )
    async with start_session(backend=backend) as m:
        asked = await m.aact(CBlock("1"))
        assert await (await m.aact(asked, preconditions=[check])) == "2"
    assert check.seen.validated == ["2"]
    assert [call.prompt for call in backend.calls if "fine" in call.prompt] == ["is this fine: 2"]
