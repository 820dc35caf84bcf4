"""Who shares a budget, who is cancelled when it is exceeded, and what is raised where."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext

import anyio
import anyio.lowlevel
import pytest
from kit import Check, asking_a_model, hanging
from limits_help import ASKED, ask, request, server_of, text_of, words

from mellea_sc import (
    BudgetExceeded,
    CBlock,
    DependencyFailed,
    ModelOption,
    RejectionSamplingStrategy,
    UnclearJudgement,
    check,
    limits,
    req,
    simple_validate,
    start_session,
    stream_with_chunking,
    wait_for_all_mots,
)
from mellea_sc.backends import Usage
from mellea_sc.core import Limits
from mellea_sc.runtime.budgets.limits import LimitedBlock
from mellea_sc.runtime.generation.bound import SpawnTarget, start_generation
from mellea_sc.runtime.generation.generation import Generation
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.testing import Fail, Script, ScriptedBackend, Stall

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


def judged(*, fail_open: bool = False) -> Check:
    """Asks a model about every chunk, and about the whole text."""
    judge = asking_a_model("judge")
    return Check(judge, final=judge, fail_open=fail_open)


# --- nested ------------------------------------------------------------------------------------------


async def test_nested_blocks_are_all_debited() -> None:
    async with start_session(backend=server_of(4)) as m:
        with limits() as outer:
            with limits() as inner:
                await (await ask(m))
            await (await ask(m))
    assert (inner.tokens, outer.tokens) == (5, 10)
    assert (inner.requests, outer.requests) == (1, 2)


async def test_an_inner_limit_leaves_the_outer_block_alone() -> None:
    async with start_session(backend=server_of(4)) as m:
        with limits(tokens=100) as outer:
            with pytest.raises(BudgetExceeded), limits(tokens=3):
                await (await ask(m))
            await (await ask(m))
    assert outer.tokens == 4 + 5


async def test_an_outer_limit_cancels_the_inner_block_too() -> None:
    async with start_session(backend=server_of(40)) as m:
        with pytest.raises(BudgetExceeded) as caught, limits(tokens=5), limits(tokens=100):
            await (await ask(m))
    assert caught.value.allowed == 5


async def test_limits_exceeded_together_are_raised_together() -> None:
    async with start_session(backend=server_of(40)) as m:
        with pytest.raises(BudgetExceeded) as caught, limits(tokens=5), limits(tokens=5):
            await (await ask(m))
    assert caught.value.allowed == 5
    assert caught.value.spent.tokens == 6


async def test_a_request_that_one_of_several_budgets_refuses_costs_none_of_them() -> None:
    backend = server_of(3)
    async with start_session(backend=backend) as m:
        with limits() as outer:
            with pytest.raises(BudgetExceeded), limits(requests=0) as inner:
                await (await ask(m))
            assert (outer.spent.requests, outer.tokens, outer.estimated) == (0, 0, False)
    assert backend.calls == []
    assert inner.requests == 0


async def test_an_inner_error_is_the_cause_of_the_outer_one_when_both_are_exceeded() -> None:
    async with start_session(backend=server_of(9)) as m:
        with pytest.raises(BudgetExceeded) as caught, limits(requests=1) as outer:
            with pytest.raises(BudgetExceeded) as inner, limits(tokens=5):
                await (await ask(m))
            with anyio.CancelScope(shield=True), pytest.raises(BudgetExceeded):
                async with m.backend.open(request(ASKED)):
                    pass
            raise inner.value
    assert outer.requests == 1
    assert caught.value.limit == "requests"
    assert caught.value.__cause__ is inner.value


# --- shared --------------------------------------------------------------------------------------------


async def test_two_thunks_under_one_budget_are_both_closed() -> None:
    backend = server_of(50)
    async with start_session(backend=backend) as m:
        with pytest.raises(BudgetExceeded) as caught, limits(tokens=20):
            one, other = await ask(m), await ask(m)
            await one
        await one.wait_finished()
        await other.wait_finished()
        for thunk in (one, other):
            assert thunk.cancelled
            with pytest.raises(BudgetExceeded) as of_thunk:
                await thunk
            assert of_thunk.value.partial_text == thunk.text_so_far
            assert of_thunk.value.allowed == 20
    assert 21 <= caught.value.spent.tokens <= 22, "both had a delta at that moment"
    assert all(call.outcome in ("closed", "cancelled") for call in backend.calls)
    assert [call.ended_at for call in backend.calls] == [pytest.approx(1.0)] * 2


async def test_wait_for_all_mots_raises_the_blocks_error() -> None:
    backend = server_of(50)
    async with start_session(backend=backend) as m:
        with pytest.raises(BudgetExceeded) as caught, limits(tokens=20):
            await wait_for_all_mots([await ask(m) for _ in range(3)])
    assert caught.value.spent.requests == 3
    assert not any(call.outcome in ("running", "ended") for call in backend.calls)


async def test_waiting_for_all_after_the_block_raises_the_first_failure_as_itself() -> None:
    async with start_session(backend=server_of(50)) as m:
        with limits(tokens=20):
            thunks = [await ask(m) for _ in range(3)]
        with pytest.raises(BudgetExceeded):
            await wait_for_all_mots(thunks)
        assert all(thunk.cancelled for thunk in thunks)
        for thunk in thunks:
            with pytest.raises(BudgetExceeded):
                await thunk


async def test_a_repair_loop_and_its_judges_share_the_budget() -> None:
    backend = ScriptedBackend(lambda _: words(3), judge=lambda _: words(2, usage=Usage(1, 2)))
    async with start_session(backend=backend) as m:
        wanted = [check("never", simple_validate(lambda _: False))]
        strategy = RejectionSamplingStrategy(loop_budget=5)
        with pytest.raises(BudgetExceeded) as caught, limits(requests=3) as spent:
            thunk = await m.ainstruct("count", requirements=wanted, strategy=strategy)
            await thunk
        await thunk.wait_finished()
        assert thunk.cancelled
        with pytest.raises(BudgetExceeded) as of_thunk:
            await thunk
    assert of_thunk.value.partial_text == text_of(3), "the last that was paid for"
    assert caught.value.partial_text == text_of(3)
    assert len(backend.calls) == spent.requests == 3


async def test_a_judge_that_is_asked_is_debited() -> None:
    backend = ScriptedBackend(lambda _: words(3), judge=lambda _: True)
    async with start_session(backend=backend) as m:
        with limits() as spent:
            await (await m.ainstruct("count", requirements=[req("be kind")]))
            assert spent.requests == 2
            await m.avalidate(req("be kind"), output="me")
    assert spent.requests == 3


async def test_two_judges_that_are_cut_at_once_are_one_error() -> None:
    backend = ScriptedBackend(
        lambda one: words(3) if "judge" not in one.messages[-1].content else words(50)
    )
    async with start_session(backend=backend) as m:
        with pytest.raises(BudgetExceeded), limits(tokens=60):
            thunk = await m.ainstruct("count", requirements=[judged(), judged()])
            await thunk
        await thunk.wait_finished()
        assert isinstance(thunk.error, BudgetExceeded)


async def test_a_judge_that_was_cut_does_not_pass_because_it_may_fail_open() -> None:
    backend = ScriptedBackend(
        lambda one: words(3) if "judge" not in one.messages[-1].content else words(50)
    )
    async with start_session(backend=backend) as m:
        with limits(tokens=60):
            thunk = await m.ainstruct(
                "count", requirements=[judged(fail_open=True), judged(fail_open=True)]
            )
        with pytest.raises(BudgetExceeded):
            await thunk


async def test_what_makes_no_request_at_the_moment_ends_too() -> None:
    async with start_session(backend=ScriptedBackend("an answer")) as m:
        with pytest.raises(BudgetExceeded), limits(seconds=5):
            thunk = await m.ainstruct("?", requirements=[Check(final=hanging)])
            await thunk
        with anyio.fail_after(1):
            await thunk.wait_finished()
        assert isinstance(thunk.error, BudgetExceeded)
        assert thunk.error.partial_text == "an answer"


async def test_a_request_that_waits_for_a_slot_ends_and_was_never_sent() -> None:
    backend = ScriptedBackend(lambda _: [Stall()])
    async with start_session(backend=backend, max_concurrency=1) as m:
        blocker = await ask(m)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(BudgetExceeded), limits(seconds=5) as spent:
            thunk = await ask(m)
            await thunk
        await thunk.wait_finished()
        blocker.cancel()
    assert len(backend.calls) == 1
    assert spent.requests == 0


async def test_a_thunk_from_outside_is_not_debited_and_not_cancelled() -> None:
    async with start_session(backend=server_of(20)) as m:
        thunk = await ask(m)
        with pytest.raises(BudgetExceeded), limits(tokens=0, seconds=1) as spent:
            await thunk
        assert await thunk == text_of(20)
    assert spent.tokens == 0


async def test_what_depends_on_a_thunk_that_was_cut_is_cut() -> None:
    async with start_session(backend=server_of(20)) as m:
        with pytest.raises(BudgetExceeded), limits(tokens=10):
            one = await ask(m)
            other = await m.aact(one, strategy=None)
            await other
        await other.wait_finished()
        assert other.cancelled


async def test_what_depends_on_it_from_outside_fails_as_ever() -> None:
    async with start_session(backend=server_of(20)) as m:
        with limits(tokens=10):
            one = await ask(m)
        other = await m.aact(one, strategy=None)
        with pytest.raises(DependencyFailed, match="more than 10 tokens"):
            await other


async def test_thunks_that_start_under_an_exceeded_budget_make_no_request() -> None:
    backend = server_of(20)
    async with start_session(backend=backend) as m:
        with pytest.raises(BudgetExceeded), limits(tokens=10):
            try:
                await (await ask(m))
            finally:
                with anyio.CancelScope(shield=True):
                    late = await ask(m)
                    await late.wait_finished()
        assert late.cancelled
        with pytest.raises(BudgetExceeded):
            await late
    assert len(backend.calls) == 1


async def test_a_turn_that_was_cut_leaves_the_conversation_as_it_was() -> None:
    backend = server_of(20)
    async with start_session(backend=backend, context_type="chat") as m:
        with pytest.raises(BudgetExceeded), limits(tokens=10):
            await m.achat("hi")
        with anyio.fail_after(10):
            assert (await m.achat("again")).role == "assistant"
        assert len(m.ctx.as_list()) == 2


async def test_a_reader_gets_the_text_before_the_limit() -> None:
    async with start_session(backend=server_of(20)) as m:
        with limits(tokens=10):
            thunk = await m.aact(
                CBlock(ASKED), strategy=None, model_options={ModelOption.STREAM: True}
            )
        read: list[str] = []
        with pytest.raises(BudgetExceeded):
            async for text in thunk:
                read.append(text)  # noqa: PERF401 - it raises
    assert "".join(read) == text_of(10)


async def test_a_bare_sessions_tasks_are_under_the_block_that_starts_them() -> None:
    m = start_session(backend=server_of(20))
    with limits() as first:
        await (await ask(m))
    await (await ask(m))
    with pytest.raises(BudgetExceeded), limits(tokens=10):
        await (await ask(m))
    await m.aclose()
    assert first.tokens == 21


async def test_the_block_may_hold_the_session() -> None:
    backend = server_of(20)
    with pytest.raises(BudgetExceeded), limits(tokens=10):
        async with start_session(backend=backend) as m:
            await ask(m)
            await anyio.sleep_forever()
    assert backend.calls[0].outcome != "running"


async def test_tasks_of_the_block_are_under_it() -> None:
    async with start_session(backend=server_of(20)) as m:

        async def work() -> None:
            await (await ask(m))

        with pytest.raises(BudgetExceeded), limits(tokens=30) as spent:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(work)
                tasks.start_soon(work)
    assert 31 <= spent.tokens <= 32


# --- streams -----------------------------------------------------------------------------------------


def sentences(one: object) -> Script:
    asked = one.messages[-1].content  # type: ignore[attr-defined]
    if "judge" in asked:
        return Script(["yes"], delay=0.01, usage=Usage(1, 1))
    return Script([f"Number {n}. " for n in range(20)], delay=0.1, usage=Usage(1, 40))


async def test_a_stream_under_a_limit_is_cut_with_its_judges() -> None:
    backend = ScriptedBackend(sentences)
    async with start_session(backend=backend) as m:
        read: list[str] = []
        with pytest.raises(BudgetExceeded) as caught, limits(tokens=30):
            result = await stream_with_chunking(
                CBlock(ASKED), m.backend, m.ctx, requirements=[judged()]
            )
            async for chunk in result.astream():
                read.append(chunk)  # noqa: PERF401 - it is cancelled
        with anyio.fail_after(1):
            await result.wait_finished()
        assert result.error is not None
        error = result.error
        assert isinstance(error, BudgetExceeded)
        assert error.raised_elsewhere
    assert caught.value.spent.tokens >= 30, "a judge that was not asked costs nothing"
    assert read == [f"Number {n}." for n in range(len(read))]
    assert not result.completed
    assert not any(call.outcome == "running" for call in backend.calls)


async def test_a_stream_that_goes_on_after_the_block_raises_to_its_reader() -> None:
    async with start_session(backend=ScriptedBackend(sentences)) as m:
        with limits(tokens=30):
            result = await m.stream("?")
        with pytest.raises(BudgetExceeded):
            await result.acomplete()
        assert result.full_text.startswith("Number 0.")


async def test_a_stream_within_its_limits_is_complete() -> None:
    backend = ScriptedBackend(sentences)
    async with start_session(backend=backend) as m:
        with limits(requests=22, seconds=10) as spent:
            async with m.stream("?", requirements=[judged()]) as result:
                await result.acomplete()
    assert result.completed
    assert spent.requests == len(backend.calls) == 22


# --- the block, and what else ends it ----------------------------------------------------------------------


async def test_cancellation_from_outside_goes_before() -> None:
    with anyio.move_on_after(1) as scope:
        with limits(seconds=1):
            await anyio.sleep_forever()
        raise AssertionError("not reached")
    assert scope.cancelled_caught


async def test_a_deadline_outside_is_not_the_blocks() -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(1), limits(seconds=2):
        await anyio.sleep_forever()


async def test_native_cancellation_is_not_swallowed(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("asyncio only")
    async with start_session(backend=server_of(50)) as m:
        with limits(tokens=100) as spent:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await (await ask(m))
            assert spent.tokens > 5


async def test_an_error_of_the_block_is_raised_as_itself() -> None:
    with pytest.raises(ValueError, match="mine"), limits(tokens=1):
        raise ValueError("mine")


async def test_an_error_of_a_block_that_was_exceeded_is_raised_with_it() -> None:
    async with start_session(backend=server_of(20)) as m:
        with pytest.raises(ExceptionGroup) as caught, limits(tokens=10):
            try:
                await (await ask(m))
            finally:
                raise ValueError("in the cleanup")
    error, exceeded = caught.value.exceptions
    assert isinstance(error, ValueError)
    assert isinstance(exceeded, BudgetExceeded)
    assert not exceeded.raised_elsewhere


async def test_an_error_that_was_made_of_it_is_raised_as_itself() -> None:
    async with start_session(backend=server_of(20)) as m:
        with pytest.raises(KeyError, match="mine"), limits(tokens=2):
            with anyio.CancelScope(shield=True):
                try:
                    await (await ask(m))
                except BudgetExceeded as error:
                    raise KeyError("mine") from error


async def test_errors_that_are_their_own_causes_do_not_hang_it() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    with pytest.raises(ExceptionGroup) as caught, limits(requests=0):
        async with start_session(backend=server_of(1)) as m:
            with anyio.CancelScope(shield=True), pytest.raises(BudgetExceeded):
                async with m.backend.open(request(ASKED)):
                    pass
            raise one
    assert caught.value.exceptions[0] is one


async def test_a_group_with_the_blocks_own_errors_is_raised_without_them() -> None:
    async with start_session(backend=server_of(20)) as m:

        async def read(fail: Callable[[], None]) -> None:
            async with m.backend.open(request(ASKED)) as deltas:
                try:
                    async for _ in deltas:
                        pass
                finally:
                    fail()

        def fail() -> None:
            raise ValueError("mine")

        with pytest.raises(BudgetExceeded) as caught, limits(tokens=10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, lambda: None)
        assert not caught.value.raised_elsewhere
        with pytest.raises(ExceptionGroup) as both, limits(tokens=10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, lambda: None)
                tasks.start_soon(read, fail)
    group, exceeded = both.value.exceptions
    assert isinstance(group, ExceptionGroup)
    assert [str(error) for error in group.exceptions] == ["mine"]
    assert isinstance(exceeded, BudgetExceeded)


async def test_a_failing_backend_is_told_as_ever() -> None:
    async with start_session(backend=ScriptedBackend(Fail(UnclearJudgement("no")))) as m:
        with limits(tokens=10) as spent:
            thunk = await ask(m)
            with pytest.raises(UnclearJudgement):
                await thunk
    assert spent.requests == 1
    assert spent.estimated


async def test_an_interrupt_goes_before() -> None:
    class Stop(BaseException):
        pass

    async with start_session(backend=server_of(20)) as m:
        with pytest.raises(Stop), limits(tokens=1):
            try:
                await (await ask(m))
            finally:
                raise Stop


async def test_an_interrupt_among_the_cancelled_tasks_goes_before() -> None:
    class Stop(BaseException):
        pass

    stop = Stop()
    with pytest.raises(BaseExceptionGroup) as caught, limits(seconds=1):
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as cancelled:
            raise BaseExceptionGroup("of tasks", [cancelled, stop]) from None
    assert stop in caught.value.exceptions


async def test_a_block_that_was_exceeded_raises_although_it_came_to_its_end() -> None:
    async with start_session(backend=server_of(20)) as m:
        with pytest.raises(BudgetExceeded), limits(tokens=1):
            with anyio.CancelScope(shield=True):
                with pytest.raises(BudgetExceeded):
                    await (await ask(m))


async def test_leaving_in_another_task_is_an_error_as_for_any_scope() -> None:
    block = limits(tokens=10)

    async def enter() -> None:
        block.__enter__()
        await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup):  # the other task has lost its scope
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(enter)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RuntimeError):
                block.__exit__(None, None, None)
            tasks.cancel_scope.cancel()


# --- the limits of one call ----------------------------------------------------------------------------


async def started(m: object, backend_steps: int, allowed: Limits | None) -> ModelOutputThunk:
    """A thunk whose work has limits of its own, as a call's."""
    place: SpawnTarget = await m.backend.place()  # type: ignore[attr-defined]
    thunk = ModelOutputThunk(place.nursery)

    async def work(_: ModelOutputThunk, sink: Generation) -> None:
        with nullcontext() if allowed is None else LimitedBlock(allowed):
            for _ in range(backend_steps):
                inner = start_generation(place, CBlock(ASKED), m.ctx.without_items())  # type: ignore[attr-defined]
                sink.write(await inner)

    assert thunk.producer is not None
    thunk.producer.start(thunk, work, place.tasks)
    return thunk


async def test_the_limits_of_a_call_are_for_its_work_alone() -> None:
    backend = server_of(4)
    async with start_session(backend=backend) as m:
        allowed = Limits(requests=2)
        one, other = await started(m, 2, allowed), await started(m, 2, allowed)
        free = await started(m, 3, None)
        assert await one == await other == text_of(4) * 2
        assert await free == text_of(4) * 3


async def test_a_call_that_exceeds_its_limits_is_cancelled_and_says_so_to_whoever_awaits_it() -> (
    None
):
    async with start_session(backend=server_of(4)) as m:
        thunk = await started(m, 3, Limits(requests=2))
        for _ in range(2):
            with pytest.raises(BudgetExceeded) as caught:
                await thunk
        assert caught.value is thunk.error
        assert not caught.value.raised_elsewhere
        assert thunk.cancelled
        assert caught.value.partial_text == text_of(4)
        assert thunk.text_so_far == text_of(4) * 2


async def test_a_call_that_exceeds_its_limits_unobserved_is_not_lost() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=server_of(4)) as m:
            await started(m, 3, Limits(tokens=7))
    [error] = caught.value.exceptions
    assert isinstance(error, BudgetExceeded)


async def test_a_call_with_limits_in_a_block_with_limits_debits_both() -> None:
    async with start_session(backend=server_of(4)) as m:
        with limits() as spent:
            await (await started(m, 2, Limits(tokens=10)))
        assert spent.tokens == 10
        with pytest.raises(BudgetExceeded) as caught, limits(tokens=7):
            thunk = await started(m, 2, Limits(tokens=10))
            await thunk
        await thunk.wait_finished()
        assert isinstance(thunk.error, BudgetExceeded)
        assert thunk.error.allowed == caught.value.allowed == 7
