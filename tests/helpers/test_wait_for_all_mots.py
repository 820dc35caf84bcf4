"""Waiting for several thunks: the first failure cancels the rest and is raised as itself."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from mellea_sc import (
    BackendError,
    GenerationCancelled,
    GenerationRequest,
    ModelOption,
    ModelOutputThunk,
    WrongEventLoop,
    start_session,
    wait_for_all_mots,
)
from mellea_sc.helpers import async_helpers
from mellea_sc.testing import Fail, Pause, Script, ScriptedBackend, cancel_everywhere

pytestmark = pytest.mark.anyio

STREAM = {ModelOption.STREAM: True}


def by_prompt(request: GenerationRequest) -> Script:
    """``"2"``: done in two seconds; ``"-2"``: fails in two."""
    seconds = float(request.messages[-1].content)
    end = Fail(BackendError(f"{seconds:g}")) if seconds < 0 else "done"
    return Script([Pause(abs(seconds)), end])


def backend() -> ScriptedBackend:
    return ScriptedBackend(by_prompt)


def test_it_is_where_the_missions_programs_import_it_from() -> None:
    assert async_helpers.wait_for_all_mots is wait_for_all_mots


@pytest.mark.usefixtures("no_leaks")
async def test_afterwards_all_are_computed_in_the_time_of_the_slowest() -> None:
    async with start_session(backend=backend()) as m:
        thunks = [
            await m.ainstruct(str(n), model_options=STREAM if n == 2 else None) for n in range(4)
        ]
        began = anyio.current_time()
        await wait_for_all_mots(thunks)
        assert anyio.current_time() == pytest.approx(began + 3)
        assert [thunk.value for thunk in thunks] == ["done"] * 4
        assert all(thunk.is_computed() for thunk in thunks)
        await wait_for_all_mots(thunks)


async def test_none_duplicates_and_computed_ones_are_fine() -> None:
    await wait_for_all_mots([])
    async with start_session(backend=backend()) as m:
        thunk = await m.ainstruct("1")
        await wait_for_all_mots([thunk, thunk, ModelOutputThunk.computed("text")])
        await wait_for_all_mots(iter([thunk]))
        assert thunk.value == "done"


@pytest.mark.usefixtures("no_leaks")
async def test_the_first_failure_cancels_the_rest_waits_for_them_and_is_raised_as_itself() -> None:
    source = backend()
    async with start_session(backend=source) as m:
        thunks = [await m.ainstruct(prompt) for prompt in ("0.5", "60", "-2", "-1", "60")]
        bystander = await m.ainstruct("3")
        began = anyio.current_time()
        with pytest.raises(BackendError, match=r"^-1$") as caught:
            await wait_for_all_mots(thunks)
        assert anyio.current_time() == pytest.approx(began + 1)
        assert caught.value is thunks[3].error
        assert thunks[0].value == "done"
        assert [thunk.cancelled for thunk in thunks] == [False, True, True, False, True]
        with pytest.raises(GenerationCancelled, match="another thunk"):
            await thunks[1]
        assert await bystander == "done"
    assert sorted(call.outcome for call in source.calls) == sorted(
        ["ended", "cancelled", "cancelled", "error", "cancelled", "ended"]
    )


async def test_one_that_has_failed_before_fails_the_waiting_at_once() -> None:
    async with start_session(backend=backend()) as m:
        failed, running = await m.ainstruct("-1"), await m.ainstruct("60")
        await anyio.sleep(2)
        with pytest.raises(BackendError):
            await wait_for_all_mots([running, failed])
        assert running.cancelled


async def test_one_that_is_cancelled_counts_as_failed() -> None:
    async with start_session(backend=backend()) as m:
        first, second = await m.ainstruct("60"), await m.ainstruct("60")
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                with pytest.raises(GenerationCancelled, match="enough"):
                    await wait_for_all_mots([first, second])

            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            first.cancel("enough")
        assert second.cancelled


async def test_cancelling_the_waiting_leaves_the_generations() -> None:
    async with start_session(backend=backend()) as m:
        thunks = [await m.ainstruct("1"), await m.ainstruct("2")]
        with anyio.move_on_after(0.5) as scope:
            await wait_for_all_mots(thunks)
        assert scope.cancelled_caught
        await wait_for_all_mots(thunks)
        assert [thunk.value for thunk in thunks] == ["done"] * 2


async def test_waiting_that_was_cancelled_leaves_nothing_behind() -> None:
    async with start_session(backend=backend()) as m:
        thunks = [await m.ainstruct("1"), await m.ainstruct("9")]
        for seconds in (0.1, 2):
            with anyio.move_on_after(seconds) as scope:
                await wait_for_all_mots(thunks)
            assert scope.cancelled_caught
        assert thunks[1].producer is not None
        assert thunks[1].producer.ended_callbacks == []


async def test_a_failure_that_comes_with_a_cancellation_is_not_lost() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=backend()) as m:
            thunks = [await m.ainstruct("-1"), await m.ainstruct("1")]
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(wait_for_all_mots, thunks)
                    await thunks[0].wait_finished()
                    scope.cancel()
    assert caught.value.exceptions == (thunks[0].error,)


async def test_a_thunk_of_another_loop_is_refused_and_nothing_is_cancelled() -> None:
    made: list[ModelOutputThunk] = []

    async def elsewhere() -> None:
        async with start_session(backend=backend()) as m:
            own = await m.ainstruct("0.01")
            with pytest.raises(WrongEventLoop):
                await wait_for_all_mots([own, *made])
            assert await own == "done"

    async with start_session(backend=backend()) as m:
        made.append(await m.ainstruct("100"))
        await anyio.wait_all_tasks_blocked()
        await anyio.to_thread.run_sync(anyio.run, elsewhere)
        assert not made[0].cancelled
        made[0].cancel()


async def test_it_can_be_cancelled_anywhere() -> None:
    async def program() -> None:
        async with start_session(backend=backend()) as m:
            thunks = [await m.ainstruct(prompt) for prompt in ("0.1", "-0.2", "1")]
            with pytest.raises(BackendError):
                await wait_for_all_mots(thunks)

    errors: list[BaseException] = []

    async def lenient() -> None:
        try:
            await program()
        except ExceptionGroup as group:  # a failure that nobody could be told of
            errors.extend(group.exceptions)

    assert await cancel_everywhere(lenient) > 10
    assert all(isinstance(error, BackendError) for error in errors)
