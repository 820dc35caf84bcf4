"""The checks pass a good backend and name the promise that a bad one breaks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from mellea_sc.core.backend import Backend, ChatMessage, Delta, GenerationRequest, Usage
from mellea_sc.core.errors import BackendError
from mellea_sc.testing import conformance
from mellea_sc.testing.conformance import check_backend
from mellea_sc.testing.scripted import Pause, Script, ScriptedBackend

pytestmark = pytest.mark.anyio


def scripted() -> Backend:
    return ScriptedBackend(lambda _: Script(["one ", Pause(0), "two ", Pause(0.001), "three"]))


async def test_a_scripted_backend_passes() -> None:
    await check_backend(scripted, max_points=None)


async def test_a_backend_made_by_a_context_manager_is_closed_each_time() -> None:
    open_now = 0
    made = 0

    @asynccontextmanager
    async def make() -> AsyncGenerator[Backend]:
        nonlocal open_now, made
        made += 1
        open_now += 1
        try:
            yield scripted()
        finally:
            open_now -= 1

    await check_backend(make)
    assert made > 10
    assert open_now == 0


async def test_the_request_can_be_chosen() -> None:
    asked: set[str] = set()

    def answer(request: GenerationRequest) -> str:
        asked.add(request.messages[0].content)
        return "yes"

    request = GenerationRequest((ChatMessage("user", "ready?"),))
    await check_backend(lambda: ScriptedBackend(answer), request=request)
    assert asked == {"ready?"}


async def test_a_backend_that_refuses_schemas_and_options_with_its_own_error_passes() -> None:
    class Picky(Good):
        async def deltas(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
            if request.json_schema or request.options:
                raise BackendError("no")
            async with aclosing(super().deltas(request)) as deltas:
                async for delta in deltas:
                    yield delta

    await check_backend(Picky)


class Good(Backend):
    """The simplest good backend; each of those below breaks one promise of it."""

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        await anyio.lowlevel.checkpoint()
        deltas = self.deltas(request)
        try:
            yield deltas
        finally:
            await deltas.aclose()

    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        for word in ("one ", "two "):
            await anyio.lowlevel.checkpoint()
            yield Delta(word)
        yield Delta("three", "stop")


class NotDeltas(Good):
    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        yield "text"  # type: ignore[misc]


class Silent(Good):
    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        yield Delta("", "stop")


class CutsCharacters(Good):
    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        for text in ("\ud83d", "\ude00"):
            yield Delta(text)
        yield Delta("three", "stop")


class SaysNothingAsAReason(Good):
    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        yield Delta("one", "")


class FailsForAReason(Good):
    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        yield Delta("one", "error")


class CountsBelowZero(Good):
    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        yield Delta("one", "stop", Usage(3, -1))


class WaitsForTheEnd(Good):
    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        yield Delta("one", "stop")
        await anyio.sleep(60)


class Endless:
    """An iterator that begins again after its end, and does not know that it is closed."""

    def __init__(self) -> None:
        self.left = ["one ", "two ", "three"]

    def __aiter__(self) -> Endless:
        return self

    async def __anext__(self) -> Delta:
        await anyio.lowlevel.checkpoint()
        if not self.left:
            self.__init__()  # type: ignore[misc]
            raise StopAsyncIteration
        return Delta(self.left.pop(0))


class BeginsAgain(Good):
    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        yield Endless()


class OpenIterator(Endless):
    async def __anext__(self) -> Delta:
        if not self.left:
            raise StopAsyncIteration
        return Delta(self.left.pop(0))


class GivesAfterClose(Good):
    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        yield OpenIterator()


class ForgetsItsGenerator(Good):
    kept: list[AsyncGenerator[Delta]]

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        deltas = self.deltas(request)
        FORGOTTEN.append(deltas)
        yield deltas


FORGOTTEN: list[AsyncGenerator[Delta]] = []


class WorksOnce(Good):
    broken = False

    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        if self.broken:
            raise BackendError("the connection is in use")
        self.broken = True
        async with aclosing(super().deltas(request)) as deltas:
            async for delta in deltas:
                yield delta
        self.broken = False


class SwallowsErrors(Good):
    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        try:
            async with super().open(request) as deltas:
                yield deltas
        except Exception:
            pass


class WrapsErrors(Good):
    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        try:
            async with super().open(request) as deltas:
                yield deltas
        except Exception as error:
            raise BackendError("something went wrong") from error


class OneAtATime(Good):
    def __init__(self) -> None:
        self.lock = anyio.ResourceGuard("requesting")

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        with self.lock:
            async with super().open(request) as deltas:
                yield deltas


class ClosesTheLatest(Good):
    latest: AsyncGenerator[Delta]

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        self.latest = deltas = self.deltas(request)
        try:
            yield deltas
        finally:
            if not self.latest.ag_running:
                await self.latest.aclose()


class ConnectsOnce(Good):
    connections = 0

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[ConnectsOnce]:  # type: ignore[override]
        self.connections += 1
        if self.connections > 1:
            raise RuntimeError("already connected")
        yield self


class ClosesForAll(Good):
    closed = False

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[ClosesForAll]:  # type: ignore[override]
        self.closed = False
        yield self
        self.closed = True

    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        if self.closed:
            raise BackendError("closed")
        async with aclosing(super().deltas(request)) as deltas:
            async for delta in deltas:
                yield delta


class StumblesOverOptions(Good):
    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        for key in request.options:
            raise KeyError(key)
        async with aclosing(super().deltas(request)) as deltas:
            async for delta in deltas:
                yield delta


class StumblesOverSchemas(Good):
    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        if request.json_schema is not None:
            raise NotImplementedError
        async with aclosing(super().deltas(request)) as deltas:
            async for delta in deltas:
                yield delta


class SwallowsCancellation(Good):
    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        try:
            async with super().open(request) as deltas:
                yield deltas
        except anyio.get_cancelled_exc_class():
            pass


class HarmedByCancellation(Good):
    harmed = False

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        if self.harmed:
            raise BackendError("the pool is full")
        try:
            async with super().open(request) as deltas:
                yield deltas
        except anyio.get_cancelled_exc_class():
            self.harmed = True
            raise


class EndsWhenCancelled(Good):
    async def deltas(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        try:
            async with aclosing(super().deltas(request)) as deltas:
                async for delta in deltas:
                    yield delta
        except anyio.get_cancelled_exc_class():
            return


class TurnsCancellationIntoAnError(Good):
    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        try:
            await anyio.lowlevel.checkpoint()
        except anyio.get_cancelled_exc_class():
            raise BackendError("cancelled") from None
        async with super().open(request) as deltas:
            yield deltas


async def test_the_simplest_good_backend_passes() -> None:
    await check_backend(Good, max_points=None)


@pytest.mark.parametrize(
    ("make", "promise"),
    [
        (NotDeltas, "made of Delta objects.*'text', which is not a Delta"),
        (Silent, "has text.*no text"),
        (CutsCharacters, "made of Delta objects.*half a character"),
        (SaysNothingAsAReason, "made of Delta objects.*finish_reason of a delta is ''"),
        (FailsForAReason, "made of Delta objects.*an error to raise"),
        (CountsBelowZero, "made of Delta objects.*-1 tokens"),
        (BeginsAgain, "stays ended.*after its end it gave Delta"),
        (GivesAfterClose, "once the block has been left.*after the block it gave Delta"),
        (WorksOnce, "may be left at any time.*the connection is in use"),
        (SwallowsErrors, "error of the consumer.*left the block as None"),
        (WrapsErrors, "error of the consumer.*left the block as BackendError"),
        (OneAtATime, "two generations.*BusyResourceError"),
        (ClosesTheLatest, "opened later.*had an empty answer"),
        (ConnectsOnce, r"connected\(\) can be entered again.*already connected"),
        (ClosesForAll, r"connected\(\) can be entered again.*closed"),
        (StumblesOverOptions, "unknown option.*KeyError"),
        (StumblesOverSchemas, "JSON schema.*NotImplementedError"),
        (SwallowsCancellation, "cancelled request.*as if it had not been cancelled"),
        (HarmedByCancellation, "cancelled request.*the pool is full"),
        (EndsWhenCancelled, "at every checkpoint.*as if it were complete.*its checkpoint"),
        (TurnsCancellationIntoAnError, "at every checkpoint.*BackendError.*its checkpoint"),
    ],
)
async def test_a_broken_promise_is_named(make: Callable[[], Backend], promise: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s){promise}"):
        await check_backend(make)


async def test_a_backend_that_waits_long_for_more_after_the_last_delta_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conformance, "_PATIENCE", 0.05)
    with pytest.raises(AssertionError, match=r"made of Delta objects.*0\.05 s after"):
        await check_backend(WaitsForTheEnd)


async def test_an_iterator_that_is_left_open_is_named() -> None:
    with pytest.raises(AssertionError, match=r"(?s)async generator.*deltas \(testing/test_conform"):
        await check_backend(ForgetsItsGenerator)
    while FORGOTTEN:
        await FORGOTTEN.pop().aclose()
