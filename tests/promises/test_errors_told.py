"""Every error is told, once it matters, to whoever has to know; and what is no error to Python is one here."""

from __future__ import annotations

import dataclasses
import gc
import logging
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Self

import anyio
import anyio.lowlevel
import pytest
from kit import Check, always

from mellea_sc import (
    BackendError,
    Context,
    GenerationCancelled,
    GenerationRequest,
    InvalidOption,
    Message,
    ModelOption,
    PreconditionFailed,
    RejectionSamplingStrategy,
    Requirement,
    RunError,
    SessionClosed,
    ValidationResult,
    start_session,
    stream_with_chunking,
    wait_for_all_mots,
)
from mellea_sc.runtime.failures import leaf_errors
from mellea_sc.stdlib import RacingStrategy, SamplingStrategy
from mellea_sc.stdlib.components import Instruction
from mellea_sc.stdlib.context import SimpleContext
from mellea_sc.stdlib.session import MelleaSession
from mellea_sc.testing import Fail, Pause, Script, ScriptedBackend, Stall, run_virtual
from mellea_sc.testing.clock import LoopName

pytestmark = pytest.mark.anyio


class Down(Exception):
    """A backend's error of its own."""


def slow() -> Check:
    """Takes five seconds for each piece of running text."""
    return Check(always("pass", after=5))


def breaks(*_: object) -> Script:
    """An answer with an error behind its first sentence."""
    return Script(["One. ", Fail(Down("broken"))])


def errors_in(caplog: pytest.LogCaptureFixture) -> list[BaseException | None]:
    records = [record for record in caplog.records if record.name == "mellea_sc"]
    return [record.exc_info[1] if record.exc_info else None for record in records]


# --- errors that wait for the judges ------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [RejectionSamplingStrategy(), RacingStrategy(2)])
async def test_1_4_an_error_that_waits_while_its_thunk_is_cancelled_is_the_thunks(
    strategy: SamplingStrategy, caplog: pytest.LogCaptureFixture
) -> None:
    async with start_session(backend=ScriptedBackend(breaks)) as m:
        thunk = await m.ainstruct("?", requirements=[slow()], strategy=strategy)
        await anyio.sleep(1)
        thunk.cancel("enough")
        with pytest.raises((Down, ExceptionGroup)) as caught:
            await thunk
    leaves = leaf_errors(caught.value)
    assert {type(one) for one in leaves} == {Down}
    assert len(leaves) == (2 if isinstance(strategy, RacingStrategy) else 1)
    assert not thunk.cancelled
    assert errors_in(caplog) == [thunk.error]


async def test_1_4_an_error_that_waits_while_its_session_is_cancelled_is_raised_by_the_session() -> (
    None
):
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=ScriptedBackend(breaks)) as m:
            await m.ainstruct("?", requirements=[slow()])
            await anyio.sleep(1)
            m.cancel()
    assert [type(one) for one in leaf_errors(caught.value)] == [Down]


async def test_1_4_errors_that_wait_while_another_attempt_ends_the_call_are_raised_with_its_own() -> (
    None
):
    answers = [Script(["One. ", Fail(Down("first"))]), Script([Pause(1), Fail(Down("second"))])]
    async with start_session(backend=ScriptedBackend(*answers)) as m:
        thunk = await m.ainstruct("?", requirements=[slow()], strategy=RacingStrategy(2))
        with pytest.raises(ExceptionGroup) as caught:
            await thunk
    assert sorted(str(one) for one in leaf_errors(caught.value)) == ["first", "second"]


async def test_1_4_an_error_that_waits_while_a_precondition_fails_is_raised_with_it() -> None:
    async def judge(_: Context) -> ValidationResult:
        await anyio.sleep(1)
        return ValidationResult(False, reason="not this")

    async with start_session(backend=ScriptedBackend(breaks)) as m:
        given = [Requirement("input", judge)]
        thunk = await m.ainstruct("?", requirements=[slow()], preconditions=given)
        result = await m.stream("?", requirements=[slow()], preconditions=given)
        with pytest.raises(ExceptionGroup) as of_thunk:
            await thunk
        with pytest.raises(ExceptionGroup) as of_stream:
            await result.acomplete()
    for caught in (of_thunk, of_stream):
        assert {type(one) for one in leaf_errors(caught.value)} == {Down, PreconditionFailed}


async def test_1_4_an_error_of_connections_that_nobody_waits_for_any_more_is_raised() -> None:
    class Unreachable(ScriptedBackend):
        @asynccontextmanager
        async def connected(self) -> AsyncGenerator[Self]:
            await anyio.sleep(1)
            raise Down("no way there")
            yield self

    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=Unreachable()) as m:
            (await m.ainstruct("?")).cancel()
            await anyio.sleep(2)
    assert [str(one) for one in leaf_errors(caught.value)] == ["no way there"]


async def test_1_4_an_error_of_a_validation_whose_caller_is_cancelled_with_the_session_is_raised() -> (
    None
):
    async def clumsy(_: Context) -> ValidationResult:
        try:
            await anyio.sleep_forever()
        finally:
            raise Down("while cancelled")
        raise AssertionError

    backend = ScriptedBackend()
    with pytest.raises(ExceptionGroup) as caught, anyio.CancelScope() as scope:
        async with anyio.create_task_group() as users, start_session(backend=backend) as m:
            users.start_soon(partial(m.avalidate, Requirement("r", clumsy), output="text"))
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await anyio.sleep_forever()
    assert [str(one) for one in leaf_errors(caught.value)] == ["while cancelled"]


# --- who has waited, and who has cancelled -----------------------------------------------------------------


async def test_1_4_who_waits_for_several_thunks_has_observed_all_and_the_others_are_notes() -> None:
    backend = ScriptedBackend(lambda r: Fail(Down(r.messages[-1].content)))
    async with start_session(backend=backend) as m:
        thunks = [await m.ainstruct(name) for name in ("first", "second", "third")]
        await anyio.sleep(1)
        for _ in range(2):
            with pytest.raises(Down, match="first") as caught:
                await wait_for_all_mots(thunks)
    assert caught.value is thunks[0].error
    notes = caught.value.__notes__
    assert len(notes) == 2
    assert "second" in notes[0]
    assert "Down('third')" in notes[1]


async def test_1_4_one_that_was_not_waited_for_still_tells() -> None:
    backend = ScriptedBackend(lambda r: Fail(Down(r.messages[-1].content)))
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=backend) as m:
            thunks = [await m.ainstruct(name) for name in ("first", "second")]
            await m.ainstruct("third")
            with pytest.raises(Down):
                await wait_for_all_mots(thunks)
    assert [str(one) for one in caught.value.exceptions] == ["third"]


@pytest.mark.parametrize("what", ["thunk", "stream"])
async def test_1_4_cancelling_what_has_failed_says_that_nobody_will_ask(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with start_session(backend=ScriptedBackend(breaks)) as m:
        failed = await (m.ainstruct("?") if what == "thunk" else m.stream("?"))
        await anyio.sleep(1)
        assert errors_in(caplog) == []
        failed.cancel("the client is gone")
        assert [type(one) for one in errors_in(caplog)] == [Down]
        failed.cancel("again")
    assert len(caplog.records) == 1


@pytest.mark.parametrize("what", ["thunk", "stream"])
async def test_1_4_an_error_that_leaves_the_block_of_what_has_failed_is_raised_as_itself(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with (
            start_session(backend=ScriptedBackend(breaks)) as m,
            await m.ainstruct("?") if what == "thunk" else m.stream("?"),
        ):
            await anyio.sleep(1)
            raise ZeroDivisionError
    assert [type(one) for one in errors_in(caplog)] == [Down]


async def test_1_4_a_cancelled_run_does_not_end_a_strict_session() -> None:
    async with start_session(backend=ScriptedBackend(breaks), on_error="cancel") as m:
        result = await m.stream("?", requirements=[slow()])
        thunk = await m.ainstruct("?", requirements=[slow()])
        await anyio.sleep(1)
        result.cancel()
        thunk.cancel()
        await anyio.sleep(1)
        assert isinstance(result.error, Down)
        assert isinstance(thunk.error, Down)


async def test_a_group_that_has_the_blocks_own_error_says_so() -> None:
    with pytest.raises(ExceptionGroup, match="its block was left by an error, and") as caught:
        async with start_session(backend=ScriptedBackend(breaks)) as m:
            await m.ainstruct("?")
            await anyio.sleep(1)
            raise ZeroDivisionError
    assert [type(one) for one in caught.value.exceptions] == [ZeroDivisionError, Down]


# --- a session that logs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bare", [False, True])
async def test_1_4_a_logging_session_raises_nothing_when_it_is_left(
    bare: bool, caplog: pytest.LogCaptureFixture
) -> None:
    m = start_session(backend=ScriptedBackend(breaks), on_error="log")
    if bare:
        thunk, result = await m.ainstruct("?"), await m.stream("?")
        await anyio.sleep(1)
        assert errors_in(caplog) == []
        await m.aclose()
    else:
        async with m:
            thunk, result = await m.ainstruct("?"), await m.stream("?")
    assert set(errors_in(caplog)) == {thunk.error, result.error}
    assert all(f"{__file__}:" in record.getMessage() for record in caplog.records)
    with pytest.raises(Down):
        await thunk


async def test_1_4_what_a_task_of_its_own_has_started_is_named_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        start_session(backend=ScriptedBackend(breaks), on_error="log") as m,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(m.ainstruct, "Name a river.")
    [record] = caplog.records
    assert "('Name a river.', started in a task of its own)" in record.getMessage()


async def test_1_4_a_logging_session_keeps_no_error_of_what_was_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert record.exc_info is not None
            logged.append(repr(record.exc_info[1]))

    log = logging.getLogger("mellea_sc")
    monkeypatch.setattr(log, "handlers", [Handler()])
    monkeypatch.setattr(log, "propagate", False)  # pytest keeps records
    async with start_session(backend=ScriptedBackend(breaks), on_error="log") as m:
        thunk, result = await m.ainstruct("?"), await m.stream("?")
        await anyio.sleep(1)
        errors = [weakref.ref(one) for one in (thunk.error, result.error) if one is not None]
        assert len(errors) == 2
        assert logged == []
        del thunk, result
        gc.collect()
        assert logged == ["Down('broken')"] * 2
        assert [error() for error in errors] == [None, None]
    assert len(logged) == 2


async def test_1_4_what_was_observed_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with start_session(backend=ScriptedBackend(breaks), on_error="log") as m:
        with pytest.raises(Down):
            await (await m.ainstruct("?"))
        with pytest.raises(Down):
            async for _ in (await m.stream("?")).astream():
                pass
        thunk = await m.ainstruct("?")
        with pytest.raises(Down):
            await wait_for_all_mots([thunk])
        del thunk
        gc.collect()
    assert caplog.records == []


async def test_1_4_a_logging_session_that_is_cancelled_logs_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with anyio.move_on_after(2):
        async with start_session(backend=ScriptedBackend(breaks), on_error="log") as m:
            thunk = await m.ainstruct("?")
            await anyio.sleep_forever()
    assert errors_in(caplog) == [thunk.error]


async def test_1_4_an_error_of_the_block_leaves_a_logging_session_as_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with start_session(backend=ScriptedBackend(breaks), on_error="log") as m:
            await m.ainstruct("?")
            await anyio.sleep(1)
            raise ZeroDivisionError
    assert [type(one) for one in errors_in(caplog)] == [Down]


def test_what_on_error_may_be() -> None:
    with pytest.raises(InvalidOption, match='"hold", "cancel" or "log"'):
        start_session(backend=ScriptedBackend(), on_error="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("cancelled", [False, True])
def test_1_5_an_error_of_a_stream_without_a_session_is_logged_when_the_loop_ends_or_it_is_cancelled(
    loop: LoopName, cancelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[object] = []

    async def main() -> None:
        result = await stream_with_chunking("?", ScriptedBackend(breaks), SimpleContext())
        await anyio.sleep(1)
        assert errors_in(caplog) == []
        kept.append(result)
        if cancelled:
            result.cancel()
            assert [type(one) for one in errors_in(caplog)] == [Down]

    run_virtual(main, backend=loop)
    assert [type(one) for one in errors_in(caplog)] == [Down]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_stream_without_a_session_that_fails_while_its_loop_ends_does_not_hold_it_up(
    loop: LoopName, caplog: pytest.LogCaptureFixture
) -> None:
    async def untidy(*_: object) -> None:
        try:
            await anyio.sleep(5)
        except BaseException:
            raise Down("while cancelled") from None

    async def main() -> None:
        backend = ScriptedBackend(lambda _: ["One. ", Stall()])
        await stream_with_chunking("?", backend, SimpleContext(), requirements=[Check(untidy)])
        await anyio.sleep(1)

    run_virtual(main, backend=loop)
    assert [str(one) for one in errors_in(caplog)] == ["while cancelled"]


# --- what is no error to Python ---------------------------------------------------------------------------


class Opening(ScriptedBackend):
    """Raises something on opening, and not out of a generator."""

    def __init__(self, raised: Callable[[], BaseException], *, once: bool = True) -> None:
        super().__init__(lambda _: "One. Two.")
        self._raised = raised
        self._left = 1 if once else 99

    def open(self, request: GenerationRequest):  # type: ignore[no-untyped-def] # as it is there
        if self._left:
            self._left -= 1
            raise self._raised()
        return super().open(request)


def ends(kind: type[BaseException]) -> Requirement:
    async def judge(_: Context) -> ValidationResult:
        raise kind("by the program")

    return Requirement("r", judge)


async def a_thunk(m: MelleaSession, requirements: list[Requirement]) -> None:
    thunk = await m.ainstruct(
        "?", requirements=requirements, model_options={ModelOption.STREAM: True}
    )
    async for _ in thunk:
        pass


async def a_stream(m: MelleaSession, requirements: list[Requirement]) -> None:
    result = await m.stream("?", requirements=requirements)
    async for _ in result.astream():
        pass


async def a_validation(m: MelleaSession, requirements: list[Requirement]) -> None:
    await m.avalidate(requirements, output="text")


@pytest.mark.parametrize("way", [a_thunk, a_stream, a_validation])
@pytest.mark.parametrize("kind", [StopAsyncIteration, GeneratorExit])
async def test_1_9_what_a_validator_raises_never_ends_anything_quietly(
    way: Callable[[MelleaSession, list[Requirement]], object], kind: type[BaseException]
) -> None:
    async with start_session(backend=ScriptedBackend(lambda _: "One. Two.")) as m:
        with pytest.raises(RunError, match="which is no error to Python") as caught:
            await way(m, [ends(kind)])  # type: ignore[misc]
        assert isinstance(caught.value.__cause__, kind)
        thunk = await m.ainstruct("the session goes on")
        assert await thunk == "One. Two."


@pytest.mark.parametrize("way", [a_thunk, a_stream])
@pytest.mark.parametrize("kind", [StopAsyncIteration, StopIteration, GeneratorExit])
async def test_1_9_nor_does_what_a_backend_raises(
    way: Callable[[MelleaSession, list[Requirement]], object], kind: type[BaseException]
) -> None:
    async with start_session(backend=Opening(lambda: kind("by the program"))) as m:
        with pytest.raises((RunError, RuntimeError)) as caught:
            await way(m, [])  # type: ignore[misc]
        assert isinstance(caught.value.__cause__, kind)
        assert await (await m.ainstruct("the session goes on")) == "One. Two."


class Connecting(ScriptedBackend):
    """Raises something the first time that its connections are opened."""

    def __init__(self, raise_it: Callable[[], object]) -> None:
        super().__init__(lambda _: "One. Two.")
        self._raise: Callable[[], object] | None = raise_it

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Self]:
        raise_it, self._raise = self._raise, None
        if raise_it is not None:
            await stray()
        yield self


async def stray() -> None:
    """Raise a cancellation that nobody has asked for: as one that was kept."""
    kept: list[BaseException] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.lowlevel.checkpoint()
        except BaseException as error:
            kept.append(error)
            raise
    raise kept.pop()


@pytest.mark.parametrize("way", [a_thunk, a_stream])
async def test_1_9_a_cancellation_out_of_connecting_is_an_error_and_the_session_goes_on(
    way: Callable[[MelleaSession, list[Requirement]], object],
) -> None:
    async with start_session(backend=Connecting(stray)) as m:
        with pytest.raises(BackendError, match="cancellation that nobody asked for"):
            await way(m, [])  # type: ignore[misc]
        assert await (await m.ainstruct("again")) == "One. Two."


class Strays(SamplingStrategy):
    """A strategy out of which a cancellation comes."""

    async def sample(self, *_: object, **__: object) -> object:  # type: ignore[override]
        await stray()


def copied() -> Check:
    """Its validation strays, in a task of the session's."""

    async def strays(*_: object) -> None:
        await stray()

    return Check(always("pass", after=5), final=strays)


@pytest.mark.parametrize("where", ["strategy", "validator", "precondition", "avalidate"])
async def test_1_9_a_cancellation_out_of_anybodys_code_is_an_error_and_the_session_goes_on(
    where: str,
) -> None:
    async with start_session(backend=ScriptedBackend(lambda _: "One.")) as m:
        with pytest.raises(RunError, match="cancellation that nobody asked for"):
            match where:
                case "strategy":
                    await (await m.ainstruct("?", strategy=Strays()))
                case "validator":
                    await (await m.ainstruct("?", requirements=[copied()]))
                case "precondition":
                    await (await m.ainstruct("?", preconditions=[copied()]))
                case _:
                    await m.avalidate([copied()], output="text")
        assert await (await m.ainstruct("again")) == "One."


async def test_a_real_cancellation_stays_one() -> None:
    async with start_session(backend=ScriptedBackend(lambda _: ["One. ", Stall()])) as m:
        thunk = await m.ainstruct("?", requirements=[slow()])
        await anyio.sleep(1)
        thunk.cancel()
        with pytest.raises(GenerationCancelled):
            await thunk
        stalled = await m.ainstruct("?")
        with anyio.move_on_after(1) as scope:
            await m.avalidate([slow()], output=stalled)
        assert scope.cancelled_caught
        stalled.cancel()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_what_is_started_in_the_moment_in_which_a_session_ends_is_refused_by_its_name(
    loop: LoopName, seed: int
) -> None:
    async def validate(m: MelleaSession) -> None:
        with suppress(SessionClosed):
            await m.avalidate([Requirement("r", lambda _: ValidationResult(True))], output="text")

    async def main() -> None:
        backend = ScriptedBackend("One.")
        async with anyio.create_task_group() as users, start_session(backend=backend) as m:
            users.start_soon(validate, m)

    run_virtual(main, backend=loop, seed=seed)


# --- a string for a list ----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["be nice", b"be nice", Requirement("be nice")])
async def test_2_12_what_is_no_list_is_refused_with_the_list_to_write(given: object) -> None:
    backend = ScriptedBackend()
    async with start_session(backend=backend) as m:
        wrong: dict[str, object] = {"requirements": given}
        for name in ("requirements", "preconditions", "icl_examples"):
            with pytest.raises(InvalidOption, match=rf"{name} takes a list: {name}=\["):
                await m.ainstruct("?", **{name: given})  # type: ignore[call-overload]
        for name in ("requirements", "preconditions"):
            with pytest.raises(InvalidOption, match=f"{name} takes a list"):
                await m.aact(Message("user", "?"), **{name: given})  # type: ignore[call-overload]
            with pytest.raises(InvalidOption, match=f"{name} takes a list"):
                await m.stream("?", **{name: given})  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="takes a list"):
            RejectionSamplingStrategy(**wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="takes a list"):
            Instruction("?", **wrong)  # type: ignore[arg-type]
        assert await m.avalidate([], output="text") == []
    assert backend.calls == []


# --- errors that cannot be changed --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """Refuses to have an attribute set, its traceback and context included."""

    code: int


async def test_1_9_an_error_that_refuses_to_be_changed_is_raised_as_itself_and_ends_nothing_else() -> (
    None
):
    def answer(request: GenerationRequest) -> Fail | str:
        asked = request.messages[-1].content
        return asked if asked == "good" else Fail(Frozen(int(asked)))

    left = Frozen(3)
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=ScriptedBackend(answer), retries=0) as m:
            good, bad = await m.ainstruct("good"), await m.ainstruct("1")
            for _ in range(2):
                with pytest.raises(Frozen):
                    await bad
            other = await m.ainstruct("1")
            await other.wait_finished()
            with pytest.raises(Frozen) as first:
                await wait_for_all_mots([bad, other])
            assert await good == "good"
            await (await m.ainstruct("2")).wait_finished()
            raise left
    assert "waited for as well" in first.value.__notes__[0]
    assert set(leaf_errors(caught.value)) == {left, Frozen(2)}


async def test_1_9_an_error_of_a_validator_that_refuses_to_be_changed_belongs_to_its_thunk() -> (
    None
):
    async def judge(_: Context) -> ValidationResult:
        raise Frozen(1)

    async with start_session(backend=ScriptedBackend(lambda _: "It is good.")) as m:
        good = await m.ainstruct("?")
        bad = await m.ainstruct("?", requirements=[Requirement("r", judge)])
        # contextlib raises an error of its own where a frozen one passes, and that one is the context of it
        with pytest.raises((Frozen, dataclasses.FrozenInstanceError)):
            await bad
        async with m.stream("?", requirements=[Check(always(Frozen(1)))]) as result:
            with pytest.raises((Frozen, dataclasses.FrozenInstanceError)):
                await result.acomplete()
        assert await good == "It is good."
        assert not m.ctx.is_root_node
