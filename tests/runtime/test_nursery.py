"""The kernel by itself: nurseries, Ctrl-C inside of them, who is the current one."""

from __future__ import annotations

import logging
import signal

import anyio
import pytest

from mellea_sc import (
    BackendError,
    GenerationRequest,
    ModelOption,
    UsageError,
    start_session,
    stream_with_chunking,
)
from mellea_sc.runtime.adopted import AdoptedNursery
from mellea_sc.runtime.failures import leaf_errors, sole_error
from mellea_sc.runtime.loops.current import clock, current_loop, running_loop
from mellea_sc.runtime.nursery import (
    Nursery,
    current_nursery,
)
from mellea_sc.testing import Fail, Pause, ScriptedBackend, Stall

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


# --- loops ------------------------------------------------------------------------------------------------


def test_outside_of_a_loop_there_is_none() -> None:
    assert running_loop() is None
    with pytest.raises(UsageError, match="async function"):
        current_loop()


@LOOPS
def test_inside_of_a_loop_there_is_one_with_a_clock(loop: str) -> None:
    async def main() -> object:
        assert current_loop() is running_loop()
        assert clock()() == pytest.approx(anyio.current_time(), abs=1)
        return current_loop()

    assert anyio.run(main, backend=loop) is not anyio.run(main, backend=loop)


# --- the current nursery ---------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_current_nursery_is_that_of_the_innermost_open_block() -> None:
    seen: list[object] = []
    assert current_nursery() is None
    async with start_session(backend=ScriptedBackend()) as outer:
        assert current_nursery() is outer._life._block
        async with start_session(backend=ScriptedBackend()) as inner:
            assert current_nursery() is inner._life._block
        assert current_nursery() is outer._life._block

        async def in_another_loop() -> None:
            seen.append(current_nursery())

        from anyio.to_thread import run_sync

        await run_sync(anyio.run, in_another_loop)
    assert current_nursery() is None
    assert seen == [None]


@pytest.mark.anyio
async def test_a_stream_of_a_bare_backend_belongs_to_the_current_session() -> None:
    backend = ScriptedBackend(["some ", Stall()])
    async with start_session(backend=ScriptedBackend()) as m:
        result = await stream_with_chunking("?", backend, m.ctx)
        await anyio.wait_all_tasks_blocked()
        m.cancel()
    assert result.cancelled
    assert backend.calls[0].outcome == "cancelled"


# --- bounded waits ------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_limit_holds_without_connections() -> None:
    async with Nursery(ScriptedBackend()) as nursery:
        began = anyio.current_time()
        with nursery.limit(2) as limit:
            await anyio.sleep(60)
        assert limit.is_exceeded
        assert anyio.current_time() - began == pytest.approx(2, abs=0.01)


# --- cancelled before it began ------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_nursery_can_be_cancelled_before_it_is_entered() -> None:
    nursery = Nursery(ScriptedBackend())
    nursery.cancel("enough")
    async with nursery:
        await anyio.lowlevel.checkpoint()
        raise AssertionError


@pytest.mark.anyio
async def test_an_adopted_nursery_can_be_cancelled_before_its_root_has_run() -> None:
    adopted = AdoptedNursery(Nursery(ScriptedBackend()))
    adopted.nursery.cancel("enough")
    assert not adopted.has_ended
    await adopted.aclose()
    assert adopted.has_ended


@pytest.mark.anyio
async def test_a_clumsy_start_is_refused_by_a_nursery_that_is_not_open() -> None:
    nursery = Nursery(ScriptedBackend(), name="this one")

    async def nothing() -> None:
        raise AssertionError

    with pytest.raises(UsageError, match="this one has ended"):
        nursery.start(nothing, name="nothing", on_never_started=lambda: None)


# --- Ctrl-C and exits ---------------------------------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_exit_raised_in_the_block_is_not_replaced_by_errors_that_nobody_observed(
    loop: str, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with start_session(backend=ScriptedBackend(Fail(BackendError("lost?")))) as m:
            await m.ainstruct("?")
            await anyio.wait_all_tasks_blocked()
            raise kind

    with pytest.raises(kind):
        anyio.run(main, backend=loop)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "lost?" in caplog.text


@pytest.mark.filterwarnings("ignore:unclosed session:ResourceWarning")
@pytest.mark.usefixtures("collected")
def test_under_trio_ctrl_c_in_a_task_of_a_bare_session_reaches_the_program(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Interrupted(ScriptedBackend):
        def open(self, request: GenerationRequest):  # type: ignore[no-untyped-def]
            signal.raise_signal(signal.SIGINT)
            return super().open(request)

    reached: list[bool] = []

    async def main() -> None:
        m = start_session(backend=Interrupted("text"))
        await m.ainstruct("?")
        await anyio.sleep(5)
        reached.append(True)

    with pytest.raises(KeyboardInterrupt):
        anyio.run(main, backend="trio")
    assert not reached
    assert not caplog.records


@LOOPS
@pytest.mark.parametrize("block", [True, False], ids=["block", "bare"])
def test_an_exit_in_a_task_leaves_the_session_as_itself(
    loop: str, block: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Exits(ScriptedBackend):
        def open(self, request: GenerationRequest):  # type: ignore[no-untyped-def]
            raise SystemExit(3)

    async def main() -> None:
        m = start_session(backend=Exits())
        if block:
            async with m:
                await m.ainstruct("?")
        else:
            await m.ainstruct("?")
            await m.aclose()

    with pytest.raises(SystemExit) as caught:
        anyio.run(main, backend=loop)
    assert caught.value.code == 3
    assert not [record for record in caplog.records if record.name == "mellea_sc"]


@LOOPS
@pytest.mark.filterwarnings("ignore:unclosed session:ResourceWarning")
@pytest.mark.usefixtures("collected")
def test_an_exit_in_a_task_of_a_bare_session_is_told_of(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Exits(ScriptedBackend):
        def open(self, request: GenerationRequest):  # type: ignore[no-untyped-def]
            raise SystemExit(3)

    async def main() -> None:
        m = start_session(backend=Exits())
        await m.ainstruct("?")
        await anyio.sleep(0.05)

    if loop == "asyncio":  # raises such an exception out of the loop by itself
        with pytest.raises(SystemExit):
            anyio.run(main, backend=loop)
        assert not caplog.records
    else:
        anyio.run(main, backend=loop)
        assert "SystemExit" in caplog.text


@pytest.mark.filterwarnings("ignore:unclosed session:ResourceWarning")
@pytest.mark.usefixtures("collected")
def test_under_asyncio_ctrl_c_in_a_task_of_a_bare_session_ends_the_program_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Interrupted(ScriptedBackend):
        def open(self, request: GenerationRequest):  # type: ignore[no-untyped-def]
            raise KeyboardInterrupt

    async def main() -> None:
        m = start_session(backend=Interrupted("text"))
        await m.ainstruct("?")
        await anyio.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        anyio.run(main)
    assert not caplog.records


# --- groups ----------------------------------------------------------------------------------------------------------


def test_the_leaves_of_a_group_are_each_there_once_and_in_order() -> None:
    a, b, c = ValueError(), KeyError(), OSError()
    group = BaseExceptionGroup("", [a, BaseExceptionGroup("", [b, a]), c])

    async def leaves() -> list[BaseException]:
        return leaf_errors(group)

    assert anyio.run(leaves) == [a, b, c]


@pytest.mark.anyio
async def test_sole_error_unwraps_one_task_group_and_only_a_single_error() -> None:
    a, b = ValueError("a"), KeyError("b")
    with pytest.raises(ValueError, match="a") as caught, sole_error():
        raise ExceptionGroup("", [a])
    assert caught.value is a
    with pytest.raises(ExceptionGroup), sole_error():
        raise ExceptionGroup("", [a, b])
    inner = ExceptionGroup("inner", [a])
    with pytest.raises(ExceptionGroup) as group, sole_error():
        raise ExceptionGroup("", [inner])
    assert group.value is inner


# --- a program with a stream timeout, in parallel -------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_reason_of_the_session_is_the_reason_of_its_thunks_unless_they_have_their_own() -> (
    None
):
    async with start_session(backend=ScriptedBackend(lambda _: [Pause(60)])) as m:
        own = await m.ainstruct("?")
        other = await m.ainstruct("?", model_options={ModelOption.STREAM: True})
        await anyio.wait_all_tasks_blocked()
        own.cancel("its own")
        m.cancel("the session's")
    for thunk, reason in ((own, "its own"), (other, "the session's")):
        with pytest.raises(Exception, match=reason):
            await thunk
