"""What a model says besides its text is on the thunk, and no answer is an error and not an empty text."""

from __future__ import annotations

import copy
import logging
import pickle
import sys
from collections.abc import Sequence

import anyio
import pydantic
import pytest

from mellea_sc import (
    Backend,
    BackendError,
    CBlock,
    ChatContext,
    Component,
    Context,
    Delta,
    EmptyAnswer,
    GenerationRequest,
    InvalidOption,
    LLMJudge,
    ModelOption,
    PatternTooSlow,
    RejectionSamplingStrategy,
    RepairTemplateStrategy,
    Requirement,
    SamplingResult,
    UnclearJudgement,
    UnexpectedToolCalls,
    ValidationResult,
    check,
    limits,
    simple_validate,
    start_session,
    stream_with_chunking,
    wait_for_all_mots,
)
from mellea_sc.backends import ToolCall, ToolCallDelta, Usage
from mellea_sc.core import GenerationInfo
from mellea_sc.core.backend import ChatMessage, Format, ModelOptions
from mellea_sc.core.base import Span
from mellea_sc.stdlib import MObject, SamplingStrategy
from mellea_sc.testing import Pause, Script, ScriptedBackend, Stall, Step

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]

STREAM: dict[str, object] = {ModelOption.STREAM: True}
GOOD = check("good", simple_validate(bool))
BOTH = pytest.mark.parametrize("options", [{}, STREAM], ids=["whole", "streamed"])
TOOLS: dict[str, object] = {
    "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}]
}
CALL = (
    Delta(tool_calls=(ToolCallDelta("c1", "look", "", 0),)),
    Delta(tool_calls=(ToolCallDelta("", "", '{"x":', 0), ToolCallDelta("c2", "find", "{", 1))),
    Delta(tool_calls=(ToolCallDelta("", "", " 1}", 0), ToolCallDelta("", "", "}", 1))),
)
CALLS = (ToolCall("c1", "look", '{"x": 1}'), ToolCall("c2", "find", "{}"))


def thought(*texts: str) -> list[Step]:
    return [Delta(reasoning=text) for text in texts]


# --- reasoning and calls ----------------------------------------------------------------------------


@BOTH
async def test_reasoning_is_on_the_thunk_and_not_in_its_text(options: dict[str, object]) -> None:
    backend = ScriptedBackend([*thought("Two ", "and two."), Delta("Four", reasoning=" So."), "."])
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", model_options=options)
        assert "".join([delta async for delta in thunk]) == "Four."
        assert await thunk == "Four."
        assert thunk.reasoning == "Two and two. So."
        assert thunk.generation.reasoning == thunk.reasoning
        assert thunk.tool_calls == ()


async def test_reasoning_and_calls_can_be_read_while_they_come() -> None:
    backend = ScriptedBackend(
        [*thought("Hm"), Pause(1), *thought("m."), CALL[0], Pause(1), *CALL[1:], "x"]
    )
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", model_options=TOOLS)
        assert (thunk.reasoning, thunk.tool_calls) == ("", ())
        for seconds, reasoning, calls in (
            (0.5, "Hm", ()),
            (1, "Hmm.", (ToolCall("c1", "look", ""),)),
        ):
            await anyio.sleep(seconds)
            assert (thunk.reasoning, thunk.tool_calls) == (reasoning, calls)
            assert thunk.generation.reasoning == ""
        assert await thunk == "x"
        assert thunk.tool_calls == CALLS


@BOTH
async def test_calls_that_were_asked_for_are_on_the_thunk(options: dict[str, object]) -> None:
    backend = ScriptedBackend(Script(CALL, finish_reason="tool_calls"))
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", model_options={**TOOLS, **options})
        assert [delta async for delta in thunk] == [] or not options
        assert await thunk == ""
        assert thunk.tool_calls == thunk.generation.tool_calls == CALLS
        assert thunk.generation.finish_reason == "tool_calls"


async def test_reasoning_and_calls_go_with_copies_pickles_and_samples() -> None:
    backend = ScriptedBackend(lambda _: [*thought("Hm."), *CALL, "Well."])
    async with start_session(backend=backend, model_options=TOOLS) as m:
        plain = await m.ainstruct("?", await_result=True)
        sampled = await m.ainstruct("?", requirements=[GOOD], await_result=True)
    for thunk in (plain, sampled, copy.copy(plain), copy.deepcopy(plain)):
        assert (thunk.reasoning, thunk.tool_calls) == ("Hm.", CALLS)
    assert pickle.loads(pickle.dumps(plain)).tool_calls == CALLS


async def test_a_message_of_a_chat_has_them() -> None:
    backend = ScriptedBackend([*thought("Hm."), *CALL])
    async with start_session(backend=backend) as m:
        message = await m.achat("?", model_options=TOOLS)
    assert (message.content, message.reasoning, message.tool_calls) == ("", "Hm.", CALLS)


async def test_reasoning_goes_into_no_prompt() -> None:
    backend = ScriptedBackend([*thought("Secret."), "One."], "Two.")
    async with start_session(backend=backend, ctx=ChatContext()) as m:
        await m.achat("1")
        await m.achat("2")
    assert backend.calls[1].request.messages == (
        ChatMessage("user", "1"),
        ChatMessage("assistant", "One."),
        ChatMessage("user", "2"),
    )


async def test_the_first_token_may_be_one_of_reasoning_or_of_a_call() -> None:
    for first in (Delta(reasoning="hm"), CALL[0], "text"):
        backend = ScriptedBackend([Delta(), Pause(1), first, Pause(2), "text"])
        async with start_session(backend=backend, model_options=TOOLS) as m:
            thunk = await m.ainstruct("?", await_result=True)
            assert thunk.generation.time_to_first_token == pytest.approx(1)
            assert thunk.generation.total_time == pytest.approx(3)


async def test_reasoning_is_known_of_a_generation_that_is_cancelled() -> None:
    backend = ScriptedBackend([*thought("Hm."), Stall()])
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?")
        await anyio.sleep(1)
        thunk.cancel()
        await thunk.wait_finished()
        assert (thunk.reasoning, thunk.generation.reasoning) == ("Hm.", "Hm.")


async def test_usage_is_added_up_with_its_parts() -> None:
    assert Usage(1, 2, 3, 4) + Usage(10, 20, 30, 40) == Usage(11, 22, 33, 44)
    assert Usage(1, 2, 3, 4).total_tokens == 3


# --- no answer --------------------------------------------------------------------------------------


async def asked(answer: Script, options: dict[str, object] | None = None) -> BackendError | str:
    async with start_session(backend=ScriptedBackend(answer)) as m:
        thunk = await m.ainstruct("?", model_options=options)
        try:
            return await thunk
        except BackendError as error:
            return error


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls"])
async def test_reasoning_alone_is_an_error_that_has_it(reason: str) -> None:
    error = await asked(
        Script(thought("Let me ", "see."), finish_reason=reason, usage=Usage(5, 40, 0, 39))
    )
    assert isinstance(error, EmptyAnswer)
    assert (error.finish_reason, error.reasoning) == (reason, "Let me see.")
    assert error.usage == Usage(5, 40, 0, 39)
    assert "reasoning, 39 tokens" in str(error)
    assert ("MAX_NEW_TOKENS" in str(error)) is (reason == "length")


async def test_reasoning_that_the_server_keeps_to_itself_is_told_of_too() -> None:
    error = await asked(Script([], usage=Usage(5, 300, 0, 300)))
    assert isinstance(error, EmptyAnswer)
    assert "reasoning, 300 tokens" in str(error)


@pytest.mark.parametrize(
    "reason", ["length", "max_tokens", "content_filter", "tool_calls", "function_call", "weather"]
)
async def test_nothing_at_all_is_an_error_unless_the_model_has_ended_by_itself(reason: str) -> None:
    error = await asked(Script([], finish_reason=reason))
    assert isinstance(error, EmptyAnswer)
    assert error.finish_reason == reason
    assert repr(reason) in str(error)


@pytest.mark.parametrize("reason", ["stop", "eos", "end_turn", "STOP"])
async def test_a_model_may_have_nothing_to_say(reason: str) -> None:
    assert await asked(Script([], finish_reason=reason)) == ""


@pytest.mark.parametrize(
    "reason",
    [
        *(
            "length",
            "content_filter",
            "MAX_TOKENS",
            "model_length",
            "model_context_window_exceeded",
        ),
        *("content_filter: RECITATION", "SAFETY", "sensitive", "guardrail_intervened"),
    ],
)
async def test_a_text_that_is_broken_off_is_a_text_and_says_so(reason: str) -> None:
    backend = ScriptedBackend(Script([*thought("hm"), "Once upo"], finish_reason=reason))
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", await_result=True)
    assert thunk.value == "Once upo"
    assert thunk.generation.is_broken_off
    assert not GenerationInfo(finish_reason="stop").is_broken_off


@pytest.mark.parametrize("text", [[], ["I will look. "]])
@pytest.mark.parametrize("options", [None, {"tools": []}, {"tools": None}])
async def test_calls_that_nobody_asked_for_are_an_error_that_names_them(
    text: list[Step], options: dict[str, object] | None
) -> None:
    error = await asked(Script([*text, *CALL], usage=Usage(5, 9)), options)
    assert isinstance(error, UnexpectedToolCalls)
    assert (error.tool_calls, error.usage) == (CALLS, Usage(5, 9))
    assert "look(), find()" in str(error)


async def test_an_empty_answer_does_not_fail_its_siblings() -> None:
    backend = ScriptedBackend(
        lambda request: thought("hm") if "empty" in request.messages[-1].content else "good"
    )
    async with start_session(backend=backend) as m:
        thunks = [await m.ainstruct(which) for which in ("one", "empty", "three")]
        assert await thunks[0] == "good"
        with pytest.raises(EmptyAnswer):
            await thunks[1]
        assert await thunks[2] == "good"


async def test_a_judge_that_only_thinks_is_unclear() -> None:
    judge = ScriptedBackend(lambda _: Script(thought("Hm. "), finish_reason="length"))
    async with start_session(backend=judge) as m:
        with pytest.raises(UnclearJudgement, match="all that it generated is reasoning"):
            await m.avalidate([LLMJudge("How kind?")], output="Hello.")
    assert len(judge.calls) == 2


async def test_a_judge_is_offered_no_functions() -> None:
    backend = ScriptedBackend("Hello.", judge=lambda _: True)
    async with start_session(backend=backend, model_options=TOOLS) as m:
        await m.ainstruct("?", requirements=["be kind"], await_result=True)
    assert [bool(call.request.options.get("tools")) for call in backend.calls] == [True, False]


# --- formats ----------------------------------------------------------------------------------------


class City(pydantic.BaseModel):
    """What is asked for."""

    name: str
    people: int


LIMA = '{"name": "Lima", "people": 10}'
SCHEMA = City.model_json_schema()


async def test_a_text_that_fits_is_the_instance(caplog: pytest.LogCaptureFixture) -> None:
    async with start_session(backend=ScriptedBackend(LIMA)) as m:
        thunk = await m.ainstruct("A city.", format=City, await_result=True)
    assert thunk.parsed_repr == City(name="Lima", people=10)
    assert thunk.format_error is None
    assert not caplog.records


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            Script('{"name": "Lima", "peo', finish_reason="length"),
            "broken off (finish reason 'length')",
        ),
        (Script("I cannot."), "Invalid JSON"),
        (Script('{"name": "Lima"}'), "people: Field required"),
        (Script('{"name": "Lima", "people": "many"}'), "people: Input should be a valid integer"),
        (Script("[]"), "Input should be an object"),
    ],
)
async def test_a_text_that_does_not_fit_is_told_and_is_no_instance(
    answer: Script, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with start_session(backend=ScriptedBackend(answer)) as m:
        thunk = await m.ainstruct("A city.", format=City, strategy=None, await_result=True)
    assert (thunk.value, thunk.parsed_repr) == (answer.steps, None)
    assert thunk.format_error is not None
    assert "no City" in thunk.format_error
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "A city." in record.getMessage()
    assert said in record.getMessage()
    assert (
        "input_value" not in record.getMessage()
    )  # the text is on the thunk, and need not be in a log
    assert copy.deepcopy(thunk).format_error == thunk.format_error


async def test_a_text_that_fits_its_schema_is_what_it_means(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with start_session(backend=ScriptedBackend(LIMA)) as m:
        thunk = await m.ainstruct("?", format=SCHEMA, await_result=True)
    assert (thunk.parsed_repr, thunk.format_error) == (LIMA, None)
    assert not caplog.records


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('{"name": "Li', "it cannot be read as JSON: Unterminated string"),
        ("[]", '$: wanted is {"type": "object"}'),
        ('{"name": "Lima"}', "$: 'people' is a required property"),
        ('{"name": "Lima", "people": "S3CRET"}', '$.people: wanted is {"type": "integer"}'),
        ('{"name": "S3CRET", "people": 1}', '$.name: wanted is {"pattern": "^[A-Z][a-z]+$"}'),
        ('{"name": "Lima", "people": 1, "at": 2}', "$: Additional properties are not allowed"),
        ('{"name": "Lima", "people": 1, "is": ["x", "S3CRET"]}', '$.is[1]: wanted is {"enum"'),
    ],
)
@pytest.mark.parametrize("how", ["instruct", "sampled", "act", "stream", "backend", "bare"])
async def test_a_text_that_does_not_fit_its_schema_is_told_with_the_place_and_means_nothing(
    how: str, answer: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[A-Z][a-z]+$"},
            "people": {"type": "integer"},
            "is": {"type": "array", "items": {"enum": ["x", "y"]}},
        },
        "required": ["name", "people"],
        "additionalProperties": False,
    }
    backend = ScriptedBackend(lambda _: answer)
    async with start_session(backend=backend) as m:
        match how:
            case "instruct":
                thunk = await m.ainstruct("?", format=schema, strategy=None, await_result=True)
            case "sampled":
                thunk = await m.ainstruct("?", format=schema, requirements=[GOOD])
                await thunk
            case "act":
                thunk = await m.aact(CBlock("?"), format=schema, strategy=None, await_result=True)
            case "backend":
                thunk, _ = await m.backend.generate_from_context("?", m.ctx, format=schema)
                await thunk
            case "bare":
                stream = stream_with_chunking("?", backend, m.ctx, format=schema, chunking=None)
                async with stream as result:
                    await result.acomplete()
                thunk = result.as_thunk
            case _:
                async with m.stream("?", format=schema, chunking=None) as result:
                    await result.acomplete()
                thunk = result.as_thunk
    assert (thunk.value, thunk.parsed_repr) == (answer, None)
    assert thunk.format_error is not None
    assert said in thunk.format_error
    assert [said in record.getMessage() for record in caplog.records] == [True]
    assert "S3CRET" not in caplog.text
    assert backend.calls[0].request.json_schema == schema


@pytest.mark.parametrize(
    "schema", [{"type": "nope"}, {"$schema": "https://x"}, {"$ref": "#"}, {"enum": [{1, 2}]}]
)
async def test_what_is_no_schema_that_can_be_checked_is_refused_before_anything_begins(
    schema: dict[str, object],
) -> None:
    backend = ScriptedBackend(lambda _: "{}")
    async with start_session(backend=backend) as m:
        with pytest.raises(InvalidOption):
            await m.ainstruct("?", format=schema)
        with pytest.raises(InvalidOption):
            await m.stream("?", format=schema)
    assert not backend.calls


@pytest.mark.parametrize("strategy", [None, RejectionSamplingStrategy(loop_budget=2)])
async def test_a_pattern_of_a_schema_that_takes_too_long_is_an_error(
    strategy: RejectionSamplingStrategy | None,
) -> None:
    schema = {"type": "string", "pattern": "(?:a|aa)+[bc]"}
    async with start_session(backend=ScriptedBackend(f'"{"a" * 60}! c"')) as m:
        thunk = await m.ainstruct("?", format=schema, strategy=strategy)
        with pytest.raises(PatternTooSlow):
            await thunk


async def test_judges_and_methods_of_objects_need_no_package_and_tell_of_no_misfit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Shelf(MObject):
        lends = ("count",)

        def count(self) -> int:
            return 3

    monkeypatch.setitem(sys.modules, "jsonschema", None)
    answers = ["Yes, it is.", '{"method": "count", "arguments": {}, "text": ""}']
    async with start_session(backend=ScriptedBackend(*answers)) as m:
        [verdict] = await m.avalidate("be nice", output="Hello.")
        assert verdict
        assert await (await m.aquery(Shelf(), "How many?")) == "3"
    assert not caplog.records


async def test_a_schema_that_is_changed_meanwhile_is_the_one_that_was_given() -> None:
    schema: dict[str, object] = {"type": "object"}
    async with start_session(backend=ScriptedBackend([Pause(1), "{}"])) as m:
        thunk = await m.ainstruct("?", format=schema)
        schema["type"] = "string"
        assert await thunk == "{}"
    assert thunk.format_error is None


async def test_calls_are_no_misfit(caplog: pytest.LogCaptureFixture) -> None:
    async with start_session(backend=ScriptedBackend(CALL)) as m:
        thunk = await m.ainstruct("?", format=City, model_options=TOOLS, await_result=True)
    assert (thunk.tool_calls, thunk.parsed_repr, thunk.format_error) == (CALLS, None, None)
    assert not caplog.records


async def test_a_strategy_asks_again_for_an_answer_that_does_not_fit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = ScriptedBackend('{"name": "Lima"}', LIMA)
    async with start_session(backend=backend) as m:
        sampled = await m.ainstruct(
            "A city.",
            format=City,
            requirements=[GOOD],
            strategy=RepairTemplateStrategy(loop_budget=3),
            return_sampling_results=True,
        )
    assert sampled.success
    assert sampled.value == LIMA
    assert [one.parsed_repr for one in sampled.sample_generations] == [  # type: ignore[attr-defined]
        None,
        City(name="Lima", people=10),
    ]
    assert "people: Field required" in backend.calls[1].prompt
    assert not caplog.records  # the answer that was kept is good


@pytest.mark.parametrize("format", [City, SCHEMA])
@pytest.mark.parametrize(
    ("strategy", "calls"),
    [
        (RejectionSamplingStrategy(loop_budget=3), 3),
        (RepairTemplateStrategy(loop_budget=2), 2),
        ("default", 2),
        (None, 1),
    ],
    ids=["rejection", "repair", "default", "none"],
)
async def test_a_misfit_is_a_failed_attempt_of_a_strategy_without_requirements(
    strategy: SamplingStrategy | str | None,
    calls: int,
    format: Format,
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = {} if strategy == "default" else {"strategy": strategy}
    answers = ['{"name": "Lima"}'] * (calls - 1) + [LIMA, "more than is needed"]
    backend = ScriptedBackend(*(answers if calls > 1 else ["{}"]))
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("A city.", format=format, await_result=True, **given)  # type: ignore[call-overload]
    assert len(backend.calls) == thunk.generation.attempts == calls
    assert thunk.sampling is not None
    assert thunk.sampling.success == (calls > 1)
    if calls > 1:
        assert (thunk.value, thunk.format_error) == (LIMA, None)
        assert not caplog.records
    else:
        [(_, verdict)] = thunk.sampling.result_validations
        assert verdict.reason == thunk.format_error
        assert thunk.sampling.trace is not None
        assert thunk.sampling.trace.outcome == "rejected"


async def test_a_repair_is_told_why_the_answer_does_not_fit_its_schema() -> None:
    backend = ScriptedBackend('{"name": "Lima", "people": "many"}', LIMA)
    async with start_session(backend=backend) as m:
        repair = RepairTemplateStrategy(loop_budget=2)
        thunk = await m.ainstruct("A city.", format=SCHEMA, strategy=repair, await_result=True)
    assert thunk.value == LIMA
    assert '$.people: wanted is {"type": "integer"}' in backend.calls[1].prompt


async def test_what_fits_at_once_is_asked_for_once_and_keeps_what_was_thought() -> None:
    backend = ScriptedBackend([*thought("hm"), Pause(1), LIMA])
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("A city.", format=City)
        assert not thunk.is_computed()
        assert await thunk == LIMA
    assert thunk.parsed_repr == City(name="Lima", people=10)
    assert thunk.reasoning == "hm"
    assert len(backend.calls) == 1


@pytest.mark.parametrize("explicit", [False, True])
async def test_a_streamed_answer_is_held_back_for_its_format_only_by_a_strategy_that_was_given(
    explicit: bool,
) -> None:
    backend = ScriptedBackend(["no ", Pause(1), "city"], LIMA)
    given = {"strategy": RejectionSamplingStrategy(loop_budget=2)} if explicit else {}
    async with start_session(backend=backend, model_options=STREAM) as m:
        thunk = await m.ainstruct("A city.", format=City, **given)  # type: ignore[call-overload]
        deltas = [delta async for delta in thunk]
    assert deltas == ([LIMA] if explicit else ["no ", "city"])
    assert (thunk.format_error is None) == explicit


async def test_a_strategy_of_the_users_asks_with_the_schema_that_it_is_given() -> None:
    formats: list[object] = []

    class Twice(SamplingStrategy):
        async def sample(
            self,
            action: Component | Span,
            context: Context,
            backend: Backend,
            requirements: Sequence[Requirement],
            *,
            format: Format | None = None,
            model_options: ModelOptions | None = None,
        ) -> SamplingResult:
            formats.append(format)
            thunks = [
                (await backend.generate_from_context(action, context, format=format))[0]
                for _ in range(2)
            ]
            await wait_for_all_mots(thunks)
            best = next(i for i, thunk in enumerate(thunks) if thunk.format_error is None)
            return SamplingResult(
                result_index=best,
                success=True,
                sample_generations=thunks,
                sample_validations=[[], []],
                sample_actions=[action] * 2,
                sample_contexts=[context] * 2,
            )

    backend = ScriptedBackend("[]", LIMA)
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("A city.", format=SCHEMA, strategy=Twice(), await_result=True)
    assert (thunk.value, thunk.format_error) == (LIMA, None)
    assert formats == [SCHEMA]


async def test_where_no_answer_fits_the_kept_one_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with start_session(backend=ScriptedBackend(lambda _: "no city")) as m:
        thunk = await m.ainstruct("A city.", format=City, requirements=[GOOD], await_result=True)
    assert thunk.sampling is not None
    assert not thunk.sampling.success
    assert (thunk.value, thunk.parsed_repr) == ("no city", None)
    assert len(caplog.records) == 1


async def test_what_a_validator_generates_is_told_of_as_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with start_session(backend=ScriptedBackend("no city")) as m:
        thunk, _ = await m.backend.generate_from_context(CBlock("?"), m.ctx, format=City)
        assert await thunk == "no city"
        assert thunk.parsed_repr is None
    assert len(caplog.records) == 1


async def test_limits_count_what_is_thought_and_called() -> None:
    def answer(_: GenerationRequest) -> Script:
        return Script([*thought(*["word"] * 20), *CALL, Delta("x", "stop")])

    async with start_session(backend=ScriptedBackend(answer), model_options=TOOLS) as m:
        with limits(tokens=1000) as spent:
            await m.aact(CBlock("hi"), strategy=None, await_result=True)
        assert (spent.completion_tokens, spent.estimated) == (24, True)


async def test_a_strategy_does_not_ask_again_for_calls() -> None:
    backend = ScriptedBackend(CALL)
    async with start_session(backend=backend, model_options=TOOLS) as m:
        anything = check("anything", lambda _: ValidationResult(True))
        thunk = await m.ainstruct("?", format=City, requirements=[anything], await_result=True)
    assert (thunk.tool_calls, thunk.format_error) == (CALLS, None)
    assert thunk.generation.attempts == len(backend.calls) == 1
