"""A session without a block: the running event loop adopts it, and ends it when it ends itself."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest

from mellea_sc import (
    BackendError,
    GenerationCancelled,
    MelleaSession,
    ModelOption,
    ModelOutputThunk,
    SessionClosed,
    start_session,
)
from mellea_sc.testing import Fail, Pause, ScriptedBackend, Stall, cancel_everywhere

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed session:ResourceWarning"),
    pytest.mark.usefixtures("collected"),
]

NEVER_BEGAN = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
"""asyncio drops tasks that are cancelled before their first step, and what anyio wraps in them."""
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


def slow(seconds: float = 1.0) -> ScriptedBackend:
    return ScriptedBackend(lambda _: [Pause(seconds), "done"])


def stalled() -> ScriptedBackend:
    return ScriptedBackend(lambda _: ["some ", Stall()])


# --- within one loop --------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_first_method_has_the_loop_adopt_the_session() -> None:
    m = start_session(backend=slow())
    began = anyio.current_time()
    thunks = [await m.ainstruct(str(n)) for n in range(3)]
    assert not any(thunk.is_computed() for thunk in thunks)
    assert [await thunk for thunk in thunks] == ["done"] * 3
    assert anyio.current_time() == pytest.approx(began + 1)
    await m.aclose()


@pytest.mark.anyio
async def test_methods_called_at_once_share_one_adoption() -> None:
    m = start_session(backend=slow())
    began = anyio.current_time()

    async def ask() -> None:
        await (await m.ainstruct("?"))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
    assert anyio.current_time() == pytest.approx(began + 1)
    await m.aclose()


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_aclose_joins_and_leaves_nothing() -> None:
    m = start_session(backend=slow())
    thunk = await m.ainstruct("?")
    await m.aclose()
    assert thunk.value == "done"
    with pytest.raises(SessionClosed, match="closed"):
        await m.ainstruct("?")
    await m.aclose()
    m.close()


@pytest.mark.anyio
async def test_aclose_called_twice_at_once_waits_both_times() -> None:
    m = start_session(backend=slow())
    thunk = await m.ainstruct("?")

    async def close() -> None:
        await m.aclose()
        assert thunk.value == "done"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(close)
        tasks.start_soon(close)


@pytest.mark.anyio
async def test_aclose_raises_what_nobody_observed() -> None:
    m = start_session(backend=ScriptedBackend(Fail(BackendError("a")), Fail(BackendError("b"))))
    seen, _ = await m.ainstruct("?"), await m.ainstruct("?")
    with pytest.raises(BackendError):
        await seen
    with pytest.raises(ExceptionGroup) as caught:
        await m.aclose()
    assert len(caught.value.exceptions) == 1
    await m.aclose()


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_a_cancelled_aclose_cancels_what_runs_and_waits_for_its_cleanup() -> None:
    backend = stalled()
    m = start_session(backend=backend)
    thunk = await m.ainstruct("?")
    with anyio.move_on_after(1) as scope:
        await m.aclose()
    assert scope.cancelled_caught
    assert thunk.cancelled
    assert backend.calls[0].outcome == "cancelled"


@pytest.mark.anyio
async def test_aclose_of_a_session_that_was_never_used_does_nothing() -> None:
    m = start_session(backend=slow())
    await m.aclose()
    with pytest.raises(SessionClosed):
        await m.ainstruct("?")


@pytest.mark.anyio
async def test_cancel_ends_a_bare_session() -> None:
    m = start_session(backend=stalled())
    thunk = await m.ainstruct("?")
    await anyio.wait_all_tasks_blocked()
    m.cancel("enough")
    with pytest.raises(GenerationCancelled, match="enough"):
        await thunk
    with pytest.raises(SessionClosed, match="enough"):
        await m.ainstruct("?")
    await m.aclose()


@pytest.mark.anyio
async def test_cancel_in_the_middle_of_the_adoption_ends_the_session() -> None:
    m = start_session(backend=slow())

    async def ask() -> None:
        with pytest.raises((SessionClosed, GenerationCancelled)):
            await (await m.ainstruct("?"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        tasks.start_soon(anyio.lowlevel.checkpoint)
        await anyio.lowlevel.checkpoint()
        m.cancel("enough")
    await m.aclose()


@pytest.mark.anyio
async def test_aclose_in_the_middle_of_the_adoption_ends_the_session() -> None:
    m = start_session(backend=slow())

    async def ask() -> None:
        with suppress(SessionClosed):
            await (await m.ainstruct("?"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await m.aclose()
    await m.aclose()


@pytest.mark.anyio
async def test_a_strict_bare_session_ends_at_its_first_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = ScriptedBackend(Fail(BackendError("bad")))
    m = start_session(backend=backend, on_error="cancel")
    await m.ainstruct("?")
    await anyio.wait_all_tasks_blocked()
    assert "nobody observed" in caplog.text
    with pytest.raises(SessionClosed):
        await m.ainstruct("?")
    with pytest.raises(ExceptionGroup) as caught:
        await m.aclose()
    assert [str(error) for error in caught.value.exceptions] == ["bad"]
    await m.aclose()


@pytest.mark.anyio
async def test_a_bare_session_cancelled_at_any_point_leaves_nothing() -> None:
    async def program() -> None:
        m = start_session(backend=slow(), context_type="chat")
        try:
            thunk = await m.ainstruct("a")
            assert str(await m.achat("b")) == "done"
            assert await thunk == "done"
        finally:
            with anyio.CancelScope(shield=True):
                await m.aclose()

    assert await cancel_everywhere(program) > 10


# --- the end of the loop ------------------------------------------------------------------------------


def run(program: Callable[[], Awaitable[object]], loop: str) -> object:
    return anyio.run(program, backend=loop)


@LOOPS
def test_the_end_of_the_loop_cancels_and_joins_what_runs(loop: str) -> None:
    backend = stalled()
    made: list[ModelOutputThunk] = []

    async def main() -> None:
        m = start_session(backend=backend)
        made.extend([await m.ainstruct("?") for _ in range(3)])
        await anyio.wait_all_tasks_blocked()

    run(main, loop)
    assert [call.outcome for call in backend.calls] == ["cancelled"] * 3
    assert all(thunk.cancelled for thunk in made)


@LOOPS
@NEVER_BEGAN
@pytest.mark.parametrize("checkpoints", range(8))
def test_the_loop_may_end_at_any_moment(loop: str, checkpoints: int) -> None:
    backend = slow()
    made: list[ModelOutputThunk] = []

    async def main() -> None:
        m = start_session(backend=backend)
        made.append(await m.ainstruct("?"))
        for _ in range(checkpoints):
            await anyio.lowlevel.checkpoint()

    run(main, loop)
    assert made[0].cancelled
    assert all(call.outcome == "cancelled" for call in backend.calls)


@LOOPS
def test_values_can_be_read_after_the_loop_has_ended(loop: str) -> None:
    async def main() -> tuple[ModelOutputThunk, ModelOutputThunk]:
        m = start_session(backend=ScriptedBackend(lambda _: "one two"))
        awaited = await m.ainstruct("?")
        await awaited
        streamed = await m.ainstruct("?", model_options={ModelOption.STREAM: True})
        await anyio.wait_all_tasks_blocked()
        return awaited, streamed

    thunks = run(main, loop)
    assert [str(thunk) for thunk in thunks] == ["one two"] * 2  # type: ignore[attr-defined]


@LOOPS
def test_errors_that_nobody_observed_are_logged_at_the_end_of_the_loop(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        m = start_session(backend=ScriptedBackend(Fail(BackendError("lost?"))))
        await m.ainstruct("?")
        await anyio.wait_all_tasks_blocked()
        assert not caplog.records

    run(main, loop)
    (record,) = caplog.records
    assert record.name == "mellea_sc"
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], BackendError)


@LOOPS
def test_an_exception_of_the_program_is_not_changed_by_what_runs(loop: str) -> None:
    backend = stalled()

    async def main() -> None:
        m = start_session(backend=backend)
        await m.ainstruct("?")
        await anyio.wait_all_tasks_blocked()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main, loop)
    assert backend.calls[0].outcome == "cancelled"


@LOOPS
def test_a_resource_warning_tells_of_a_session_never_closed(loop: str) -> None:
    async def main() -> None:
        m = start_session(backend=slow(0))
        await (await m.ainstruct("?"))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        run(main, loop)
        gc.collect()
    assert [w.category for w in caught] == [ResourceWarning]
    assert "aclose" in str(caught[0].message)


@LOOPS
@pytest.mark.parametrize("ending", ["aclose", "cancel", "block", "unused"])
def test_no_resource_warning_tells_of_a_session_that_has_ended(loop: str, ending: str) -> None:
    async def main() -> None:
        m = start_session(backend=slow(0))
        if ending == "unused":
            return
        if ending == "block":
            async with m:
                await m.ainstruct("?")
            return
        await (await m.ainstruct("?"))
        if ending == "aclose":
            await m.aclose()
        else:
            m.cancel()

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        run(main, loop)
        gc.collect()


# --- several loops --------------------------------------------------------------------------------------


def test_one_bare_session_serves_one_loop_after_the_other() -> None:
    m = start_session(backend=ScriptedBackend(lambda _: "done"), context_type="chat")

    async def main() -> str:
        return str(await m.achat("?"))

    assert [run(main, loop) for loop in ("asyncio", "trio", "asyncio")] == ["done"] * 3
    assert len(m.ctx.as_list()) == 6
    assert len(m._life._adopted) == 1


@LOOPS
@NEVER_BEGAN
@pytest.mark.parametrize("checkpoints", range(6))
@pytest.mark.timeout(20)
def test_a_conversation_goes_on_in_the_next_loop_wherever_the_first_one_ended(
    loop: str, checkpoints: int
) -> None:
    m = start_session(backend=slow(0.001), context_type="chat")

    async def cut_off() -> None:
        await m.ainstruct("?")
        await m.ainstruct("?")
        for _ in range(checkpoints):
            await anyio.lowlevel.checkpoint()

    async def main() -> str:
        return str(await m.achat("?"))

    run(cut_off, loop)
    assert run(main, loop) == "done"


def test_a_loop_that_was_closed_without_cancelling_its_tasks_is_told_of_and_forgotten() -> None:
    m = start_session(backend=ScriptedBackend(lambda _: "done"))

    async def job() -> str:
        return await (await m.ainstruct("?"))

    for number in range(3):
        loop = asyncio.new_event_loop()
        if number:
            with pytest.warns(ResourceWarning, match=r"closed before .* Use asyncio\.run\(\)"):
                assert loop.run_until_complete(job()) == "done"
        else:
            assert loop.run_until_complete(job()) == "done"
        loop.close()
        assert len(m._life._adopted) == 1
    m.close()


# --- asyncio drops tasks that are cancelled before their first step ---------------------------------------


async def _in_a_thunk(m: MelleaSession) -> None:
    thunk = await m.ainstruct("?")
    async with thunk:
        await asyncio.sleep(10)


async def _validating(m: MelleaSession) -> None:
    await m.avalidate("good", output="text")


async def _streaming(m: MelleaSession) -> None:
    async with m.stream("?") as result:
        await result.acomplete()


@pytest.mark.parametrize("block", [True, False], ids=["block", "bare"])
@pytest.mark.parametrize("use", [_in_a_thunk, _validating, _streaming])
@pytest.mark.parametrize("turns", range(12))
@NEVER_BEGAN
@pytest.mark.timeout(20)
def test_the_loop_may_end_at_any_moment_of_another_tasks_work(
    block: bool, use: Callable[[MelleaSession], Awaitable[None]], turns: int
) -> None:
    async def background() -> None:
        m = start_session(backend=slow(0.001))
        if block:
            async with m:
                await use(m)
        else:
            try:
                await use(m)
            finally:
                await m.aclose()

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(background())
        for _ in range(turns):
            await asyncio.sleep(0)
        return task

    assert asyncio.run(main()).cancelled()


@pytest.mark.anyio
async def test_an_aclose_that_is_cancelled_still_raises_what_nobody_observed() -> None:
    backend = ScriptedBackend(Fail(BackendError("forgotten")), ["some ", Stall()])
    m = start_session(backend=backend)
    for _ in range(2):
        await m.ainstruct("?")
    await anyio.wait_all_tasks_blocked()
    with pytest.raises(ExceptionGroup) as caught, anyio.CancelScope() as scope:
        scope.cancel()
        await m.aclose()
    assert [str(error) for error in caught.value.exceptions] == ["forgotten"]
    assert {call.outcome for call in backend.calls} == {"error", "cancelled"}
