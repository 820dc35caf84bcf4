"""Back-pressure: where producers wait, and when nobody may wait any more."""

from __future__ import annotations

import anyio
import pytest

from mellea_sc.runtime.pacing import Slots, Valve, Valves

pytestmark = pytest.mark.anyio


class Producer:
    """Waits at a valve behind which there is no room until there is."""

    def __init__(self, valves: Valves, *, for_reader: bool) -> None:
        self.room = False
        self.went_on = False
        self.valve = Valve(lambda: not self.room, for_reader=for_reader)
        self._valves = valves

    async def run(self) -> None:
        await self.valve.wait(self._valves)
        self.went_on = True


async def test_a_producer_waits_until_there_is_room() -> None:
    producer = Producer(Valves(), for_reader=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(producer.run)
        await anyio.wait_all_tasks_blocked()
        producer.valve.look()
        await anyio.wait_all_tasks_blocked()
        assert not producer.went_on
        producer.room = True
        producer.valve.look()
    assert producer.went_on
    assert not producer.valve.is_open


@pytest.mark.parametrize("came_late", [False, True])
async def test_who_waits_for_a_reader_is_let_go_when_the_session_is_left(came_late: bool) -> None:
    valves = Valves()
    for_reader, for_judges = (Producer(valves, for_reader=it) for it in (True, False))
    async with anyio.create_task_group() as tasks:
        if came_late:
            valves.drain()
        tasks.start_soon(for_reader.run)
        tasks.start_soon(for_judges.run)
        await anyio.wait_all_tasks_blocked()
        valves.drain()
        await anyio.wait_all_tasks_blocked()
        assert for_reader.went_on
        assert for_reader.valve.is_open
        assert not for_judges.went_on
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("for_reader", [False, True])
@pytest.mark.parametrize("came_late", [False, True])
async def test_nobody_waits_while_a_request_waits_for_a_slot(
    came_late: bool, for_reader: bool
) -> None:
    valves = Valves()
    slots = Slots(1, valves)
    await slots.take()
    producer, later = (Producer(valves, for_reader=for_reader) for _ in range(2))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slots.take if came_late else producer.run)
        await anyio.wait_all_tasks_blocked()
        assert not producer.went_on
        tasks.start_soon(producer.run if came_late else slots.take)
        await anyio.wait_all_tasks_blocked()
        assert producer.went_on
        slots.give_back()
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(later.run)
        await anyio.wait_all_tasks_blocked()
        assert not later.went_on
        tasks.cancel_scope.cancel()


async def test_a_valve_that_nobody_waits_at_any_more_stays_as_it_is() -> None:
    valves = Valves()
    producer = Producer(valves, for_reader=True)
    with anyio.move_on_after(0):
        await producer.run()
    valves.drain()
    assert not producer.valve.is_open
