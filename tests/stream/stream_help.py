"""What the tests of streams share: a requirement that does what a test says, and readers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from mellea_sc.core.backend import Backend, Format
from mellea_sc.core.base import CBlock, Context
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.model_options import ModelOptions
from mellea_sc.core.requirement import PartialValidationResult, Requirement, ValidationResult
from mellea_sc.stdlib.session import MelleaSession, start_session
from mellea_sc.stdlib.stream.events import StreamEvent
from mellea_sc.stdlib.streaming import StreamChunkingResult
from mellea_sc.testing.scripted import ScriptedBackend, Step

Judge = Callable[[str, Backend, Context], Awaitable[object]]


class Seen:
    """What a requirement's copies saw and did; the copies share it."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.finished: list[str] = []
        self.cancelled: list[str] = []
        self.validated: list[str] = []


class Check(Requirement):
    """A requirement whose verdicts a function gives: ``"pass"`` and so on, or anything else."""

    def __init__(
        self,
        judge: Judge | None = None,
        *,
        final: Callable[[], Awaitable[object]] | None = None,
        description: str = "a check",
        chunking: str | ChunkingStrategy | None = None,
        fail_open: bool = False,
        timeout: float | None = None,
    ) -> None:
        super().__init__(description, chunking=chunking, fail_open=fail_open, timeout=timeout)
        self.judge = judge or always("pass")
        self.final = final
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
        assert output is not None
        self.seen.validated.append(output.value)
        if self.final is not None:
            return await self.final()  # type: ignore[return-value]
        return ValidationResult(True)


def always(verdict: object, *, after: float | None = None) -> Judge:
    async def judge(chunk: str, backend: Backend, ctx: Context) -> object:
        if after is not None:
            await anyio.sleep(after)
        return verdict

    return judge


def by_chunk(
    verdicts: dict[str, object],
    *,
    otherwise: object = "pass",
    after: dict[str, float] | None = None,
) -> Judge:
    """Verdicts (or exceptions) and seconds by the text of the chunk."""
    delays = after or {}

    async def judge(chunk: str, backend: Backend, ctx: Context) -> object:
        if chunk in delays:
            await anyio.sleep(delays[chunk])
        verdict = verdicts.get(chunk, otherwise)
        if isinstance(verdict, BaseException):
            raise verdict
        return verdict

    return judge


async def ask(backend: Backend, ctx: Context, question: str) -> str:
    """What a validator does that asks a model."""
    thunk, _ = await backend.generate_from_context(CBlock(question), ctx.without_items())
    return await thunk.avalue()


def session(*steps: Step, **options: object) -> tuple[MelleaSession, ScriptedBackend]:
    """A session whose model gives one answer, and the backend that knows what became of it."""
    backend = ScriptedBackend(list(steps))
    return start_session(backend=backend, **options), backend  # type: ignore[arg-type]


async def read_chunks(result: StreamChunkingResult) -> list[str]:
    return [chunk async for chunk in result.astream()]


async def read_events(result: StreamChunkingResult) -> list[StreamEvent]:
    return [event async for event in result.events()]


def kinds(events: list[StreamEvent]) -> list[str]:
    return [type(event).__name__.removesuffix("Event") for event in events]
