"""A server stops, by its own metrics, within a second of whatever ends a generation here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest
from asking import FOREVER, asked, endless, session
from running import Running, backend_for

from mellea_sc import (
    GenerationCancelled,
    GenerationRequest,
    ModelOption,
    PartialValidationResult,
    Requirement,
)
from mellea_sc.backends import ChatMessage
from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.stdlib.session import MelleaSession

pytestmark = pytest.mark.anyio

SECOND = 1.0


class FailsWhileBusy(Requirement):
    """Fails the third word, when it has seen that the server works on more."""

    def __init__(self, server: Running) -> None:
        super().__init__("stop here")
        self._server = server
        self._seen = 0

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        self._seen += 1
        if self._seen < 3:
            return PartialValidationResult("unknown")
        assert await self._server.is_busy()
        return PartialValidationResult("fail", reason="that is enough")


async def a_failing_check(server: Running, m: MelleaSession) -> None:
    async with m.stream(
        FOREVER,
        requirements=[FailsWhileBusy(server)],
        chunking="word",
        model_options=endless(server),
    ) as result:
        async for _ in result.astream():
            pass
    assert result.streaming_failures


async def a_cancelled_thunk(server: Running, m: MelleaSession) -> None:
    thunk = await m.ainstruct(FOREVER, model_options=endless(server))
    assert await thunk.astream()
    assert await server.is_busy()
    thunk.cancel("enough")
    with pytest.raises(GenerationCancelled):
        await thunk.avalue()


async def a_cancelled_waiter_of_a_call(server: Running, m: MelleaSession) -> None:
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: m.achat(FOREVER, model_options=endless(server)))
            while not await server.is_busy():  # noqa: ASYNC110  # only the server knows
                await anyio.sleep(0.02)
            scope.cancel()


async def a_block_that_is_left(server: Running, m: MelleaSession) -> None:
    async with m.stream(FOREVER, chunking="word", model_options=endless(server)) as result:
        async for _ in result.astream():
            assert await server.is_busy()
            break


async def a_deadline(server: Running, m: MelleaSession) -> None:
    with anyio.CancelScope() as scope:
        async with m.stream(FOREVER, chunking="word", model_options=endless(server)) as result:
            async for _ in result.astream():
                assert await server.is_busy()
                scope.deadline = anyio.current_time() + 0.05
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    "ended",
    [
        a_failing_check,
        a_cancelled_thunk,
        a_cancelled_waiter_of_a_call,
        a_block_that_is_left,
        a_deadline,
    ],
    ids=lambda ended: ended.__name__,
)
async def test_the_server_stops_within_a_second_of(
    ended: Callable[[Running, MelleaSession], Awaitable[None]], server: Running
) -> None:
    async with session(server) as m:
        with anyio.fail_after(60):
            await ended(server, m)
        assert await server.seconds_until_idle() < SECOND


async def test_the_server_stops_when_a_session_ends_by_an_error(server: Running) -> None:
    with pytest.raises(ZeroDivisionError):
        async with session(server) as m:
            for _ in range(min(3, server.server.slots)):
                thunk = await m.ainstruct(FOREVER, model_options=endless(server))
                assert await thunk.astream()
            assert await server.is_busy()
            raise ZeroDivisionError
    assert await server.seconds_until_idle() < SECOND


async def test_a_prompt_that_is_being_read_is_given_up(
    server: Running, anyio_backend_name: str
) -> None:
    if not server.can("unread"):
        pytest.skip(f"{server.server.name} is not known to give it up")
    prompt = f"{anyio_backend_name} " + "tree river stone " * 550
    request = GenerationRequest(
        (ChatMessage("user", prompt),), {**server.server.options, **asked(200)}
    )
    async with backend_for(server).open(request):
        with anyio.fail_after(10):
            while not await server.is_busy():  # noqa: ASYNC110  # only the server knows
                await anyio.sleep(0.02)
    assert await server.seconds_until_idle() < 3


async def test_a_stream_timeout_stops_the_server_too(server: Running) -> None:
    async with session(server) as m:
        options = {**endless(server), ModelOption.STREAM_TIMEOUT: 0.001}
        thunk = await m.ainstruct(FOREVER, model_options=options)
        with pytest.raises(TimeoutError):
            await thunk.avalue()
        assert await server.seconds_until_idle() < SECOND
