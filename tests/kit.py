"""What the tests of many rooms share: a requirement that judges as told, models with known answers, readers.

A test that needs a requirement of its own takes :class:`Check`, and gives it a judge::

    Check()                                    passes everything
    Check(always("fail"))                      fails the first chunk
    Check(by_chunk({"Two.": "fail"}))          fails that chunk
    Check(containing("bad"))                   fails each chunk with that in it
    Check(always("pass", after=5))             takes five seconds
    Check(always(LookupError("a bug")))        raises
    Check(hanging)                             does not return
    Check(asking_a_model())                    asks the backend that it is given
    Check(final=always("fail"))                fails the whole text at its end

``check.seen`` says what its copies were asked. :class:`Without` judges the whole text by the same rule as its chunks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from math import inf

import anyio

from mellea_sc.core.backend import Backend, Format, ModelOptions
from mellea_sc.core.base import CBlock, Context
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.requirement import (
    OnFail,
    PartialValidationResult,
    Requirement,
    ValidationResult,
)
from mellea_sc.stdlib.requirements import check, simple_validate
from mellea_sc.stdlib.session import MelleaSession, start_session
from mellea_sc.stdlib.streaming import StreamChunkingResult
from mellea_sc.stdlib.streaming.events import StreamEvent
from mellea_sc.testing.scripted import Pause, Script, ScriptedBackend, Step

# --- requirements ---------------------------------------------------------------------------------------------

Judge = Callable[[str, Backend, Context], Awaitable[object]]
"""Judges a chunk, or at the end the whole text: ``"pass"``, ``"fail"``, ``"unknown"``, or whatever else it returns."""


class Seen:
    """What a requirement's copies were asked, and what came of it; the copies share it."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.finished: list[str] = []
        self.cancelled: list[str] = []
        self.validated: list[str] = []


class Check(Requirement):
    """A requirement whose verdicts a test gives.

    Args:
        judge: Its verdict on a chunk.
        final: Its verdict on the whole text.
        description: What it is called.
        on_fail: As for every requirement; and so on.
    """

    def __init__(
        self,
        judge: Judge | None = None,
        *,
        final: Judge | None = None,
        description: str = "a check",
        on_fail: OnFail | None = None,
        chunking: str | ChunkingStrategy | None = None,
        fail_open: bool = False,
        timeout: float | None = None,
    ) -> None:
        super().__init__(
            description, on_fail=on_fail, chunking=chunking, fail_open=fail_open, timeout=timeout
        )
        self.judge = judge or always("pass")
        self.final = final or always("pass")
        self.seen = Seen()

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        self.seen.started.append(chunk)
        try:
            verdict = await self.judge(chunk, backend, ctx)
        except anyio.get_cancelled_exc_class():
            self.seen.cancelled.append(chunk)
            raise
        self.seen.finished.append(chunk)
        if verdict in ("pass", "fail", "unknown"):
            return PartialValidationResult(verdict, reason=chunk)
        return verdict  # type: ignore[return-value]  # what users return by mistake

    async def validate(
        self,
        backend: Backend,
        ctx: Context,
        *,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
    ) -> ValidationResult:
        output = ctx.last_output()
        text = "" if output is None else output.value
        self.seen.validated.append(text)
        verdict = await self.final(text, backend, ctx)
        if verdict in ("pass", "fail"):
            return ValidationResult(verdict == "pass")
        return verdict  # type: ignore[return-value]  # what users return by mistake


def always(verdict: object, *, after: float | None = None) -> Judge:
    """The same verdict, or error, each time, perhaps after some seconds."""

    async def judge(text: str, backend: Backend, ctx: Context) -> object:
        if after is not None:
            await anyio.sleep(after)
        if isinstance(verdict, BaseException):
            raise verdict
        return verdict

    return judge


def by_chunk(
    verdicts: Mapping[str, object],
    *,
    otherwise: object = "pass",
    after: Mapping[str, float] | None = None,
) -> Judge:
    """Verdicts (or errors) and seconds by the text of the chunk."""
    delays = after or {}

    async def judge(text: str, backend: Backend, ctx: Context) -> object:
        return await always(verdicts.get(text, otherwise), after=delays.get(text))(
            text, backend, ctx
        )

    return judge


def containing(word: str, verdict: object = "fail", *, otherwise: object = "pass") -> Judge:
    """A verdict on what has a word in it."""

    async def judge(text: str, backend: Backend, ctx: Context) -> object:
        return verdict if word in text else otherwise

    return judge


async def hanging(text: str, backend: Backend, ctx: Context) -> object:
    """A judge that does not return."""
    await anyio.sleep_forever()
    raise AssertionError("not reached")


async def straying(text: str, backend: Backend, ctx: Context) -> object:
    """A judge out of which a cancellation comes that nobody asked for; under asyncio."""
    future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    future.cancel()
    return await future


def asking_a_model(question: str = "judge {}") -> Judge:
    """A judge that asks the model that it is given, and is content with any answer."""

    async def judge(text: str, backend: Backend, ctx: Context) -> object:
        await ask(backend, ctx, question.format(text))
        return "pass"

    return judge


async def ask(backend: Backend, ctx: Context, question: str) -> str:
    """What a validator does that asks a model."""
    thunk, _ = await backend.generate_from_context(CBlock(question), ctx.without_items())
    return await thunk.avalue()


class Without(Requirement):
    """No chunk has a word in it; says which chunks its copies saw, and with what before them."""

    def __init__(
        self,
        word: str,
        *,
        on_fail: OnFail | None = None,
        replacement: str | None = None,
        blocking: bool = True,
        window: int = 0,
        every: int = 1,
    ) -> None:
        super().__init__(
            f"no {word}",
            simple_validate(lambda text: word not in text, reason=f"{word} at the end"),
            on_fail=on_fail,
            blocking=blocking,
            window=window,
            every=every,
        )
        self.word = word
        self.replacement = replacement
        self.seen: tuple[list[str], list[str]] = ([], [])

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        self.seen[0].append(chunk)
        if self.window:
            before = ctx.last_output()
            assert before is not None
            self.seen[1].append(before.value)
        if self.word in chunk:
            return PartialValidationResult(
                "fail", reason=f"{self.word} in {chunk!r}", replacement=self.replacement
            )
        return PartialValidationResult("pass")


def is_(*wanted: str) -> Requirement:
    """The whole text is one of these."""
    return check("r", simple_validate(lambda text: text in wanted, reason="it is another"))


# --- models ---------------------------------------------------------------------------------------------------


def slow(text: str, seconds: float) -> Script:
    """An answer that comes after a time, and then all at once."""
    return Script([Pause(seconds), text])


def sentences(*texts: str, delay: float = 1.0) -> Script:
    """An answer whose deltas are sentences, each after a time."""
    steps: list[Step] = [f"{text} " for text in texts]
    return Script(steps, delay=delay)


def session(*steps: Step, **options: object) -> tuple[MelleaSession, ScriptedBackend]:
    """A session whose model gives one answer, and the backend that knows what became of it."""
    backend = ScriptedBackend(list(steps))
    return start_session(backend=backend, **options), backend  # type: ignore[arg-type]


# --- readers --------------------------------------------------------------------------------------------------


async def read_chunks(result: StreamChunkingResult) -> list[str]:
    return [chunk async for chunk in result.astream()]


async def read_events(result: StreamChunkingResult) -> list[StreamEvent]:
    return [event async for event in result.events()]


def kinds(events: Iterable[StreamEvent]) -> list[str]:
    return [type(event).__name__.removesuffix("Event") for event in events]


# --- work that grows with the text ---------------------------------------------------------------------------


def growth(work: Callable[[int], object], size: int, times: int, *, least: float = 0.0) -> float:
    """How many times as much CPU the work takes for a size that is so many times as large.

    The least of several measurements. They take turns, because a machine that others use changes its speed.

    Args:
        work: Does the work for a size.
        size: The smaller size.
        times: The larger size, as a multiple.
        least: Seconds that count for the smaller size where that takes less.
    """
    few = many = inf
    for _ in range(5):
        few = min(few, _cpu_of(work, size))
        many = min(many, _cpu_of(work, times * size))
    return many / max(few, least)


def _cpu_of(work: Callable[[int], object], size: int) -> float:
    began = time.process_time()
    work(size)
    return time.process_time() - began
