"""What a stream costs, counted instead of timed: the same on every machine, and changed only on purpose.

Each count is taken at two lengths of the text, and what is checked is the difference between them: what
more deltas cost, without what is paid once per run. Time is virtual, so no count depends on the clock.

Under asyncio the numbers are exact, whatever the versions of Python and of anyio are. Under trio they
are bounds: it runs what is ready in an order that it draws, and the order decides whether a reader finds
something or has to wait. Calls and blocks of memory are bounds too, for interpreters differ in what they
inline and in what they allocate.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest

import mellea_sc
from mellea_sc import (
    Delta,
    ModelOption,
    PartialValidationResult,
    Requirement,
    ValidationResult,
    start_session,
    wait_for_all_mots,
)
from mellea_sc.testing import Script, ScriptedBackend, Stall, run_virtual
from mellea_sc.testing._loops.steps import watch_steps

SHORT, LONG = 768, 1536
"""Deltas; both are multiples of every size of a batch in the library, and of a sentence's length."""
MORE = LONG - SHORT
WORDS_IN_A_SENTENCE = 12
OURS = str(Path(mellea_sc.__file__).parent)
TESTING = str(Path(OURS) / "testing")

TURN = MORE // 128
"""How often a source that never waits gives the others a turn."""
UNREAD = MORE // 64
"""How often a thunk's reader falls as far behind as it may."""
FULL = MORE // 16
"""How often a lane is full, where each delta is a chunk."""

Program = Callable[[Sequence[Delta]], Awaitable[int]]
Keeper = Callable[[Sequence[Delta]], Awaitable[object]]


class Trivial(Requirement):
    async def stream_validate(self, chunk, *, backend, ctx):
        return UNKNOWN

    async def validate(self, backend, ctx, *, format=None, model_options=None):
        return ValidationResult(True)


UNKNOWN = PartialValidationResult("unknown")


def text(deltas: int) -> list[Delta]:
    texts = ["end. " if i % WORDS_IN_A_SENTENCE == 0 else "word " for i in range(1, deltas + 1)]
    return [Delta(text) for text in texts]


class Suspensions:
    """Awaits something and counts how often that gives up control."""

    def __init__(self, awaited: Awaitable[object]) -> None:
        self.count = 0
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._awaited.__await__()
        try:
            yielded = next(inner)
            while True:
                self.count += 1
                try:
                    sent = yield yielded
                except BaseException as error:
                    yielded = inner.throw(error)
                else:
                    yielded = inner.send(sent)
        except StopIteration as stop:
            return stop.value


# --- what is counted -----------------------------------------------------------------------------


async def read(reader: Callable[[], Awaitable[None]]) -> int:
    """How often a reader gives up control."""
    suspensions = Suspensions(reader())
    await suspensions
    return suspensions.count


def checked_stream(requirements: int, chunking: str, *, pace: float = 0.0) -> Program:
    """Reads a checked stream; how often its reader had to wait."""

    async def program(deltas: Sequence[Delta]) -> int:
        async def reader() -> None:
            async for _ in result.astream():
                pass

        async with start_session(backend=ScriptedBackend(Script(deltas, delay=pace))) as m:
            judges = [Trivial("fine") for _ in range(requirements)]
            async with m.stream("Say it.", requirements=judges, chunking=chunking) as result:
                return await read(reader)

    return program


async def streamed_thunk(deltas: Sequence[Delta]) -> int:
    """Reads a streamed thunk; how often its reader had to wait."""

    async with start_session(backend=ScriptedBackend(deltas)) as m:
        thunk = await m.ainstruct("Say it.", model_options={ModelOption.STREAM: True})

        async def reader() -> None:
            async for _ in thunk:
                pass

        return await read(reader)


async def awaited_thunk(deltas: Sequence[Delta]) -> int:
    """Awaits a thunk; how often the waiter was woken."""
    async with start_session(backend=ScriptedBackend(deltas)) as m:
        thunk = await m.ainstruct("Say it.")
        return await read(thunk.avalue)


async def kept_thunk(deltas: Sequence[Delta]) -> object:
    """A computed thunk."""
    async with start_session(backend=ScriptedBackend(deltas)) as m:
        thunk = await m.ainstruct("Say it.")
        await thunk
        return thunk


def kept_stream(requirements: int, chunking: str) -> Keeper:
    """The result of a stream whose events have not been read."""

    async def program(deltas: Sequence[Delta]) -> object:
        async with start_session(backend=ScriptedBackend(deltas)) as m:
            judges = [Trivial("fine") for _ in range(requirements)]
            async with m.stream("Say it.", requirements=judges, chunking=chunking) as result:
                async for _ in result.astream():
                    pass
            return result

    return program


def waits(program: Program, loop: str) -> int:
    """How often the reader has to wait in the longer text more than in the shorter one."""
    short, long = (run_virtual(program, text(n), backend=loop) for n in (SHORT, LONG))
    return long - short


def task_switches(program: Program, loop: str) -> int:
    """How many steps all tasks take in the longer text more than in the shorter one."""

    async def count(deltas: Sequence[Delta]) -> int:
        steps = 0

        def stepped() -> None:
            nonlocal steps
            steps += 1

        with watch_steps(stepped):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(program, deltas)
        return steps

    short, long = (run_virtual(count, text(n), backend=loop) for n in (SHORT, LONG))
    return long - short


@contextmanager
def counting_calls() -> Generator[list[int]]:
    """Counts how often a function of the library is entered or resumed."""
    calls = [0]

    def profile(frame: FrameType, event: str, _: object) -> None:
        where = frame.f_code.co_filename
        if event == "call" and where.startswith(OURS) and not where.startswith(TESTING):
            calls[0] += 1

    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def calls(program: Program, loop: str) -> int:
    """How many more calls of the library's functions the longer text takes."""

    def count(deltas: Sequence[Delta]) -> int:
        with counting_calls() as found:
            run_virtual(program, deltas, backend=loop)
        return found[0]

    count(text(SHORT))  # the first time, modules are imported
    return count(text(LONG)) - count(text(SHORT))


def kept_blocks(program: Keeper, loop: str) -> int:
    """How many more blocks of memory are held at the end of the longer text."""
    texts = [text(SHORT), text(LONG)]

    async def count(deltas: Sequence[Delta]) -> int:
        gc.collect()
        before = sys.getallocatedblocks()
        kept = await program(deltas)
        gc.collect()
        after = sys.getallocatedblocks()
        del kept
        return after - before

    run_virtual(count, texts[0], backend=loop)
    short, long = (run_virtual(count, deltas, backend=loop) for deltas in texts)
    return long - short


# --- what is promised ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        pytest.param(streamed_thunk, UNREAD, id="streamed thunk"),
        pytest.param(awaited_thunk, 0, id="awaited thunk"),
        pytest.param(checked_stream(0, "sentence"), TURN, id="sentences, 0 requirements"),
        pytest.param(checked_stream(1, "sentence"), TURN, id="sentences, 1 requirement"),
        pytest.param(checked_stream(4, "sentence"), TURN, id="sentences, 4 requirements"),
        pytest.param(checked_stream(0, "word"), TURN, id="words, 0 requirements"),
        pytest.param(checked_stream(1, "word"), FULL, id="words, 1 requirement"),
        pytest.param(checked_stream(4, "word"), FULL, id="words, 4 requirements"),
    ],
)
def test_a_source_that_never_waits_wakes_the_reader_once_a_batch(
    program: Program, expected: int
) -> None:
    assert waits(program, "asyncio") == expected
    assert waits(program, "trio") <= 1.5 * expected


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        pytest.param(streamed_thunk, 2 * UNREAD + TURN, id="streamed thunk"),
        pytest.param(awaited_thunk, TURN, id="awaited thunk"),
        *(
            pytest.param(
                checked_stream(requirements, chunking),
                (2 + requirements) * (FULL if chunking == "word" and requirements else TURN),
                id=f"{chunking}s, {requirements} requirements",
            )
            for chunking in ("sentence", "word")
            for requirements in (0, 1, 4)
        ),
    ],
)
def test_each_task_takes_one_step_a_batch(program: Program, expected: int) -> None:
    """The producer, the reader and each requirement; a thunk's producer also gives others a turn."""
    assert task_switches(program, "asyncio") == expected
    assert task_switches(program, "trio") <= 2 * expected


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("requirements", [0, 1, 4])
def test_with_a_pace_a_delta_takes_one_step_of_each_task_and_two_of_a_lane(
    requirements: int, loop: str
) -> None:
    """A lane takes two because receiving from a memory object stream begins with a checkpoint."""
    paced = checked_stream(requirements, "word", pace=0.01)
    assert waits(paced, loop) == MORE
    expected = (2 + 2 * requirements) * MORE + TURN
    assert task_switches(paced, loop) == pytest.approx(expected, rel=0.05 if loop == "trio" else 0)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("program", "limit"),
    [
        pytest.param(awaited_thunk, 2.05, id="awaited thunk"),
        pytest.param(streamed_thunk, 2.62, id="streamed thunk"),
        pytest.param(checked_stream(0, "sentence"), 6.9, id="sentences, 0 requirements"),
        pytest.param(checked_stream(1, "sentence"), 7.35, id="sentences, 1 requirement"),
        pytest.param(checked_stream(4, "sentence"), 8.4, id="sentences, 4 requirements"),
        pytest.param(checked_stream(0, "word"), 16.1, id="words, 0 requirements"),
        pytest.param(checked_stream(1, "word"), 22.8, id="words, 1 requirement"),
        pytest.param(checked_stream(4, "word"), 36.1, id="words, 4 requirements"),
    ],
)
def test_a_delta_takes_few_calls(program: Program, limit: float, loop: str) -> None:
    """Calls of this library's own functions, the requirements' and the source's not among them.

    One of them hands out the deltas behind the first, which was read to see whether to ask once more.
    """
    assert calls(program, loop) / MORE <= limit * (1.05 if loop == "trio" else 1)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("program", "limit"),
    [
        pytest.param(kept_thunk, 0.1, id="thunk"),
        pytest.param(kept_stream(0, "word"), 5.2, id="words, 0 requirements"),
        pytest.param(kept_stream(4, "word"), 7.5, id="words, 4 requirements"),
    ],
)
def test_what_is_kept_of_a_delta_is_small(program: Keeper, limit: float, loop: str) -> None:
    """Of a thunk, its text alone; of a checked stream, the events that nobody has read."""
    assert kept_blocks(program, loop) / MORE <= limit * (1.2 if loop == "trio" else 1)


# --- many thunks -----------------------------------------------------------------------------------

FEW, MANY = 64, 192
"""Thunks at the same time."""


async def awaited_together(thunks: int) -> None:
    """Thunks of one delta each that are waited for together."""
    backend = ScriptedBackend(lambda _: [Delta("Done.", finish_reason="stop")])
    async with start_session(backend=backend) as m:
        await wait_for_all_mots([await m.ainstruct("Say it.") for _ in range(thunks)])


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_thunk_takes_two_steps_however_many_are_waited_for(loop: str) -> None:
    """One to the backend's checkpoint, and one to its end: nobody is started or woken for it."""

    async def count(thunks: int) -> int:
        steps = 0

        def stepped() -> None:
            nonlocal steps
            steps += 1

        with watch_steps(stepped):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(awaited_together, thunks)
        return steps

    few, many = (run_virtual(count, thunks, backend=loop) for thunks in (FEW, MANY))
    assert many - few == 2 * (MANY - FEW)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_running_thunk_holds_little_more_than_its_task(loop: str) -> None:
    """Blocks of memory beyond those of a task that sleeps: the script's own are among them."""

    async def of_thunks(count: int) -> int:
        backend = ScriptedBackend(lambda _: [Stall()])
        async with start_session(backend=backend) as m:
            await m.ainstruct("Say it.")
            await anyio.wait_all_tasks_blocked()
            gc.collect()
            before = sys.getallocatedblocks()
            kept = [await m.ainstruct("Say it.") for _ in range(count)]
            await anyio.wait_all_tasks_blocked()
            gc.collect()
            after = sys.getallocatedblocks()
            del kept
            m.cancel()
        return after - before

    async def of_tasks(count: int) -> int:
        async with anyio.create_task_group() as tasks:
            gc.collect()
            before = sys.getallocatedblocks()
            for _ in range(count):
                tasks.start_soon(anyio.sleep_forever)
            await anyio.wait_all_tasks_blocked()
            gc.collect()
            after = sys.getallocatedblocks()
            tasks.cancel_scope.cancel()
        return after - before

    thunks, bare = (run_virtual(program, MANY, backend=loop) for program in (of_thunks, of_tasks))
    assert (thunks - bare) / MANY <= (48 if loop == "trio" else 46)
