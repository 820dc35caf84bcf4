"""Several threads and event loops around one session: each gets its answers, or a typed error at once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mellea_sc import (
    BackendError,
    GenerationCancelled,
    MelleaSession,
    Message,
    ModelOption,
    PartialValidationResult,
    Requirement,
    SessionClosed,
    SimpleContext,
    SyncCallInEventLoop,
    UsageError,
    ValidationResult,
    ValidatorTimeout,
    start_session,
    stream_with_chunking,
    wait_for_all_mots,
)
from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.testing import Fail, Pause, ScriptedBackend, Stall, Step

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])
ELSEWHERE = ("a plain thread", "asyncio", "trio")
OTHER = {"asyncio": "trio", "trio": "asyncio"}
IN_A_LOOP = ("asyncio", "trio")
TEXT = "a. b. "


@pytest.fixture(autouse=True)
def _collected(collected: None) -> None:
    """Bare sessions are gone before the next test."""


class Held(ScriptedBackend):
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        super().__init__(self._wait)

    def _wait(self, _: object) -> Iterator[Step]:
        yield "a. "
        while not self.go_on.is_set():
            yield Pause(0.005)
        yield "b. "


async def begun(backend: ScriptedBackend, requests: int = 1) -> None:
    """Wait until so many answers have begun."""
    with anyio.fail_after(60):
        while sum(call.deltas_sent > 0 for call in backend.calls) < requests:  # noqa: ASYNC110
            await anyio.sleep(0.001)  # it may be in the loop of another thread


def quick() -> ScriptedBackend:
    return ScriptedBackend(lambda _: "a.")


def stalled() -> ScriptedBackend:
    return ScriptedBackend(lambda _: ["some ", Stall()])


def use_elsewhere(use: Callable[[], object], elsewhere: str) -> str:
    """The kind of error of a use in a thread, in which perhaps a loop runs."""

    async def in_a_loop() -> None:
        used = use()
        if isinstance(used, Awaitable):
            await used
        elif hasattr(used, "__anext__"):
            await anext(used)

    try:
        if elsewhere == "a plain thread":
            use()
        else:
            anyio.run(in_a_loop, backend=elsewhere)
    except BaseException as error:
        return type(error).__name__
    return "no error"


async def errors_of(use: Callable[[], object], everywhere: Sequence[str] = IN_A_LOOP) -> set[str]:
    """The kinds of errors of a use in all those places."""
    with anyio.fail_after(60):
        return {
            await anyio.to_thread.run_sync(use_elsewhere, use, elsewhere, abandon_on_cancel=True)
            for elsewhere in everywhere
        }


# --- what is used elsewhere -------------------------------------------------------------------------


@LOOPS
def test_a_run_is_read_and_waited_for_in_its_own_loop(loop: str) -> None:
    async def main() -> None:
        backend = Held()
        async with start_session(backend=backend) as m:
            result = await m.stream("?", lookahead=1, chunking="word")
            await begun(backend)  # there is something to read
            for use in (result.acomplete, result.astream, result.atext, result.events):
                assert await errors_of(use) == {"WrongEventLoop"}
            backend.go_on.set()
            assert [chunk async for chunk in result.astream()] == ["a.", "b."]
            assert result.completed

    anyio.run(main, backend=loop)


@LOOPS
def test_events_that_were_begun_in_one_loop_do_not_go_on_in_another(loop: str) -> None:
    async def main() -> None:
        backend = ScriptedBackend(lambda _: ["a. b. ", Stall()])
        async with start_session(backend=backend) as m:
            result = await m.stream("?", requirements=[Passes()])
            events = result.events()
            await anext(events)  # the first one of the two of a chunk
            assert await errors_of(events.__anext__) == {"WrongEventLoop"}
            assert type(await anext(events)).__name__ == "ChunkEvent"
            result.cancel()

    anyio.run(main, backend=loop)


class Passes(Requirement):
    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        return PartialValidationResult("pass")

    async def validate(self, *_: object, **__: object) -> ValidationResult:
        return ValidationResult(True)


@LOOPS
def test_a_run_that_has_ended_is_read_anywhere(loop: str) -> None:
    async def main() -> None:
        async with start_session(backend=quick()) as m:
            result = await m.stream("?")
            await result.acomplete()
            assert await errors_of(result.acomplete) == {"no error"}
            assert await errors_of(result.cancel, ELSEWHERE) == {"no error"}
            for use in (result.astream, result.events):
                assert await errors_of(use, [OTHER[loop]]) == {"no error"}
            assert result.completed
            assert not result.cancelled

    anyio.run(main, backend=loop)


@LOOPS
def test_the_error_of_a_stream_of_the_loop_itself_may_be_raised_in_another_loop(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        backend = ScriptedBackend(["a. ", Fail(BackendError("broken"))])
        result = await stream_with_chunking("?", backend, SimpleContext())
        await result.wait_finished()
        assert await errors_of(result.acomplete, [OTHER[loop]]) == {"BackendError"}
        await anyio.wait_all_tasks_blocked()

    anyio.run(main, backend=loop)
    assert "nobody observed" not in caplog.text


@LOOPS
@pytest.mark.parametrize("streamed", [True, False])
def test_a_thunk_is_read_and_waited_for_in_its_own_loop(loop: str, streamed: bool) -> None:
    async def main() -> None:
        backend = Held()
        async with start_session(backend=backend) as m:
            thunk = await m.ainstruct("?", model_options={ModelOption.STREAM: streamed})
            await begun(backend)
            uses: list[Callable[[], object]] = [
                thunk.avalue,
                thunk.astream,
                thunk.__aenter__,
                lambda: wait_for_all_mots([thunk]),
            ]
            for use in uses:
                assert await errors_of(use) == {"WrongEventLoop"}
            backend.go_on.set()
            text = ""
            while not thunk.is_computed():
                text += await thunk.astream()
            assert text == TEXT

    anyio.run(main, backend=loop)


@LOOPS
def test_a_thunk_of_another_loop_cannot_stand_in_a_prompt(loop: str) -> None:
    async def main() -> None:
        backend = Held()
        async with start_session(backend=backend) as m:
            thunk = await m.ainstruct("?")

            async def ask() -> None:
                other = start_session(backend=quick())
                try:
                    await other.ainstruct("{{x}}", user_variables={"x": thunk}, await_result=True)
                finally:
                    await other.aclose()

            assert await errors_of(ask) == {"WrongEventLoop"}
            backend.go_on.set()
            assert await thunk == TEXT

    anyio.run(main, backend=loop)


@LOOPS
@pytest.mark.parametrize("what", ["block", "bare", "result", "thunk"])
def test_a_cancel_from_elsewhere_changes_nothing(loop: str, what: str) -> None:
    async def main() -> None:
        backend = Held()
        m = start_session(backend=backend)
        if what != "bare":
            await m.__aenter__()
        thunk, result = await m.ainstruct("?"), await m.stream("?")
        await begun(backend, 2)
        use = {"result": result.cancel, "thunk": thunk.cancel}.get(what, m.cancel)
        assert await errors_of(use, ELSEWHERE) == {"WrongEventLoop"}
        backend.go_on.set()
        assert await thunk == TEXT
        await result.acomplete()
        assert result.completed
        assert await (await m.ainstruct("?")) == TEXT
        await (m.aclose() if what == "bare" else m.__aexit__(None, None, None))

    anyio.run(main, backend=loop)


@LOOPS
@pytest.mark.parametrize("what", ["result", "thunk"])
def test_after_a_cancel_from_elsewhere_one_at_home_cancels(loop: str, what: str) -> None:
    async def main() -> None:
        backend = stalled()
        async with start_session(backend=backend) as m:
            one: Any = await (m.stream("?") if what == "result" else m.ainstruct("?"))
            await begun(backend)
            assert await errors_of(one.cancel, ELSEWHERE) == {"WrongEventLoop"}
            one.cancel("properly")
            with anyio.fail_after(60), suppress(GenerationCancelled):
                await (one.acomplete() if what == "result" else one)
            assert one.cancelled

    anyio.run(main, backend=loop)


@LOOPS
@pytest.mark.parametrize("block", [True, False])
def test_a_session_is_closed_where_it_runs(loop: str, block: bool) -> None:
    async def main() -> None:
        m = start_session(backend=quick())
        if block:
            await m.__aenter__()
        await (await m.ainstruct("?"))
        assert await errors_of(m.close, ELSEWHERE[:1]) == {"WrongEventLoop"}
        assert await errors_of(m.aclose) == {"WrongEventLoop"}
        assert await (await m.ainstruct("?")) == "a."
        await (m.__aexit__(None, None, None) if block else m.aclose())

    anyio.run(main, backend=loop)


@LOOPS
def test_a_session_whose_loops_have_ended_is_closed_anywhere(loop: str) -> None:
    m = start_session(backend=quick())

    async def main() -> None:
        await (await m.ainstruct("?"))

    anyio.run(main, backend=loop)
    m.close()
    with pytest.raises(SessionClosed):
        m.instruct("?")


def test_a_session_of_a_loop_that_stands_still_can_be_closed() -> None:
    m = start_session(backend=quick())
    loop = asyncio.new_event_loop()
    loop.run_until_complete(m.ainstruct("?", await_result=True))
    m.close()
    loop.run_until_complete(m.aclose())
    loop.close()


@LOOPS
def test_cancel_of_an_async_session_cancels_the_blocking_calls_of_other_threads(loop: str) -> None:
    async def main() -> None:
        errors: list[BaseException] = []

        def call() -> None:
            try:
                m.instruct("?")
            except BaseException as error:
                errors.append(error)

        backend = stalled()
        async with anyio.create_task_group() as tasks, start_session(backend=backend) as m:
            tasks.start_soon(anyio.to_thread.run_sync, call)
            await begun(backend)
            m.cancel("enough")
        assert isinstance(errors[0], GenerationCancelled)
        assert errors[0].reason == "enough"

    anyio.run(main, backend=loop)


@LOOPS
@pytest.mark.parametrize("ending", ["an error", "a cancellation"])
def test_a_block_left_early_cancels_the_blocking_calls_of_other_threads(
    loop: str, ending: str
) -> None:
    backend = stalled()

    async def main() -> None:
        async def call() -> None:
            with pytest.raises((SessionClosed, GenerationCancelled)):
                await anyio.to_thread.run_sync(m.instruct, "?")

        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope, suppress(ZeroDivisionError):
                async with start_session(backend=backend) as m:
                    tasks.start_soon(call)
                    await begun(backend)
                    if ending == "an error":
                        raise ZeroDivisionError
                    scope.cancel()
        assert backend.calls[0].outcome == "cancelled"

    anyio.run(main, backend=loop)


@LOOPS
def test_a_block_left_normally_waits_for_the_blocking_calls_of_other_threads(loop: str) -> None:
    async def main() -> None:
        said: list[str] = []
        backend = Held()

        async def let_go() -> None:
            await anyio.wait_all_tasks_blocked()
            backend.go_on.set()

        async def call() -> None:
            said.append(str(await anyio.to_thread.run_sync(m.instruct, "?")))

        async with anyio.create_task_group() as tasks, start_session(backend=backend) as m:
            tasks.start_soon(call)
            await begun(backend)
            tasks.start_soon(let_go)
        assert said == [TEXT]

    anyio.run(main, backend=loop)


# --- many loops -------------------------------------------------------------------------------------


@pytest.fixture
def impatient() -> Generator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("loops", [("asyncio",) * 8, ("asyncio", "trio") * 2])
def test_one_bare_session_serves_the_loops_of_many_threads(loops: tuple[str, ...]) -> None:
    m = start_session(backend=quick())
    got: Counter[str] = Counter()

    async def ask() -> str:
        return await (await m.ainstruct("?"))

    def work(loop: str) -> None:
        for _ in range(40):
            try:
                got[anyio.run(ask, backend=loop)] += 1
            except Exception as error:
                got[repr(error)] += 1

    workers = [threading.Thread(target=work, args=[loop]) for loop in loops]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    m.close()
    assert got == {"a.": 40 * len(loops)}


# --- turns ----------------------------------------------------------------------------------------


def _asks(m: MelleaSession, how: str, pool: concurrent.futures.Executor) -> Requirement:
    async def validate(_: object) -> ValidationResult:
        loop = asyncio.get_running_loop()
        match how:
            case "an executor":
                await loop.run_in_executor(pool, m.instruct, "again")
            case "a future":
                await asyncio.wrap_future(pool.submit(m.instruct, "again"))
            case "another loop":
                await loop.run_in_executor(pool, asyncio.run, m.achat("again"))
            case _:
                await loop.run_in_executor(pool, lambda: m.validate("x"))
        return ValidationResult(True)

    return Requirement("x", validate)


@pytest.mark.parametrize("how", ["an executor", "a future", "another loop", "the last answer"])
@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "asynchronous"])
def test_a_validator_whose_thread_asks_its_own_conversation_is_told(
    how: str, blocking: bool
) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        m = start_session(backend=quick(), context_type="chat")

        async def main() -> None:
            async with m:
                await m.ainstruct("?", requirements=[_asks(m, how, pool)], await_result=True)

        with pytest.raises(UsageError, match="another thread is in a turn"):
            if blocking:
                m.instruct("?", requirements=[_asks(m, how, pool)])
            else:
                asyncio.run(main())
        assert m.ctx.as_list() == []
        if blocking:
            assert m.instruct("?").value == "a."
            m.close()


def test_a_validator_whose_thread_has_the_same_loop_ask_is_ended_by_its_timeout() -> None:
    """Nothing tells it from a thread of the program's own, whose turn comes after this one."""

    async def main(pool: concurrent.futures.Executor) -> None:
        loop = asyncio.get_running_loop()
        asked: list[concurrent.futures.Future[Message]] = []

        async with start_session(backend=quick(), context_type="chat") as m:

            def ask_again() -> None:
                asked.append(asyncio.run_coroutine_threadsafe(m.achat("again"), loop))
                asked[0].result()

            async def validate(_: object) -> ValidationResult:
                await loop.run_in_executor(pool, ask_again)
                return ValidationResult(True)

            waiting = Requirement("x", validate, timeout=0.2)
            with pytest.raises(ValidatorTimeout):
                await m.ainstruct("?", requirements=[waiting], await_result=True)
            assert str(await asyncio.wrap_future(asked[0])) == "a."

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asyncio.run(main(pool))


@LOOPS
def test_a_thread_does_not_wait_for_a_turn_of_an_event_loop(loop: str) -> None:
    async def main() -> None:
        async with start_session(backend=stalled(), context_type="chat") as m:
            thunk = await m.ainstruct("?")
            assert await errors_of(lambda: m.instruct("?"), ELSEWHERE[:1]) == {"UsageError"}
            assert not thunk.is_computed()
            thunk.cancel()

    anyio.run(main, backend=loop)


def test_blocking_calls_of_several_threads_take_turns_in_a_conversation() -> None:
    backend = ScriptedBackend(lambda request: f"answer {len(request.messages)}")
    with (
        start_session(backend=backend, context_type="chat") as m,
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):
        calls = [pool.submit(m.chat, str(number)) for number in range(8)]
        assert {str(call.result()) for call in calls} == {f"answer {n}" for n in range(1, 17, 2)}
        assert len(m.ctx.as_list()) == 16


# --- what outlives its session ----------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("how", ["awaited", "block"])
@pytest.mark.parametrize("nested", [True, False])
def test_a_task_that_outlives_its_session_streams_in_the_next_one_out_or_the_loop(
    loop: str, how: str, nested: bool
) -> None:
    async def main() -> None:
        left, streamed, texts = anyio.Event(), anyio.Event(), list[str]()
        outer = stalled()

        async def background() -> None:
            await left.wait()
            request = stream_with_chunking("?", quick(), SimpleContext())
            if how == "awaited":
                result = await request
                await result.acomplete()
            else:
                async with request as result:
                    await result.acomplete()
            texts.append(result.full_text)
            streamed.set()

        async def inner(tasks: anyio.abc.TaskGroup) -> None:
            async with start_session(backend=quick()):
                tasks.start_soon(background)

        async with anyio.create_task_group() as tasks:
            if nested:
                async with start_session(backend=outer):
                    await inner(tasks)
                    left.set()
                    await streamed.wait()
            else:
                await inner(tasks)
                left.set()
        assert texts == ["a."]

    anyio.run(main, backend=loop)


@LOOPS
def test_a_thread_with_the_context_of_a_task_may_call(loop: str) -> None:
    async def main() -> None:
        m = start_session(backend=quick())
        call = functools.partial(contextvars.copy_context().run, m.instruct, "?")
        assert (await anyio.to_thread.run_sync(call)).value == "a."
        await m.aclose()

    anyio.run(main, backend=loop)


@LOOPS
def test_a_blocking_half_of_any_function_is_refused_in_a_loop(loop: str) -> None:
    async def nothing() -> None:
        raise AssertionError

    async def main() -> None:
        with pytest.raises(SyncCallInEventLoop):
            start_session(backend=quick()).run_blocking(nothing)

    anyio.run(main, backend=loop)
