"""A judge's generation: it ends with the call that asked for it, and it stands in the trace; whoever judges."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext

import anyio
import pytest

from mellea_sc import (
    BestOfNStrategy,
    Instruction,
    InvalidOption,
    LLMJudge,
    MelleaSession,
    PartialValidationResult,
    RejectionSamplingStrategy,
    Requirement,
    SimpleContext,
    UnclearJudgement,
    ValidationResult,
    ValidatorTimeout,
    check,
    req,
    simple_validate,
    start_session,
    stream_with_chunking,
)
from mellea_sc.core.backend import Backend, Format, ModelOptions
from mellea_sc.core.base import Component, Context, Span, Thunk
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.testing import (
    FailingBackend,
    Pause,
    Script,
    ScriptedBackend,
    Stall,
)
from mellea_sc.testing.cassette import Recording

pytestmark = pytest.mark.anyio

GOOD = '{"score": 1, "answer": "yes", "reason": "so it is"}'


def finished(text: str) -> Context:
    return SimpleContext().add("prompt").add(ModelOutputThunk.computed(text))


KINDS = ["in words", "a score", "its own bare backend", "its own session"]


def judge_of(kind: str, judges: Backend, other: MelleaSession) -> Requirement:
    """A requirement that a model judges at the end: the run's, or that of ``judges``."""
    match kind:
        case "in words":
            return req("be kind")
        case "a score":
            return LLMJudge("How kind?")
        case "its own bare backend":
            return LLMJudge("How kind?", backend=judges)
        case _:
            return LLMJudge("How kind?", backend=other.backend)


def judged_by(kind: str, answer: object) -> tuple[ScriptedBackend, ScriptedBackend]:
    """The backend that writes "Hello.", and the one that judges, which may be the same."""
    writer = ScriptedBackend(lambda _: "Hello.", judge=lambda _: answer)  # type: ignore[arg-type, return-value]
    return writer, writer if kind in KINDS[:2] else ScriptedBackend(lambda _: answer)  # type: ignore[arg-type, return-value]


# --- it ends with the call -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["another fails", "a timeout", "a scope of the user's", "a block"])
async def test_a_judges_generation_ends_with_the_call_that_asked_for_it(
    kind: str, how: str
) -> None:
    writer, judges = judged_by(kind, [Stall()])

    async def bad(_: Context) -> ValidationResult:
        await anyio.sleep(1)
        raise LookupError("broken")

    async with start_session(backend=judges) as other, start_session(backend=writer) as m:
        judge = judge_of(kind, judges, other)
        if how == "another fails":
            with pytest.raises(LookupError):
                await m.avalidate([judge, check("x", bad)], output="Hello.")
        elif how == "a timeout":
            judge.timeout = 1
            with pytest.raises(ValidatorTimeout):
                await m.avalidate(judge, output="Hello.")
        elif how == "a scope of the user's":
            with anyio.move_on_after(1) as scope:
                await judge.validate(m.backend, finished("Hello."))
            assert scope.cancelled_caught
        else:
            async with m.stream("go", requirements=[judge]):
                await anyio.sleep(1)
        # both sessions are still open, and nothing of the judge's runs in them any more
        assert judges.calls[-1].outcome == "cancelled"
        assert anyio.current_time() <= 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_validator_that_waits_for_a_judge_only_so_long_ends_it_then(kind: str) -> None:
    writer, judges = judged_by(kind, [Pause(60), GOOD])

    async with start_session(backend=judges) as other, start_session(backend=writer) as m:

        async def patient(ctx: Context) -> ValidationResult:
            with anyio.move_on_after(2):
                return await judge_of(kind, judges, other).validate(m.backend, ctx)
            ended.append((judges.calls[-1].outcome, anyio.current_time()))
            return ValidationResult(True)

        ended: list[tuple[str, float]] = []
        async with m.stream("go", requirements=[check("x", patient)]) as result:
            await result.acomplete()
        assert ended == [("cancelled", 2)]
        assert result.completed


class Lent(Thunk):
    """A thunk of somebody else's making, which cannot be entered."""

    def is_computed(self) -> bool:
        return True

    async def avalue(self) -> str:
        await anyio.lowlevel.checkpoint()
        return GOOD

    @property
    def value(self) -> str:
        return GOOD


class Lender(ScriptedBackend):
    """A backend with a way of its own to generate."""

    async def generate_from_context(
        self,
        action: Component | Span,
        ctx: Context,
        *,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
    ) -> tuple[Thunk, Context]:
        return Lent(), ctx


async def test_a_backend_that_makes_thunks_of_its_own_may_judge() -> None:
    assert await req("be kind").validate(Lender(), finished("Hello."))
    assert await LLMJudge("How kind?", backend=Lender()).validate(Lender(), finished("Hello."))


# --- it stands in the trace ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["the library", "a validator of the user's"])
async def test_every_judge_stands_in_the_trace(kind: str, by: str) -> None:
    writer, judges = judged_by(kind, Script([GOOD], delay=3))
    async with start_session(backend=judges) as other, start_session(backend=writer) as m:
        judge = judge_of(kind, judges, other)

        async def asks(ctx: Context) -> ValidationResult:
            return await judge.validate(m.backend, ctx)

        one = judge if by == "the library" else check("x", asks)
        async with m.stream("go", requirements=[one]) as result:
            await result.acomplete()
        (attempt,) = result.trace.children
        assert [(it.outcome, it.ended - it.began) for it in attempt.children] == [("answered", 3)]

        sampled = await m.ainstruct(
            "go",
            requirements=[one],
            strategy=RejectionSamplingStrategy(),
            return_sampling_results=True,
        )
        assert sampled.trace is not None
        assert len(sampled.trace.children[0].children) == 1
    assert len(result.trace.children[0].children) == 1, "another call's judge is another call's"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_judge_that_was_cut_stands_in_the_trace_too(kind: str) -> None:
    writer, judges = judged_by(kind, [Stall()])

    async def bad(_: Context) -> ValidationResult:
        await anyio.sleep(2)
        raise LookupError("broken")

    async with start_session(backend=judges) as other, start_session(backend=writer) as m:
        result = await m.stream("go", requirements=[judge_of(kind, judges, other), check("x", bad)])
        with pytest.raises(LookupError):
            await result.acomplete()
        (attempt,) = result.trace.children
        assert [judge.outcome for judge in attempt.children] == ["stopped"]


# --- what is no verdict ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_a_judge_that_is_broken_off_is_an_error(kind: str, reason: str) -> None:
    for said in (GOOD, GOOD[:-6]):
        writer, judges = judged_by(kind, Script([said], finish_reason=reason))
        async with start_session(backend=judges) as other, start_session(backend=writer) as m:
            with pytest.raises(UnclearJudgement, match=f"finish reason '{reason}'"):
                await m.avalidate(judge_of(kind, judges, other), output="Hello.")
        assert len(judges.calls) == 2


async def test_a_judge_that_is_whole_the_second_time_is_believed() -> None:
    answers = iter([Script([GOOD], finish_reason="length"), GOOD])
    async with start_session(backend=ScriptedBackend(judge=lambda _: next(answers))) as m:
        assert await m.avalidate("be kind", output="Hello.")


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('```json\n{"score":0.9,"reason":"ok"}\n```', 0.9),
        ('<think>0.1?</think>{"score":0.9}', 0.9),
        ('It is kind. {"score": 0.9} That is all.', 0.9),
        ('{"score":0.1,"score":0.9}', None),
        ('{"score":0.1} {"score":0.9}', None),
        ('{"score":NaN}', None),
        ('{"score":1e999}', None),
        ('{"score":' * 3000, None),
        ("[" * 3000, None),
        ("score: 0.9", None),
    ],
)
async def test_a_score_is_read_where_there_is_one(answer: str, score: float | None) -> None:
    async with start_session(backend=ScriptedBackend(lambda _: answer)) as m:
        judge = LLMJudge("How kind?")
        if score is None:
            with pytest.raises(UnclearJudgement):
                await judge.validate(m.backend, finished("Hello."))
        else:
            assert (await judge.validate(m.backend, finished("Hello."))).score == score


async def test_a_fail_without_a_reason_has_the_description_as_its_reason() -> None:
    no = simple_validate(lambda _: False)
    with_reason = simple_validate(lambda _: False, reason="it is 5 words")
    async with start_session(backend=ScriptedBackend("Hello.", "Bye.")) as m:
        verdicts = await m.avalidate(
            [check("mention the price", no), check("be short", with_reason), check(None, no)],
            output="Hello.",
        )
    assert [one.reason for one in verdicts] == ["mention the price", "it is 5 words", None]
    async with start_session(backend=ScriptedBackend()) as m:
        (passed,) = await m.avalidate(check("x", simple_validate(lambda _: True)), output="Hello.")
    assert (passed.result, passed.reason) == (True, None)


# --- a model that cannot judge ---------------------------------------------------------------------------


class SaysYes(ScriptedBackend):
    """A model that is not to be asked for a judgement."""

    judges = False


ASKING: dict[str, Callable[[MelleaSession], AbstractAsyncContextManager[object]]] = {
    "in words": lambda m: m.stream("go", requirements=["be kind"]),
    "a score": lambda m: m.stream("go", requirements=[LLMJudge("How kind?")]),
    "on a bound backend": lambda m: stream_with_chunking(
        "go", m.backend, SimpleContext(), requirements=[req("be kind")]
    ),
    "on a bare backend": lambda _: stream_with_chunking(
        "go", SaysYes("Hello."), SimpleContext(), requirements=["be kind"]
    ),
    "as a precondition": lambda m: m.stream("go", preconditions=["be kind"]),
    "of a strategy": lambda m: m.stream(
        "go", strategy=RejectionSamplingStrategy(requirements=["be kind"])
    ),
    "for validation": lambda m: m.stream(
        "go", requirements=["be kind"], validation_backend=SaysYes()
    ),
}


@pytest.mark.parametrize("how", ASKING)
async def test_a_model_that_cannot_judge_is_not_asked_to_in_a_stream(how: str) -> None:
    backend = ScriptedBackend("Hello.") if how == "for validation" else SaysYes("Hello.")
    async with start_session(backend=backend) as m:
        with pytest.raises(InvalidOption, match=r"cannot judge.*LLMJudge\(.*backend="):
            async with ASKING[how](m):
                pass
    assert backend.calls == []


async def test_a_model_that_cannot_judge_is_not_asked_to_anywhere_else() -> None:
    backend = SaysYes("Hello.")
    async with start_session(backend=backend) as m:
        for ask in (
            lambda: m.ainstruct("go", requirements=["be kind"]),
            lambda: m.ainstruct("go", preconditions=[req("be kind")]),
            lambda: m.aact(Instruction("go", ["be kind"]), strategy=RejectionSamplingStrategy()),
            lambda: m.ainstruct("go", strategy=BestOfNStrategy(2, requirements=["be kind"])),
            lambda: m.avalidate("be kind", output="Hello."),
            lambda: req("be kind").validate(m.backend, finished("Hello.")),
        ):
            with pytest.raises(InvalidOption, match="cannot judge"):
                await ask()  # type: ignore[no-untyped-call]
        with pytest.raises(InvalidOption, match="cannot judge"):
            LLMJudge("How kind?", backend=m.backend)
    assert backend.calls == []


async def test_a_model_that_cannot_judge_writes_what_others_judge() -> None:
    writer = SaysYes(lambda _: "Hello.")
    judges = ScriptedBackend(judge=lambda _: True)
    short = check("short", simple_validate(lambda text: len(text) < 10))
    async with start_session(backend=writer) as m:
        requirements = [LLMJudge("How kind?", backend=judges), short]
        async with m.stream("go", requirements=requirements) as result:
            await result.acomplete()
        assert all(result.final_validations)
        async with m.stream("go", requirements=["be kind"], validation_backend=judges) as result:
            await result.acomplete()
        assert all(result.final_validations)
        assert await m.ainstruct("go", requirements=requirements, await_result=True)
        assert await m.ainstruct("go", requirements=["be kind"], strategy=None, await_result=True)
    assert not any(call.judged for call in writer.calls)


async def test_what_wraps_a_backend_says_whether_it_judges(tmp_path: object) -> None:
    async with start_session(backend=SaysYes()) as m:
        assert m.backend.judges is False
    for wrapped in (FailingBackend(SaysYes()), Recording(SaysYes(), f"{tmp_path}/file.json")):
        assert wrapped.judges is False
    assert ScriptedBackend.judges is True


# --- an attempt asks once about a piece --------------------------------------------------------------------


class Twice(Requirement):
    """Two passes over the same text by copies of one judge, as editors have them."""

    def __init__(self, judge: LLMJudge, about: Callable[[], AbstractAsyncContextManager[object]]):
        super().__init__("judged twice", check_only=True)
        self.judge = judge
        self.about = about

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        with self.about():  # type: ignore[attr-defined]
            await copy.copy(self.judge).stream_validate(chunk, backend=backend, ctx=ctx)
        return await copy.copy(self.judge).stream_validate(chunk, backend=backend, ctx=ctx)

    async def validate(
        self,
        backend: Backend,
        ctx: Context,
        *,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
    ) -> ValidationResult:
        return ValidationResult(True)


async def test_a_piece_is_asked_about_once_in_an_attempt_and_again_in_the_next() -> None:
    backend = ScriptedBackend(lambda _: "One. Two. One.", judge=lambda _: True)
    judge = LLMJudge("How kind?", every=1)
    async with start_session(backend=backend) as m:
        for count in (2, 4):
            requirements = [Twice(judge, nullcontext), Twice(judge, nullcontext)]
            async with m.stream("go", requirements=requirements) as result:
                await result.acomplete()
            assert result.completed
            assert sum(call.judged for call in backend.calls) == count


async def test_other_text_before_it_is_another_question() -> None:
    backend = ScriptedBackend(lambda _: "One. Two. One.", judge=lambda _: True)
    async with (
        start_session(backend=backend) as m,
        m.stream("go", requirements=[LLMJudge("How?", every=1, window=9)]) as result,
    ):
        await result.acomplete()
    assert sum(call.judged for call in backend.calls) == 3 + 1  # and the whole


async def test_who_was_cancelled_in_the_middle_leaves_the_question_to_the_next() -> None:
    answers = iter([[Stall()], GOOD])
    backend = ScriptedBackend("One.", judge=lambda _: next(answers))
    requirement = Twice(LLMJudge("How?", every=1), lambda: anyio.move_on_after(1))  # type: ignore[arg-type, return-value]
    async with (
        start_session(backend=backend) as m,
        m.stream("go", requirements=[requirement]) as result,
    ):
        await result.acomplete()
        assert result.completed
    assert [call.outcome for call in backend.calls if call.judged] == ["cancelled", "ended"]


async def test_outside_of_a_run_every_call_asks() -> None:
    backend = ScriptedBackend(judge=lambda _: True)
    judge = LLMJudge("How?", every=1)
    async with start_session(backend=backend) as m:
        for _ in range(2):
            await judge.stream_validate("One.", backend=m.backend, ctx=SimpleContext())
    assert len(backend.calls) == 2


async def test_a_judge_can_be_copied_and_pickled() -> None:
    judge = LLMJudge("How?", every=1)
    backend = ScriptedBackend(judge=lambda _: True)
    for one in (copy.copy(judge), copy.deepcopy(judge), pickle.loads(pickle.dumps(judge))):
        async with start_session(backend=backend) as m:
            assert await one.stream_validate("One.", backend=m.backend, ctx=SimpleContext())
