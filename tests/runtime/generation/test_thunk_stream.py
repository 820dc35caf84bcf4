"""Reading a thunk while it is generated: no text is lost, split or repeated, whoever reads, leaves or waits."""

from __future__ import annotations

import asyncio
import copy
import pickle
import random
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from mellea_sc import (
    BackendError,
    Delta,
    GenerationCancelled,
    ModelOption,
    ModelOutputThunk,
    Requirement,
    ValidationResult,
    start_session,
    wait_for_all_mots,
)
from mellea_sc.runtime.generation.generation import MAX_UNREAD
from mellea_sc.testing import Fail, Pause, Script, ScriptedBackend, Stall, Step, cancel_everywhere

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]

STREAM = {ModelOption.STREAM: True}
BOTH = pytest.mark.parametrize("options", [{}, STREAM], ids=["whole", "streamed"])


async def read_to_the_end(thunk: ModelOutputThunk) -> list[str]:
    texts: list[str] = []
    while not thunk.is_computed():
        texts.append(await thunk.astream())
    return texts


# --- the texts ----------------------------------------------------------------------------------------------


async def test_each_call_returns_what_is_new_and_joined_they_are_the_value() -> None:
    async with start_session(backend=ScriptedBackend(Script("one two three", delay=1))) as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        assert await thunk.astream() == "one"
        assert await thunk.astream() == " two"
        assert not thunk.is_computed()
        assert await thunk.astream() == " three"
        assert thunk.is_computed()
        assert thunk.value == "one two three"


async def test_where_the_end_comes_later_the_last_call_returns_nothing_more() -> None:
    async with start_session(backend=ScriptedBackend(["one", Pause(1)])) as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        assert await thunk.astream() == "one"
        assert not thunk.is_computed()
        assert await thunk.astream() == ""
        assert thunk.is_computed()


async def test_a_call_returns_all_that_came_meanwhile() -> None:
    async with start_session(backend=ScriptedBackend(Script("one two three", delay=1))) as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        await anyio.sleep(2.5)
        assert await thunk.astream() == "one two"
        await anyio.sleep(2)
        assert not thunk.is_computed()
        assert await thunk.astream() == " three"
        assert thunk.is_computed()


@BOTH
async def test_on_a_computed_thunk_a_call_returns_the_whole_value(
    options: dict[str, object],
) -> None:
    async with start_session(backend=ScriptedBackend("one two three")) as m:
        thunk = await m.ainstruct("?", model_options=options)
        await thunk
        assert thunk.is_computed()
        assert await thunk.astream() == "one two three"
        assert await thunk.astream() == "one two three"
        assert [delta async for delta in aiter(thunk)] == ["one two three"]


async def test_without_the_option_the_text_comes_at_the_end() -> None:
    async with start_session(backend=ScriptedBackend(Script("one two", delay=1))) as m:
        thunk = await m.ainstruct("?")
        began = anyio.current_time()
        assert await thunk.astream() == "one two"
        assert anyio.current_time() == pytest.approx(began + 2)
        assert thunk.is_computed()


@BOTH
@pytest.mark.parametrize("delay", [0.0, 0.1])
async def test_async_for_gives_the_deltas_without_empty_ones(
    options: dict[str, object], delay: float
) -> None:
    steps: list[Step] = ["", "one ", Delta(""), "", "two ", "three", ""]
    async with start_session(backend=ScriptedBackend(Script(steps, delay=delay))) as m:
        thunk = await m.ainstruct("?", model_options=options)
        deltas = [delta async for delta in thunk]
        assert "" not in deltas
        assert "".join(deltas) == thunk.value == "one two three"
        if options and delay:
            assert deltas == ["one ", "two ", "three"]


@BOTH
async def test_an_empty_answer_is_a_value(options: dict[str, object]) -> None:
    async with start_session(backend=ScriptedBackend(lambda _: [])) as m:
        thunk = await m.ainstruct("?", model_options=options)
        assert await read_to_the_end(thunk) == [""]
        assert thunk.value == ""
        thunk = await m.ainstruct("?", model_options=options)
        assert [delta async for delta in thunk] == []
        assert thunk.is_computed()


@pytest.mark.parametrize("count", [1, MAX_UNREAD - 1, MAX_UNREAD, MAX_UNREAD + 1, 1000])
async def test_any_number_of_deltas_comes_whole(count: int) -> None:
    deltas = [f"{n} " for n in range(count)]
    async with start_session(backend=ScriptedBackend(deltas)) as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        assert "".join(await read_to_the_end(thunk)) == "".join(deltas)


async def test_reading_can_stop_and_go_on() -> None:
    async with start_session(backend=ScriptedBackend(Script("one two three four", delay=1))) as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        async for delta in thunk:
            assert delta == "one"
            break
        assert await thunk.astream() == " two"
        assert [delta async for delta in thunk] == [" three", " four"]


# --- readers --------------------------------------------------------------------------------------------------


@BOTH
async def test_a_second_reader_at_the_same_time_is_refused_at_once(
    options: dict[str, object],
) -> None:
    async with start_session(backend=ScriptedBackend([Pause(1), "text"])) as m:
        thunk = await m.ainstruct("?", model_options=options)
        read: list[str] = []

        async def reader() -> None:
            read.append(await thunk.astream())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader)
            await anyio.wait_all_tasks_blocked()
            began = anyio.current_time()
            with pytest.raises(anyio.BusyResourceError):
                await thunk.astream()
            with pytest.raises(anyio.BusyResourceError):
                async for _ in thunk:
                    raise AssertionError
            assert anyio.current_time() == began
        assert read == ["text"]


async def test_after_a_reader_was_cancelled_another_one_goes_on_where_it_was() -> None:
    async with start_session(backend=ScriptedBackend(Script("one two three", delay=1))) as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        read = await thunk.astream()
        for _ in range(3):
            with anyio.move_on_after(0.1) as scope:
                await thunk.astream()
            assert scope.cancelled_caught
        read += "".join(await read_to_the_end(thunk))
        assert read == "one two three"


async def test_a_reader_cancelled_at_any_point_loses_nothing() -> None:
    async with start_session(
        backend=ScriptedBackend(lambda _: Script("a b c d e", delay=0.1))
    ) as m:
        for cut in (0.0, 0.05, 0.1, 0.1000001, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6):
            thunk = await m.ainstruct("?", model_options=STREAM)
            read: list[str] = []
            with anyio.move_on_after(cut):
                async for delta in thunk:
                    read.append(delta)  # noqa: PERF401 - as far as it comes
            read.extend([delta async for delta in thunk])
            assert "".join(read) in ("a b c d e", "a b c d e" * 2)  # read twice if it was read out
            assert thunk.value == "a b c d e"


@pytest.mark.parametrize("wait", ["avalue", "all", "dependent"])
async def test_waiters_and_a_reader_do_not_disturb_one_another(wait: str) -> None:
    deltas = [f"{n} " for n in range(500)]
    text = "".join(deltas)
    backend = ScriptedBackend(
        lambda r: Script(deltas, delay=0.001) if r.messages[-1].content == "?" else "dependent"
    )
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        read: list[str] = []

        async def reader() -> None:
            async for delta in thunk:
                read.append(delta)
                await anyio.sleep(0.01)

        async def waiter() -> None:
            match wait:
                case "avalue":
                    assert await thunk == text
                case "all":
                    await wait_for_all_mots([thunk])
                case _:
                    assert await (await m.aact(thunk)) == "dependent"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader)
            tasks.start_soon(waiter)
        assert "".join(read) == text


async def test_a_reader_who_comes_late_gets_everything_deltas_or_value() -> None:
    async with start_session(backend=ScriptedBackend(lambda _: "one two three")) as m:
        finished = await m.ainstruct("?", model_options=STREAM)
        await anyio.wait_all_tasks_blocked()
        assert not finished.is_computed()
        assert await finished.astream() == "one two three"
        assert finished.is_computed()


@pytest.mark.parametrize("reads", [0, 1])
async def test_where_a_reader_breaks_off_the_conversation_has_the_whole_text(reads: int) -> None:
    backend = ScriptedBackend(Script("one two three", delay=1))
    async with start_session(backend=backend, context_type="chat") as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        for _ in range(reads):
            assert await thunk.astream() == "one"
        await anyio.sleep(5)
        assert m.ctx.to_messages()[-1] == {"role": "assistant", "content": "one two three"}
        assert str(thunk) == copy.copy(thunk).value == "one two three"
        assert pickle.loads(pickle.dumps(m.ctx)).to_messages() == m.ctx.to_messages()
        # and who goes on reading misses nothing
        assert not thunk.is_computed()
        rest = await thunk.astream()
        assert "one" * reads + rest == "one two three"
        assert thunk.is_computed()


async def test_reading_and_awaiting_in_random_turns_gives_the_text_once() -> None:
    chance = random.Random(4)
    for _ in range(60):
        words = [f"{n} " for n in range(chance.randrange(1, 200))]
        async with start_session(
            backend=ScriptedBackend(Script(words, delay=chance.choice([0.0, 0.01])))
        ) as m:
            thunk = await m.ainstruct("?", model_options=STREAM)
            read = await thunk.astream()
            while not thunk.is_computed():
                match chance.randrange(4):
                    case 0:
                        with anyio.move_on_after(chance.random() * 0.05):
                            await thunk
                    case 1:
                        await anyio.sleep(chance.random() * 0.1)
                    case _:
                        with anyio.move_on_after(chance.random() * 0.05):
                            read += await thunk.astream()
            assert read == thunk.value == "".join(words)


# --- nobody reads: no deadlock; somebody reads slowly: back-pressure ----------------------------------------------


def counted(number: int) -> tuple[ScriptedBackend, list[int]]:
    """An answer of that many deltas, and how many have been taken from it."""
    taken = [0]

    def deltas() -> Iterator[str]:
        for n in range(number):
            taken[0] = n + 1
            yield f"{n} "

    return ScriptedBackend(lambda _: Script(deltas())), taken


async def test_a_slow_reader_slows_the_producer_down() -> None:
    backend, taken = counted(10 * MAX_UNREAD)
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        await anyio.wait_all_tasks_blocked()
        assert taken[0] == MAX_UNREAD
        first = await thunk.astream()
        assert len(first.split()) == MAX_UNREAD
        await anyio.wait_all_tasks_blocked()
        assert taken[0] == 2 * MAX_UNREAD
        await anyio.sleep(1000)
        assert taken[0] == 2 * MAX_UNREAD


@pytest.mark.parametrize("ending", ["avalue", "all", "leave", "dependent"])
async def test_a_stream_that_nobody_reads_is_drained_by_whoever_needs_it(ending: str) -> None:
    backend, taken = counted(10 * MAX_UNREAD)
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        await anyio.wait_all_tasks_blocked()
        assert taken[0] == MAX_UNREAD
        match ending:
            case "avalue":
                await thunk
            case "all":
                await wait_for_all_mots([thunk])
            case "dependent":
                await (await m.aact(thunk))
            case _:
                pass
    assert thunk.is_computed()
    assert thunk.value == "".join(f"{n} " for n in range(10 * MAX_UNREAD))


async def test_a_stream_that_waits_for_its_reader_can_be_cancelled() -> None:
    backend, _ = counted(10 * MAX_UNREAD)
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        await anyio.wait_all_tasks_blocked()
        thunk.cancel()
        with pytest.raises(GenerationCancelled) as caught:
            await thunk
        assert len(caught.value.partial_text.split()) == MAX_UNREAD
        read: list[str] = []
        with pytest.raises(GenerationCancelled):
            async for delta in thunk:
                read.append(delta)  # noqa: PERF401 - as far as it comes
        assert "".join(read) == caught.value.partial_text


# --- failures: what came before is not lost ------------------------------------------------------------------------


@BOTH
async def test_what_was_received_before_a_failure_is_returned_before_it(
    options: dict[str, object],
) -> None:
    failure = BackendError("bad")
    words = [f"{n} " for n in range(60)]
    async with start_session(backend=ScriptedBackend([*words, Fail(failure)])) as m:
        thunk = await m.ainstruct("?", model_options=options)
        await anyio.wait_all_tasks_blocked()
        read: list[str] = []
        with pytest.raises(BackendError) as caught:
            async for delta in thunk:
                read.append(delta)  # noqa: PERF401 - as far as it comes
        assert caught.value is failure
        assert "".join(read) == "".join(words)
        for _ in range(2):
            with pytest.raises(BackendError):
                await thunk.astream()
        assert not thunk.is_computed()


@BOTH
async def test_a_reader_who_waits_is_told_of_a_cancellation(options: dict[str, object]) -> None:
    async with start_session(backend=ScriptedBackend(["one ", Stall()])) as m:
        thunk = await m.ainstruct("?", model_options=options)
        read: list[str] = []

        async def reader() -> None:
            with pytest.raises(GenerationCancelled, match="enough"):
                while True:
                    read.append(await thunk.astream())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader)
            await anyio.wait_all_tasks_blocked()
            thunk.cancel("enough")
        assert read == ["one "]


# --- text that may be retracted --------------------------------------------------------------------------------------


async def test_with_requirements_the_text_streams_when_an_attempt_is_accepted() -> None:
    verdicts = iter([False, True])
    answers = iter(["wrong answer", "right answer"])
    backend = ScriptedBackend(lambda _: Script(next(answers), delay=1))
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct(
            "?",
            requirements=[Requirement("r", lambda _: ValidationResult(next(verdicts)))],
            model_options=STREAM,
        )
        began = anyio.current_time()
        assert "".join(await read_to_the_end(thunk)) == "right answer"
        assert anyio.current_time() == pytest.approx(began + 4)


async def test_without_a_strategy_the_text_streams_at_once() -> None:
    backend = ScriptedBackend(Script("one two", delay=1))
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", requirements=["r"], strategy=None, model_options=STREAM)
        assert await thunk.astream() == "one"


# --- anywhere ----------------------------------------------------------------------------------------------------------


async def test_wherever_a_reading_program_is_cancelled_it_has_read_a_beginning_of_the_text() -> (
    None
):
    words = [f"{n} " for n in range(3 * MAX_UNREAD)]
    read: list[str] = []

    async def program() -> None:
        read.clear()
        backend = ScriptedBackend([*words[:90], Pause(0.1), *words[90:]])
        async with start_session(backend=backend) as m:
            thunk = await m.ainstruct("?", model_options=STREAM)
            async for delta in thunk:
                read.append(delta)
                await anyio.lowlevel.checkpoint()

    async def check() -> None:
        assert "".join(words).startswith("".join(read))

    await cancel_everywhere(program, after_each=check)


# --- by counting --------------------------------------------------------------------------------------------------------


async def test_a_source_that_never_waits_wakes_its_reader_a_few_hundred_times_for_ten_thousand() -> (
    None
):
    deltas = [f"{n} " for n in range(10_000)]
    async with start_session(backend=ScriptedBackend(lambda _: deltas)) as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        texts = await read_to_the_end(thunk)
        assert "".join(texts) == "".join(deltas)
        assert len(texts) <= 10_000 // MAX_UNREAD + 2
        drained = await m.ainstruct("?", model_options=STREAM)
        await anyio.wait_all_tasks_blocked()
        drained.producer.stop_throttling()
        texts = await read_to_the_end(drained)
        assert "".join(texts) == "".join(deltas)
        assert len(texts) <= 300


async def test_a_source_that_never_waits_lets_other_tasks_run() -> None:
    deltas = ["x"] * 10_000
    turns = 0
    async with start_session(backend=ScriptedBackend(deltas)) as m:
        thunk = await m.ainstruct("?")

        async def other() -> None:
            nonlocal turns
            while not thunk.is_computed():
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
        assert turns >= 50


async def test_a_long_text_costs_steps_of_the_loop_in_proportion_to_its_waits_not_its_deltas() -> (
    None
):
    steps = 0

    class Loop(asyncio.SelectorEventLoop):
        def _run_once(self) -> None:
            nonlocal steps
            steps += 1
            super()._run_once()  # type: ignore[misc]

    async def main() -> None:
        async with start_session(backend=ScriptedBackend(["x"] * 10_000)) as m:
            assert len(await (await m.ainstruct("?"))) == 10_000

    def run() -> None:
        anyio.run(main, backend_options={"loop_factory": Loop})

    await anyio.to_thread.run_sync(run)
    assert steps < 300


async def test_without_stream_the_text_comes_whole_also_to_who_asks_in_the_middle() -> None:
    async with start_session(backend=ScriptedBackend(["some ", Pause(1), "text"])) as m:
        thunk = await m.ainstruct("?")
        await anyio.sleep(0.5)
        assert thunk.text_so_far == "some "
        assert await thunk.astream() == "some text"


async def test_2_6_a_block_that_is_left_before_the_first_delta_waits_for_no_reader() -> None:
    deltas = ["x"] * (3 * MAX_UNREAD)
    with anyio.fail_after(5):
        async with start_session(backend=ScriptedBackend(deltas)) as m:
            thunk = await m.ainstruct("?", model_options={ModelOption.STREAM: True})
    assert thunk.value == "x" * len(deltas)
