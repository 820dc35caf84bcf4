"""A tape has one reader and forgets what was read."""

from __future__ import annotations

import anyio
import pytest

from mellea_sc.core.errors import StreamConsumed
from mellea_sc.stdlib.streaming.view import Tape

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(two_orders: tuple[str, dict[str, object]]) -> tuple[str, dict[str, object]]:
    """The event loop of a test."""
    return two_orders


async def test_a_tape_is_read_once_and_what_is_there_needs_no_waiting() -> None:
    read: list[int] = []
    tape: Tape[str] = Tape("numbers", on_read=lambda: read.append(tape.taken))
    for n in range(3):
        tape.write(str(n))
    unused = tape.reader(str)
    reader = tape.reader(str)
    assert [await anext(reader), await anext(reader)] == ["0", "1"]
    assert read == [1, 2]
    with pytest.raises(StreamConsumed, match="numbers"):
        await anext(unused)
    tape.end()
    assert [n async for n in reader] == ["2"]
    assert [n async for n in reader] == []
    with pytest.raises(StreamConsumed):
        await anext(tape.reader(str))


async def test_a_reader_of_a_tape_wakes_for_what_is_written_and_for_the_end() -> None:
    tape: Tape[str] = Tape("numbers")
    got: list[str] = []

    async def read() -> None:
        async for n in tape.reader(str):
            got.append(n)  # noqa: PERF401 - seen from outside while it goes on

    async with anyio.create_task_group() as tg:
        tg.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        for n in range(3):
            tape.write(str(n))
            await anyio.wait_all_tasks_blocked()
            assert got == [*"012"[: n + 1]]
        tape.end()
    assert got == [*"012"]


async def test_a_cancelled_reader_of_a_tape_loses_nothing_and_may_go_on() -> None:
    tape: Tape[str] = Tape("numbers")
    reader = tape.reader(str)
    with anyio.move_on_after(1) as scope:
        await anext(reader)
    assert scope.cancelled_caught
    tape.write("1")
    assert await anext(reader) == "1"


async def test_what_the_end_of_a_tape_raises_its_reader_gets_once() -> None:
    errors = [LookupError("told")]

    def tell() -> Exception | None:
        return errors.pop() if errors else None

    tape: Tape[str] = Tape("numbers", error=tell)
    tape.write("1")
    tape.end()
    reader = tape.reader(str)
    assert await anext(reader) == "1"
    with pytest.raises(LookupError):
        await anext(reader)
    assert [n async for n in reader] == []


async def test_what_is_empty_in_an_item_is_passed_over() -> None:
    tape: Tape[str] = Tape("words")
    for word in ("a ", " ", "b"):
        tape.write(word)
    tape.end()
    assert [word async for word in tape.reader(str.strip)] == ["a", "b"]
