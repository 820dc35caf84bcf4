"""Requests of a session that are made again: how often is said where, and what waits holds up nobody."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio
import pytest

from mellea_sc import (
    BackendBusy,
    BackendTimeout,
    BudgetExceeded,
    CBlock,
    Delta,
    GenerationCancelled,
    GenerationRequest,
    InvalidOption,
    LLMJudge,
    MelleaSession,
    ModelOption,
    SimpleContext,
    limits,
    req,
    start_session,
    stream_with_chunking,
)
from mellea_sc.backends import ChatMessage, Retrying
from mellea_sc.core import Retries
from mellea_sc.stdlib import BoundBackend
from mellea_sc.testing import Fail, Pause, Script, ScriptedBackend, Stall, cancel_everywhere
from mellea_sc.testing.scripted import ScriptedAnswer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]

REQUEST = GenerationRequest((ChatMessage("user", "hi"),))
Call: TypeAlias = Callable[[MelleaSession, "int | Retries | None"], Awaitable[object]]


def busy(after: float | None = None) -> Fail:
    return Fail(BackendBusy("slow down", status=429, retry_after=after))


class Server(ScriptedBackend):
    """Gives these answers, then good ones."""

    def __init__(self, *answers: ScriptedAnswer, always: ScriptedAnswer = "fine") -> None:
        first = iter(answers)
        super().__init__(lambda _: next(first, always))


# --- how often -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("retries", "requests"), [(None, 4), (0, 1), (2, 3), (Retries(5), 6)])
async def test_a_session_says_how_often(retries: int | Retries | None, requests: int) -> None:
    server = Server(always=busy())
    async with start_session(backend=server, retries=retries) as m:
        with pytest.raises(BackendBusy, match="slow down"):
            await m.ainstruct("hi", await_result=True)
    assert len(server.calls) == requests


async def instruct(m: MelleaSession, retries: int | Retries | None) -> object:
    return await m.ainstruct("hi", retries=retries, await_result=True)


async def act(m: MelleaSession, retries: int | Retries | None) -> object:
    return await m.aact(CBlock("hi"), retries=retries, await_result=True)


async def chat(m: MelleaSession, retries: int | Retries | None) -> object:
    return await m.achat("hi", retries=retries)


async def query(m: MelleaSession, retries: int | Retries | None) -> object:
    return await m.aquery("an object", "hi", retries=retries, await_result=True)


async def transform(m: MelleaSession, retries: int | Retries | None) -> object:
    return await m.atransform("an object", "hi", retries=retries, await_result=True)


async def validate(m: MelleaSession, retries: int | Retries | None) -> object:
    return await m.avalidate(req("It is polite."), output="hi", retries=retries)


async def stream(m: MelleaSession, retries: int | Retries | None) -> object:
    async with m.stream("hi", retries=retries) as result:
        return await result.acomplete()


async def stream_of(m: MelleaSession, retries: int | Retries | None) -> object:
    result = await stream_with_chunking(CBlock("hi"), m.backend, SimpleContext(), retries=retries)
    return await result.acomplete()


async def stream_of_its_own(m: MelleaSession, retries: int | Retries | None) -> object:
    server = m.backend.inner
    assert isinstance(server, Retrying)
    run = stream_with_chunking(CBlock("hi"), server.inner, SimpleContext(), retries=retries)
    return await (await run).acomplete()


CALLS = pytest.mark.parametrize(
    "call",
    [instruct, act, chat, query, transform, validate, stream, stream_of, stream_of_its_own],
    ids=lambda call: call.__name__,
)


@CALLS
@pytest.mark.parametrize(("retries", "requests"), [(None, 4), (0, 1), (2, 3), (Retries(5), 6)])
async def test_so_does_a_call(call: Call, retries: int | Retries | None, requests: int) -> None:
    server = Server(always=busy())
    server.judges = True
    async with start_session(backend=server) as m:
        with pytest.raises(BackendBusy, match="slow down"):
            await call(m, retries)
    assert len(server.calls) == requests


@CALLS
async def test_senseless_retries_start_nothing(call: Call) -> None:
    server = Server()
    async with start_session(backend=server) as m:
        with pytest.raises(InvalidOption, match="-1"):
            await call(m, -1)
    assert not server.calls


async def test_a_blocking_call_says_it_too() -> None:
    server = Server(always=busy(0.01))

    def ask() -> None:
        with start_session(backend=server) as m, pytest.raises(BackendBusy):
            m.instruct("hi", retries=0)

    await anyio.to_thread.run_sync(ask)
    assert len(server.calls) == 1


async def test_what_a_call_says_holds_for_its_judges_and_for_nobody_else() -> None:
    judged = 0

    def answer(request: GenerationRequest) -> ScriptedAnswer:
        nonlocal judged
        if request.json_schema is None:
            return "fine"
        judged += 1
        return busy()

    server = ScriptedBackend(answer, judge=None)
    async with start_session(backend=server) as m:
        for retries, requests in ((0, 1), (None, 4)):
            judged = 0
            with pytest.raises(BackendBusy):
                await m.ainstruct(
                    "hi", requirements=["It is polite."], retries=retries, await_result=True
                )
            assert judged == requests


async def test_a_judge_with_a_bare_backend_is_asked_again_as_well() -> None:
    server = Server(busy(), always='{"score": 1}')
    async with start_session(backend=Server()) as m:
        judge = LLMJudge("Is it polite?", backend=server)
        await m.ainstruct("hi", requirements=[judge], await_result=True)
    assert [call.outcome for call in server.calls] == ["error", "ended"]


async def test_a_backend_that_is_retrying_says_it_itself() -> None:
    server = Server(always=busy())
    async with start_session(backend=Retrying(server, 1)) as m:
        with pytest.raises(BackendBusy):
            await m.ainstruct("hi", await_result=True)
        assert len(server.calls) == 2
        with pytest.raises(BackendBusy):
            await m.ainstruct("hi", retries=0, await_result=True)
    assert len(server.calls) == 3


# --- what waits holds up nobody -------------------------------------------------------------------


async def test_a_request_that_waits_has_no_place_among_those_in_flight() -> None:
    server = Server(busy(20), always=[Pause(1), "fine"])
    async with start_session(backend=server, max_concurrency=1) as m:
        began = anyio.current_time()
        refused = await m.ainstruct("a")
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            await (await m.ainstruct("b")).avalue()
        assert 3 <= anyio.current_time() - began < 4
        assert await refused == "fine"
        assert 21 <= anyio.current_time() - began < 24
    assert len(server.calls) == 5


async def test_when_it_goes_on_it_waits_for_a_place_again() -> None:
    server = Server(busy(5), always=[Pause(60), "fine"])
    options = {ModelOption.STREAM_TIMEOUT: 61}
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, sum(call.outcome == "running" for call in server.calls))
            await anyio.sleep(0.5)

    session = start_session(backend=server, max_concurrency=1, model_options=options)
    async with session as m, anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        refused = await m.ainstruct("a")
        await anyio.wait_all_tasks_blocked()
        other = await m.ainstruct("b")
        # The wait for the place is no wait for a delta.
        assert await other == await refused == "fine"
        tasks.cancel_scope.cancel()
    assert most == 1


async def test_a_cancelled_wait_gives_back_no_place_that_it_has_not() -> None:
    server = Server(busy(20), busy(20), always=[Pause(1), "fine"])
    async with start_session(backend=server, max_concurrency=1) as m:
        for _ in range(2):
            thunk = await m.ainstruct("a")
            await anyio.wait_all_tasks_blocked()
            thunk.cancel()
            with pytest.raises(GenerationCancelled):
                await thunk
        began = anyio.current_time()
        for thunk in [await m.ainstruct("b") for _ in range(3)]:
            assert await thunk == "fine"
        assert anyio.current_time() - began == pytest.approx(3)


async def test_neither_has_one_that_was_opened_by_hand() -> None:
    server = Server(busy(20), always=[Pause(1), "fine"])
    async with start_session(backend=server, max_concurrency=1) as m:

        async def read(backend: BoundBackend) -> None:
            async with backend.open(REQUEST) as deltas:
                assert [delta.text async for delta in deltas if delta.text] == ["fine"]

        async with anyio.create_task_group() as tasks:
            began = anyio.current_time()
            tasks.start_soon(read, m.backend)
            await anyio.wait_all_tasks_blocked()
            await (await m.ainstruct("b")).avalue()
            assert 1 <= anyio.current_time() - began < 2


async def test_the_time_out_of_deltas_is_none_of_waits() -> None:
    server = Server(busy(10), busy(10), always=[Pause(1), "fine"])
    async with start_session(backend=server) as m:
        thunk = await m.ainstruct("hi", model_options={ModelOption.STREAM_TIMEOUT: 1.5})
        assert await thunk == "fine"


async def test_it_holds_for_each_attempt_and_for_each_delta() -> None:
    options = {ModelOption.STREAM_TIMEOUT: 5}
    hanging = Server(busy(20), always=[Stall()])
    slow = Server(always=[Pause(4), Delta(), Pause(4), Delta(), Pause(4), "fine"])
    async with start_session(backend=hanging) as m:
        began = anyio.current_time()
        with pytest.raises(BackendTimeout) as caught:
            await m.ainstruct("hi", model_options=options, await_result=True)
        assert caught.value.__notes__ == ["the attempt before it failed: slow down"]
        assert 25 <= anyio.current_time() - began <= 28
    async with start_session(backend=slow) as m:
        # What says nothing is a delta for all that, and the wait for the next one begins anew.
        assert (await m.ainstruct("hi", model_options=options, await_result=True)).value == "fine"


async def test_leaving_waits_and_cancelling_does_not() -> None:
    server = Server(busy(20), "fine", busy(20))
    began = anyio.current_time()
    async with start_session(backend=server) as m:
        thunk = await m.ainstruct("hi")
    assert thunk.value == "fine"
    assert 20 <= anyio.current_time() - began <= 22
    began = anyio.current_time()
    with pytest.raises(LookupError):
        async with start_session(backend=server) as m:
            await m.ainstruct("hi")
            await anyio.wait_all_tasks_blocked()
            raise LookupError
    async with start_session(backend=Server(busy(20))) as m:
        thunk = await m.ainstruct("hi")
        await anyio.wait_all_tasks_blocked()
        m.cancel("enough")
    assert anyio.current_time() - began < 1


async def test_cancelled_at_any_checkpoint_it_leaves_nothing() -> None:
    async def program() -> None:
        server = Server(busy(), [Delta(), busy()])
        try:
            async with start_session(backend=server, max_concurrency=1) as m:
                assert await (await m.ainstruct("hi")) == "fine"
        finally:
            assert all(call.outcome != "running" for call in server.calls)

    assert await cancel_everywhere(program) > 5


# --- what it costs -------------------------------------------------------------------------------


async def test_a_request_that_is_made_again_is_one_request() -> None:
    server = Server(busy(), busy(), Script("one two", usage=None))
    async with start_session(backend=server) as m:
        with limits(requests=1) as spent:
            assert (await m.aact(CBlock("hi"), strategy=None, await_result=True)).value == "one two"
        assert (spent.requests, spent.completion_tokens) == (1, 2)
        assert spent.prompt_tokens == 1
    assert len(server.calls) == 3


async def test_a_limit_of_time_ends_the_waiting() -> None:
    server = Server(busy(20))
    async with start_session(backend=server) as m:
        began = anyio.current_time()
        with pytest.raises(BudgetExceeded), limits(seconds=5):
            await m.ainstruct("hi", await_result=True)
        assert anyio.current_time() - began == pytest.approx(5)
    assert len(server.calls) == 1


async def test_a_retry_of_a_session_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with start_session(backend=Server(busy())) as m:
            await m.ainstruct("hi", await_result=True)
    assert len(caplog.records) == 1
