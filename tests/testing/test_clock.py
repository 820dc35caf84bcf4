"""Virtual time passes when nothing can run, on both event loops."""

from __future__ import annotations

import concurrent.futures
import socket
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from math import inf

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from mellea_sc.testing._loops import virtual_asyncio, virtual_trio
from mellea_sc.testing.clock import Deadlock, LoopName, run_virtual, virtual_backend

both = pytest.mark.parametrize("loop", ["asyncio", "trio"])


@both
def test_an_hour_takes_no_time(loop: LoopName) -> None:
    async def hour() -> float:
        start = anyio.current_time()
        async with anyio.create_task_group() as tg:
            for seconds in range(0, 3601, 100):
                tg.start_soon(anyio.sleep, seconds)
        return anyio.current_time() - start

    start = time.monotonic()
    assert run_virtual(hour, backend=loop) == 3600
    assert time.monotonic() - start < 1


@both
def test_timeouts_expire_when_they_are_due_and_not_before(loop: LoopName) -> None:
    async def program(seconds: float) -> bool:
        with anyio.move_on_after(10) as scope:
            await anyio.sleep(seconds)
        return scope.cancelled_caught

    assert not run_virtual(program, 9.999, backend=loop)
    assert run_virtual(program, 10.001, backend=loop)
    assert run_virtual(program, inf, backend=loop)


@both
def test_time_stands_still_while_something_can_run(loop: LoopName) -> None:
    async def program() -> float:
        async with anyio.create_task_group() as tg:
            tg.start_soon(anyio.sleep, 1)
            start = anyio.current_time()
            for _ in range(1000):
                await anyio.lowlevel.checkpoint()
            return anyio.current_time() - start

    assert run_virtual(program, backend=loop) == 0


@both
def test_a_standstill_is_an_error_that_says_who_waits_where(loop: LoopName) -> None:
    async def waiter_for_godot() -> None:
        await anyio.Event().wait()

    async def program() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(waiter_for_godot, name="vladimir")

    with pytest.raises(Deadlock, match=r"vladimir.*waiter_for_godot.*test_clock\.py"):
        run_virtual(program, backend=loop)


@both
def test_sleeping_for_ever_is_a_standstill(loop: LoopName) -> None:
    with pytest.raises(Deadlock, match="sleep_forever"):
        run_virtual(anyio.sleep_forever, backend=loop)


@both
def test_a_standstill_behind_a_shield_is_one_too(loop: LoopName) -> None:
    async def program() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep_forever()

    with pytest.raises(Deadlock):
        run_virtual(program, backend=loop)


@both
def test_cleanup_runs_after_a_standstill(loop: LoopName) -> None:
    cleaned: list[str] = []

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cleaned.append("child")

    async def program() -> None:
        try:
            async with anyio.create_task_group() as tg:
                tg.start_soon(child)
        finally:
            cleaned.append("program")

    with pytest.raises(Deadlock):
        run_virtual(program, backend=loop)
    assert cleaned == ["child", "program"]


@both
def test_work_in_a_thread_takes_no_time(loop: LoopName) -> None:
    async def program() -> float:
        start = anyio.current_time()
        with anyio.fail_after(0.001):
            for _ in range(3):
                await anyio.to_thread.run_sync(time.sleep, 0.02)
        return anyio.current_time() - start

    assert run_virtual(program, backend=loop) == 0


@both
def test_time_passes_for_a_thread_that_waits_for_the_loop(loop: LoopName) -> None:
    async def program() -> float:
        start = anyio.current_time()
        await anyio.to_thread.run_sync(anyio.from_thread.run, anyio.sleep, 3600)
        return anyio.current_time() - start

    assert run_virtual(program, backend=loop) == 3600


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker thread counts as silent after a twentieth of a second."""
    for module in (virtual_asyncio, virtual_trio):
        monkeypatch.setattr(module, "WORKER_PATIENCE", 0.05)


@both
@pytest.mark.usefixtures("little_patience")
def test_a_thread_that_was_silent_for_long_is_no_standstill(loop: LoopName) -> None:
    def wait_for_the_loop_and_work() -> None:
        anyio.from_thread.run(anyio.sleep, 3600)
        time.sleep(0.3)

    async def program() -> float:
        start = anyio.current_time()
        await anyio.to_thread.run_sync(wait_for_the_loop_and_work)
        return anyio.current_time() - start

    assert run_virtual(program, backend=loop) == 3600


@both
def test_a_thread_of_somebody_elses_may_wake_the_loop(loop: LoopName) -> None:
    async def program() -> str:
        token = anyio.lowlevel.current_token()
        event = anyio.Event()

        def wake() -> None:
            time.sleep(0.05)
            anyio.from_thread.run_sync(event.set, token=token)

        thread = threading.Thread(target=wake)
        thread.start()
        await event.wait()
        await anyio.to_thread.run_sync(thread.join)
        return "woken"

    assert run_virtual(program, backend=loop) == "woken"


def test_asyncios_own_executor_is_waited_for() -> None:
    async def program() -> float:
        import asyncio

        loop = asyncio.get_running_loop()
        async with asyncio.timeout(0.001):
            await loop.run_in_executor(None, time.sleep, 0.02)
        return loop.time()

    assert run_virtual(program) == 0


@both
def test_a_thread_that_never_ends_does_not_stop_time(loop: LoopName) -> None:
    release = threading.Event()

    async def program() -> None:
        with anyio.move_on_after(3600):
            await anyio.to_thread.run_sync(release.wait, abandon_on_cancel=True)
        await anyio.sleep(3600)
        release.set()

    start = time.monotonic()
    run_virtual(program, backend=loop)
    assert time.monotonic() - start < 5


async def connect_tcp() -> None:
    await anyio.connect_tcp("127.0.0.1", 9)


async def listen_tcp() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        await listener.serve(lambda stream: stream.aclose())


async def use_a_pipe() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        with anyio.move_on_after(3600):
            await anyio.wait_readable(ours)


@both
@pytest.mark.parametrize("use_network", [connect_tcp, listen_tcp, use_a_pipe])
def test_sockets_are_refused(loop: LoopName, use_network: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises((RuntimeError, ExceptionGroup)) as caught:
        run_virtual(use_network, backend=loop)
    assert "no network" in "".join(traceback.format_exception(caught.value))


def test_a_bare_socket_is_refused_by_asyncios_loop() -> None:
    async def program() -> None:
        import asyncio

        with socket.socket() as sock:
            sock.setblocking(False)
            asyncio.get_running_loop().add_reader(sock, print)

    with pytest.raises(RuntimeError, match="no network"):
        run_virtual(program)


async def race(tasks: int = 6) -> list[int]:
    order: list[int] = []

    async def run(number: int) -> None:
        for _ in range(3):
            await anyio.sleep(1)
            order.append(number)

    async with anyio.create_task_group() as tg:
        for number in range(tasks):
            tg.start_soon(run, number)
    return order


@both
def test_a_seed_repeats_the_order_and_another_one_changes_it(loop: LoopName) -> None:
    orders = [tuple(run_virtual(race, backend=loop, seed=seed)) for seed in range(10)]
    assert orders == [tuple(run_virtual(race, backend=loop, seed=seed)) for seed in range(10)]
    assert len(set(orders)) > 5


@both
def test_without_a_seed_the_order_is_the_same_every_time(loop: LoopName) -> None:
    assert len({tuple(run_virtual(race, backend=loop)) for _ in range(10)}) == 1


@pytest.mark.parametrize("seed", range(20))
def test_shuffling_keeps_the_order_of_plain_callbacks(seed: int) -> None:
    async def program() -> list[int]:
        import asyncio

        loop = asyncio.get_running_loop()
        order: list[int] = []
        tasks = []
        for number in range(10):
            loop.call_soon(order.append, number)
            tasks.append(asyncio.create_task(asyncio.sleep(0)))
        await asyncio.gather(*tasks)
        return order

    assert run_virtual(program, seed=seed) == list(range(10))


@both
@pytest.mark.parametrize("seed", range(20))
def test_messages_stay_in_order_under_shuffling(loop: LoopName, seed: int) -> None:
    async def program() -> list[int]:
        send, receive = anyio.create_memory_object_stream[int](2)

        async def produce() -> None:
            async with send:
                for number in range(20):
                    await send.send(number)

        async with anyio.create_task_group() as tg, receive:
            tg.start_soon(produce)
            return [number async for number in receive]

    assert run_virtual(program, backend=loop, seed=seed) == list(range(20))


@both
def test_a_failure_says_the_seed(loop: LoopName) -> None:
    async def program() -> None:
        raise ValueError

    with pytest.raises(ValueError) as caught:
        run_virtual(program, backend=loop, seed=7)
    assert any("seed=7" in note for note in caught.value.__notes__)


def test_trios_own_randomness_is_restored() -> None:
    from trio._core import _run

    state = (_run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate())
    run_virtual(race, backend="trio", seed=1)
    assert (_run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()) == state


@both
def test_a_virtual_loop_may_run_in_any_thread(loop: LoopName) -> None:
    async def program() -> float:
        await anyio.sleep(3600)
        return anyio.current_time()

    def run() -> float:
        return run_virtual(program, backend=loop)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(run).result() >= 3600


@pytest.mark.anyio
class TestAsAnyioBackend:
    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
        return virtual_backend(request.param)

    @pytest.fixture
    async def slow_fixture(self) -> float:
        await anyio.sleep(3600)
        return anyio.current_time()

    async def test_an_async_test_runs_in_virtual_time(self, slow_fixture: float) -> None:
        await anyio.sleep(3600)
        assert anyio.current_time() - slow_fixture == 3600


@both
def test_a_standstill_fails_an_anyio_test(loop: LoopName) -> None:
    from anyio.pytest_plugin import get_runner

    with get_runner(*virtual_backend(loop)) as runner, pytest.raises(Deadlock):
        runner.run_test(anyio.sleep_forever, {})  # type: ignore[arg-type]
