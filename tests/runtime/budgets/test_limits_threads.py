"""Blocks where no event loop runs, and budgets that are debited from several threads."""

from __future__ import annotations

import threading
import time

import anyio
import anyio.to_thread
import pytest
from kit import Check, hanging
from limits_help import server_of, text_of

from mellea_sc import (
    BudgetExceeded,
    SyncCallInEventLoop,
    limits,
    start_session,
)
from mellea_sc.runtime.loops.current import call_soon_in, current_loop
from mellea_sc.testing import ScriptedBackend, Stall


@pytest.fixture
def anyio_backend(real_time: str) -> str:
    """Real time, since there are threads."""
    return real_time


def test_blocking_calls_are_debited() -> None:
    with start_session(backend=server_of(4, delay=0)) as m:
        with limits() as spent:
            m.chat("hi")
            assert spent.requests == 1
            m.instruct("hi")
        seconds = spent.seconds
        m.chat("hi")
    assert (spent.requests, spent.completion_tokens) == (2, 8)
    assert spent.seconds == seconds > 0


def test_a_blocking_call_that_exceeds_raises_and_is_cancelled() -> None:
    backend = server_of(40, delay=0.001)
    with start_session(backend=backend) as m:
        with pytest.raises(BudgetExceeded) as caught, limits(tokens=10):
            m.chat("hi")
            raise AssertionError("not reached")
        assert m.chat("hi").role == "assistant"
    assert caught.value.partial_text == text_of(10)
    assert not caught.value.raised_elsewhere
    assert backend.calls[0].outcome == "cancelled"


def test_the_call_itself_raises_and_the_block_once_more() -> None:
    with (
        start_session(backend=server_of(40, delay=0.001)) as m,
        pytest.raises(BudgetExceeded) as outer,
        limits(tokens=10),
    ):
        with pytest.raises(BudgetExceeded) as caught:
            m.instruct("hi")
        with pytest.raises(BudgetExceeded):
            m.instruct("again")
    assert caught.value.allowed == outer.value.allowed == 10
    assert outer.value.spent.requests == 1


def test_a_deadline_ends_a_blocking_call() -> None:
    backend = ScriptedBackend(["a", Stall()])
    with (
        start_session(backend=backend) as m,
        pytest.raises(BudgetExceeded) as caught,
        limits(seconds=0.05),
    ):
        m.chat("hi")
    assert (caught.value.limit, caught.value.partial_text) == ("seconds", "a")


def test_a_deadline_ends_a_blocking_call_that_asks_no_model() -> None:
    with (
        start_session(backend=ScriptedBackend()) as m,
        pytest.raises(BudgetExceeded),
        limits(seconds=0.05),
    ):
        m.validate(Check(final=hanging), output="me")


def test_an_error_that_is_made_of_it_in_a_blocking_program_is_raised_as_itself() -> None:
    with (
        start_session(backend=server_of(40, delay=0)) as m,
        pytest.raises(LookupError, match="mine"),
        limits(tokens=10),
    ):
        try:
            m.chat("hi")
        except BudgetExceeded as error:
            raise LookupError("mine") from error


def test_a_nested_limit_of_a_blocking_program_leaves_the_outer_alone() -> None:
    with start_session(backend=server_of(20, delay=0)) as m, limits(tokens=1000) as outer:
        with pytest.raises(BudgetExceeded), limits(tokens=10):
            m.chat("hi")
        m.chat("hi")
    assert outer.requests == 2


@pytest.mark.anyio
async def test_a_blocking_call_in_a_worker_thread_debits_the_block_of_a_loop() -> None:
    m = start_session(backend=server_of(10**6, delay=0.001))

    def blocking() -> None:
        m.chat("hi")

    with pytest.raises(BudgetExceeded) as caught, limits(tokens=30) as spent:
        await anyio.to_thread.run_sync(blocking)
    assert caught.value.limit == "tokens"
    assert spent.tokens >= 31
    await anyio.to_thread.run_sync(m.close)


@pytest.mark.anyio
async def test_what_another_thread_exceeds_cancels_the_block_in_its_loop() -> None:
    m = start_session(backend=server_of(10**6, delay=0.001))
    failed: list[Exception] = []

    def blocking() -> None:
        try:
            m.chat("hi")
        except BudgetExceeded as error:
            failed.append(error)

    async def in_thread() -> None:
        await anyio.to_thread.run_sync(blocking)

    with pytest.raises(BudgetExceeded), limits(tokens=30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(in_thread)
            await anyio.sleep_forever()
    assert len(failed) == 1
    await anyio.to_thread.run_sync(m.close)


@pytest.mark.anyio
async def test_the_time_of_a_block_counts_in_other_threads_too() -> None:
    m = start_session(backend=ScriptedBackend(lambda _: [Stall()]))
    seen: list[float] = []

    def blocking() -> None:
        try:
            m.chat("hi")
        finally:
            seen.append(spent.seconds)

    with pytest.raises(BudgetExceeded) as caught, limits(seconds=0.1) as spent:
        await anyio.to_thread.run_sync(blocking)
    assert caught.value.limit == "seconds"
    assert 0.05 < seen[0] < 10
    await anyio.to_thread.run_sync(m.close)


@pytest.mark.anyio
async def test_a_call_into_a_loop_comes_and_one_into_an_ended_loop_is_dropped(
    real_time: str,
) -> None:
    came = anyio.Event()
    loop = current_loop()
    await anyio.to_thread.run_sync(call_soon_in, loop, came.set)
    await came.wait()

    def another() -> object:
        async def main() -> object:
            return current_loop()

        return anyio.run(main, backend=real_time)

    ended = await anyio.to_thread.run_sync(another)
    call_soon_in(ended, came.set)


@pytest.mark.anyio
async def test_blocking_calls_are_refused_in_a_loop_as_ever() -> None:
    m = start_session(backend=ScriptedBackend())
    with limits(tokens=1), pytest.raises(SyncCallInEventLoop):
        m.chat("hi")


def test_many_threads_lose_no_debit() -> None:
    with limits() as spent:
        from contextvars import copy_context

        m = start_session(backend=server_of(50, delay=0))
        threads = [
            threading.Thread(target=copy_context().run, args=(m.chat, "hi")) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        m.close()
    assert (spent.requests, spent.completion_tokens) == (8, 400)
    before = spent.seconds
    time.sleep(0.001)
    assert spent.seconds == before
