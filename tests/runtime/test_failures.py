"""What is told of an error: the error as it was raised, and nothing of how it came."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import pytest
from kit import Check

from mellea_sc import (
    BackendUnreachable,
    MaxWords,
    MelleaError,
    ModelOption,
    RejectionSamplingStrategy,
    Requirement,
    RunError,
    StreamConsumed,
    start_session,
    wait_for_all_mots,
)
from mellea_sc.core.base import Context
from mellea_sc.core.requirement import ValidationResult
from mellea_sc.runtime.failures import (
    failure_of,
    leaf_errors,
    sole_error,
    task_group,
    without_internals,
)
from mellea_sc.runtime.loops.current import running_task
from mellea_sc.runtime.pacing import Slots, Valves
from mellea_sc.stdlib.session import MelleaSession
from mellea_sc.testing import Fail, ScriptedBackend, Stall

pytestmark = pytest.mark.anyio


def chain_of(error: BaseException) -> list[BaseException]:
    """As IPython walks it, which looks at suppressed contexts too."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None:
        assert one not in chain, "a cycle"
        chain.append(one)
        one = one.__cause__ or one.__context__
    return chain


def ours_in(error: BaseException) -> list[str]:
    """The frames of the library in an error's traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame.name for frame in frames if "/mellea_sc/" in frame.filename]


def judge(_: Context) -> ValidationResult:
    raise ZeroDivisionError("a validator's")


async def raises(*_: object) -> object:
    raise ZeroDivisionError("a validator's")


FAILING = Requirement("r", judge)


async def a_thunk(m: MelleaSession) -> None:
    await (await m.ainstruct("?", requirements=[FAILING]))


async def a_thunk_with_two_validators(m: MelleaSession) -> None:
    requirements = [Check(raises), MaxWords(9)]
    strategy = RejectionSamplingStrategy(loop_budget=1)
    await (await m.ainstruct("?", requirements=requirements, strategy=strategy))


async def a_precondition(m: MelleaSession) -> None:
    await (await m.ainstruct("?", preconditions=[FAILING]))


async def a_finished_call(m: MelleaSession) -> None:
    await m.ainstruct("?", requirements=[FAILING], await_result=True)


async def a_validation(m: MelleaSession) -> None:
    await m.avalidate([FAILING], output="text")


async def several_at_once(m: MelleaSession) -> None:
    await wait_for_all_mots([await m.ainstruct("?", requirements=[FAILING]) for _ in range(2)])


async def a_stream(m: MelleaSession) -> None:
    async with m.stream("?", requirements=[Check(raises)]) as result:
        await result.acomplete()


async def a_reader(m: MelleaSession) -> None:
    async with m.stream("?", requirements=[Check(raises)]) as result:
        async for _ in result.astream():
            pass


WAYS = [
    a_thunk,
    a_thunk_with_two_validators,
    a_precondition,
    a_finished_call,
    a_validation,
    several_at_once,
    a_stream,
    a_reader,
]


@pytest.mark.parametrize("way", WAYS)
async def test_1_9_an_error_comes_without_a_context_and_without_frames_of_ours(
    way: Callable[[MelleaSession], Awaitable[None]],
) -> None:
    async with start_session(backend=ScriptedBackend(lambda _: "Some text.")) as m:
        with pytest.raises(ZeroDivisionError) as caught:
            await way(m)
    assert chain_of(caught.value) == [caught.value]
    assert ours_in(caught.value) == []
    assert traceback.extract_tb(caught.value.__traceback__)[-1].filename == __file__


def test_1_9_so_does_one_of_a_blocking_call() -> None:
    backend = ScriptedBackend(lambda _: "Some text.")
    with start_session(backend=backend) as m, pytest.raises(ZeroDivisionError) as caught:
        m.instruct("?", requirements=[FAILING])
    assert chain_of(caught.value) == [caught.value]
    assert ours_in(caught.value) == []


@pytest.mark.parametrize("way", WAYS)
async def test_1_9_so_does_one_that_leaves_the_block_of_its_session(
    way: Callable[[MelleaSession], Awaitable[None]],
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        async with start_session(backend=ScriptedBackend(lambda _: "Some text.")) as m:
            await way(m)
    assert ours_in(caught.value) == []


async def a_cancelled_thunk(m: MelleaSession) -> None:
    thunk = await m.ainstruct("wait")
    thunk.cancel()
    await thunk


async def a_cancelled_thunks_deltas(m: MelleaSession) -> None:
    thunk = await m.ainstruct("wait", model_options={ModelOption.STREAM: True})
    thunk.cancel()
    async for _ in thunk:
        pass


async def a_wrong_option(m: MelleaSession) -> None:
    await m.ainstruct("?", requirements="be nice")  # type: ignore[call-overload]


async def a_wrong_option_of_a_stream(m: MelleaSession) -> None:
    m.stream("?", requirements="be nice")


async def a_streams_wrong_option(m: MelleaSession) -> None:
    await m.stream("?", lookahead=0)


async def a_session_that_has_ended(m: MelleaSession) -> None:
    n = start_session(backend=m.backend)
    await n.aclose()
    await n.achat("?")


@pytest.mark.parametrize(
    "way",
    [
        a_cancelled_thunk,
        a_cancelled_thunks_deltas,
        a_wrong_option,
        a_wrong_option_of_a_stream,
        a_streams_wrong_option,
        a_session_that_has_ended,
    ],
)
async def test_an_error_of_the_librarys_own_has_one_frame_of_ours(
    way: Callable[[MelleaSession], Awaitable[None]],
) -> None:
    async with start_session(backend=ScriptedBackend(lambda _: [Stall()])) as m:
        with pytest.raises(MelleaError) as caught:
            await way(m)
    assert len(ours_in(caught.value)) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # with a socket
async def test_a_server_that_is_not_there_is_told_of_without_the_insides_of_a_client() -> None:
    with anyio.fail_after(60):
        async with start_session("ollama", "x", base_url="http://127.0.0.1:9") as m:
            with pytest.raises(BackendUnreachable) as caught:
                await m.achat("?")
    assert ours_in(caught.value) == ["ask"]
    for one in chain_of(caught.value)[1:]:
        assert len(traceback.extract_tb(one.__traceback__)) == 1


async def test_all_frames_stay_where_somebody_looks_for_a_fault_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MELLEA_SC_TRACEBACKS", "full")
    async with start_session(backend=ScriptedBackend(lambda _: "Some text.")) as m:
        with pytest.raises(ZeroDivisionError) as caught:
            await a_validation(m)
    assert len(ours_in(caught.value)) > 5


async def test_1_9_an_errors_own_story_stays() -> None:
    async def wrong(_: Context) -> ValidationResult:
        try:
            {}["missing"]
        except KeyError:
            raise ValueError("in a handler")  # noqa: B904 - the context is what this is about

    async with start_session(backend=ScriptedBackend(lambda _: "Some text.")) as m:
        with pytest.raises(ValueError, match="in a handler") as caught:
            await m.avalidate(Requirement("r", wrong), output="text")
    assert [type(one) for one in chain_of(caught.value)] == [ValueError, KeyError]


async def test_1_9_an_error_raised_again_has_no_context_of_the_time_before() -> None:
    backend = ScriptedBackend(lambda _: Fail(ValueError("first")))
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?")
        try:
            {}["missing"]
        except KeyError:
            with pytest.raises(ValueError, match="first"):
                await thunk
        with pytest.raises(ValueError, match="first") as caught:
            await thunk
    assert chain_of(caught.value) == [caught.value]


async def test_1_9_a_group_that_is_left_in_a_session_has_no_context_either() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(
            backend=ScriptedBackend(lambda _: Fail(ValueError())), on_error="cancel"
        ) as m:
            await m.ainstruct("?")
            await anyio.sleep_forever()
    assert chain_of(caught.value) == [caught.value]


async def test_sole_error_leaves_no_group_behind() -> None:
    async def fail() -> None:
        raise ValueError("a")

    with pytest.raises(ValueError, match="a") as caught, sole_error():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
    assert chain_of(caught.value) == [caught.value]


async def test_a_cycle_of_groups_is_cut() -> None:
    error = ValueError("a")
    error.__context__ = ExceptionGroup("of a task group", [error])
    assert chain_of(without_internals(error)) == [error]


async def test_what_is_suppressed_is_forgotten_and_a_cause_is_not() -> None:
    hidden, shown = ValueError("hidden"), ValueError("shown")
    hidden.__context__, hidden.__suppress_context__ = KeyError(), True
    shown.__cause__ = cause = KeyError()
    assert chain_of(without_internals(hidden)) == [hidden]
    assert chain_of(without_internals(shown)) == [shown, cause]


async def test_a_cancellation_is_kept_in_no_error() -> None:
    errors: list[Exception] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(1)
        finally:
            with suppress(ValueError):
                errors.append(ValueError("in a cleanup"))
                raise errors[0]
    (error,) = errors
    assert error.__context__ is not None
    assert chain_of(without_internals(error)) == [error]


async def test_a_group_with_cancellations_fails_by_its_errors() -> None:
    kept: list[BaseException] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(1)
        except BaseException as error:
            kept.append(error)
            raise
    group = BaseExceptionGroup("both", [kept.pop(), ValueError("a")])
    failure = failure_of(group, "it", running_task())
    assert isinstance(failure, ExceptionGroup)
    assert [str(one) for one in leaf_errors(failure)] == ["a"]


async def test_who_is_closed_from_outside_does_not_fail() -> None:
    assert failure_of(GeneratorExit(), "it", object()) is None
    assert isinstance(failure_of(GeneratorExit(), "it", running_task()), RunError)
    assert failure_of(KeyboardInterrupt(), "it", running_task()) is None


async def test_4_9_a_second_iteration_is_a_runtime_error_too() -> None:
    async with start_session(backend=ScriptedBackend("Some text.")) as m:
        result = await m.stream("?")
        assert [event async for event in result.events()]
        with pytest.raises(RuntimeError) as caught:
            await anext(result.events())
        assert isinstance(caught.value, StreamConsumed)
        assert isinstance(caught.value, anyio.BusyResourceError)
        assert isinstance(caught.value, MelleaError)


# --- errors and asyncio's own cancellation ---------------------------------------------------------------------------


@pytest.mark.parametrize("raised_in", ["its block", "a task"])
@pytest.mark.parametrize("after", range(1, 8))
def test_a_cancellation_of_asyncios_own_takes_the_place_of_no_error_of_a_task_group(
    raised_in: str, after: int
) -> None:
    async def fail() -> None:
        raise ValueError("a")

    async def block() -> None:
        async with task_group() as tasks:
            if raised_in == "its block":
                await fail()
            tasks.start_soon(fail)
            await anyio.sleep_forever()

    async def main() -> None:
        task = asyncio.create_task(block())
        for _ in range(after):
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(ValueError, match="a") as caught:
        asyncio.run(main())
    assert chain_of(caught.value) == [caught.value]


async def test_a_task_group_raises_an_error_that_is_the_only_one_as_itself() -> None:
    inner = ExceptionGroup("inner", [ValueError("a"), ValueError("b")])

    async def fail(error: Exception) -> None:
        raise error

    with pytest.raises(ValueError, match="a") as caught:
        async with task_group() as tasks:
            tasks.start_soon(fail, ValueError("a"))
    assert chain_of(caught.value) == [caught.value]
    with pytest.raises(ExceptionGroup) as group:
        async with task_group():
            await fail(inner)
    assert (group.value.message, group.value.exceptions) == ("inner", inner.exceptions)
    with pytest.raises(ExceptionGroup) as both:
        async with task_group() as tasks:
            tasks.start_soon(fail, ValueError("a"))
            tasks.start_soon(fail, KeyError("b"))
            await anyio.sleep_forever()
    assert {type(one) for one in both.value.exceptions} == {ValueError, KeyError}


async def test_who_is_cancelled_while_waiting_for_a_place_has_nothing_in_the_context() -> None:
    valves = Valves()
    slots = Slots(1, valves)
    await slots.take()
    chain: list[BaseException] = []
    with anyio.move_on_after(0):
        try:
            await slots.take()
        except anyio.get_cancelled_exc_class() as error:
            chain = chain_of(error)
            raise
    assert len(chain) == 1
