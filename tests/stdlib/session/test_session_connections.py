"""Connections are opened by the first who needs them, closed last and in bounded time; places are shared."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest

from mellea_sc import (
    Backend,
    BackendError,
    BackendTimeout,
    Delta,
    GenerationRequest,
    ModelOption,
    ModelOutputThunk,
    PartialValidationResult,
    Requirement,
    ValidationResult,
    start_session,
)
from mellea_sc.backends import ChatMessage
from mellea_sc.runtime.connections import CLEANUP_TIMEOUT
from mellea_sc.testing import Pause, ScriptedBackend, Stall, cancel_everywhere

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]

STREAM = {ModelOption.STREAM: True}


class Connecting(ScriptedBackend):
    """Opening and closing its connections takes time, or fails."""

    def __init__(
        self,
        *,
        opening: float = 0.0,
        closing: float = 0.0,
        open_error: Exception | None = None,
        close_error: Exception | None = None,
        answer: float = 0.0,
    ) -> None:
        super().__init__(lambda _: [Pause(answer), "done"])
        self.opened = self.closed = 0
        self._opening, self._closing = opening, closing
        self._open_error, self._close_error = open_error, close_error

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Connecting]:
        self.opened += 1
        await anyio.sleep(self._opening)
        if self._open_error is not None:
            raise self._open_error
        try:
            yield self
        finally:
            await anyio.sleep(self._closing)
            self.closed += 1
        if self._close_error is not None:
            raise self._close_error


# --- connections ------------------------------------------------------------------------------------


async def test_connections_are_opened_once_by_the_first_who_asks() -> None:
    backend = Connecting(opening=1)
    async with start_session(backend=backend) as m:
        assert backend.opened == 0
        thunks = [await m.ainstruct("?") for _ in range(5)]
        assert [await thunk for thunk in thunks] == ["done"] * 5
        await (await m.ainstruct("?"))
    assert (backend.opened, backend.closed) == (1, 1)


async def test_connections_that_nobody_needed_are_not_opened() -> None:
    backend = Connecting()
    async with start_session(backend=backend):
        pass
    assert backend.opened == 0


async def test_who_opened_them_may_be_cancelled_and_others_still_get_them() -> None:
    backend = Connecting(opening=1)
    async with start_session(backend=backend) as m:
        first, second = await m.ainstruct("?"), await m.ainstruct("?")
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        assert await second == "done"
    assert backend.opened == 1


async def test_a_failure_to_open_is_raised_to_those_who_wait_and_the_next_one_tries_again() -> None:
    failure = BackendError("refused")
    backend = Connecting(opening=1, open_error=failure)
    async with start_session(backend=backend) as m:
        thunks = [await m.ainstruct("?") for _ in range(2)]
        for thunk in thunks:
            with pytest.raises(BackendError) as caught:
                await thunk
            assert caught.value is failure
        assert backend.opened == 1
        backend._open_error = None
        assert await (await m.ainstruct("?")) == "done"
    assert (backend.opened, backend.closed) == (2, 1)


async def test_leaving_while_connections_are_being_opened_cancels_the_opening() -> None:
    backend = Connecting(opening=60)
    began = anyio.current_time()
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?")
        await anyio.wait_all_tasks_blocked()
        m.cancel()
    assert anyio.current_time() < began + 1
    assert thunk.cancelled
    assert backend.closed == 0


async def test_an_error_on_closing_the_connections_is_raised_when_the_block_is_left() -> None:
    failure = BackendError("while closing")
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=Connecting(close_error=failure)) as m:
            await (await m.ainstruct("?"))
    assert caught.value.exceptions == (failure,)


# --- bounds (a peer that never answers cannot hang an exit) -------------------------------------------


@pytest.mark.parametrize("leaving", ["normally", "cancelled", "by an exception"])
async def test_closing_the_connections_is_bounded_in_time(leaving: str) -> None:
    backend = Connecting(closing=3600)
    began = anyio.current_time()
    with anyio.CancelScope() as scope:
        try:
            async with start_session(backend=backend) as m:
                await (await m.ainstruct("?"))
                if leaving == "cancelled":
                    scope.cancel()
                elif leaving == "by an exception":
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass
    assert anyio.current_time() == pytest.approx(began + CLEANUP_TIMEOUT, abs=0.5)


async def test_closing_the_connections_is_given_its_time_though_the_session_is_cancelled() -> None:
    backend = Connecting(closing=CLEANUP_TIMEOUT - 1)
    with anyio.CancelScope() as scope:
        async with start_session(backend=backend) as m:
            await (await m.ainstruct("?"))
            scope.cancel()
    assert backend.closed == 1


class Lingering(Backend):
    """Closing its responses takes time."""

    def __init__(self, *, shield: bool = False, stalls: bool = True) -> None:
        self.closings: list[str] = []
        self._shield, self._stalls = shield, stalls

    def open(self, request: GenerationRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[AsyncIterator[Delta]]:
        async def deltas() -> AsyncGenerator[Delta]:
            yield Delta("some ")
            if self._stalls:
                await anyio.sleep_forever()

        stream = deltas()
        try:
            yield stream
        finally:
            self.closings.append("begun")
            with anyio.CancelScope(shield=True):
                await stream.aclose()
            with anyio.CancelScope(shield=self._shield, deadline=anyio.current_time() + 7200):
                await anyio.sleep(3600)
            self.closings.append("ended")


async def test_a_backend_that_sleeps_while_it_is_cancelled_does_not_hold_up_the_exit() -> None:
    backend = Lingering()
    began = anyio.current_time()
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?")
        await anyio.wait_all_tasks_blocked()
        m.cancel()
    assert anyio.current_time() < began + 1
    assert thunk.cancelled
    assert backend.closings == ["begun"]


async def test_a_shield_of_the_backends_own_is_waited_for() -> None:
    backend = Lingering(shield=True)
    began = anyio.current_time()
    async with start_session(backend=backend) as m:
        await m.ainstruct("?")
        await anyio.wait_all_tasks_blocked()
        m.cancel()
    assert anyio.current_time() == pytest.approx(began + 3600, abs=1)
    assert backend.closings == ["begun", "ended"]


async def test_a_response_that_does_not_close_after_its_end_is_bounded_by_the_stream_timeout() -> (
    None
):
    backend = Lingering(stalls=False)
    began = anyio.current_time()
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?", model_options={ModelOption.STREAM_TIMEOUT: 30})
        with pytest.raises(BackendTimeout):
            await thunk
    assert anyio.current_time() == pytest.approx(began + 30, abs=0.1)
    assert thunk.text_so_far == "some "


async def test_a_backend_that_is_silent_is_bounded_by_the_stream_timeout_and_can_be_unbounded() -> (
    None
):
    backend = ScriptedBackend(lambda _: ["some ", Pause(1000), "text"])
    async with start_session(backend=backend) as m:
        late = await m.ainstruct("?", model_options={ModelOption.STREAM_TIMEOUT: 999})
        patient = await m.ainstruct("?", model_options={ModelOption.STREAM_TIMEOUT: None})
        with pytest.raises(BackendTimeout, match="next delta within 999 s"):
            await late
        assert late.text_so_far == "some "
        assert await patient == "some text"
    silent = ScriptedBackend(lambda _: [Stall()])
    async with start_session(backend=silent) as m:
        with pytest.raises(BackendTimeout, match="first delta within 120 s"):
            await (await m.ainstruct("?"))
    assert silent.calls[0].outcome == "cancelled"


async def test_a_slow_reader_does_not_count_against_the_stream_timeout() -> None:
    words = [f"{n} " for n in range(300)]
    async with start_session(backend=ScriptedBackend(words)) as m:
        thunk = await m.ainstruct("?", model_options={**STREAM, ModelOption.STREAM_TIMEOUT: 1.0})
        read = ""
        while not thunk.is_computed():
            await anyio.sleep(100)
            read += await thunk.astream()
    assert read == "".join(words)


# --- places -------------------------------------------------------------------------------------------


class Counting(ScriptedBackend):
    """Knows how many requests are in flight."""

    def __init__(self, *answers: object) -> None:
        super().__init__(*answers)  # type: ignore[arg-type]
        self.now = self.most = 0

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            async with super().open(request) as deltas:
                yield deltas
        finally:
            self.now -= 1


@pytest.mark.parametrize("places", [1, 3])
async def test_at_most_so_many_requests_are_in_flight(places: int) -> None:
    backend = Counting(lambda _: [Pause(1), "done"])
    began = anyio.current_time()
    async with start_session(backend=backend, max_concurrency=places) as m:
        for _ in range(6):
            await m.ainstruct("?")
    assert backend.most == places
    assert anyio.current_time() == pytest.approx(began + 6 / places, abs=0.5)


async def test_streams_that_nobody_reads_do_not_hold_the_places() -> None:
    words = [f"{n} " for n in range(500)]
    async with start_session(backend=Counting(lambda _: words), max_concurrency=1) as m:
        streams = [await m.ainstruct("?", model_options=STREAM) for _ in range(3)]
        await anyio.wait_all_tasks_blocked()
        plain = await m.ainstruct("?")
        assert await plain == "".join(words)
        assert [await stream for stream in streams] == ["".join(words)] * 3


async def test_a_stream_that_is_read_slowly_gives_its_place_to_who_waits() -> None:
    words = [f"{n} " for n in range(500)]
    async with start_session(backend=Counting(lambda _: words), max_concurrency=1) as m:
        stream = await m.ainstruct("?", model_options=STREAM)
        read = await stream.astream()
        await anyio.wait_all_tasks_blocked()
        assert await (await m.ainstruct("?")) == "".join(words)
        assert read + await stream.astream() == "".join(words)
        assert stream.is_computed()


async def test_who_waits_for_a_place_can_be_cancelled_and_has_asked_nothing() -> None:
    backend = Counting(lambda _: [Pause(1), "done"])
    async with start_session(backend=backend, max_concurrency=1) as m:
        first, second, third = [await m.ainstruct(str(n)) for n in range(3)]
        await anyio.wait_all_tasks_blocked()
        second.cancel()
        await anyio.wait_all_tasks_blocked()
        assert await first == await third == "done"
    assert len(backend.calls) == (3 if backend.calls[0].outcome == "cancelled" else 2)


async def test_one_place_is_enough_for_requirements_that_ask_a_judge() -> None:
    backend = Counting(lambda _: "done")
    backend._judge = lambda _: True
    async with start_session(backend=backend, max_concurrency=1) as m:
        thunk = await m.ainstruct("?", requirements=["good", "short"])
        assert await thunk == "done"
    assert backend.most == 1


async def test_one_place_is_enough_for_a_dependent_and_what_it_depends_on() -> None:
    backend = Counting(lambda request: request.messages[-1].content.upper())
    async with start_session(backend=backend, max_concurrency=1) as m:
        first = await m.ainstruct("a")
        second = await m.ainstruct("{{x}}b", user_variables={"x": first})
        third = await m.ainstruct("{{x}}c", user_variables={"x": second})
        assert await third == "ABC"


async def test_one_place_is_enough_for_a_stream_whose_validators_ask_a_judge() -> None:
    class Asks(Requirement):
        async def stream_validate(self, chunk, *, backend, ctx):  # type: ignore[no-untyped-def]
            thunk, _ = await backend.generate_from_context("judge this", ctx)
            await thunk.avalue()
            return PartialValidationResult("pass")

        async def validate(self, backend, ctx, **_):  # type: ignore[no-untyped-def]
            return ValidationResult(True)

    text = " ".join(f"Sentence {n}." for n in range(60))
    backend = ScriptedBackend(lambda r: "yes" if r.messages[-1].content == "judge this" else text)
    async with start_session(backend=backend, max_concurrency=1) as m:
        async with m.stream("?", requirements=[Asks()]) as result:
            await result.acomplete()
        assert result.completed


async def test_a_backend_that_is_opened_by_hand_takes_a_place_too() -> None:
    backend = Counting(lambda _: [Pause(1), "done"])
    began = anyio.current_time()
    async with start_session(backend=backend, max_concurrency=1) as m:
        thunk = await m.ainstruct("?")
        await anyio.wait_all_tasks_blocked()
        async with m.backend.open(GenerationRequest((ChatMessage("user", "?"),))) as deltas:
            text = "".join([delta.text async for delta in deltas])
        assert text == await thunk == "done"
    assert anyio.current_time() == pytest.approx(began + 2, abs=0.5)
    assert backend.most == 1


async def test_places_are_given_back_wherever_a_program_is_cancelled() -> None:
    async def program() -> None:
        backend = Counting(lambda _: ["some ", Pause(0.1), "text"])
        async with start_session(backend=backend, max_concurrency=1) as m:
            thunks: list[ModelOutputThunk] = []
            try:
                for options in (None, STREAM, None):
                    thunks.append(await m.ainstruct("?", model_options=options))  # noqa: PERF401
                await thunks[2]
            finally:
                for thunk in thunks[:2]:
                    thunk.cancel()
                with anyio.move_on_after(5, shield=True):
                    for thunk in thunks:
                        await thunk.wait_finished()
                assert backend.now == 0

    assert await cancel_everywhere(program) > 10
