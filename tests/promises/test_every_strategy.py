"""Strategies cancelled, and failing, at every point: nothing leaks, nothing is lost, nothing ends twice."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio
import pytest

from mellea_sc import (
    Backend,
    BacktrackStrategy,
    BestOfNStrategy,
    ChatContext,
    ChunkEvent,
    CompletedEvent,
    Context,
    MajorityVotingStrategy,
    ModelOption,
    PartialValidationResult,
    PreconditionFailed,
    RejectionSamplingStrategy,
    RepairTemplateStrategy,
    Requirement,
    RetractEvent,
    ValidationResult,
    check,
    req,
    simple_validate,
    start_session,
)
from mellea_sc.core.backend import GenerationRequest
from mellea_sc.core.requirement import OnFail
from mellea_sc.stdlib import (
    ErrorEvent,
    MultiTurnStrategy,
    PlannedStrategy,
    RacingStrategy,
    StreamChunkingResult,
)
from mellea_sc.testing import (
    LoopName,
    Pause,
    ScriptedBackend,
    Step,
    cancel_everywhere,
    fail_everywhere,
    run_virtual,
)

SEEDED = {ModelOption.SEED: 1}
POINTS = None if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 8
"""At how many checkpoints each program is cancelled: in the nightly runs at all of them."""


class NoBad(Requirement):
    """Takes its time, and fails what is bad; knows how much it has judged."""

    def __init__(self, on_fail: OnFail | None = None, *, cuts_off: bool = False) -> None:
        super().__init__("nothing bad", on_fail=on_fail)
        self.seen = ""
        self.cuts_off = cuts_off

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        await anyio.sleep(0.01)
        self.seen += chunk
        return PartialValidationResult(
            "fail" if "bad" in chunk else "pass",
            reason="it is bad",
            replacement="It is mended.",
            cuts_off=self.cuts_off,
        )

    async def validate(
        self, backend: Backend, ctx: Context, **_options: object
    ) -> ValidationResult:
        output = ctx.last_output()
        assert output is not None
        return ValidationResult("bad" not in output.value)


def answer(request: GenerationRequest) -> list[Step]:
    """Bad at first; candidates of different speed."""
    number = request.options.get(ModelOption.SEED, 1)
    assert isinstance(number, int)
    second = "Two is bad. " if number == 1 else "Two is good. "
    return ["One is good. ", Pause(0.01 * number), second, Pause(0.01), "Three is good."]


def judged(request: GenerationRequest) -> bool:
    return True


def backend() -> ScriptedBackend:
    return ScriptedBackend(answer, judge=judged)


STRATEGIES: dict[str, Callable[[], PlannedStrategy]] = {
    "rejection": lambda: RejectionSamplingStrategy(loop_budget=3),
    "repair": lambda: RepairTemplateStrategy(loop_budget=3),
    "two series": lambda: RejectionSamplingStrategy(loop_budget=2, concurrency_budget=2),
    "multi-turn": lambda: MultiTurnStrategy(loop_budget=3),
    "backtracking": BacktrackStrategy,
    "race": lambda: RacingStrategy(3),
    "best": lambda: BestOfNStrategy(2, req("be kind")),
    "majority": lambda: MajorityVotingStrategy(3),
}


class Watched:
    """What must hold after each run."""

    def __init__(self) -> None:
        self.backend = backend()
        self.results: list[StreamChunkingResult] = []

    async def nothing_is_left(self) -> None:
        assert all(call.outcome != "running" for call in self.backend.calls)
        for result in self.results:
            shown: list[str] = []
            events = [event async for event in result.events()]
            for event in events:
                if isinstance(event, RetractEvent):
                    del shown[event.chunk_index :]
                elif isinstance(event, ChunkEvent):
                    assert event.chunk_index == len(shown)
                    shown.append(event.before + event.text)
            assert "".join(shown) == result.full_text
            assert "bad" not in result.full_text
            assert sum(isinstance(event, CompletedEvent) for event in events) == 1
            assert isinstance(events[-1], CompletedEvent)
            assert result.error is None or isinstance(result.error, PreconditionFailed)
        self.results.clear()


async def an_instruction(watched: Watched, make: Callable[[], PlannedStrategy]) -> None:
    watched.backend = backend()
    async with start_session(backend=watched.backend, ctx=ChatContext()) as m:
        thunk = await m.ainstruct(
            "Count.",
            requirements=[NoBad(), req("be kind")],
            strategy=make(),
            model_options=SEEDED,
        )
        assert "bad" not in await thunk


async def a_stream(
    watched: Watched, make: Callable[[], PlannedStrategy], hold_back: bool | int = False
) -> None:
    watched.backend = backend()
    async with start_session(backend=watched.backend, ctx=ChatContext()) as m:
        request = m.stream(
            "Count.",
            requirements=[NoBad(), req("be kind")],
            strategy=make(),
            hold_back=hold_back,
            model_options=SEEDED,
        )
        async with request as result:
            watched.results.append(result)
            await result.acomplete()
        assert result.completed


async def preconditions(watched: Watched, met: bool) -> None:
    watched.backend = backend()
    async with start_session(backend=watched.backend) as m:
        request = m.stream(
            "Count.",
            requirements=[NoBad()],
            strategy=BacktrackStrategy(),
            preconditions=[req("be kind"), check("met", simple_validate(lambda _: met))],
            model_options=SEEDED,
        )
        async with request as result:
            watched.results.append(result)
            try:
                await result.acomplete()
            except PreconditionFailed:
                assert not met
        assert result.completed is met


async def edited(watched: Watched, rules: Callable[[], list[Requirement]]) -> None:
    watched.backend = backend()
    async with start_session(backend=watched.backend, ctx=ChatContext()) as m:
        request = m.stream(
            "Count.", requirements=rules(), strategy=BacktrackStrategy(), model_options=SEEDED
        )
        async with request as result:
            watched.results.append(result)
            await result.acomplete()
        assert result.completed


EDITED: dict[str, Callable[[], list[Requirement]]] = {
    "filtered": lambda: [NoBad("filter"), NoBad()],
    "fixed, twice": lambda: [NoBad("fix"), NoBad("fix"), req("be kind")],
    "cut off": lambda: [NoBad("fix"), NoBad("filter", cuts_off=True)],
    "cut off at once": lambda: [NoBad("filter", cuts_off=True), NoBad("fix")],
}

PROGRAMS: dict[str, Callable[[Watched], Awaitable[None]]] = {
    **{
        f"instruct, {name}": partial(an_instruction, make=make) for name, make in STRATEGIES.items()
    },
    **{f"stream, {name}": partial(a_stream, make=make) for name, make in STRATEGIES.items()},
    "held back, repair": partial(a_stream, make=STRATEGIES["repair"], hold_back=True),
    "held back by one, rejection": partial(a_stream, make=STRATEGIES["rejection"], hold_back=1),
    "held back by one, backtracking": partial(a_stream, make=BacktrackStrategy, hold_back=1),
    **{name: partial(edited, rules=rules) for name, rules in EDITED.items()},
    "preconditions": partial(preconditions, met=True),
    "preconditions that are not met": partial(preconditions, met=False),
}


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_cancelled_anywhere_a_strategy_leaves_nothing_and_loses_nothing(
    program: str, loop: LoopName, seed: int | None
) -> None:
    async def main() -> int:
        watched = Watched()
        return await cancel_everywhere(
            partial(PROGRAMS[program], watched),
            after_each=watched.nothing_is_left,
            max_points=POINTS,
        )

    assert run_virtual(main, backend=loop, seed=seed) > 3


@pytest.mark.parametrize("streamed", [False, True], ids=["instruct", "stream"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("name", ["repair", "race", "backtracking", *EDITED])
def test_failing_anywhere_a_strategy_loses_no_error(
    name: str, loop: LoopName, streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    results: list[StreamChunkingResult] = []

    async def program(failing: Backend, requirements: Sequence[Requirement]) -> Exception | None:
        results.clear()
        caplog.clear()
        async with start_session(backend=failing, ctx=ChatContext()) as m:
            strategy = STRATEGIES.get(name, BacktrackStrategy)()
            if streamed:
                request = m.stream(
                    "Count.", requirements=requirements, strategy=strategy, model_options=SEEDED
                )
                async with request as result:
                    results.append(result)
                    await result.acomplete()
            else:
                thunk = await m.ainstruct(
                    "Count.", requirements=requirements, strategy=strategy, model_options=SEEDED
                )
                assert await thunk
        # of a race whose winner is good, the error of another candidate stands in the log
        logged = [record.exc_info for record in caplog.records if record.exc_info]
        return next((e for _, e, _ in logged if isinstance(e, Exception)), None)

    async def ended_once(error: Exception | None) -> None:
        for result in results:
            events = [event async for event in result.events()]
            assert sum(isinstance(event, CompletedEvent) for event in events) == 1
            assert isinstance(events[-1], CompletedEvent)
            assert any(isinstance(event, ErrorEvent) for event in events) == (
                result.error is not None
            )

    async def main() -> int:
        return await fail_everywhere(
            program,
            backend=backend,
            requirements=EDITED[name]() if name in EDITED else [NoBad(), req("be kind")],
            after_each=ended_once,
        )

    assert run_virtual(main, backend=loop, seed=1) > 10
