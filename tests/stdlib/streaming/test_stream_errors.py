"""4.6, 4.7 and 4.12: an error is never a verdict, surfaces as itself, and loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from collections.abc import Callable, Sequence

import anyio
import pytest
from kit import Check, always, by_chunk, hanging, kinds, read_chunks, read_events, session, straying

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import (
    ChunkingError,
    InvalidVerdict,
    ModelError,
    RunError,
    ValidatorTimeout,
)
from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.runtime.failures import leaf_errors
from mellea_sc.stdlib.chunking import SentenceChunker, WordChunker
from mellea_sc.stdlib.session import start_session
from mellea_sc.stdlib.streaming.events import ErrorEvent
from mellea_sc.testing.leaks import assert_no_leaks
from mellea_sc.testing.scripted import Fail, Pause, ScriptedBackend, Stall, Step

pytestmark = pytest.mark.anyio

Make = Callable[[], Check]


def never() -> Check:
    return Check(always("pass", after=3600), timeout=2)


def raising() -> Check:
    return Check(by_chunk({"One.": LookupError("a bug")}, after={"One.": 2}))


def nonsense() -> Check:
    return Check(always(True, after=2))


BROKEN = [
    (raising, LookupError, "a bug"),
    (never, ValidatorTimeout, r"within 2 s"),
    (nonsense, InvalidVerdict, "PartialValidationResult"),
]


@pytest.mark.parametrize(("make", "kind", "message"), BROKEN)
@pytest.mark.parametrize("where", ["astream", "acomplete"])
async def test_4_6_a_broken_validator_is_an_error_that_surfaces_as_itself_once(
    make: Make, kind: type[Exception], message: str, where: str
) -> None:
    sibling = Check(always("pass", after=3600))
    m, backend = session("One. ", Stall())
    async with assert_no_leaks(), m:
        result = await m.stream("?", requirements=[sibling, make()])
        with pytest.raises(kind, match=message):
            await (read_chunks(result) if where == "astream" else result.acomplete())
        assert anyio.current_time() == 2
        assert sibling.seen.cancelled == ["One."]
        assert backend.calls[0].outcome == "cancelled"
        await result.acomplete()  # told once
        if where == "acomplete":
            assert await read_chunks(result) == []
    assert isinstance(result.error, kind)
    assert (result.completed, result.cancelled, result.full_text) == (False, False, "")
    assert result.streaming_failures == []
    error, _ = await read_events(result)
    assert isinstance(error, ErrorEvent)
    assert (error.exception_type, error.detail) == (kind.__name__, str(result.error))
    assert "error" in repr(result)


@pytest.mark.parametrize(("make", "kind", "message"), BROKEN)
async def test_4_6_only_a_requirement_that_says_so_fails_open(
    make: Make, kind: type[Exception], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    check = make()
    check.fail_open = True
    m, _ = session("One. ", "Two.")
    with caplog.at_level(logging.WARNING, "mellea_sc"):
        async with m:
            result = await m.stream("?", requirements=[check], lane_buffer=1)
            events = await read_events(result)
            await result.acomplete()
    assert result.completed
    assert kinds(events).count("QuickCheck") == 2
    assert [record.message for record in caplog.records if "counts as unknown" in record.message]
    logged = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert all(isinstance(error, kind) for error in logged)
    assert check.seen.started == ["One.", "Two."]


async def test_4_6_after_a_timeout_that_fails_open_the_next_chunk_is_judged() -> None:
    async def deaf_to_the_first(chunk: str, backend: Backend, ctx: Context) -> str:
        if chunk == "One.":
            with contextlib.suppress(BaseException):
                await anyio.sleep(3600)
            return "pass"
        await anyio.sleep(1)
        return "fail" if chunk == "Two." else "pass"

    async def untidy_in_the_first(chunk: str, backend: Backend, ctx: Context) -> str:
        try:
            await anyio.sleep(3600 if chunk == "One." else 1)
        finally:
            if chunk == "One.":
                raise LookupError("in the cleanup")
        return "fail" if chunk == "Two." else "pass"

    for judge in (deaf_to_the_first, untidy_in_the_first, by_chunk({"Two.": "fail"}, after=LATE)):
        m, _ = session("One. ", "Two. ", "Three. ", Stall())
        async with m:
            result = await m.stream("?", requirements=[Check(judge, fail_open=True, timeout=2)])
            await result.acomplete()
        assert result.full_text == "One."
        assert len(result.streaming_failures) == 1


LATE = {"One.": 3600.0, "Two.": 1.0}


async def test_4_6_a_verdict_that_comes_too_late_is_no_verdict() -> None:
    async def deaf(chunk: str, backend: Backend, ctx: Context) -> str:
        with contextlib.suppress(BaseException):
            await anyio.sleep(3600)
        return "pass"

    for check in (Check(deaf, timeout=2), Check(final=deaf, timeout=2)):
        start = anyio.current_time()
        m, _ = session("One. ")
        async with m:
            result = await m.stream("?", requirements=[check])
            with pytest.raises(ValidatorTimeout):
                await result.acomplete()
        assert anyio.current_time() == start + 2
        assert not result.completed


async def test_4_6_a_fail_is_a_fail_however_late() -> None:
    async def late(chunk: str, backend: Backend, ctx: Context) -> str:
        with contextlib.suppress(BaseException):
            await anyio.sleep(3600)
        return "fail"

    m, _ = session("One. ", Stall())
    async with m:
        result = await m.stream("?", requirements=[Check(late, timeout=2)])
        await result.acomplete()
    assert len(result.streaming_failures) == 1


async def test_4_6_the_runs_timeout_is_for_each_call_and_a_requirements_own_goes_before() -> None:
    m, _ = session(*(f"w{n} " for n in range(10)))
    async with m:
        result = await m.stream(
            "?",
            requirements=[
                Check(always("pass", after=3)),
                Check(always("pass", after=9), timeout=10),
            ],
            chunking="word",
            validator_timeout=4,
        )
        await result.acomplete()
    assert result.completed
    assert anyio.current_time() == 90

    m, _ = session("One.")
    async with m:
        result = await m.stream(
            "?", requirements=[Check(always("pass", after=5))], validator_timeout=4
        )
        with pytest.raises(ValidatorTimeout):
            await result.acomplete()


async def test_4_6_a_lane_that_waits_for_text_is_not_late() -> None:
    m, _ = session("One. ", Pause(10), "Two. ", Pause(10), "Three.")
    check = Check(always("pass", after=1), timeout=2)
    async with m:
        result = await m.stream("?", requirements=[check, Check(timeout=2)])
        await result.acomplete()
    assert result.completed
    assert len(check.seen.finished) == 3


async def test_4_6_two_validators_that_raise_are_both_told() -> None:
    now = anyio.Event()

    async def break_now(chunk: str, backend: Backend, ctx: Context) -> str:
        await now.wait()
        raise LookupError(chunk)

    m, _ = session("One. ", Stall())
    async with assert_no_leaks(), m:
        result = await m.stream("?", requirements=[Check(break_now), Check(break_now)])
        await anyio.sleep(1)
        now.set()
        with pytest.raises(ExceptionGroup) as caught:
            await result.acomplete()
    _, rest = caught.value.split(LookupError)
    assert rest is None
    assert kinds(await read_events(result)) == ["Error", "Completed"]


@pytest.mark.parametrize("how", ["result", "session", "outer scope"])
@pytest.mark.parametrize("lanes", [1, 2])
async def test_1_4_errors_in_the_cleanup_of_a_cancelled_run_are_not_lost(
    how: str, lanes: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def untidy(chunk: str, backend: Backend, ctx: Context) -> str:
        try:
            await anyio.sleep_forever()
        finally:
            raise LookupError("in the cleanup")

    m, _ = session("One. ", Stall())
    told: BaseException | None = None
    try:
        with anyio.CancelScope() as outer:
            async with m:
                result = await m.stream("?", requirements=[Check(untidy) for _ in range(lanes)])
                await anyio.sleep(1)
                match how:
                    case "result":
                        result.cancel()
                    case "session":
                        m.cancel()
                    case _:
                        outer.cancel()
                await result.wait_finished()
    except ExceptionGroup as group:
        told = group
        assert how != "result"  # it was cancelled by its user, who is not told again
    else:
        (record,) = caplog.records
        told = record.exc_info[1] if record.exc_info else None
        assert how == "result"
    assert told is not None
    assert len(leaf_errors(told)) == lanes
    assert all(isinstance(one, LookupError) for one in leaf_errors(told))
    assert kinds(await read_events(result))[-1] == "Completed"
    assert not result.completed


@pytest.mark.parametrize(("make", "kind", "message"), BROKEN)
async def test_4_6_an_error_in_the_final_validation_is_one_too(
    make: Make, kind: type[Exception], message: str
) -> None:
    broken = make()
    check, sibling = Check(final=broken.judge, timeout=broken.timeout), Check(final=hanging)
    m, _ = session("One.")
    async with assert_no_leaks(), m:
        result = await m.stream("?", requirements=[sibling, check])
        with pytest.raises(kind, match=r"a bug|within 2 s|ValidationResult"):
            await result.acomplete()
        assert anyio.current_time() == 2
    assert not result.completed
    assert result.final_validations == []
    assert kinds(await read_events(result)) == [
        "QuickCheck",
        "Chunk",
        "StreamingDone",
        "Error",
        "Completed",
    ]


@pytest.mark.parametrize(("make", "kind", "message"), BROKEN)
async def test_4_6_an_error_in_the_final_validation_counts_as_passed_where_it_may(
    make: Make, kind: type[Exception], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = make()
    m, _ = session("One.")
    async with m:
        check = Check(final=broken.judge, timeout=2.5, fail_open=True)
        result = await m.stream("?", requirements=[Check(), check], validator_timeout=9)
        await result.acomplete()
    assert result.completed
    first, second = result.final_validations
    assert first.as_bool()
    assert second.as_bool()
    assert "not judged" in (second.reason or "")
    assert "counts as passed" in caplog.text


# --- copies -----------------------------------------------------------------------------------


async def test_4_7_originals_are_never_touched_and_each_run_has_a_copy_of_its_own() -> None:
    class Counting(Check):
        def __init__(self) -> None:
            super().__init__()
            self.chunks: list[str] = []
            self.count = 0

        async def stream_validate(
            self, chunk: str, *, backend: Backend, ctx: Context
        ) -> PartialValidationResult:
            self.count += 1
            self.chunks.append(chunk)
            return await super().stream_validate(chunk, backend=backend, ctx=ctx)

    check = Counting()
    for _ in range(2):
        m, _ = session("One. ", "Two.")
        async with m:
            result = await m.stream("?", requirements=[check, check])
            await result.acomplete()
        assert result.completed
    assert (check.count, check.chunks) == (0, [])
    assert len(check.seen.finished) == 8


async def test_4_7_a_copy_that_cannot_be_made_starts_nothing() -> None:
    class Uncopyable(Check):
        def __copy__(self) -> Check:
            raise LookupError("not to be copied")

    m, backend = session("One.")
    async with assert_no_leaks(), m:
        with pytest.raises(LookupError, match="not to be copied"):
            await m.stream("?", requirements=[Check(), Uncopyable()])
        with pytest.raises(LookupError, match="not to be copied"):
            async with m.stream("?", requirements=[Uncopyable()]):
                pytest.fail("entered")
    assert backend.calls == []


async def test_4_7_copies_are_made_before_the_backend_starts() -> None:
    calls_at_copy: list[int] = []

    class Copied(Check):
        def __copy__(self) -> Check:
            calls_at_copy.append(len(backend.calls))
            new = object.__new__(type(self))
            new.__dict__.update(self.__dict__)
            return new

    m, backend = session("One.")
    async with m:
        await (await m.stream("?", requirements=[Copied(), Copied()])).acomplete()
    assert calls_at_copy == [0, 0]
    assert copy.copy(Check()) is not None


# --- the backend's errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "released"),
    [
        ([Fail(ModelError("broken"))], []),
        ([*"One. Two. Thr", Fail(ModelError("broken"))], ["One.", "Two.", "Thr"]),
        ([*"One. Two.", Fail(ModelError("broken"))], ["One.", "Two."]),
        ([*"One. ", Pause(1), Fail(ModelError("broken"))], ["One."]),
    ],
)
@pytest.mark.parametrize("slow", [None, 0, 5])
async def test_4_12_text_before_a_backends_error_is_judged_and_released_before_the_error_surfaces(
    steps: Sequence[Step], released: list[str], slow: float | None
) -> None:
    checks = [Check(always("pass", after=slow)), Check(chunking="word")]
    m, _ = session(*steps)
    async with assert_no_leaks(), m:
        result = await m.stream("?", requirements=checks, lane_buffer=1)
        chunks: list[str] = []
        with pytest.raises(ModelError, match="broken"):
            async for chunk in result.astream():
                chunks.append(chunk)  # noqa: PERF401 - the iteration raises in the end
        await result.acomplete()
    assert chunks == released
    assert result.full_text == " ".join(released)
    assert kinds(await read_events(result)) == [
        *["QuickCheck", "Chunk"] * len(released),
        "Error",
        "Completed",
    ]
    assert checks[0].seen.validated == []
    assert not result.completed


async def test_4_12_an_answer_that_cannot_be_opened_is_an_error_without_text() -> None:
    backend = ScriptedBackend(Fail(ModelError("refused")))
    async with assert_no_leaks(), start_session(backend=backend) as m:
        result = await m.stream("?", requirements=[Check()])
        with pytest.raises(ModelError, match="refused"):
            await read_chunks(result)
        assert kinds(await read_events(result)) == ["Error", "Completed"]


async def test_4_12_a_fail_on_text_before_a_backends_error_is_told_with_it() -> None:
    m, _ = session("One. ", "Two. ", Fail(ModelError("broken")))
    async with m:
        check = Check(by_chunk({"Two.": "fail"}, after={"Two.": 1}))
        result = await m.stream("?", requirements=[check])
        with pytest.raises(ModelError):
            await result.acomplete()
    assert result.full_text == "One."
    assert len(result.streaming_failures) == 1
    assert kinds(await read_events(result)) == [
        "QuickCheck",
        "Chunk",
        "QuickCheck",
        "Error",
        "Completed",
    ]


async def test_1_4_a_backends_error_and_a_validators_are_both_raised() -> None:
    m, _ = session("One. ", Fail(ModelError("broken")))
    async with m:
        result = await m.stream("?", requirements=[raising()])
        with pytest.raises(ExceptionGroup) as caught:
            await result.acomplete()
    first, second = caught.value.exceptions
    assert isinstance(first, ModelError)
    assert isinstance(second, LookupError)
    assert kinds(await read_events(result)) == ["Error", "Completed"]


@pytest.mark.parametrize("how", ["result", "session"])
async def test_1_4_a_backends_error_is_not_lost_when_the_judging_of_its_text_is_cancelled(
    how: str,
) -> None:
    m, _ = session("One. ", Fail(ModelError("broken")))
    result = None
    with contextlib.suppress(ExceptionGroup):
        async with m:
            result = await m.stream("?", requirements=[Check(always("pass", after=5))])
            await anyio.sleep(1)
            (result if how == "result" else m).cancel()
            await result.wait_finished()
    assert result is not None
    assert anyio.current_time() == 1
    assert isinstance(result.error, ModelError)
    assert kinds(await read_events(result)) == ["Error", "Completed"]
    with pytest.raises(ModelError):
        await result.acomplete()


async def test_4_10_an_error_that_cannot_say_its_message_ends_the_run_like_any_other() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    m, _ = session("One. ", Fail(Mute()))
    async with m:
        result = await m.stream("?")
        with pytest.raises(Mute):
            await result.acomplete()
        assert kinds(await read_events(result)) == ["Chunk", "Error", "Completed"]


# --- a chunking of the user's with a bug -----------------------------------------------------------


class Broken(SentenceChunker):
    """Raises, or gives a text that is not there, when it sees or should flush a mark."""

    def __init__(self, mark: str, chunks: Sequence[str] | None = None) -> None:
        super().__init__()
        self.mark = mark
        self.chunks = chunks

    def feed(self, delta: str) -> Sequence[str]:
        if self.mark not in delta:
            return super().feed(delta)
        if self.chunks is None:
            raise LookupError("a bug")
        return self.chunks

    def flush(self) -> Sequence[str]:
        if self.mark == "flush":
            raise LookupError("a bug")
        return super().flush()


@pytest.mark.parametrize("chunks", [None, ["not there"], ["One."]])
@pytest.mark.parametrize("own", [True, False])
async def test_4_11_a_broken_chunking_is_an_error_and_shows_nothing_that_was_not_judged(
    chunks: Sequence[str] | None, own: bool
) -> None:
    broken = Broken("Three", chunks)
    words = Check(chunking="word")
    m, backend = session("One. ", "Two. ", Pause(1), "Three. ", "Four. ", Stall())
    async with assert_no_leaks(), m:
        result = await m.stream(
            "?",
            requirements=[words, Check(chunking=broken if own else "paragraph")],
            chunking=WordChunker() if own else broken,
        )
        with pytest.raises(LookupError if chunks is None else ChunkingError):
            await result.acomplete()
        assert backend.calls[0].outcome in ("closed", "cancelled")
        assert anyio.current_time() == 1
    # the paragraphs have judged nothing; the sentences that were found were judged
    assert result.full_text == ("One. Two." if own else "")
    assert result.streaming_failures == []
    assert not result.completed


@pytest.mark.parametrize("own", [True, False])
async def test_4_11_a_chunking_that_cannot_end_is_an_error_and_shows_nothing_that_was_not_judged(
    own: bool,
) -> None:
    broken = Broken("flush")
    m, _ = session("One. ", "Two. ", "Thr", "ee")
    async with assert_no_leaks(), m:
        result = await m.stream(
            "?",
            requirements=[Check(chunking=broken if own else "paragraph")],
            chunking="word" if own else broken,
        )
        with pytest.raises(LookupError, match="a bug"):
            await result.acomplete()
    assert result.full_text == ("One. Two." if own else "")


async def test_1_4_a_backends_error_and_that_of_a_chunking_that_cannot_end_are_both_raised() -> (
    None
):
    m, _ = session("One. ", "Two. ", Fail(ModelError("broken")))
    async with m:
        result = await m.stream("?", chunking=Broken("flush"))
        with pytest.raises(ExceptionGroup) as caught:
            await result.acomplete()
    assert [type(error) for error in caught.value.exceptions] == [ModelError, LookupError]
    assert result.full_text == "One. Two."


async def test_4_11_a_strategy_of_the_users_is_copied_for_each_run() -> None:
    strategy = SentenceChunker()
    strategy.feed("")
    for _ in range(2):
        m, _ = session("One. Tw", "o")
        async with m:
            check = Check(chunking=strategy)
            result = await m.stream("?", requirements=[check], chunking=strategy)
            assert await read_chunks(result) == ["One.", "Two"]
        assert check.seen.finished == ["One.", "Two"]
    assert isinstance(strategy, ChunkingStrategy)
    assert strategy.flush() == ()


def test_4_6_a_cancellation_that_nobody_asked_for_is_an_error() -> None:
    async def main() -> None:
        async with start_session(backend=ScriptedBackend("One. Two.")) as m:
            result = await m.stream("Count.", requirements=[Check(straying)])
            with pytest.raises(RunError, match="nobody asked for"):
                await result.acomplete()

    asyncio.run(main())
