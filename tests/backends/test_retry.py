"""A request that failed before its answer began is made again: so often, so long, after such waits, and said so."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from mellea_sc import (
    Backend,
    BackendBusy,
    BackendError,
    BackendRejected,
    BackendUnreachable,
    Delta,
    GenerationRequest,
    InvalidOption,
    ModelError,
    StreamInterrupted,
    start_session,
)
from mellea_sc.backends import ChatMessage, OpenAIBackend, Retrying, Usage
from mellea_sc.backends.retry import retrying
from mellea_sc.core import Retries
from mellea_sc.core.backend import BackendWrapper
from mellea_sc.testing import Fail, Pause, Script, ScriptedBackend, Stall, check_wrapper
from mellea_sc.testing.scripted import ScriptedAnswer

pytestmark = pytest.mark.anyio

REQUEST = GenerationRequest((ChatMessage("user", "hi"),))
TEXT = "Hello, world."


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, object]]) -> tuple[str, dict[str, object]]:
    """The event loop of a test."""
    return virtual_time


def busy(after: float | None = None, status: int = 429) -> Fail:
    return Fail(BackendBusy("slow down", status=status, retry_after=after))


def passing(kind: type[BackendError] = StreamInterrupted) -> BackendError:
    """An error of which its backend says that it may pass."""
    error = kind("it broke")
    error.retryable = True
    return error


class Server(ScriptedBackend):
    """Gives these answers, then good ones."""

    def __init__(self, *answers: ScriptedAnswer) -> None:
        first = iter(answers)
        super().__init__(lambda _: next(first, TEXT))

    @property
    def waits(self) -> list[float]:
        """Seconds between the requests."""
        times = [call.started_at for call in self.calls]
        return [later - earlier for earlier, later in itertools.pairwise(times)]


async def read(backend: Backend) -> str:
    async with backend.open(REQUEST) as stream:
        return "".join([delta.text async for delta in stream])


# --- what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        busy(),
        Fail(passing()),
        Fail(passing(ModelError)),
        [busy()],
        [Pause(1), Delta(), busy()],
        [Delta(usage=Usage(1, 0)), Fail(passing())],
    ],
)
async def test_what_may_pass_is_tried_again_until_the_answer_has_begun(
    answer: ScriptedAnswer,
) -> None:
    server = Server(answer)
    assert await read(Retrying(server)) == TEXT
    assert len(server.calls) == 2


@pytest.mark.parametrize(
    "error",
    [
        BackendRejected("no", status=400),
        BackendRejected("it broke, and the backend does not call it retryable", status=500),
        StreamInterrupted("in the middle"),
        ModelError("it failed"),
        LookupError("a backend's own"),
    ],
)
async def test_nothing_else_is_tried_again(error: Exception) -> None:
    server = Server(Fail(error))
    with pytest.raises(type(error)) as caught:
        await read(Retrying(server))
    assert caught.value is error
    assert len(server.calls) == 1


@pytest.mark.parametrize("begun", ["Hel", Delta(finish_reason="length")])
async def test_an_answer_that_has_begun_is_never_begun_again(begun: str | Delta) -> None:
    server = Server([begun, busy()])
    deltas: list[Delta] = []
    with pytest.raises(BackendBusy):
        async with Retrying(server).open(REQUEST) as stream:
            async for delta in stream:
                deltas.append(delta)  # noqa: PERF401 # what came before the error counts
    assert deltas == [Delta(begun) if isinstance(begun, str) else begun]
    assert len(server.calls) == 1


async def test_a_server_that_is_not_there_is_said_at_once_and_one_that_went_away_is_waited_for() -> (
    None
):
    gone = Fail(BackendUnreachable("Connection refused"))
    server = Server(gone, TEXT, gone, gone, TEXT)
    async with Retrying(server).connected() as backend:
        with pytest.raises(BackendUnreachable):
            await read(backend)
        assert len(server.calls) == 1
        assert await read(backend) == TEXT
        assert await read(backend) == TEXT
    assert len(server.calls) == 5


async def test_who_refuses_is_there() -> None:
    server = Server(busy(), Fail(BackendUnreachable("Connection refused")))
    assert await read(Retrying(server)) == TEXT
    assert len(server.calls) == 3


async def test_an_error_of_the_reader_is_not_the_servers() -> None:
    server = Server()
    with pytest.raises(BackendBusy):
        async with Retrying(server).open(REQUEST):
            raise BackendBusy("raised by the reader", status=503)
    assert len(server.calls) == 1


# --- how often, how long ------------------------------------------------------------------------


async def test_the_waits_grow_and_are_spread() -> None:
    server = Server(*[busy()] * 7)
    assert await read(Retrying(server, Retries(7, budget=100))) == TEXT
    most = [0.5, 1, 2, 4, 8, 8, 8]
    shares = [wait / longest for wait, longest in zip(server.waits, most, strict=True)]
    assert all(0.5 <= share <= 1 for share in shares)
    assert len({round(share, 6) for share in shares}) > 1


@pytest.mark.parametrize("asked", [0.0, 0.01, 5.0])
async def test_the_server_is_waited_for_and_never_less_than_without_it(asked: float) -> None:
    server = Server(busy(asked), busy(asked))
    assert await read(Retrying(server)) == TEXT
    for wait, own in zip(server.waits, (0.25, 0.5), strict=True):
        assert max(asked, own) <= wait <= max(asked * 1.1, own * 2)


async def test_those_who_were_told_the_same_time_do_not_come_back_together() -> None:
    server = Server(*[busy(10.0)] * 20)
    backend = Retrying(server)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(read, backend)
    again = [call.started_at for call in server.calls[20:]]
    assert len(again) == 20
    assert max(again) - min(again) > 0.3


@pytest.mark.parametrize(("retries", "requests"), [(None, 4), (0, 1), (1, 2), (Retries(5), 6)])
async def test_a_request_is_made_again_so_often(
    retries: int | Retries | None, requests: int
) -> None:
    server = Server(*[busy()] * 10)
    with pytest.raises(BackendBusy) as caught:
        await read(Retrying(server, retries))
    assert len(server.calls) == requests
    notes = getattr(caught.value, "__notes__", [])
    assert any(f"asked {requests} times" in note for note in notes) == (requests > 1)


async def test_what_would_be_longer_than_the_budget_is_not_waited_for() -> None:
    server = Server(busy(3600))
    began = anyio.current_time()
    with pytest.raises(BackendBusy) as caught:
        await read(Retrying(server))
    assert anyio.current_time() == began
    assert caught.value.retry_after == 3600
    assert "in 3600.0 s, and retries may take 30 s" in caught.value.__notes__[0]
    assert len(server.calls) == 1


async def test_the_budget_is_that_of_all_attempts_and_waits_together() -> None:
    server = Server(*[[Pause(10), busy(10)]] * 10)
    began = anyio.current_time()
    with pytest.raises(BackendBusy):
        await read(Retrying(server, Retries(100, budget=45)))
    assert len(server.calls) == 3  # at 0, 20 and 40 or a little later; not at 60
    assert 50 <= anyio.current_time() - began <= 52


# --- cancellation --------------------------------------------------------------------------------


async def test_the_waiting_can_be_cancelled() -> None:
    server = Server(busy(20))
    with anyio.move_on_after(5) as scope:
        await read(Retrying(server))
    assert scope.cancelled_caught
    assert anyio.current_time() < 6
    assert len(server.calls) == 1


async def test_a_cancelled_attempt_is_closed_and_no_attempt_that_failed() -> None:
    server = Server([Stall()])
    with anyio.move_on_after(5) as scope:
        await read(Retrying(server))
    assert scope.cancelled_caught
    assert [call.outcome for call in server.calls] == ["cancelled"]


async def test_an_attempt_that_failed_is_closed_before_the_next_one() -> None:
    opened: list[str] = []

    class Noting(BackendWrapper):
        @asynccontextmanager
        async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
            opened.append("open")
            try:
                async with self.inner.open(request) as deltas:
                    yield deltas
            finally:
                opened.append("close")

    assert await read(Retrying(Noting(Server([Delta(), busy()])))) == TEXT
    assert opened == ["open", "close", "open", "close"]


# --- what is seen of it --------------------------------------------------------------------------


async def test_each_retry_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    backend = OpenAIBackend("m", base_url="http://h")
    server = Server(busy(5), Fail(passing()))
    server.provider, server.model_id = backend.provider, backend.model_id
    with caplog.at_level(logging.INFO):
        assert await read(Retrying(server)) == TEXT
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("mellea_sc", "WARNING")
    ] * 2
    assert [re.sub(r"\d\.\d", "X", record.getMessage()) for record in caplog.records] == [
        "openai (m): attempt 2 of 4 in X s, because slow down",
        "openai (m): attempt 3 of 4 in X s, because it broke",
    ]


async def test_without_a_retry_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert await read(Retrying(Server())) == TEXT
        with pytest.raises(BackendBusy):
            await read(Retrying(Server(busy()), 0))
    assert not caplog.records


async def test_the_error_is_the_last_ones_without_leftovers() -> None:
    server = Server(busy(1.0), Fail(BackendRejected("enough", status=400)))
    with pytest.raises(BackendRejected, match="enough") as caught:
        await read(Retrying(server))
    assert caught.value.__context__ is None


async def test_the_deltas_are_those_of_the_backend() -> None:
    early, late, first = Usage(7, 0), Usage(7, 2), Delta("a")
    script = [Delta(), Delta(usage=early), first, "b", Delta("", "stop", late)]
    async with Retrying(ScriptedBackend(Script(script))).open(REQUEST) as stream:
        deltas = [delta async for delta in stream]
    assert deltas == [Delta("a", usage=early), Delta("b"), Delta("", "stop", late)]
    assert first == Delta("a")  # it is the backend's own


async def test_a_stream_of_nothing_is_one_here_too() -> None:
    class Nothing(BackendWrapper):
        @asynccontextmanager
        async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
            async def deltas() -> AsyncGenerator[Delta]:
                yield Delta()
                yield Delta(usage=Usage(3, 0))

            yield deltas()

    async with Retrying(Nothing(Server())).open(REQUEST) as stream:
        assert [delta async for delta in stream] == [Delta(usage=Usage(3, 0))]


async def test_it_says_of_itself_what_the_one_inside_says() -> None:
    await check_wrapper(Retrying)
    backend = Retrying(OpenAIBackend("m", base_url="http://me:p4ssw0rd@h"), Retries(2, budget=1))
    assert repr(backend) == (
        "Retrying(OpenAIBackend('m', 'http://h/v1'), Retries(times=2, budget=1))"
    )


# --- how it is said ------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-1, 1.5, "3", True])
async def test_senseless_retries_are_refused(wrong: int) -> None:
    with pytest.raises(InvalidOption):
        Retrying(Server(), wrong)
    with pytest.raises(InvalidOption):
        start_session(backend=Server(), retries=wrong)


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), "3", True])
async def test_senseless_budgets_are_refused(wrong: float) -> None:
    with pytest.raises(InvalidOption, match="budget"):
        Retries(budget=wrong)
    assert Retries(budget=float("inf")).budget == float("inf")


async def test_what_sees_to_it_already_is_left_alone() -> None:
    class Plain(BackendWrapper):
        pass

    mine = Plain(Retrying(Server(), 7))
    assert retrying(mine) is mine
    assert isinstance(retrying(Plain(Server())), Retrying)
    with pytest.raises(InvalidOption, match="not both"):
        start_session(backend=mine, retries=2)
