"""A model that scores: its threshold, its backend, and what becomes of a call that is cancelled."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import pytest

from mellea_sc import InvalidOption, LLMJudge, SimpleContext, UnclearJudgement, start_session
from mellea_sc.core.base import Context
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.testing import (
    Fail,
    ScriptedBackend,
    Stall,
    assert_no_leaks,
    cancel_everywhere,
    check_requirement,
)

pytestmark = pytest.mark.anyio


def said(score: object) -> str:
    return f'{{"score": {score}, "reason": "so it is"}}'


def finished(text: str) -> Context:
    return SimpleContext().add("prompt").add(ModelOutputThunk.computed(text))


@asynccontextmanager
async def bound(backend: ScriptedBackend):
    async with start_session(backend=backend) as m:
        yield m.backend


@pytest.mark.parametrize(("score", "passed"), [(0.7, True), (1, True), (0.69, False), (0, False)])
async def test_a_score_has_to_reach_the_threshold(score: float, passed: bool) -> None:
    backend = ScriptedBackend(said(score), said(score))
    judge = LLMJudge("How kind is it?", 0.7, every=1)
    async with bound(backend) as own:
        final = await judge.validate(own, finished("Dear all"))
        running = await judge.stream_validate("Dear all", backend=own, ctx=SimpleContext())
    assert (final.result, final.score) == (passed, score)
    assert (running.success, running.score) == ("pass" if passed else "fail", score)
    assert final.reason == f"the score is {score:g}, and 0.7 is needed: so it is"
    assert final.thunk is not None
    assert final.context is not None
    assert final.context.node_data is final.thunk
    assert "How kind is it?" in backend.calls[0].prompt
    assert "<text>\nDear all\n</text>" in backend.calls[0].prompt
    assert backend.calls[0].request.json_schema is not None


@pytest.mark.parametrize(
    "unclear",
    ["0.9", "good", said(1.1), said(-1), said("true"), said("NaN"), said('"1"'), "{}", "[1]", ""],
)
async def test_an_unclear_answer_is_asked_again_once(unclear: str) -> None:
    judge = LLMJudge("How kind is it?")
    backend = ScriptedBackend(unclear, said(0.9), unclear, unclear)
    async with bound(backend) as own:
        assert await judge.validate(own, finished("Dear all"))
        with pytest.raises(UnclearJudgement, match="How kind is it"):
            await judge.validate(own, finished("Dear all"))
    backend.assert_exhausted()


async def test_without_every_only_the_end_is_judged() -> None:
    backend = ScriptedBackend("One. Two.", judge=lambda _: True)
    async with (
        start_session(backend=backend) as m,
        m.stream("go", requirements=[LLMJudge("How kind is it?")]) as result,
    ):
        await result.acomplete()
    assert [verdict.score for verdict in result.final_validations] == [1.0]
    assert [call.judged for call in backend.calls] == [False, True]


async def test_the_window_is_shown_and_what_was_said_before_is_not() -> None:
    backend = ScriptedBackend(lambda _: said(1))
    async with bound(backend) as own:
        for window, ctx in (
            (20, finished("what was before").add("go").add(ModelOutputThunk.computed("just now"))),
            (20, finished("what was before").add("go")),
            (0, finished("what was before")),
        ):
            judge = LLMJudge("How kind is it?", every=1, window=window)
            await judge.stream_validate("Hello.", backend=own, ctx=ctx)
    prompts = [call.prompt for call in backend.calls]
    assert "<before>\njust now\n</before>" in prompts[0]
    assert not any("what was before" in prompt for prompt in prompts)
    assert not any("<before>" in prompt for prompt in prompts[1:])


@pytest.mark.parametrize("kind", ["bare", "another session's"])
async def test_its_own_backend_judges_and_a_cancelled_call_ends_there_too(kind: str) -> None:
    judges = ScriptedBackend(said(1), [Stall()])
    writer = ScriptedBackend("Hello. There. ")
    async with assert_no_leaks(), start_session(backend=judges) as other:
        judge = LLMJudge("How kind?", every=1, backend=judges if kind == "bare" else other.backend)
        async with (
            start_session(backend=writer) as m,
            m.stream("go", requirements=[judge]) as result,
        ):
            async for chunk in result.astream():
                assert chunk.strip() == "Hello."
                break
            await anyio.wait_all_tasks_blocked()
            assert [call.outcome for call in judges.calls] == ["ended", "running"]
        # the other session is still open, and nothing of the judge's runs in it any more
        assert [call.outcome for call in judges.calls] == ["ended", "cancelled"]
    assert len(writer.calls) == 1


@pytest.mark.parametrize("kind", ["bare", "another session's"])
async def test_an_error_of_its_own_backend_is_raised_as_itself(kind: str) -> None:
    judges = ScriptedBackend(Fail(OSError("broken")), "perhaps", "perhaps")
    async with start_session(backend=judges) as other, bound(ScriptedBackend()) as own:
        judge = LLMJudge("How kind?", backend=judges if kind == "bare" else other.backend)
        with pytest.raises(OSError, match="broken"):
            await judge.validate(own, finished("text"))
        with pytest.raises(UnclearJudgement):
            await judge.validate(own, finished("text"))


@pytest.mark.parametrize("kind", ["bare", "another session's"])
async def test_its_own_backend_leaves_nothing_behind_wherever_it_is_cancelled(kind: str) -> None:
    async def program() -> bool:
        judges = ScriptedBackend("perhaps", said(1))
        async with start_session(backend=judges) as other, bound(ScriptedBackend()) as own:
            judge = LLMJudge("How kind?", backend=judges if kind == "bare" else other.backend)
            return bool(await judge.validate(own, finished("text")))

    await cancel_everywhere(program, max_points=40)


@pytest.mark.parametrize("own", [False, True])
async def test_it_keeps_the_promises_of_requirements(own: bool) -> None:
    def judges() -> ScriptedBackend:
        return ScriptedBackend(lambda _: said(1))

    await check_requirement(
        lambda: LLMJudge("How kind?", every=1, window=5, backend=judges() if own else None),
        texts=["", "One. Two. Three.", "京 é\n\n" * 5],
        backend=judges,
    )


async def test_the_prompt_of_the_writer_says_its_description_alone() -> None:
    backend = ScriptedBackend(lambda _: "Hello.", judge=lambda _: True)
    async with start_session(backend=backend) as m:
        for judge in (LLMJudge("How kind?"), LLMJudge("How kind?", description="be kind")):
            await (await m.ainstruct("go", requirements=[judge]))
    asked = [call.prompt for call in backend.calls if not call.judged]
    assert "kind" not in asked[0]
    assert "- be kind" in asked[1]
    assert "How kind" not in asked[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": " "},
        {"prompt": "How?", "threshold": 1.5},
        {"prompt": "How?", "threshold": float("nan")},
        {"prompt": "How?", "threshold": True},
        {"prompt": "How?", "every": 0},
        {"prompt": "How?", "window": -1},
    ],
)
async def test_what_makes_no_judge_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidOption):
        LLMJudge(**wrong)


async def test_without_an_output_there_is_nothing_to_judge() -> None:
    with pytest.raises(InvalidOption, match="no output"):
        await LLMJudge("How?").validate(ScriptedBackend(), SimpleContext())
