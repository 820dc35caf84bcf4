"""The checks pass a good requirement and name the promise that a bad one breaks."""

from __future__ import annotations

import copy
import time
from collections.abc import AsyncGenerator, Callable
from time import monotonic
from typing import Self

import anyio
import anyio.lowlevel
import pytest

from mellea_sc import (
    Backend,
    MaxSentences,
    MaxWords,
    MustNotMatch,
    PartialValidationResult,
    Requirement,
    ValidationResult,
    check,
    req,
    simple_validate,
)
from mellea_sc.core.base import Context
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.testing import LoopName, ScriptedBackend, check_requirement, run_virtual

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "make",
    [
        lambda: MaxWords(5),
        lambda: MaxSentences(2),
        lambda: MustNotMatch(r"key=\w+"),
        lambda: MustNotMatch("Perhaps", "no doubts"),
        lambda: req("be polite"),
        lambda: check("short", simple_validate(lambda text: (len(text) < 50, "too long"))),
    ],
    ids=["words", "sentences", "pattern", "text", "judged", "function"],
)
async def test_the_librarys_own_pass(make: Callable[[], Requirement]) -> None:
    await check_requirement(make)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_it_works_in_virtual_time(loop: LoopName) -> None:
    run_virtual(check_requirement, Slow, backend=loop)


class Good(Requirement):
    """The simplest good requirement with a state; each of those below breaks one promise of it."""

    def __init__(self) -> None:
        super().__init__("at most two of them", lambda _: ValidationResult(True))
        self.seen: list[str] = []

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        await anyio.lowlevel.checkpoint()
        self.seen.append(chunk)
        return PartialValidationResult("unknown" if len(self.seen) < 3 else "fail")


class Slow(Good):
    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        await anyio.sleep(1)
        return await super().stream_validate(chunk, backend=backend, ctx=ctx)


class Asks(Good):
    """Asks a model about each chunk, in words of its own."""

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        thunk, _ = await backend.generate_from_context(f"Is it rude? {chunk}", ctx)
        return PartialValidationResult("fail" if await thunk.avalue() == "rude" else "pass")


async def test_the_simplest_good_requirement_passes() -> None:
    await check_requirement(Good, max_points=None)


async def test_what_it_may_ask_and_what_it_judges_can_be_chosen() -> None:
    asked: set[str] = set()

    def backend() -> Backend:
        def answer(request: object) -> str:
            asked.add(str(request)[-40:])
            return "rude"

        return ScriptedBackend(answer)

    await check_requirement(Asks, texts=["You fool. Go away."], backend=backend)
    assert len(asked) >= 1


class NoDescription(Good):
    def format_for_llm(self) -> str:
        return None  # type: ignore[return-value]


class BoolForAVerdict(Good):
    async def validate(self, backend: Backend, ctx: Context, **_: object) -> ValidationResult:
        return True  # type: ignore[return-value]


class StumblesOverEmptyAnswers(Good):
    async def validate(self, backend: Backend, ctx: Context, **_: object) -> ValidationResult:
        output = ctx.last_output()
        assert output is not None
        return ValidationResult(output.value[0].isupper())


class StringForAVerdict(Good):
    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        return "unknown"  # type: ignore[return-value]


class StumblesOverOtherLetters(Good):
    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        chunk.encode("latin-1")
        return PartialValidationResult("pass")


class Moody(Good):
    made = 0

    def __init__(self) -> None:
        super().__init__()
        Moody.made += 1
        self.mood = Moody.made

    async def validate(self, backend: Backend, ctx: Context, **_: object) -> ValidationResult:
        return ValidationResult(self.mood % 5 == 0)


class AsTheyCome(ChunkingStrategy):
    def feed(self, delta: str) -> list[str]:
        return [delta] if delta else []

    def flush(self) -> list[str]:
        return []


class CountsDeltas(Good):
    def __init__(self) -> None:
        super().__init__()
        self.chunking = AsTheyCome()


class CopiesAsAnother(Good):
    def __copy__(self) -> Self:
        return Requirement("another", self.validation_fn)  # type: ignore[return-value]


class CopiesAsItself(Good):
    def __copy__(self) -> Self:
        return self


class ForgetsItsDescription(Good):
    def __copy__(self) -> Self:
        new = super().__copy__()
        new.description = None
        return new


class SharesItsList(Good):
    def __copy__(self) -> Self:
        new = object.__new__(type(self))
        vars(new).update(vars(self))
        return new


class Nested(Good):
    """Its list is one level too deep for the usual copy."""

    def __init__(self) -> None:
        super().__init__()
        self.by_kind: dict[str, list[str]] = {"all": []}

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        self.by_kind["all"].append(chunk)
        return PartialValidationResult("unknown")


class Counter:
    def __init__(self) -> None:
        self.count = 0


class SharesItsCounter(Good):
    def __init__(self) -> None:
        super().__init__()
        self.counter = Counter()

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        self.counter.count += 1
        return PartialValidationResult("unknown" if self.counter.count < 12 else "fail")


class CopiesShareOneChild(Good):
    """The original is not touched; but all its copies count together."""

    def __init__(self) -> None:
        super().__init__()
        self.counter = Counter()
        self.for_copies: Counter | None = None

    def __copy__(self) -> Self:
        new = super().__copy__()
        self.for_copies = self.for_copies or Counter()
        new.counter = self.for_copies
        return new

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        self.counter.count += 1
        return PartialValidationResult("unknown" if self.counter.count < 4 else "fail")


class SharesWhatItGathers(Good):
    """Copies of a new one are independent; copies made in the middle have one list."""

    def __init__(self) -> None:
        super().__init__()
        self.by_kind: dict[str, list[str]] = {}

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        chunks = self.by_kind.setdefault("all", [])
        chunks.append(chunk)
        return PartialValidationResult("unknown" if len(chunks) < 3 else "fail")


class ReplacesWhatIsGood(Good):
    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        return PartialValidationResult("pass", replacement="better")


class InTime(Good):
    clock: Callable[[], float] = staticmethod(lambda: time.monotonic())

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        vars(self).setdefault("began", self.clock())
        late = self.clock() - vars(self)["began"] > 60
        return PartialValidationResult("fail" if late else "unknown")


class InTimeByName(InTime):
    clock = staticmethod(lambda: monotonic())


class InTimeOfDay(InTime):
    clock = staticmethod(lambda: time.time_ns() / 1e9)


class SwallowsCancellation(Good):
    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        try:
            await anyio.sleep(1)
        except anyio.get_cancelled_exc_class():
            return PartialValidationResult("unknown")
        return PartialValidationResult("pass")


class GoesOn(Good):
    async def validate(self, backend: Backend, ctx: Context, **_: object) -> ValidationResult:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(60)
        return ValidationResult(True)


class SwallowsItInTheEnd(Good):
    async def validate(self, backend: Backend, ctx: Context, **_: object) -> ValidationResult:
        thunk, _ctx = await backend.generate_from_context("Is it?", ctx)
        try:
            return ValidationResult(bool(await thunk.avalue()))
        except BaseException:
            return ValidationResult(False)


class LeavesAGenerator(Good):
    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        numbers = self.numbers()
        LEFT.append(numbers)
        await anext(numbers)
        await anyio.lowlevel.checkpoint()
        await numbers.aclose()
        LEFT.remove(numbers)
        return PartialValidationResult("unknown")

    async def numbers(self) -> AsyncGenerator[int]:
        yield 1


LEFT: list[AsyncGenerator[int]] = []


class HarmedByCancellation(Good):
    harmed = False

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        try:
            await anyio.lowlevel.checkpoint()
        except anyio.get_cancelled_exc_class():
            HarmedByCancellation.harmed = True
            raise
        return PartialValidationResult("fail" if self.harmed else "unknown")


class RemembersPrompts(Good):
    def format_for_llm(self) -> str:
        if isinstance(self.seen, list):
            self.seen = [*self.seen, "said"]
        return "two"


@pytest.mark.parametrize(
    ("make", "promise"),
    [
        (NoDescription, "format_for_llm.*it is None"),
        (BoolForAVerdict, "validate.. gives a Val.*gave True, which is not a ValidationResult"),
        (StumblesOverEmptyAnswers, "validate.. gives a Val.*IndexError.*the text is ''"),
        (StringForAVerdict, "stream_validate.. gives.*'unknown', which is not a Partial"),
        (StumblesOverOtherLetters, "stream_validate.. gives.*UnicodeEncodeError.*Grüße"),
        (Moody, "the same text gets the same verdicts: another one said"),
        (CountsDeltas, "where the deltas were cut: on .* it said fail or passed"),
        (CopiesAsItself, "of the same kind: the copy is the original"),
        (CopiesAsAnother, "of the same kind: the copy is <Requirement 'another'>"),
        (ForgetsItsDescription, "of the same kind: the copy reads ''"),
        (SharesItsList, "shares no state.*judging with a copy has changed seen"),
        (Nested, "shares no state.*judging with a copy has changed by_kind"),
        (SharesItsCounter, "shares no state.*made after others had judged, said 'fail'"),
        (CopiesShareOneChild, "shares no state"),
        (
            SharesWhatItGathers,
            "in the middle of a text.*after 1 chunks it was copied, and.*the copy",
        ),
        (ReplacesWhatIsGood, "stream_validate.. gives.*'pass' came with a replacement"),
        (InTime, "the time that passes.*with an hour between chunks, it said 'fail'"),
        (InTimeByName, "the time that passes.*with an hour between chunks, it said 'fail'"),
        (InTimeOfDay, "the time that passes.*with an hour between chunks, it said 'fail'"),
        (SwallowsItInTheEnd, "ends where it waits.*cancelled where it waited, and said 'failed'"),
        (HarmedByCancellation, "a cancelled copy.*another copy said 'fail'"),
        (RemembersPrompts, "a run of stream_with_chunking.*the run has changed seen"),
    ],
)
async def test_a_broken_promise_is_named(make: Callable[[], Requirement], promise: str) -> None:
    HarmedByCancellation.harmed = False
    with pytest.raises(AssertionError, match=f"(?s){promise}"):
        await check_requirement(make)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (SwallowsCancellation, "it was cancelled where it waited, and said"),
        (GoesOn, "it went on for 5 s after it was cancelled"),
    ],
)
def test_a_call_that_does_not_end_when_it_is_cancelled_is_named(
    make: Callable[[], Requirement], what: str, loop: LoopName
) -> None:
    with pytest.raises(AssertionError, match=f"ends where it waits.*{what}"):
        run_virtual(check_requirement, make, backend=loop)


async def test_what_a_cancelled_call_leaves_open_is_named() -> None:
    with pytest.raises(AssertionError, match=r"(?s)a cancelled copy.*async generator.*numbers"):
        await check_requirement(LeavesAGenerator)
    while LEFT:
        await LEFT.pop().aclose()


async def test_the_clocks_are_as_they_were_after_it() -> None:
    before = (time.time, time.monotonic, time.perf_counter_ns, monotonic)
    with pytest.raises(AssertionError, match="the time that passes"):
        await check_requirement(InTime)
    assert (time.time, time.monotonic, time.perf_counter_ns, monotonic) == before


def test_a_copy_of_the_good_one_is_good() -> None:
    one = Good()
    one.seen.append("chunk")
    other = copy.copy(one)
    other.seen.append("another")
    assert one.seen == ["chunk"]
