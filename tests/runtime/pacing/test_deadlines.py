"""Limits of waits, which one task looks after."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable

import anyio
import pytest

from mellea_sc.runtime.pacing import DeadlineTimer, WaitTimeout
from mellea_sc.testing import run_virtual
from mellea_sc.testing._loops.steps import watch_steps

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])
Program = Callable[[DeadlineTimer], Awaitable[None]]


def watched(loop: str, program: Program) -> float:
    """Run a program beside a watch; when it ended."""
    ended, _ = watched_and_counted(loop, program)
    return ended


def watched_and_counted(loop: str, program: Program) -> tuple[float, int]:
    """Run a program beside a watch; when it ended, and the steps that the watch and its tasks took."""
    steps = 0

    def stepped() -> None:
        nonlocal steps
        steps += 1

    async def main() -> tuple[float, int]:
        watch = DeadlineTimer()
        with watch_steps(stepped):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch.run)
                await program(watch)
                ended = anyio.current_time()
                watch.close()
        return ended, steps

    return run_virtual(main, backend=loop)


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=0.002)


@LOOPS
def test_a_wait_that_takes_too_long_is_cancelled_and_others_are_not(loop: str) -> None:
    ended: dict[float, float] = {}

    async def wait(watch: DeadlineTimer, seconds: float) -> None:
        begun = anyio.current_time()
        with WaitTimeout(watch, seconds) as limit:
            await anyio.sleep(5)
        assert limit.was_exceeded is (seconds < 5)
        ended[seconds] = anyio.current_time() - begun

    async def program(watch: DeadlineTimer) -> None:
        async with anyio.create_task_group() as tasks:
            for seconds in (3, math.inf, 1, 6, 2):  # also a limit before the one that is slept for
                tasks.start_soon(wait, watch, seconds)
                await anyio.sleep(0.1)

    watched(loop, program)
    assert ended == {1: about(1), 2: about(2), 3: about(3), 6: about(5), math.inf: about(5)}


@LOOPS
def test_a_wait_that_begins_anew_has_all_of_its_time_again(loop: str) -> None:
    async def program(watch: DeadlineTimer) -> None:
        with WaitTimeout(watch, 1) as limit:
            for _ in range(10):
                await anyio.sleep(0.9)
                limit.since = watch.now()
            await anyio.sleep(2)
        assert limit.was_exceeded

    assert watched(loop, program) == about(10)


@LOOPS
def test_a_limit_that_pauses_is_not_exceeded(loop: str) -> None:
    async def program(watch: DeadlineTimer) -> None:
        with WaitTimeout(watch, 1) as limit:
            limit.pause()
            await anyio.sleep(7)
            limit.resume()
            await anyio.sleep(2)
        assert limit.was_exceeded

    assert watched(loop, program) == about(8)


@LOOPS
def test_a_short_limit_that_pauses_for_long_is_looked_at_once(loop: str) -> None:
    async def program(watch: DeadlineTimer) -> None:
        with WaitTimeout(watch, 0.01) as limit:
            for _ in range(3):
                limit.since = math.inf
                await anyio.sleep(100)
                assert not limit.is_watched
                limit.resume()
            await anyio.sleep(1)
        assert limit.was_exceeded

    ended, steps = watched_and_counted(loop, program)
    assert ended == about(300.01)
    assert steps < 15


@LOOPS
def test_a_limit_that_goes_on_by_an_assignment_is_exceeded_in_time(loop: str) -> None:
    async def program(watch: DeadlineTimer) -> None:
        with WaitTimeout(watch, 1) as limit:
            await anyio.sleep(0.1)
            limit.since = math.inf
            await anyio.sleep(0.5)
            assert limit.is_watched
            limit.since = watch.now()
            await anyio.sleep(5)
        assert limit.was_exceeded

    assert watched(loop, program) == about(1.6)


@LOOPS
def test_a_cleanup_after_a_limit_keeps_nobody_busy(loop: str) -> None:
    async def clean_up(limit: WaitTimeout) -> None:
        with limit:
            try:
                await anyio.sleep(5)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(5)

    async def program(watch: DeadlineTimer) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clean_up, WaitTimeout(watch, 1))

    ended, steps = watched_and_counted(loop, program)
    assert ended == about(6)
    assert steps < 10


@LOOPS
def test_a_watch_without_limits_looks_once_more_and_sleeps_on(loop: str) -> None:
    async def program(watch: DeadlineTimer) -> None:
        for _ in range(50):
            with WaitTimeout(watch, 100):
                await anyio.sleep(1)
        await anyio.sleep(10_000)

    ended, steps = watched_and_counted(loop, program)
    assert ended == about(10_050)
    assert steps == 2


@LOOPS
def test_a_watch_that_was_closed_before_it_began_ends_at_once(loop: str) -> None:
    async def main() -> None:
        watch = DeadlineTimer()
        watch.close()
        await watch.run()

    run_virtual(main, backend=loop)


@LOOPS
def test_5_3_the_time_that_a_loop_stood_still_is_not_that_of_who_waits(loop: str) -> None:
    async def main() -> float:
        watch = DeadlineTimer()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.run)
            await anyio.sleep(0.01)
            with WaitTimeout(watch, 0.2) as limit:
                await anyio.sleep(0.01)
                time.sleep(0.5)  # noqa: ASYNC251 - a program's code blocks
                for _ in range(10):  # what came meanwhile is read, in several steps
                    await anyio.sleep(0.005)
            assert not limit.was_exceeded
            began = time.monotonic()
            with WaitTimeout(watch, 0.2) as limit:
                await anyio.sleep(0.01)
                time.sleep(0.5)  # noqa: ASYNC251
                await anyio.sleep(100)  # nothing comes
            assert limit.was_exceeded
            watch.close()
        return time.monotonic() - began

    assert anyio.run(main, backend=loop) < 20
