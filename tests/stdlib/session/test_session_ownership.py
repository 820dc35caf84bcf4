"""A session owns what it starts: joined when its block is left normally, cancelled otherwise."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from mellea_sc import (
    Backend,
    BackendError,
    Delta,
    GenerationCancelled,
    GenerationRequest,
    InvalidOption,
    ModelOption,
    Requirement,
    SessionClosed,
    ValidationResult,
    start_session,
)
from mellea_sc.core.base import Context
from mellea_sc.testing import (
    Fail,
    Pause,
    Script,
    ScriptedBackend,
    Stall,
    cancel_everywhere,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]

STREAM = {ModelOption.STREAM: True}


def slow(seconds: float = 1.0) -> ScriptedBackend:
    """Every answer takes that long."""
    return ScriptedBackend(lambda _: [Pause(seconds), "done"])


# --- leaving normally ---------------------------------------------------------------------------


async def test_leaving_the_block_waits_for_the_generations_and_their_values_can_be_read() -> None:
    async with start_session(backend=slow()) as m:
        thunks = [await m.ainstruct(f"{n}") for n in range(3)]
        before = anyio.current_time()
    assert anyio.current_time() == pytest.approx(before + 1.0)
    assert [thunk.value for thunk in thunks] == ["done"] * 3


async def test_leaving_the_block_drains_streams_that_nobody_reads_and_their_values_can_be_read() -> (
    None
):
    words = [f"w{n} " for n in range(1000)]
    async with start_session(backend=ScriptedBackend(words)) as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        await anyio.wait_all_tasks_blocked()
        assert not thunk.is_computed()
        assert len(thunk.text_so_far) < len("".join(words))
    assert thunk.is_computed()
    assert thunk.value == str(thunk) == "".join(words)
    assert await thunk.astream() == "".join(words)


async def test_a_reader_who_began_before_the_block_was_left_gets_the_rest_after_it() -> None:
    words = [f"w{n} " for n in range(1000)]
    async with start_session(backend=ScriptedBackend(words)) as m:
        thunk = await m.ainstruct("?", model_options=STREAM)
        first = await thunk.astream()
    assert not thunk.is_computed()
    assert thunk.value == "".join(words)
    assert first + await thunk.astream() == "".join(words)
    assert thunk.is_computed()


async def test_the_block_can_be_left_by_return_and_by_break() -> None:
    async def program() -> str:
        async with start_session(backend=slow()) as m:
            thunk = await m.ainstruct("?")
            return await thunk
        raise AssertionError

    assert await program() == "done"
    for _ in range(1):
        async with start_session(backend=slow()) as m:
            thunk = await m.ainstruct("?")
            break
    assert thunk.value == "done"


# --- leaving by an exception or a cancellation ----------------------------------------------------


class Sockets(Backend):
    """Connections and responses whose closing takes a moment, and is recorded."""

    def __init__(self, *, closing: float = 0.1) -> None:
        self.closing = closing
        self.log: list[str] = []

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Sockets]:
        self.log.append("connected")
        try:
            yield self
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.closing)
            self.log.append("disconnected")

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        self.log.append("open")

        async def deltas() -> AsyncGenerator[Delta]:
            yield Delta("some ")
            await anyio.sleep_forever()

        stream = deltas()
        try:
            yield stream
        finally:
            with anyio.CancelScope(shield=True):
                await stream.aclose()
                await anyio.sleep(self.closing)
            assert "disconnected" not in self.log
            self.log.append("closed")


async def test_an_exception_in_the_block_cancels_waits_for_the_cleanup_and_is_raised_as_itself() -> (
    None
):
    backend = Sockets()
    failure = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught:
        async with start_session(backend=backend) as m:
            thunks = [await m.ainstruct("?"), await m.ainstruct("?")]
            await anyio.wait_all_tasks_blocked()
            raise failure
    assert caught.value is failure
    assert backend.log == ["connected", "open", "open", "closed", "closed", "disconnected"]
    assert all(thunk.cancelled for thunk in thunks)


async def test_a_group_raised_in_the_block_is_raised_as_itself() -> None:
    failure = ExceptionGroup("mine", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])])
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=Sockets()) as m:
            await m.ainstruct("?")
            await anyio.wait_all_tasks_blocked()
            raise failure
    assert caught.value is failure
    assert "nobody observed" not in str(caught.value)


async def test_a_cancellation_from_outside_cancels_and_is_not_swallowed() -> None:
    backend = Sockets()
    reached = False
    with anyio.move_on_after(1) as scope:
        async with start_session(backend=backend) as m:
            thunk = await m.ainstruct("?")
            await thunk
        reached = True
    assert scope.cancelled_caught
    assert not reached
    assert thunk.cancelled
    assert backend.log[-2:] == ["closed", "disconnected"]


async def test_fail_after_works_on_a_block_that_is_joining() -> None:
    with pytest.raises(TimeoutError):
        with anyio.fail_after(1):
            async with start_session(backend=Sockets()) as m:
                thunk = await m.ainstruct("?")
    assert thunk.cancelled


@pytest.mark.parametrize("what", ["thunk", "chat", "validation", "stream", "sampling"])
async def test_fail_after_works_on_everything_that_can_be_awaited(what: str) -> None:
    async def endless(_: Context) -> ValidationResult:
        await anyio.sleep_forever()
        raise AssertionError

    backend = ScriptedBackend(lambda _: ["some ", Stall()])
    async with start_session(backend=backend) as m:
        began = anyio.current_time()
        with pytest.raises(TimeoutError), anyio.fail_after(2):
            match what:
                case "thunk":
                    thunk = await m.ainstruct("?")
                    async with thunk:
                        await thunk
                case "chat":
                    await m.achat("?")
                case "validation":
                    await m.avalidate(Requirement("r", endless), output="text")
                case "stream":
                    async with m.stream("?") as result:
                        await result.acomplete()
                case _:
                    await m.ainstruct("?", requirements=["r"], return_sampling_results=True)
        assert anyio.current_time() == pytest.approx(began + 2)
        assert all(call.outcome == "cancelled" for call in backend.calls)


async def test_no_await_at_all_between_start_and_cancellation_leaves_nothing() -> None:
    with anyio.CancelScope() as scope:
        async with start_session(backend=slow()) as m:
            scope.cancel()
            thunk = None
            try:
                thunk = await m.ainstruct("?")
            finally:
                assert thunk is None or not thunk.is_computed()
    assert thunk is None or thunk.cancelled


# --- cancelling the session -----------------------------------------------------------------------


async def test_cancel_ends_the_block_quietly_and_thunks_say_the_reason() -> None:
    backend = Sockets()
    reached = False
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?")
        await anyio.wait_all_tasks_blocked()
        m.cancel("enough")
        await anyio.lowlevel.checkpoint()
        reached = True
    assert not reached
    assert backend.log[-2:] == ["closed", "disconnected"]
    with pytest.raises(GenerationCancelled, match="enough") as caught:
        await thunk
    assert caught.value.reason == "enough"
    assert caught.value.partial_text == "some "


async def test_cancel_reaches_a_validation_and_says_why() -> None:
    async def endless(_: Context) -> ValidationResult:
        await anyio.sleep_forever()
        raise AssertionError

    m = start_session(backend=slow())
    async with anyio.create_task_group() as tasks:

        async def validate() -> None:
            with pytest.raises(GenerationCancelled, match="enough"):
                await m.avalidate(Requirement("r", endless), output="text")

        tasks.start_soon(validate)
        await anyio.wait_all_tasks_blocked()
        m.cancel("enough")
    await m.aclose()


async def test_after_cancel_nothing_can_be_started() -> None:
    async with start_session(backend=slow()) as m:
        m.cancel("enough")
        with pytest.raises(SessionClosed, match="enough"):
            await m.ainstruct("?")
    with pytest.raises(SessionClosed):
        await m.ainstruct("?")
    m.cancel("again")


async def test_cancelling_a_session_before_its_block_makes_it_unusable() -> None:
    m = start_session(backend=slow())
    m.cancel("never mind")
    with pytest.raises(SessionClosed):
        async with m:
            raise AssertionError


async def test_a_session_is_entered_once_and_before_it_is_used() -> None:
    async with start_session(backend=slow()) as m:
        with pytest.raises(SessionClosed):
            async with m:
                raise AssertionError
    with pytest.raises(SessionClosed):
        async with m:
            raise AssertionError
    bare = start_session(backend=slow())
    await bare.ainstruct("?")
    with pytest.raises(SessionClosed):
        async with bare:
            raise AssertionError
    await bare.aclose()


@pytest.mark.parametrize("method", ["ainstruct", "achat", "aact", "avalidate", "stream"])
async def test_after_the_block_every_method_says_that_the_session_has_ended(method: str) -> None:
    async with start_session(backend=slow()) as m:
        pass
    with pytest.raises(SessionClosed, match="ended"):
        await getattr(m, method)("?")
    with pytest.raises(SessionClosed):
        await m.backend.generate_from_context("?", m.ctx)
    assert "ended" in repr(m)


# --- errors ---------------------------------------------------------------------------------------


def failing(*prompts: str) -> ScriptedBackend:
    """The named prompts fail after a second, others take two."""

    def answer(request: GenerationRequest) -> Script:
        prompt = request.messages[-1].content
        if prompt in prompts:
            return Script(["half ", Pause(1), Fail(BackendError(prompt))])
        return Script([Pause(2), "done"])

    return ScriptedBackend(answer)


async def test_a_failure_belongs_to_its_thunk_and_siblings_go_on() -> None:
    async with start_session(backend=failing("bad")) as m:
        bad, good = await m.ainstruct("bad"), await m.ainstruct("good")
        with pytest.raises(BackendError, match="bad"):
            await bad
        assert await good == "done"
    assert isinstance(bad.error, BackendError)
    assert not bad.cancelled
    assert good.error is None


async def test_errors_that_nobody_observed_are_raised_in_one_group_after_the_join() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=failing("a", "b")) as m:
            thunks = [await m.ainstruct(prompt) for prompt in ("a", "good", "b")]
    assert sorted(str(error) for error in caught.value.exceptions) == ["a", "b"]
    assert thunks[1].value == "done"


async def test_an_error_is_observed_once_it_was_raised_to_anybody() -> None:
    async with start_session(backend=failing("a", "b", "c")) as m:
        a, b, c = [await m.ainstruct(prompt) for prompt in "abc"]
        with pytest.raises(BackendError):
            await a
        with pytest.raises(BackendError):
            async for _ in b:
                pass
        with pytest.raises(BackendError):
            async with c:
                await c.avalue()


async def test_looking_at_an_error_does_not_observe_it() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=failing("a")) as m:
            thunk = await m.ainstruct("a")
            await anyio.sleep(5)
            assert isinstance(thunk.error, BackendError)
            assert "failed" in repr(thunk)
    assert caught.value.exceptions == (thunk.error,)


async def test_one_error_of_many_thunks_is_in_the_group_once() -> None:
    class Unreachable(ScriptedBackend):
        def connected(self):
            raise OSError("no way there")

    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=Unreachable()) as m:
            for _ in range(3):
                await m.ainstruct("?")
    assert len(caught.value.exceptions) == 1


async def test_an_exception_of_the_block_and_unobserved_errors_are_raised_together() -> None:
    failure = ZeroDivisionError()
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=failing("a")) as m:
            thunk = await m.ainstruct("a")
            await anyio.sleep(5)
            raise failure
    assert caught.value.exceptions == (failure, thunk.error)


async def test_an_error_that_the_block_raises_on_is_not_reported_twice() -> None:
    with pytest.raises(BackendError) as caught:
        async with start_session(backend=failing("a")) as m:
            thunk = await m.ainstruct("a")
            await thunk
    assert caught.value is thunk.error


async def test_unobserved_errors_are_raised_even_where_the_block_was_cancelled() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with anyio.move_on_after(5) as scope:
            async with start_session(backend=failing("a")) as m:
                await m.ainstruct("a")
                await anyio.sleep_forever()
    assert scope.cancel_called
    assert [str(error) for error in caught.value.exceptions] == ["a"]


async def test_an_error_in_a_cleanup_after_cancel_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Clumsy(ScriptedBackend):
        @asynccontextmanager
        async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
            try:
                async with super().open(request) as deltas:
                    yield deltas
            finally:
                raise BackendError("while closing")

    async with start_session(backend=Clumsy(["some ", Stall()])) as m:
        thunk = await m.ainstruct("?")
        await anyio.wait_all_tasks_blocked()
        thunk.cancel()
        with pytest.raises(BackendError, match="while closing"):
            await thunk
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is thunk.error


async def test_a_validation_error_that_the_cancelled_caller_did_not_get_is_not_lost() -> None:
    async def clumsy(_: Context) -> ValidationResult:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("while cancelled")
        raise AssertionError

    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=slow()) as m:
            with anyio.move_on_after(1):
                await m.avalidate(Requirement("r", clumsy), output="text")
    assert [str(error) for error in caught.value.exceptions] == ["while cancelled"]


# --- the strict nursery -----------------------------------------------------------------------------


async def test_in_a_strict_session_the_first_failure_cancels_all() -> None:
    backend = failing("bad")
    began = anyio.current_time()
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=backend, on_error="cancel") as m:
            good, bad = await m.ainstruct("good"), await m.ainstruct("bad")
            await anyio.sleep_forever()
    assert anyio.current_time() == pytest.approx(began + 1)
    assert caught.value.exceptions == (bad.error,)
    assert good.cancelled


async def test_a_strict_session_raises_the_failure_even_if_somebody_saw_it() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=failing("bad"), on_error="cancel") as m:
            bad = await m.ainstruct("bad")
            with pytest.raises(BackendError), anyio.CancelScope(shield=True):
                await bad
    assert caught.value.exceptions == (bad.error,)


async def test_after_a_failure_a_strict_session_starts_nothing() -> None:
    with pytest.raises(ExceptionGroup):
        async with start_session(backend=failing("bad"), on_error="cancel") as m:
            await m.ainstruct("bad")
            try:
                await anyio.sleep_forever()
            finally:
                with pytest.raises(SessionClosed), anyio.CancelScope(shield=True):
                    await m.ainstruct("good")


async def test_a_strict_session_does_not_mind_a_cancelled_thunk() -> None:
    async with start_session(backend=slow(), on_error="cancel") as m:
        thunk, good = await m.ainstruct("?"), await m.ainstruct("?")
        thunk.cancel()
        assert await good == "done"


async def test_a_failing_validator_call_of_a_strict_session_is_raised_to_its_caller_alone() -> None:
    def wrong(_: Context) -> ValidationResult:
        raise ValueError("wrong")

    async with start_session(backend=slow(), on_error="cancel") as m:
        thunk = await m.ainstruct("?")
        with pytest.raises(ValueError, match="wrong"):
            await m.avalidate(Requirement("r", wrong), output="text")
        assert await thunk == "done"


# --- nesting ----------------------------------------------------------------------------------------


async def test_sessions_nest_and_the_inner_one_ends_first() -> None:
    async with start_session(backend=slow(3)) as outer:
        first = await outer.ainstruct("?")
        async with start_session(backend=slow(1)) as inner:
            second = await inner.ainstruct("?")
        assert second.value == "done"
        assert not first.is_computed()
    assert first.value == "done"


async def test_cancelling_the_outer_session_cancels_the_inner_one() -> None:
    async with start_session(backend=slow(3)) as outer, start_session(backend=slow(3)) as inner:
        thunk = await inner.ainstruct("?")
        outer.cancel()
    assert thunk.cancelled


async def test_cancelling_the_inner_session_leaves_the_outer_one_alone() -> None:
    async with start_session(backend=slow(3)) as outer:
        thunk = await outer.ainstruct("?")
        async with start_session(backend=slow(3)) as inner:
            await inner.ainstruct("?")
            inner.cancel()
        assert await thunk == "done"


# --- arguments --------------------------------------------------------------------------------------


async def test_arguments_that_cannot_be_used_are_refused_at_once() -> None:
    backend = ScriptedBackend()
    for arguments in (
        {"on_error": "ignore"},
        {"max_concurrency": 0},
        {"model_options": {ModelOption.STREAM_TIMEOUT: -1}},
        {"model_options": {1: 2}},
        {"ctx": start_session(backend=backend).ctx, "context_type": "chat"},
        {"context_type": "long"},
        {"model_id": "any"},
    ):
        with pytest.raises(InvalidOption):
            start_session(backend=backend, **arguments)  # type: ignore[call-overload]


async def test_arguments_of_a_call_that_cannot_be_used_start_nothing() -> None:
    backend = ScriptedBackend()
    async with start_session(backend=backend) as m:
        with pytest.raises(InvalidOption):
            await m.ainstruct("?", format=42)  # type: ignore[call-overload]
        with pytest.raises(InvalidOption):
            await m.ainstruct("?", model_options={ModelOption.STREAM_TIMEOUT: 0})
        with pytest.raises(InvalidOption):
            await m.ainstruct("?", strategy=None, return_sampling_results=True)
        with pytest.raises(InvalidOption):
            await m.ainstruct(42)  # type: ignore[call-overload]
        with pytest.raises(InvalidOption):
            await m.avalidate("r")
    assert not backend.calls


# --- cancelled anywhere -----------------------------------------------------------------------------


async def test_a_program_cancelled_at_any_point_leaves_nothing_and_no_value_that_is_half() -> None:
    async def program() -> None:
        backend = ScriptedBackend(
            lambda _: Script(["one ", Pause(0.1), "two"], delay=0.01), judge=lambda _: True
        )
        async with start_session(backend=backend) as m:
            thunk = await m.ainstruct("a")
            streamed = await m.ainstruct("b", model_options=STREAM)
            sampled = await m.ainstruct("c", requirements=["good"])
            dependent = await m.ainstruct("{{x}}", user_variables={"x": thunk})
            read = ""
            async for delta in streamed:
                read += delta
            assert read == "one two"
            verdicts = await m.avalidate("good", output=sampled)
            assert all(verdicts)
            assert await dependent == "one two"

    assert await cancel_everywhere(program) > 30
