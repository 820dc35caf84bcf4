"""A program is cancelled at every checkpoint of every task that it starts, and checked each time."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator

import anyio
import anyio.lowlevel
import pytest

from mellea_sc.testing.clock import LoopName, run_virtual
from mellea_sc.testing.everywhere import cancel_everywhere
from mellea_sc.testing.leaks import Leaked

pytestmark = pytest.mark.anyio


async def test_every_checkpoint_is_reached_in_some_run() -> None:
    reached: list[int] = []

    async def program() -> None:
        reached.append(0)
        for step in range(1, 4):
            await anyio.lowlevel.checkpoint()
            reached[-1] = step

    runs = await cancel_everywhere(program)
    assert runs == len(reached) - 1
    assert reached[0] == 3
    assert sorted(set(reached[1:])) == [0, 1, 2]


async def test_checkpoints_of_child_tasks_count_too() -> None:
    cut: Counter[tuple[str, int]] = Counter()

    async def child(name: str) -> None:
        for step in range(3):
            try:
                await anyio.lowlevel.checkpoint()
            except anyio.get_cancelled_exc_class():
                cut[name, step] += 1
                raise

    async def program() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(child, "a")
            tg.start_soon(child, "b")

    await cancel_everywhere(program)
    assert {step for _, step in cut} == {0, 1, 2}
    assert {name for name, _ in cut} == {"a", "b"}


async def test_a_cleanup_that_is_shielded_runs_to_its_end_in_every_run() -> None:
    begun: list[bool] = []

    async def program() -> None:
        begun.append(False)
        try:
            await anyio.lowlevel.checkpoint()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
                begun[-1] = True

    await cancel_everywhere(program)
    assert all(begun)


async def test_what_one_cancelled_run_leaves_behind_is_found_with_its_checkpoint() -> None:
    left: list[AsyncGenerator[int]] = []

    async def numbers() -> AsyncGenerator[int]:
        yield 1

    async def program() -> None:
        generator = numbers()
        await anext(generator)
        left.append(generator)
        await anyio.lowlevel.checkpoint()  # cancelled here, it is never closed
        await generator.aclose()

    with pytest.raises(Leaked, match="async generator") as caught:
        await cancel_everywhere(program)
    assert "cancelled at its checkpoint" in caught.value.__notes__[-1]
    for generator in left:
        await generator.aclose()


async def test_an_error_in_a_cancelled_run_is_raised_as_itself_with_its_checkpoint() -> None:
    async def program() -> None:
        try:
            await anyio.lowlevel.checkpoint()
        except anyio.get_cancelled_exc_class():
            raise LookupError("in the cleanup") from None

    with pytest.raises(LookupError, match="in the cleanup") as caught:
        await cancel_everywhere(program)
    assert "cancelled at its checkpoint" in caught.value.__notes__[-1]


async def test_an_error_without_any_cancellation_is_raised_as_itself() -> None:
    async def program() -> None:
        raise LookupError("at once")

    with pytest.raises(LookupError, match="at once") as caught:
        await cancel_everywhere(program)
    assert not hasattr(caught.value, "__notes__")


async def test_the_invariant_is_checked_after_each_run() -> None:
    balance = 0
    checks = 0

    async def program() -> None:
        nonlocal balance
        balance += 1
        await anyio.lowlevel.checkpoint()
        balance -= 1

    async def balanced() -> None:
        nonlocal checks
        checks += 1
        assert balance == 0

    with pytest.raises(AssertionError):
        await cancel_everywhere(program, after_each=balanced)
    assert checks > 1


async def test_the_number_of_cancelled_runs_can_be_bounded() -> None:
    runs = 0

    async def program() -> None:
        nonlocal runs
        runs += 1
        for _ in range(100):
            await anyio.lowlevel.checkpoint()

    assert await cancel_everywhere(program, max_points=7) == 7
    assert runs == 8


async def test_tasks_that_were_there_before_do_not_count() -> None:
    async def spin() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tg:
        tg.start_soon(spin)
        assert await cancel_everywhere(anyio.lowlevel.checkpoint) <= 3
        tg.cancel_scope.cancel()


async def test_a_task_cancelled_before_its_first_step_warns_of_nothing() -> None:
    async def program() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(anyio.sleep_forever)
            tg.cancel_scope.cancel()

    await cancel_everywhere(program)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_it_works_in_virtual_time(loop: LoopName, anyio_backend: object) -> None:
    async def program() -> None:
        for _ in range(3):
            await anyio.sleep(3600)

    assert run_virtual(cancel_everywhere, program, backend=loop) >= 3
