"""A thunk is returned at once, already generating; its value is one, for everybody who awaits it."""

from __future__ import annotations

import gc
import traceback
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from mellea_sc import (
    Backend,
    BackendError,
    Delta,
    DependencyFailed,
    GenerationCancelled,
    GenerationRequest,
    Message,
    ModelOption,
    ModelOutputThunk,
    Requirement,
    SimpleComponent,
    SimpleContext,
    ThunkNotComputed,
    ValidationResult,
    start_session,
)
from mellea_sc.backends import Usage
from mellea_sc.core import GenerationInfo
from mellea_sc.core.base import Context
from mellea_sc.runtime.generation.bound import opened_scope
from mellea_sc.testing import Fail, Pause, Script, ScriptedBackend, Stall, cancel_everywhere

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]

STREAM = {ModelOption.STREAM: True}
BOTH = pytest.mark.parametrize("options", [{}, STREAM], ids=["whole", "streamed"])


def slow(seconds: float = 1.0) -> ScriptedBackend:
    return ScriptedBackend(lambda _: ["some ", Pause(seconds), "text"])


async def passes(_: Context) -> ValidationResult:
    await anyio.sleep(1)
    return ValidationResult(True)


# --- at once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ainstruct", "aact", "aquery", "atransform"])
async def test_three_take_the_time_of_one(method: str) -> None:
    async with start_session(backend=slow()) as m:
        ask = getattr(m, method)
        arguments = ({"a": 1}, "?") if method in ("aquery", "atransform") else ("?",)
        began = anyio.current_time()
        thunks = [await ask(*arguments) for _ in range(3)]
        assert anyio.current_time() == began
        assert [thunk.is_computed() for thunk in thunks] == [False] * 3
        assert [await thunk for thunk in thunks] == ["some text"] * 3
        assert anyio.current_time() == pytest.approx(began + 1)
        assert [thunk.is_computed() for thunk in thunks] == [True] * 3


async def test_the_whole_loop_of_validating_and_repairing_runs_behind_the_thunk() -> None:
    verdicts = iter([False, True] * 3)

    async def second_time(_: Context) -> ValidationResult:
        await anyio.sleep(1)
        return ValidationResult(next(verdicts))

    async with start_session(backend=slow()) as m:
        began = anyio.current_time()
        thunk = await m.ainstruct("?", requirements=[Requirement("r", second_time)])
        assert anyio.current_time() == began
        assert not thunk.is_computed()
        await anyio.sleep(10)
        assert thunk.is_computed()
        assert thunk.generation.attempts == 2
        began = anyio.current_time()
        assert await thunk == "some text"
        assert anyio.current_time() == began


async def test_several_instructions_with_requirements_take_the_time_of_one() -> None:
    async with start_session(backend=slow()) as m:
        began = anyio.current_time()
        thunks = [await m.ainstruct("?", requirements=[Requirement("r", passes)]) for _ in range(3)]
        for thunk in thunks:
            await thunk
        assert anyio.current_time() == pytest.approx(began + 2)


async def test_achat_returns_the_finished_message() -> None:
    async with start_session(backend=slow()) as m:
        message = await m.achat("?")
        assert isinstance(message, Message)
        assert (message.role, message.content) == ("assistant", "some text")


async def test_avalidate_returns_the_finished_verdicts_in_order_and_in_the_time_of_one() -> None:
    async def fails(_: Context) -> ValidationResult:
        await anyio.sleep(2)
        return ValidationResult(False, reason="never")

    async with start_session(backend=slow()) as m:
        began = anyio.current_time()
        verdicts = await m.avalidate(
            [Requirement("a", fails), Requirement("b", passes)], output="text"
        )
        assert [verdict.as_bool() for verdict in verdicts] == [False, True]
        assert anyio.current_time() == pytest.approx(began + 2)
        (single,) = await m.avalidate(Requirement("b", passes), output="text", input="question")
        assert single


async def test_avalidate_waits_for_the_output_it_judges() -> None:
    def is_it(ctx: Context) -> ValidationResult:
        output = ctx.last_output()
        return ValidationResult(output is not None and output.value == "some text")

    async with start_session(backend=slow()) as m:
        thunk = await m.ainstruct("?")
        assert all(await m.avalidate(Requirement("r", is_it), output=thunk))
        assert all(await m.avalidate(Requirement("r", is_it)))


@pytest.mark.parametrize("await_result", [True, False])
async def test_await_result_returns_the_thunk_computed(await_result: bool) -> None:
    async with start_session(backend=slow()) as m:
        for thunk in (
            await m.ainstruct("?", await_result=await_result),
            await m.aquery("object", "?", await_result=await_result),
        ):
            assert thunk.is_computed() is await_result


async def test_a_call_that_waits_cancels_what_nobody_else_has() -> None:
    backend = slow(60)
    async with start_session(backend=backend) as m:
        for call in (
            m.ainstruct("?", await_result=True),
            m.ainstruct("?", return_sampling_results=True),
            m.achat("?"),
        ):
            with anyio.move_on_after(1) as scope:
                await call
            assert scope.cancelled_caught
    assert [call.outcome for call in backend.calls] == ["cancelled"] * 3


# --- reading too early ----------------------------------------------------------------------------------


@BOTH
async def test_reading_before_it_is_computed_is_an_error_that_says_to_await(
    options: dict[str, object],
) -> None:
    async with start_session(backend=slow()) as m:
        thunk = await m.ainstruct("say {braces}", model_options=options)
        await anyio.sleep(0.5)
        for read in (lambda: thunk.value, lambda: str(thunk), lambda: f"prompt: {thunk}"):
            with pytest.raises(ThunkNotComputed, match="await"):
                read()
        assert "generating" in repr(thunk)
        await thunk
        assert str(thunk) == f"{thunk}" == thunk.value == "some text"
        assert "computed" in repr(thunk)


async def test_reading_a_failed_or_cancelled_one_is_an_error_too_and_its_repr_is_safe() -> None:
    async with start_session(backend=ScriptedBackend(["half ", Fail(BackendError("bad"))])) as m:
        failed = await m.ainstruct("?")
        with pytest.raises(BackendError):
            await failed
        assert "failed" in repr(failed)
    async with start_session(backend=slow()) as m:
        cancelled = await m.ainstruct("?")
        cancelled.cancel()
        with pytest.raises(GenerationCancelled):
            await cancelled
        assert "cancelled" in repr(cancelled)
    for thunk in (failed, cancelled):
        with pytest.raises(ThunkNotComputed):
            str(thunk)


async def test_a_thunk_made_of_a_text_is_computed() -> None:
    info = GenerationInfo(model="m")
    thunk = ModelOutputThunk.computed("text", generation=info)
    assert thunk.is_computed()
    assert await thunk == thunk.value == str(thunk) == thunk.text_so_far == "text"
    assert await thunk.astream() == "text"
    assert [delta async for delta in thunk] == ["text"]
    assert thunk.generation is info
    assert thunk.parsed_repr == "text"
    assert (thunk.error, thunk.cancelled) == (None, False)
    thunk.cancel()
    async with thunk:
        pass
    assert thunk.value == "text"


# --- many waiters -----------------------------------------------------------------------------------------


@BOTH
async def test_any_number_of_tasks_may_await_one_thunk(options: dict[str, object]) -> None:
    backend = slow()
    values: list[str] = []
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", model_options=options)

        async def wait() -> None:
            values.append(await thunk)

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(wait)
        values.append(await thunk.avalue())
    assert values == ["some text"] * 21
    assert len(backend.calls) == 1


@BOTH
async def test_cancelling_a_waiter_does_not_cancel_the_generation(
    options: dict[str, object],
) -> None:
    backend = slow()
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", model_options=options)
        for _ in range(3):
            with anyio.move_on_after(0.1):
                await thunk
        assert await thunk == "some text"
    assert [call.outcome for call in backend.calls] == ["ended"]


@BOTH
async def test_awaiting_again_after_a_failure_raises_the_same_failure(
    options: dict[str, object],
) -> None:
    failure = BackendError("bad")
    async with start_session(backend=ScriptedBackend(["half ", Fail(failure)])) as m:
        thunk = await m.ainstruct("?", model_options=options)
        depths = []
        for _ in range(3):
            with pytest.raises(BackendError) as caught:
                await thunk
            assert caught.value is failure
            depths.append(len(caught.traceback))
        assert len(set(depths[1:])) == 1, "its traceback grows"
        assert thunk.error is failure
        assert thunk.text_so_far == "half "


async def test_every_waiter_is_told_of_a_failure() -> None:
    failure = BackendError("bad")
    seen: list[BaseException] = []
    async with start_session(backend=ScriptedBackend([Pause(1), Fail(failure)])) as m:
        thunk = await m.ainstruct("?")

        async def wait() -> None:
            with pytest.raises(BackendError) as caught:
                await thunk
            seen.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(wait)
    assert seen == [failure] * 5


@BOTH
async def test_who_is_cancelled_together_with_a_generation_sees_no_failure(
    options: dict[str, object],
) -> None:
    seen: list[Exception] = []

    async def program() -> None:
        async with start_session(backend=slow(0.1)) as m:
            thunk = await m.ainstruct("?", model_options=options)

            async def wait() -> None:
                try:
                    await thunk
                except Exception as error:
                    seen.append(error)
                    raise

            async def read() -> None:
                try:
                    async for _ in thunk:
                        pass
                except Exception as error:
                    seen.append(error)
                    raise

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                tasks.start_soon(read)
            await m.avalidate(Requirement("r", passes), output=thunk)

    await cancel_everywhere(program)
    assert not seen


async def test_an_await_of_a_computed_thunk_is_a_checkpoint() -> None:
    async with start_session(backend=slow()) as m:
        thunk = await m.ainstruct("?")
        await thunk
        with anyio.CancelScope() as scope:
            scope.cancel()
            await thunk
            raise AssertionError
        assert scope.cancelled_caught


# --- cancelling ----------------------------------------------------------------------------------------


class SlowToClose(Backend):
    """Never answers, and takes ten seconds to close."""

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        async def deltas() -> AsyncGenerator[Delta]:
            await anyio.sleep_forever()
            yield Delta("")

        try:
            yield deltas()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(10)


@pytest.mark.parametrize("by", ["the thunk", "its scope", "the session"])
async def test_one_that_is_being_cancelled_is_not_late_however_long_its_cleanup_takes(
    by: str,
) -> None:
    options = {ModelOption.STREAM_TIMEOUT: 2.0}
    async with start_session(backend=SlowToClose(), model_options=options) as m:
        if by == "its scope":
            async with opened_scope(await m._life.nursery()) as backend:
                thunk, _ = await backend.generate_from_context("?", SimpleContext())
                await anyio.sleep(1)
        else:
            thunk = await m.ainstruct("?")
            await anyio.sleep(1)
            thunk.cancel() if by == "the thunk" else m.cancel()
            with anyio.CancelScope(shield=True):
                await thunk.wait_finished()
        assert thunk.cancelled
        assert thunk.error is None


async def test_a_cancelled_one_is_freed_with_its_last_reference() -> None:
    gc.collect()
    gc.disable()
    try:
        async with start_session(backend=ScriptedBackend(lambda _: ["some ", Stall()])) as m:
            thunk = await m.ainstruct("?")
            await anyio.wait_all_tasks_blocked()
            thunk.cancel()
            await thunk.wait_finished()
            await anyio.wait_all_tasks_blocked()
            reference = weakref.ref(thunk)
            del thunk
            assert reference() is None
    finally:
        gc.enable()


@BOTH
async def test_cancel_closes_the_connection_and_avalue_says_so_with_what_was_there(
    options: dict[str, object],
) -> None:
    usage = Usage(3, 1)

    def steps(_: GenerationRequest) -> Script:
        from mellea_sc import Delta

        return Script(["some ", Delta("text", usage=usage), Stall()])

    backend = ScriptedBackend(steps)
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", model_options=options)
        await anyio.wait_all_tasks_blocked()
        thunk.cancel("enough")
        for _ in range(2):
            with pytest.raises(GenerationCancelled, match="enough") as caught:
                await thunk
            assert caught.value.reason == "enough"
            assert caught.value.partial_text == "some text"
            assert caught.value.usage == usage
        assert backend.calls[0].outcome == "cancelled"
        assert thunk.cancelled
        assert thunk.error is None
        thunk.cancel("again")
        with pytest.raises(GenerationCancelled, match="enough"):
            await thunk


async def test_a_thunk_cancelled_before_its_task_has_run_asks_nothing() -> None:
    backend = slow()
    async with start_session(backend=backend, context_type="chat") as m:
        thunk = await m.ainstruct("?")
        thunk.cancel()
        with pytest.raises(GenerationCancelled):
            await thunk
        assert str(await m.achat("?")) == "some text"
    assert len(backend.calls) == 1


async def test_cancelling_a_finished_one_changes_nothing() -> None:
    async with start_session(backend=slow()) as m:
        thunk = await m.ainstruct("?")
        await thunk
        thunk.cancel()
        assert await thunk == "some text"
        assert not thunk.cancelled


async def test_leaving_its_block_early_cancels_and_waits_for_the_cleanup() -> None:
    backend = slow(60)
    async with start_session(backend=backend) as m:
        async with await m.ainstruct("?") as thunk:
            await anyio.sleep(1)
        assert thunk.cancelled
        assert backend.calls[0].outcome == "cancelled"
        with pytest.raises(ZeroDivisionError):
            async with await m.ainstruct("?"):
                raise ZeroDivisionError
        with anyio.move_on_after(1):
            async with await m.ainstruct("?") as third:
                await third
        assert third.cancelled
        async with await m.ainstruct("?") as fourth:
            assert await fourth == "some text"
    assert [call.outcome for call in backend.calls][-1] == "ended"


async def test_cancelling_while_it_validates_cancels_the_validators() -> None:
    ended: list[str] = []

    async def endless(_: Context) -> ValidationResult:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("validator")
        raise AssertionError

    async with start_session(backend=ScriptedBackend("text")) as m:
        thunk = await m.ainstruct("?", requirements=[Requirement("r", endless)])
        await anyio.wait_all_tasks_blocked()
        async with thunk:
            pass
        assert ended == ["validator"]
        assert thunk.cancelled


# --- thunks where text goes --------------------------------------------------------------------------------


def echo() -> ScriptedBackend:
    return ScriptedBackend(lambda r: [Pause(1), f"<{r.messages[-1].content}>"])


@BOTH
async def test_a_thunk_may_stand_wherever_text_goes(options: dict[str, object]) -> None:
    async with start_session(backend=echo()) as m:
        began = anyio.current_time()
        a = await m.aact("a", model_options=options)
        users = [
            await m.ainstruct("about {{x}}", user_variables={"x": a}),
            await m.ainstruct("rely", grounding_context={"x": a}),
            await m.aact(a),
            await m.aact(Message("user", a)),
            await m.aact(SimpleComponent(x=a)),
            await m.aquery(a, "?"),
        ]
        assert anyio.current_time() == began
        for user in users:
            assert "<a>" in await user
        assert anyio.current_time() == pytest.approx(began + 2)


async def test_one_thunk_may_feed_many_and_is_generated_once() -> None:
    backend = echo()
    async with start_session(backend=backend) as m:
        a = await m.aact("a")
        fed = [await m.ainstruct("{{x}}", user_variables={"x": a}) for _ in range(10)]
        assert [await thunk for thunk in fed] == ["<<a>>"] * 10
    assert len(backend.calls) == 11


async def test_a_chain_of_thunks_is_computed_in_order() -> None:
    async with start_session(backend=echo()) as m:
        thunk = await m.aact("a")
        for _ in range(5):
            thunk = await m.aact(thunk)
        assert await thunk == "<<<<<<a>>>>>>"


async def test_if_a_thunk_fails_its_dependents_fail_naming_it() -> None:
    failure = BackendError("bad")
    async with start_session(backend=ScriptedBackend([Pause(1), Fail(failure)])) as m:
        first = await m.aact("the first question")
        second = await m.ainstruct("{{x}}", user_variables={"x": first})
        third = await m.aact(second)
        with pytest.raises(DependencyFailed, match="the first question") as caught:
            await second
        assert caught.value.__cause__ is failure
        with pytest.raises(DependencyFailed) as caught:
            await third
        assert isinstance(caught.value.__cause__, DependencyFailed)


async def test_an_error_behind_a_long_chain_of_thunks_says_where_it_began_and_what_failed_last() -> (
    None
):
    begun: list[str] = []

    def answer(request: GenerationRequest) -> Fail:
        begun.append(request.messages[-1].content)
        return Fail(BackendError("bad"))

    async with start_session(backend=ScriptedBackend(answer), retries=0, on_error="log") as m:
        thunk = await m.ainstruct("the first")
        for number in range(30):
            thunk = await m.ainstruct(f"number {number} {{{{x}}}}", user_variables={"x": thunk})
        with pytest.raises(DependencyFailed, match=r"number 28 .*failed: bad$") as caught:
            await thunk
    causes, error = 0, caught.value
    while isinstance(error.__cause__, DependencyFailed):
        causes, error = causes + 1, error.__cause__
        assert len(traceback.extract_tb(error.__traceback__)) <= 1
    assert causes == 29
    assert begun == ["the first"]


async def test_if_a_thunk_is_cancelled_its_dependents_fail_naming_it() -> None:
    async with start_session(backend=slow(60)) as m:
        first = await m.aact("the first question")
        second = await m.aact(first)
        await anyio.wait_all_tasks_blocked()
        first.cancel("enough")
        with pytest.raises(DependencyFailed, match="the first question"):
            await second


async def test_a_failure_is_not_lost_if_its_dependent_is_cancelled() -> None:
    failure = BackendError("bad")
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=ScriptedBackend([Pause(1), Fail(failure)])) as m:
            first = await m.aact("a")
            second = await m.aact(first)
            await anyio.wait_all_tasks_blocked()
            second.cancel()
            await anyio.sleep(5)
    assert caught.value.exceptions == (failure,)


async def test_cancelling_a_dependent_leaves_what_it_depends_on() -> None:
    async with start_session(backend=echo()) as m:
        a = await m.aact("a")
        b = await m.aact(a)
        await anyio.wait_all_tasks_blocked()
        b.cancel()
        assert await a == "<a>"


async def test_a_thunk_of_one_session_may_feed_another() -> None:
    async with start_session(backend=echo()) as one, start_session(backend=echo()) as two:
        a = await one.aact("a")
        assert await (await two.aact(a)) == "<<a>>"


# --- what is known about a generation -----------------------------------------------------------------------


async def test_what_a_user_asks_about_a_generation_is_there() -> None:
    backend = ScriptedBackend(
        Script([Pause(1), "a", Pause(2), "b"], usage=Usage(5, 2), finish_reason="length")
    )
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?")
        await anyio.wait_all_tasks_blocked()
        assert thunk.generation.model == "scripted"
        assert thunk.generation.usage is None
        await thunk
        known = thunk.generation
    assert (known.model, known.provider, known.finish_reason) == ("scripted", "scripted", "length")
    assert known.usage is not None
    assert (known.usage.prompt_tokens, known.usage.completion_tokens) == (5, 2)
    assert known.usage.total_tokens == 7
    assert known.time_to_first_token == pytest.approx(1)
    assert known.total_time == pytest.approx(3)
    assert known.attempts == 1


async def test_attempts_and_tokens_are_summed_over_a_repair() -> None:
    verdicts = iter([False, True])
    backend = ScriptedBackend(
        lambda _: Script([Pause(1), "text"], usage=Usage(5, 2)),
    )
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct(
            "?", requirements=[Requirement("r", lambda _: ValidationResult(next(verdicts)))]
        )
        await thunk
        known = thunk.generation
        assert known.attempts == 2
        assert known.usage == Usage(10, 4)
        assert known.total_time == pytest.approx(2)
        assert thunk.sampling is not None
        assert thunk.sampling.success
        assert thunk.sampling.result_index == 1


async def test_the_time_of_a_failed_and_of_a_cancelled_generation_is_known() -> None:
    async with start_session(backend=ScriptedBackend([Pause(2), Fail(BackendError("bad"))])) as m:
        failed = await m.ainstruct("?")
        with pytest.raises(BackendError):
            await failed
    assert failed.generation.total_time == pytest.approx(2)
    assert failed.generation.time_to_first_token is None
    async with start_session(backend=slow(60)) as m:
        cancelled = await m.ainstruct("?")
        await anyio.sleep(3)
        async with cancelled:
            pass
    assert cancelled.generation.total_time == pytest.approx(3)


async def test_a_block_that_is_left_early_says_so_and_a_failed_thunk_shows_it() -> None:
    async with start_session(backend=ScriptedBackend([Stall()], Fail(BackendError("bad")))) as m:
        async with await m.ainstruct("?") as left:
            pass
        with pytest.raises(GenerationCancelled, match="its block was left"):
            await left
        failed = await m.ainstruct("?")
        with pytest.raises(BackendError):
            await failed
        assert repr(failed).startswith("<ModelOutputThunk failed: ")


async def test_closing_a_thunk_stops_its_generation_and_waits_for_its_end(no_leaks: None) -> None:
    async with start_session(backend=ScriptedBackend(["half ", Stall()], "whole")) as m:
        stalled = await m.ainstruct("?", model_options={ModelOption.STREAM: True})
        async with aclosing(stalled):
            assert await stalled.astream() == "half "
        assert stalled.cancelled
        with pytest.raises(GenerationCancelled, match="it was closed") as raised:
            await stalled
        assert raised.value.partial_text == "half "
        whole = await m.ainstruct("?")
        assert await whole == "whole"
        await whole.aclose()
        assert whole.value == "whole"
