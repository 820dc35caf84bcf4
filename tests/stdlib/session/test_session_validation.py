"""Judging answers: verdicts, judges, errors and timeouts; repairing by asking again."""

from __future__ import annotations

import json
from collections.abc import Mapping

import anyio
import attrs
import pytest

from mellea_sc import (
    BackendError,
    CBlock,
    Component,
    Context,
    GenerationRequest,
    InvalidOption,
    InvalidVerdict,
    ModelError,
    ModelOption,
    ModelOutputThunk,
    PartialValidationResult,
    RejectionSamplingStrategy,
    Requirement,
    SamplingResult,
    SessionClosed,
    SimpleContext,
    UnclearJudgement,
    ValidationResult,
    ValidatorTimeout,
    check,
    req,
    simple_validate,
    start_session,
)
from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Thunk
from mellea_sc.core.requirement import default_output_to_bool
from mellea_sc.stdlib import MObject
from mellea_sc.testing import Fail, Pause, Script, ScriptedBackend

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


def judge_says(*answers: str) -> ScriptedBackend:
    """A judge that says these, one after the other; the model itself says "text"."""
    left = iter(answers)
    return ScriptedBackend(lambda _: "text", judge=lambda _: next(left))


async def verdict_of(requirement: Requirement | str, backend: Backend) -> ValidationResult:
    async with start_session(backend=backend) as m:
        (verdict,) = await m.avalidate(requirement, output="text")
        return verdict


# --- judges -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "passed", "reason"),
    [
        ('{"answer": "yes", "reason": "it is"}', True, "it is"),
        ('{"answer": "No", "reason": 3}', False, None),
        ("Yes.", True, None),
        ("no, it is rude", False, "it is rude"),
        ("**YES**\nbecause", True, "because"),
    ],
)
async def test_a_judges_answer_is_read(said: str, passed: bool, reason: str | None) -> None:
    verdict = await verdict_of("be polite", judge_says(said))
    assert verdict.as_bool() is bool(verdict) is passed
    assert verdict.reason == reason
    assert isinstance(verdict.thunk, ModelOutputThunk)
    assert verdict.thunk.value == said
    assert verdict.context is not None
    assert verdict.context.node_data is verdict.thunk


@pytest.mark.parametrize(
    "said",
    [
        "perhaps",
        '{"answer": "maybe"}',
        "",
        "yesterday it was",
        '{"answer": true}',
        '{"reason": "x"}',
    ],
)
async def test_a_judge_that_is_unclear_is_asked_once_more_and_then_it_is_an_error(
    said: str,
) -> None:
    with pytest.raises(ValueError, match="neither"):
        default_output_to_bool(said)
    assert (await verdict_of("be polite", judge_says(said, "yes"))).as_bool()
    with pytest.raises(UnclearJudgement, match="be polite"):
        await verdict_of("be polite", judge_says(said, said))


async def test_a_judge_is_shown_the_requirement_and_the_text_and_not_the_conversation() -> None:
    backend = judge_says("yes", "yes")
    async with start_session(backend=backend, context_type="chat") as m:
        await m.achat("secret")
        await m.avalidate("be polite")
    (prompt,) = [call.request.messages for call in backend.calls if call.judged]
    assert len(prompt) == 1
    assert "be polite" in prompt[0].content
    assert "text" in prompt[0].content
    assert "secret" not in prompt[0].content


async def test_a_judges_verdict_may_be_read_by_a_function_of_the_users() -> None:
    def read(answer: str) -> bool:
        return answer.startswith("fine")

    requirement = Requirement("be polite", output_to_bool=read)
    verdict = await verdict_of(requirement, judge_says("fine by me"))
    assert verdict.as_bool()
    assert verdict.reason is None


async def test_a_failing_judge_is_an_error_and_not_a_verdict() -> None:
    backend = ScriptedBackend(Fail(BackendError("down")))
    with pytest.raises(BackendError, match="down"):
        await verdict_of("be polite", backend)


async def test_a_requirement_that_says_nothing_cannot_be_judged() -> None:
    with pytest.raises(InvalidOption, match="neither"):
        await verdict_of(Requirement(), ScriptedBackend())


async def test_without_an_output_there_is_nothing_to_judge() -> None:
    async with start_session(backend=ScriptedBackend()) as m:
        for judged in (Requirement("be polite"), req("r", simple_validate(bool))):
            with pytest.raises(InvalidOption, match="no output"):
                await judged.validate(m.backend, SimpleContext())


# --- functions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "passed", "reason"),
    [
        (True, True, None),
        (False, False, "because"),
        ((False, "own reason"), False, "own reason"),
        (ValidationResult(True, score=0.5), True, None),
    ],
)
async def test_a_function_of_the_text_judges(
    returned: object, passed: bool, reason: str | None
) -> None:
    seen: list[str] = []

    def judge(text: str) -> object:
        seen.append(text)
        return returned

    validate = simple_validate(judge, reason="because")  # type: ignore[arg-type]
    verdict = await verdict_of(req("r", validate), ScriptedBackend())
    assert (verdict.as_bool(), verdict.reason) == (passed, reason)
    assert seen == ["text"]


async def test_what_is_no_verdict_is_an_error() -> None:
    class Returns(Requirement):
        async def validate(self, *_: object, **__: object) -> ValidationResult:
            return True  # type: ignore[return-value]

    wrong = [
        req("r", simple_validate(lambda _: "yes")),  # type: ignore[arg-type, return-value]
        req("r", lambda _: True),  # type: ignore[arg-type, return-value]
        Returns("r"),
    ]
    for requirement in wrong:
        with pytest.raises(InvalidVerdict):
            await verdict_of(requirement, ScriptedBackend())
    with pytest.raises(InvalidOption):
        PartialValidationResult("perhaps")  # type: ignore[arg-type]
    assert [bool(PartialValidationResult(said)) for said in ("pass", "unknown", "fail")] == [
        True,
        False,
        False,
    ]


async def test_a_validator_that_never_returns_is_an_error_and_the_others_are_cancelled() -> None:
    ended: list[str] = []

    async def endless(_: Context) -> ValidationResult:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("endless")
        raise AssertionError

    async with start_session(backend=ScriptedBackend()) as m:
        began = anyio.current_time()
        with pytest.raises(ValidatorTimeout, match="within 3 s"):
            await m.avalidate(
                [Requirement("a", endless), Requirement("b", endless, timeout=3)], output="text"
            )
        assert anyio.current_time() == pytest.approx(began + 3)
    assert ended == ["endless"] * 2


async def test_an_error_counts_as_passed_only_where_the_requirement_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def wrong(_: Context) -> ValidationResult:
        raise ValueError("wrong")

    verdict = await verdict_of(Requirement("r", wrong, fail_open=True), ScriptedBackend())
    assert verdict.as_bool()
    assert "wrong" in (verdict.reason or "")
    assert "counts as passed" in caplog.text


async def test_requirements_are_what_they_are_made_of() -> None:
    assert (req("a").check_only, check("a").check_only) == (False, True)
    assert "be polite" in repr(req("be polite"))
    assert repr(Requirement()) == "<Requirement>"
    async with start_session(backend=ScriptedBackend()) as m:
        with pytest.raises(InvalidOption):
            await m.avalidate([42], output="text")  # type: ignore[list-item]


async def test_every_attempt_is_judged_by_a_copy_of_its_own() -> None:
    class Gathers(Requirement):
        seen: list[str]

        def __init__(self) -> None:
            super().__init__("gathers", check_only=True)
            self.seen = []

        async def validate(self, backend: Backend, ctx: Context, **_: object) -> ValidationResult:  # type: ignore[override]
            self.seen.append("text")
            return ValidationResult(len(self.seen) > 1)

    original = Gathers()
    async with start_session(backend=ScriptedBackend(lambda _: "text")) as m:
        result = await m.ainstruct("?", requirements=[original], return_sampling_results=True)
    assert not result.success
    assert original.seen == []


# --- asking again --------------------------------------------------------------------------------------------


def says(*texts: str) -> ScriptedBackend:
    return ScriptedBackend(*texts)


def is_(wanted: str) -> Requirement:
    return check("r", simple_validate(lambda text: text == wanted))


async def test_the_first_good_answer_is_kept_with_all_that_was_tried() -> None:
    async with start_session(backend=says("a", "b", "c", "d")) as m:
        result = await m.ainstruct(
            "?",
            requirements=[is_("c")],
            strategy=RejectionSamplingStrategy(loop_budget=4),
            return_sampling_results=True,
        )
    assert isinstance(result, SamplingResult)
    assert (result.success, result.result_index, result.value, str(result)) == (True, 2, "c", "c")
    assert [thunk.value for thunk in result.sample_generations] == ["a", "b", "c"]
    assert [verdicts[0][1].as_bool() for verdicts in result.sample_validations] == [
        False,
        False,
        True,
    ]
    assert result.result.value == "c"
    assert result.result_validations == result.sample_validations[2]
    assert result.result_action is result.sample_actions[2]
    last = result.result_ctx.last_output()
    assert last is not None
    assert last.value == "c"


async def test_when_none_is_good_the_first_is_kept_and_the_result_says_so() -> None:
    async with start_session(backend=says("a", "b")) as m:
        thunk = await m.ainstruct("?", requirements=[is_("z")])
        assert await thunk == "a"
        assert thunk.sampling is not None
        assert not thunk.sampling.success
        assert thunk.generation.attempts == 2


async def test_an_answer_that_nothing_could_reject_is_a_result_too() -> None:
    async with start_session(backend=says("a")) as m:
        result = await m.ainstruct("?", return_sampling_results=True)
        assert (result.success, result.value, list(result.sample_validations)) == (True, "a", [[]])


async def test_a_strategy_may_bring_requirements_and_has_a_budget() -> None:
    strategy = RejectionSamplingStrategy(loop_budget=2, requirements=[is_("b")])
    async with start_session(backend=says("a", "b")) as m:
        assert await (await m.ainstruct("?", strategy=strategy)) == "b"
    with pytest.raises(InvalidOption):
        RejectionSamplingStrategy(loop_budget=0)


async def test_what_a_scope_has_generated_ends_with_it() -> None:
    backends: list[Backend] = []

    class Leaves(Requirement):
        async def validate(self, backend: Backend, ctx: Context, **_: object) -> ValidationResult:  # type: ignore[override]
            backends.append(backend)
            await backend.generate_from_context("left", ctx)
            await anyio.wait_all_tasks_blocked()
            return ValidationResult(True)

    source = ScriptedBackend(
        lambda r: Script([Pause(60)]) if r.messages[-1].content == "left" else Script("text")
    )
    async with start_session(backend=source) as m:
        began = anyio.current_time()
        thunk = await m.ainstruct("?", requirements=[Leaves("r")])
        assert await thunk == "text"
        assert anyio.current_time() < began + 1
        with pytest.raises(SessionClosed, match="scope"):
            await backends[0].generate_from_context("?", m.ctx)
        assert "ScriptedBackend" in repr(backends[0])
    assert [call.outcome for call in source.calls] == ["ended", "cancelled"]


async def test_a_bare_backend_says_that_it_has_no_session() -> None:
    from mellea_sc import BackendNotBound

    with pytest.raises(BackendNotBound, match="start_session"):
        await ScriptedBackend().generate_from_context("?", SimpleContext())


# --- formats -------------------------------------------------------------------------------------------------


@attrs.frozen
class Point:
    """A class that can say its schema and read an instance, as pydantic's models do."""

    x: int

    @classmethod
    def model_json_schema(cls) -> dict[str, object]:
        return {"type": "object", "properties": {"x": {"type": "integer"}}}

    @classmethod
    def model_validate_json(cls, json_data: str) -> Point:
        return cls(**json.loads(json_data))


async def test_a_format_goes_to_the_model_and_its_instance_is_on_the_thunk() -> None:
    backend = says('{"x": 1}', "no point", '{"x": 2}')
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", format=Point)
        await thunk
        assert thunk.parsed_repr == Point(1)
        unfit = await m.ainstruct("?", format=Point, strategy=None)
        assert await unfit == "no point"
        assert unfit.parsed_repr is None
        assert unfit.format_error is not None
        by_schema = await m.ainstruct("?", format={"type": "object"})
        await by_schema
        assert by_schema.parsed_repr == '{"x": 2}'
    schemas = [call.request.json_schema for call in backend.calls]
    assert schemas == [Point.model_json_schema(), Point.model_json_schema(), {"type": "object"}]


async def test_a_component_reads_its_answer_itself() -> None:
    class Number(Component):
        def format_for_llm(self) -> str:
            return "a number"

        def parse(self, text: str) -> int:
            return int(text)

    async with start_session(backend=says("42")) as m:
        thunk = await m.aact(Number())
        assert await thunk == "42"
        assert thunk.parsed_repr == 42


# --- objects -------------------------------------------------------------------------------------------------


class Table(MObject):
    """Lends its sum."""

    lends = ("total", "rows", "keep")

    def total(self, factor: int = 1) -> int:
        """The sum."""
        return 6 * factor

    async def rows(self) -> CBlock:
        return CBlock("1, 2, 3")

    def keep(self, **words: object) -> str:
        return str(words)

    def __str__(self) -> str:
        return "1 2 3"


def call(method: str, arguments: Mapping[str, object] | None = None, text: str = "") -> str:
    return json.dumps({"method": method, "arguments": arguments or {}, "text": text})


async def test_a_model_may_call_the_methods_that_an_object_lends() -> None:
    backend = says(call("total", {"factor": 2}), call("rows"), call("none", text="six"))
    async with start_session(backend=backend) as m:
        total = await m.aquery(Table(), "the double sum?")
        assert (await total, total.parsed_repr) == ("12", 12)
        rows = await m.atransform(Table(), "rows")
        assert await rows == "1, 2, 3"
        assert await (await m.aquery(Table(), "in words?")) == "six"
    prompt = backend.calls[0].prompt
    assert "1 2 3" in prompt
    assert "total" in prompt
    assert "The sum." in prompt


@pytest.mark.parametrize(
    "answer",
    [
        *("no json", "3", "[" * 200_000, call("drop"), call("total", {"factr": 1})),
        *('{"method": "total"}', call("keep", {"self": 1}), call("total", ["factor"])),  # type: ignore[arg-type]
        *(
            f'{{"method": {method}, "arguments": {{}}, "text": ""}}'
            for method in ('["total"]', '{"total": 1}', "1" * 5000)
        ),
        *(
            f'{{"method": "none", "arguments": {{}}, "text": {text}}}'
            for text in ("null", '["a"]', '{"a": 1}')
        ),
    ],
)
async def test_a_call_that_cannot_be_made_is_the_models_error(answer: str) -> None:
    async with start_session(backend=says(answer)) as m:
        with pytest.raises(ModelError):
            await (await m.aquery(Table(), "?"))


async def test_an_object_of_any_kind_can_be_asked_about_and_streamed() -> None:
    backend = ScriptedBackend(lambda _: "answer")
    async with start_session(backend=backend) as m:
        thunk: Thunk
        for obj in ({"a": 1}, "text", CBlock("block"), 42):
            thunk = await m.aquery(obj, "?", model_options={ModelOption.STREAM: True})
            assert await thunk.avalue() == "answer"
        assert "42" in backend.calls[-1].prompt
        with pytest.raises(InvalidOption):
            await m.aquery("text", 42)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption):
            await m.atransform("text", 42)  # type: ignore[arg-type]


async def test_options_of_the_session_and_of_the_call_are_merged() -> None:
    backend = ScriptedBackend(lambda _: "answer")
    async with start_session(
        backend=backend, model_options={"seed": 1, ModelOption.TEMPERATURE: 0.5}
    ) as m:
        await m.achat("?", model_options={ModelOption.TEMPERATURE: 0.0, "other": True})
    request: GenerationRequest = backend.calls[0].request
    assert request.options == {"seed": 1, ModelOption.TEMPERATURE: 0.0, "other": True}
