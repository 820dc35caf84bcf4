"""Asking again: rejection sampling, repair with the reasons, repair in the conversation, and the user's own."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest
from kit import Without, is_, sentences, slow

from mellea_sc import (
    BackendError,
    CBlock,
    ChatContext,
    Component,
    Context,
    GenerationCancelled,
    InvalidOption,
    ModelOption,
    RejectionSamplingStrategy,
    RepairTemplateStrategy,
    Requirement,
    SamplingResult,
    ValidationResult,
    start_session,
)
from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Thunk
from mellea_sc.stdlib import (
    Ask,
    AttemptResult,
    Choice,
    MultiTurnStrategy,
    PlannedStrategy,
    SamplingStrategy,
)
from mellea_sc.stdlib.sampling import BaseSamplingStrategy
from mellea_sc.testing import Fail, Script, ScriptedBackend, Stall

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]

Verdicts = Sequence[Sequence[tuple[Requirement, ValidationResult]]]


async def test_seeds_advance_with_each_attempt() -> None:
    backend = ScriptedBackend("a", "b", "c")
    async with start_session(backend=backend, model_options={ModelOption.SEED: 7}) as m:
        strategy = RejectionSamplingStrategy(loop_budget=3)
        assert await (await m.ainstruct("?", requirements=[is_("c")], strategy=strategy)) == "c"
    assert [call.request.options[ModelOption.SEED] for call in backend.calls] == [7, 8, 9]


async def test_a_hopeless_attempt_ends_at_its_first_failing_chunk() -> None:
    bad = sentences("Fine.", "A curse.", *["More."] * 50)
    backend = ScriptedBackend(bad, "Fine.")
    requirement = Without("curse")
    async with start_session(backend=backend) as m:
        began = anyio.current_time()
        result = await m.ainstruct("?", requirements=[requirement], return_sampling_results=True)
        assert anyio.current_time() == pytest.approx(began + 2)
    assert [call.outcome for call in backend.calls] == ["cancelled", "ended"]
    assert backend.calls[0].deltas_sent == 2
    assert (result.success, result.result_index, result.value) == (True, 1, "Fine.")
    assert [one.value for one in result.sample_generations] == ["Fine.", "Fine."]
    ((failed, verdict),) = result.sample_validations[0]
    assert failed is requirement
    assert verdict.reason == "curse in 'A curse.'"


async def test_a_requirement_that_only_validates_looks_at_no_chunk_and_asks_nothing() -> None:
    backend = ScriptedBackend("One. Two.", judge=lambda _: True)
    async with start_session(backend=backend) as m:
        await (await m.ainstruct("?", requirements=["be polite"]))
    assert [call.judged for call in backend.calls] == [False, True]


async def test_the_reasons_go_into_the_next_prompt_and_replace_those_before() -> None:
    backend = ScriptedBackend("curse", "oath", "fine")
    async with start_session(backend=backend) as m:
        result = await m.ainstruct(
            "Write.",
            requirements=[Without("curse"), Without("oath")],
            strategy=RepairTemplateStrategy(loop_budget=3),
            return_sampling_results=True,
        )
    first, second, third = (call.prompt for call in backend.calls)
    said = "Requirements:\n{}\n\nWrite."
    own = "- no curse\n- no oath"
    failed = "\n- an earlier answer failed by this: "
    assert first == said.format(own)
    assert second == said.format(own + failed + "curse in 'curse'")
    assert third == said.format(own + failed + "oath in 'oath'")
    assert (result.success, result.value, result.result_index) == (True, "fine", 2)


async def test_in_a_conversation_the_failure_is_told_and_the_session_keeps_the_good_turn() -> None:
    backend = ScriptedBackend("curse", "fine", "next")
    async with start_session(backend=backend, ctx=ChatContext()) as m:
        result = await m.aact(
            CBlock("Write."),
            requirements=[Without("curse")],
            strategy=MultiTurnStrategy(loop_budget=2),
            return_sampling_results=True,
        )
        assert [message.role for message in backend.calls[1].request.messages] == [
            "user",
            "assistant",
            "user",
        ]
        assert "curse in 'curse'" in backend.calls[1].prompt
        assert len(result.result_ctx.as_list()) == 4
        await m.achat("And?")
    said = [(message.role, message.content) for message in backend.calls[2].request.messages]
    assert said == [("user", "Write."), ("assistant", "fine"), ("user", "And?")]


async def test_a_conversation_that_forgets_cannot_be_told() -> None:
    async with start_session(backend=ScriptedBackend()) as m:
        with pytest.raises(InvalidOption, match="ChatContext"):
            await (await m.ainstruct("?", requirements=[is_("a")], strategy=MultiTurnStrategy()))


async def test_of_several_series_the_first_good_answer_ends_the_others() -> None:
    backend = ScriptedBackend(slow("bad", 1), Script([Stall()]), "bad", slow("good", 1))
    async with start_session(backend=backend) as m:
        began = anyio.current_time()
        result = await m.ainstruct(
            "?",
            requirements=[is_("good")],
            strategy=RejectionSamplingStrategy(loop_budget=2, concurrency_budget=3),
            return_sampling_results=True,
        )
        assert anyio.current_time() <= began + 2
    assert (result.success, result.value) == (True, "good")
    assert "cancelled" in [call.outcome for call in backend.calls]
    assert all(call.outcome != "running" for call in backend.calls)


async def test_series_that_all_fail_spend_their_budgets_and_no_more() -> None:
    backend = ScriptedBackend(lambda _: "bad")
    async with start_session(backend=backend) as m:
        result = await m.ainstruct(
            "?",
            requirements=[is_("good")],
            strategy=RepairTemplateStrategy(loop_budget=2, concurrency_budget=3),
            return_sampling_results=True,
        )
    assert not result.success
    assert len(backend.calls) == len(result.sample_generations) == 6


class Patient(BaseSamplingStrategy):
    """As a user writes it for Mellea."""

    @staticmethod
    def repair(
        old_ctx: Context,
        new_ctx: Context,
        past_actions: Sequence[Component | str | CBlock | Thunk],
        past_results: Sequence[Thunk],
        past_val: Verdicts,
    ) -> tuple[Component | str | CBlock | Thunk, Context]:
        assert len(past_actions) == len(past_results) == len(past_val)
        assert not past_val[-1][0][1]
        return CBlock(f"not {past_results[-1].value}"), old_ctx

    @staticmethod
    def select_from_failure(
        sampled_actions: Sequence[Component | str | CBlock | Thunk],
        sampled_results: Sequence[Thunk],
        sampled_val: Verdicts,
    ) -> int:
        return max(range(len(sampled_results)), key=lambda i: len(sampled_results[i].value))


async def test_a_strategy_as_users_write_it_for_mellea() -> None:
    backend = ScriptedBackend("a", "long", "b")
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", requirements=[is_("z")], strategy=Patient(loop_budget=3))
        assert await thunk == "long"
        assert thunk.sampling is not None
        assert (thunk.sampling.success, thunk.sampling.result_index) == (False, 1)
        assert thunk.generation.attempts == 3
    assert [call.prompt for call in backend.calls[1:]] == ["not a", "not long"]


class Twice(SamplingStrategy):
    """Asks twice and keeps the second answer."""

    async def sample(
        self,
        action: Component | str | CBlock | Thunk,
        context: Context,
        backend: Backend,
        requirements: Sequence[Requirement],
        **_: object,
    ) -> SamplingResult:
        asked: list[tuple[Thunk, Context]] = []
        for _number in range(2):
            thunk, ctx = await backend.generate_from_context(action, context)
            await thunk
            asked.append((thunk, ctx))
        return SamplingResult(
            result_index=1,
            success=True,
            sample_generations=[thunk for thunk, _ in asked],
            sample_validations=[[], []],
            sample_actions=[action] * 2,
            sample_contexts=[ctx for _, ctx in asked],
        )


async def test_a_strategy_with_a_sample_of_its_own() -> None:
    async with start_session(backend=ScriptedBackend(lambda _: "text")) as m:
        result = await m.ainstruct("?", strategy=Twice(), return_sampling_results=True)
        assert (result.value, result.success) == ("text", True)
        with pytest.raises(InvalidOption, match="PlannedStrategy"):
            await m.stream("?", strategy=Twice())  # type: ignore[arg-type]


async def test_a_strategy_of_ones_own_is_asked_even_without_requirements() -> None:
    async with start_session(backend=ScriptedBackend("First.", "Second.")) as m:
        thunk = await m.ainstruct("Count.", strategy=Twice())
        assert await thunk == "Second."
        assert thunk.generation.attempts == 2
        assert thunk.sampling is not None
        assert thunk.sampling.value == "Second."


class Planned(PlannedStrategy):
    """Asks what a test says."""

    def __init__(self, first: int, then: Sequence[Ask] | Choice | None, *, many: bool) -> None:
        self.first = first
        self.then = then
        self.concurrent = many

    def begin(self, action: Component | str | CBlock | Thunk, context: Context) -> Sequence[Ask]:
        return [Ask(action=action, context=context)] * self.first

    def after(self, past: Sequence[AttemptResult], running: int) -> Sequence[Ask] | Choice:
        if running:
            return ()
        return Choice(past[-1].number, past[-1].valid) if self.then is None else self.then


@pytest.mark.parametrize("many", [False, True])
async def test_a_planned_strategy_of_the_users(many: bool) -> None:
    async with start_session(backend=ScriptedBackend(lambda _: "text")) as m:
        strategy = Planned(2 if many else 1, None, many=many)
        thunk = await m.ainstruct("?", requirements=[is_("text")], strategy=strategy)
        assert await thunk == "text"
        for first, then in ((0, None), (1, ()), (1, Choice(7, True))):
            with pytest.raises(InvalidOption, match="Planned"):
                await (
                    await m.ainstruct(
                        "?", requirements=[is_("text")], strategy=Planned(first, then, many=many)
                    )
                )


async def test_what_is_no_strategy_is_refused_at_once() -> None:
    async with start_session(backend=ScriptedBackend()) as m:
        with pytest.raises(InvalidOption, match="strategy"):
            await m.ainstruct("?", strategy="rejection")  # type: ignore[call-overload]
        with pytest.raises(InvalidOption, match="strategy"):
            await m.stream("?", strategy="rejection")  # type: ignore[arg-type]


async def test_a_backends_error_is_not_asked_again() -> None:
    backend = ScriptedBackend(Fail(BackendError("down")), "good")
    async with start_session(backend=backend) as m:
        with pytest.raises(BackendError, match="down"):
            await (await m.ainstruct("?", requirements=[is_("good")]))
    assert len(backend.calls) == 1


@pytest.mark.parametrize("how", ["thunk", "session"])
async def test_a_cancelled_call_ends_its_attempt(how: str) -> None:
    backend = ScriptedBackend("bad", Script([Stall()]))
    with anyio.CancelScope():
        async with start_session(backend=backend, context_type="chat") as m:
            thunk = await m.ainstruct("?", requirements=[is_("good")])
            await anyio.wait_all_tasks_blocked()
            if how == "thunk":
                thunk.cancel()
                with pytest.raises(GenerationCancelled):
                    await thunk
            else:
                m.cancel()
    assert not m.ctx.as_list()
    assert [call.outcome for call in backend.calls] == ["ended", "cancelled"]


async def test_leaving_the_session_waits_for_the_whole_loop() -> None:
    backend = ScriptedBackend(slow("bad", 5), slow("good", 5))
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", requirements=[is_("good")])
    assert thunk.value == "good"
