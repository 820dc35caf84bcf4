"""Under asyncio, its own cancellation, timeouts and combinators work on sessions as on anything else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine

import anyio
import pytest

from mellea_sc import (
    BackendError,
    GenerationCancelled,
    GenerationRequest,
    ModelOption,
    Requirement,
    RunError,
    ValidationResult,
    start_session,
    wait_for_all_mots,
)
from mellea_sc.core.base import Context
from mellea_sc.testing import Pause, ScriptedBackend, Stall

pytestmark = pytest.mark.anyio

STREAM = {ModelOption.STREAM: True}
"""asyncio drops tasks that are cancelled before their first step, and what anyio wraps in them."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def stalled() -> ScriptedBackend:
    return ScriptedBackend(lambda _: ["some ", Stall()])


def quick() -> ScriptedBackend:
    return ScriptedBackend(lambda _: ["some ", Pause(0.01), "text"])


async def settle() -> None:
    await anyio.wait_all_tasks_blocked()


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("joining", [False, True], ids=["inside", "joining"])
async def test_a_task_with_a_session_can_be_cancelled(joining: bool) -> None:
    backend = stalled()

    async def main() -> None:
        async with start_session(backend=backend) as m:
            await m.ainstruct("?")
            if not joining:
                await asyncio.sleep(60)

    task = asyncio.create_task(main())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert backend.calls[0].outcome == "cancelled"


@pytest.mark.usefixtures("no_leaks")
async def test_asyncio_timeout_works_around_a_session_and_inside() -> None:
    backend = stalled()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            async with start_session(backend=backend) as m:
                await (await m.ainstruct("?"))
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await thunk
        assert not thunk.cancelled
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await m.achat("?")
        thunk.cancel()
    assert [call.outcome for call in backend.calls] == ["cancelled"] * 3


async def test_a_thunk_can_be_gathered_shielded_and_waited_for_with_a_timeout() -> None:
    async with start_session(backend=quick()) as m:
        a, b = await m.ainstruct("a"), await m.ainstruct("b")
        assert await asyncio.gather(a, b, a.avalue()) == ["some text"] * 3
        c = await m.ainstruct("c")
        assert await asyncio.wait_for(asyncio.shield(c.avalue()), 5) == "some text"
    async with start_session(backend=stalled()) as m:
        thunk = await m.ainstruct("?")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(thunk, 0.02)
        assert not thunk.cancelled
        thunk.cancel()


async def test_a_cancelled_waiter_leaves_the_thunk_to_the_others() -> None:
    async with start_session(backend=quick()) as m:
        thunk = await m.ainstruct("?")
        await asyncio.sleep(0)
        first, second = asyncio.ensure_future(thunk), asyncio.ensure_future(thunk)
        await asyncio.sleep(0)
        first.cancel()
        assert await second == "some text"
        assert first.cancelled()


async def test_a_reader_cancelled_natively_loses_nothing() -> None:
    async with start_session(backend=quick()) as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        read = await thunk.astream()
        reader = asyncio.create_task(thunk.astream())
        await asyncio.sleep(0)
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            read += await reader
        while not thunk.is_computed():
            read += await thunk.astream()
        assert read == "some text"


async def test_a_task_group_of_asyncio_may_hold_sessions_and_their_waiters() -> None:
    backend = stalled()

    async def one() -> None:
        async with start_session(backend=backend) as m:
            await (await m.ainstruct("?"))

    async def failing() -> None:
        await settle()
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(one())
            tasks.create_task(one())
            tasks.create_task(failing())
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
    assert [call.outcome for call in backend.calls] == ["cancelled"] * 2


# --- a cancellation that nobody asked for ---------------------------------------------------------------


class LeaksCancellation(ScriptedBackend):
    """One whose own, cancelled future comes out of it."""

    def open(self, request: GenerationRequest):
        if request.messages[-1].content == "bad":
            raise asyncio.CancelledError
        return super().open(request)


async def test_a_cancellation_that_comes_out_of_a_backend_is_an_error_of_its_thunk_alone() -> None:
    async with start_session(backend=LeaksCancellation("done")) as m:
        bad, good = await m.ainstruct("bad"), await m.ainstruct("good")
        with pytest.raises(BackendError, match="cancellation"):
            await bad
        assert await good == "done"


async def test_a_cancellation_that_comes_out_of_a_validator_is_an_error() -> None:
    async def leaks(_: Context) -> ValidationResult:
        raise asyncio.CancelledError

    async with start_session(backend=quick()) as m:
        with pytest.raises(RunError, match="cancellation"):
            await m.avalidate(Requirement("r", leaks), output="text")
        thunk = await m.ainstruct("?", requirements=[Requirement("r", leaks)])
        with pytest.raises(RunError, match="cancellation"):
            await thunk
        assert await (await m.ainstruct("?")) == "some text"


async def test_a_cancelled_backend_is_cancelled_however_its_cancellation_was_asked_for() -> None:
    async with start_session(backend=stalled()) as m:
        thunk = await m.ainstruct("?")
        await settle()
        thunk.cancel()
        with pytest.raises(GenerationCancelled):
            await thunk


# --- Ctrl-C, and eager tasks -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:unclosed session:ResourceWarning")
@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("block", [True, False], ids=["block", "bare"])
def test_ctrl_c_cancels_what_runs_and_is_raised(block: bool) -> None:
    backend = stalled()

    async def main() -> None:
        m = start_session(backend=backend)
        async with m if block else contextlib.nullcontext():
            thunk = await m.ainstruct("?")
            await settle()
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
            await thunk

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert backend.calls[0].outcome == "cancelled"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
@pytest.mark.parametrize("block", [True, False], ids=["block", "bare"])
def test_eager_tasks_change_nothing(block: bool) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        m = start_session(backend=quick(), context_type="chat")
        async with m if block else contextlib.nullcontext():
            first, second = await m.ainstruct("a"), await m.ainstruct("b")
            assert await asyncio.gather(first, second) == ["some text"] * 2
            assert str(await m.achat("c")) == "some text"
            assert await m.avalidate(Requirement("r", lambda _: ValidationResult(True)))
        await m.aclose()

    asyncio.run(main())


def test_a_loop_that_runs_to_completion_several_times_keeps_its_session() -> None:
    loop = asyncio.new_event_loop()
    try:
        m = start_session(backend=quick())
        thunk = loop.run_until_complete(m.ainstruct("?"))
        loop.run_until_complete(asyncio.sleep(0.02))
        assert loop.run_until_complete(thunk.avalue()) == "some text"
        loop.run_until_complete(m.aclose())
    finally:
        loop.close()


@pytest.mark.parametrize("waits", [False, True])
def test_the_end_of_the_loop_does_not_wait_for_a_cleanup_that_sleeps(waits: bool) -> None:
    cleaned: list[str] = []

    class Sleeps(ScriptedBackend):
        def open(self, request: GenerationRequest):
            @contextlib.asynccontextmanager
            async def opened():
                async with super(Sleeps, self).open(request) as deltas:
                    try:
                        yield deltas
                    finally:
                        cleaned.append("begun")
                        await asyncio.sleep(60)
                        cleaned.append("ended")

            return opened()

    async def main() -> None:
        async with start_session(backend=Sleeps(lambda _: ["some ", Stall()])) as m:
            await m.ainstruct("?")
            await settle()
            if waits:
                raise asyncio.CancelledError
            m.cancel()

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(asyncio.wait_for(main(), 30))
    assert cleaned == ["begun"]


# --- cancelled natively at any iteration of the loop, once and twice ---------------------------------------


async def _works(backend: ScriptedBackend) -> None:
    async with start_session(backend=backend, context_type="chat") as m:
        first = await m.ainstruct("a", model_options=STREAM)
        async with await m.ainstruct("b") as second:
            await wait_for_all_mots([first, second])
        async with m.stream("c.", requirements=[Requirement("r", passes)]) as result:
            await result.acomplete()
        await m.avalidate(Requirement("r", passes), output="text")
        assert await m.achat("d")


async def _works_bare(backend: ScriptedBackend) -> None:
    m = start_session(backend=backend, context_type="chat")
    try:
        first = await m.ainstruct("a", model_options=STREAM)
        async for _ in first:
            pass
        assert await m.achat("b")
    finally:
        await m.aclose()


async def passes(_: Context) -> ValidationResult:
    await asyncio.sleep(0)
    return ValidationResult(True)


@pytest.mark.parametrize("again_after", [None, 0, 1, 3])
@pytest.mark.parametrize("program", [_works, _works_bare])
@pytest.mark.timeout(60)
def test_a_program_cancelled_natively_at_any_moment_ends_and_leaves_nothing(
    program: Callable[[ScriptedBackend], Coroutine[object, object, None]], again_after: int | None
) -> None:
    async def main(moment: int) -> bool:
        backend = ScriptedBackend(lambda _: ["some ", Pause(0), "text."])
        task = asyncio.create_task(program(backend))
        for _ in range(moment):
            await asyncio.sleep(0)
        ended = task.done()
        task.cancel()
        if again_after is not None:
            for _ in range(again_after):
                await asyncio.sleep(0)
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for _ in range(10):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert all(call.outcome != "running" for call in backend.calls)
        return ended

    moment = 0
    while not asyncio.run(main(moment)):
        moment += 1
    assert moment > 15
