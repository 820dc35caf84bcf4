"""A blocking program gets a Ctrl-C at every step of what it waits for, and is checked each time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from contextvars import copy_context

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.from_thread import start_blocking_portal

from mellea_sc.runtime.loop_thread import Job, LoopThread
from mellea_sc.runtime.portal import SyncPortal
from mellea_sc.testing import Leaked, interrupt_everywhere


def blocking(function: Callable[[], Awaitable[object]]) -> None:
    """Run a function in a loop of another thread, and cancel it when this one is interrupted."""
    portal = SyncPortal()
    try:
        portal.call(function)
    finally:
        portal.close()


def test_every_step_is_reached_in_some_run() -> None:
    reached: list[int] = []

    async def steps() -> None:
        for step in range(1, 4):
            # a task takes a few more steps before the cancellation comes: none may skip a number
            for _ in range(12):
                await anyio.lowlevel.checkpoint()
            reached[-1] = step

    def program() -> None:
        reached.append(0)
        blocking(steps)

    runs = interrupt_everywhere(program)
    assert runs == len(reached) - 1
    assert reached[0] == 3
    assert {0, 1, 2} < set(reached[1:])


def test_an_interrupt_that_gets_lost_is_found_with_its_step() -> None:
    def program() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            blocking(anyio.lowlevel.checkpoint)

    with pytest.raises(AssertionError, match="the interrupt was lost") as caught:
        interrupt_everywhere(program)
    assert caught.value.__notes__[-1] == "the program was interrupted at its step 1"


def test_an_interrupt_that_is_returned_was_dealt_with() -> None:
    def program() -> object:
        try:
            return blocking(anyio.lowlevel.checkpoint)
        except KeyboardInterrupt as interrupt:
            return interrupt

    assert interrupt_everywhere(program)


def test_an_interrupt_inside_a_group_is_no_interrupt() -> None:
    def program() -> None:
        try:
            blocking(anyio.lowlevel.checkpoint)
        except KeyboardInterrupt as interrupt:
            raise BaseExceptionGroup("wrapped", [interrupt]) from None

    with pytest.raises(BaseExceptionGroup, match="wrapped"):
        interrupt_everywhere(program)


def test_another_interrupt_than_the_one_that_was_sent_is_raised() -> None:
    def program() -> None:
        raise KeyboardInterrupt("from elsewhere")

    with pytest.raises(KeyboardInterrupt, match="from elsewhere") as caught:
        interrupt_everywhere(program)
    assert not hasattr(caught.value, "__notes__")


def test_an_error_in_an_interrupted_run_is_raised_as_itself_with_its_step() -> None:
    def program() -> None:
        try:
            blocking(anyio.lowlevel.checkpoint)
        except KeyboardInterrupt:
            raise LookupError("in the cleanup") from None

    with pytest.raises(LookupError, match="in the cleanup") as caught:
        interrupt_everywhere(program)
    assert "interrupted at its step 1" in caught.value.__notes__[-1]


def test_a_thread_and_its_tasks_that_are_left_behind_are_found() -> None:
    left: list[LoopThread] = []

    async def forgotten() -> None:
        await anyio.sleep_forever()

    def program() -> None:
        thread = LoopThread("a blocking program")
        thread.start()
        left.append(thread)
        thread.submit(Job(forgotten, copy_context()))
        other = Job(anyio.lowlevel.checkpoint, copy_context())
        thread.submit(other)
        thread.wait(other.ended)

    try:
        with pytest.raises(Leaked) as caught:
            interrupt_everywhere(program)
        kinds = {leak.kind for leak in caught.value.leaks}
        assert kinds == {"task", "thread", "file descriptor"}
        assert "forgotten" in str(caught.value)
    finally:
        for thread in left:
            thread.end(cancel=True)


def test_a_socket_that_one_interrupted_run_leaves_is_found_with_its_step() -> None:
    left: list[socket.socket] = []

    def program() -> None:
        left.append(socket.socket())
        blocking(anyio.lowlevel.checkpoint)
        left[-1].close()

    with pytest.raises(Leaked, match="file descriptor") as caught:
        interrupt_everywhere(program)
    assert caught.value.__notes__ == ["the program was interrupted at its step 1"]
    for one in left:
        one.close()


def test_the_invariant_is_checked_after_each_run() -> None:
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1

    runs = interrupt_everywhere(lambda: blocking(anyio.lowlevel.checkpoint), after_each=check)
    assert runs == checks - 1 > 0


def test_the_number_of_interrupted_runs_can_be_bounded() -> None:
    runs = 0

    async def steps() -> None:
        for _ in range(50):
            await anyio.lowlevel.checkpoint()

    def program() -> None:
        nonlocal runs
        runs += 1
        blocking(steps)

    assert interrupt_everywhere(program, max_points=7) == 7
    assert runs == 8


def test_loops_that_were_there_before_and_those_of_the_caller_do_not_count() -> None:
    async def spin() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    with start_blocking_portal() as portal:
        spinning = portal.start_task_soon(spin)
        assert interrupt_everywhere(lambda: asyncio.run(asyncio.sleep(0))) == 0
        assert interrupt_everywhere(lambda: portal.call(anyio.lowlevel.checkpoint)) == 0
        spinning.cancel()


def test_a_ctrl_c_of_the_users_own_is_handled_as_before() -> None:
    handled: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: handled.append(number))
    try:
        interrupt_everywhere(lambda: signal.raise_signal(signal.SIGINT))
        assert handled == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)
        assert handled == [signal.SIGINT] * 2
    finally:
        signal.signal(signal.SIGINT, before)


def test_only_the_main_thread_can_be_interrupted() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="main thread"):
            await anyio.to_thread.run_sync(interrupt_everywhere, lambda: None)

    anyio.run(main)
    assert threading.current_thread() is threading.main_thread()
