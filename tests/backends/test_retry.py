"""A busy server is asked again: within attempts, within a budget, and never after an answer has begun."""

from __future__ import annotations

import itertools

import anyio
import pytest

from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.backends.retry import Retrying
from mellea_sc.core.backend import Backend, ChatMessage, GenerationRequest
from mellea_sc.core.errors import (
    BackendBusy,
    BackendError,
    BackendRejected,
    BackendUnreachable,
    InvalidOption,
    StreamInterrupted,
)
from mellea_sc.testing.server import Answer, ModelServer

pytestmark = pytest.mark.anyio

REQUEST = GenerationRequest((ChatMessage("user", "hi"),))
SOON = Answer(status=503, retry_after=0.05)
LATER = Answer(status=429, retry_after=3600)


def at(server: ModelServer, *, attempts: int = 4, budget: float = 5.0) -> Retrying:
    backend = OpenAIBackend("m", base_url=server.openai_url)
    return Retrying(backend, attempts=attempts, budget=budget)


async def read(backend: Backend) -> str:
    async with backend.open(REQUEST) as stream:
        return "".join([delta.text async for delta in stream])


async def test_a_busy_server_is_asked_again_after_the_time_it_asks_for() -> None:
    async with ModelServer([SOON, SOON, Answer()]) as server:
        assert await read(at(server)) == "Hello, world."
    times = [record.received_at for record in server.requests]
    assert all(later - earlier >= 0.05 for earlier, later in itertools.pairwise(times))


async def test_without_a_time_the_waiting_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mellea_sc.backends.retry.FIRST_WAIT", 0.02)
    async with ModelServer([Answer(status=429)] * 3 + [Answer()]) as server:
        assert await read(at(server)) == "Hello, world."
    times = [record.received_at for record in server.requests]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert [wait >= least for wait, least in zip(waits, (0.01, 0.02, 0.04), strict=True)] == [
        True
    ] * 3


async def test_the_attempts_are_limited() -> None:
    async with ModelServer([SOON] * 3) as server:
        with pytest.raises(BackendBusy) as caught:
            await read(at(server, attempts=3))
    assert caught.value.retry_after == 0.05
    assert len(server.requests) == 3


async def test_more_than_the_budget_is_not_waited_for() -> None:
    async with ModelServer([LATER]) as server:
        with anyio.fail_after(2), pytest.raises(BackendBusy) as caught:
            await read(at(server))
    assert caught.value.retry_after == 3600
    assert len(server.requests) == 1


async def test_the_budget_is_that_of_all_the_waiting_together() -> None:
    async with ModelServer(SOON) as server:
        with pytest.raises(BackendBusy):
            await read(at(server, attempts=100, budget=0.12))
    assert 2 <= len(server.requests) <= 3


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(status=500), BackendRejected),
        (Answer(status=400), BackendRejected),
        (Answer(cut_after=0), StreamInterrupted),
        (Answer(cut_after=1), StreamInterrupted),
    ],
)
async def test_nothing_else_is_tried_again(answer: Answer, kind: type[BackendError]) -> None:
    async with ModelServer([answer]) as server:
        with pytest.raises(kind):
            await read(at(server))
    assert len(server.requests) == 1


async def test_a_server_that_is_not_there_is_said_at_once() -> None:
    async with ModelServer([]) as server:
        backend = at(server, budget=3600)
    with anyio.fail_after(2), pytest.raises(BackendUnreachable):
        await read(backend)


async def test_an_error_of_the_reader_is_not_the_servers() -> None:
    async with ModelServer([Answer()]) as server:
        with pytest.raises(BackendBusy):
            async with at(server).open(REQUEST):
                raise BackendBusy("raised by the reader", status=503)
    assert len(server.requests) == 1


async def test_the_waiting_can_be_cancelled() -> None:
    async with ModelServer(Answer(status=503, retry_after=4)) as server:
        with anyio.fail_after(2):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, at(server))
                await server.wait_for(1)
                await server.requests[0].wait_closed()
                tasks.cancel_scope.cancel()
    assert len(server.requests) == 1


async def test_a_cancelled_attempt_is_no_attempt_that_failed() -> None:
    async with ModelServer(Answer(slow_headers=60)) as server:
        with anyio.move_on_after(0.05) as scope:
            await read(at(server))
        assert scope.cancelled_caught
        await server.requests[0].wait_closed()
    assert len(server.requests) == 1


async def test_attempts_share_a_connection() -> None:
    async with ModelServer([SOON, Answer()]) as server, at(server).connected() as backend:
        assert await read(backend) == "Hello, world."
    assert [record.connection for record in server.requests] == [0, 0]


async def test_it_is_known_by_the_name_of_the_one_inside() -> None:
    backend = Retrying(OpenAIBackend("m", base_url="http://me:p4ssw0rd@h"), attempts=2, budget=1)
    assert (backend.provider, backend.model_id) == ("openai", "m")
    assert repr(backend) == "Retrying(OpenAIBackend('m', 'http://h/v1'), attempts=2, budget=1)"


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"budget": -1.0}, {"budget": float("nan")}])
async def test_senseless_limits_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidOption):
        Retrying(OpenAIBackend("m", base_url="http://h"), **wrong)  # type: ignore[arg-type]
