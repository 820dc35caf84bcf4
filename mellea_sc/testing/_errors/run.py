"""Running a random program with errors, and looking for those that were lost."""

from __future__ import annotations

import gc
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import anyio
import anyio.abc

from mellea_sc.core.backend import ModelOption
from mellea_sc.core.requirement import Requirement
from mellea_sc.helpers.async_helpers import wait_for_all_mots
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.stdlib.context import SimpleContext
from mellea_sc.stdlib.sampling import PlannedStrategy, RejectionSamplingStrategy
from mellea_sc.stdlib.sampling.base import RepairTemplateStrategy
from mellea_sc.stdlib.sampling.several import (
    BestOfNStrategy,
    MajorityVotingStrategy,
    RacingStrategy,
)
from mellea_sc.stdlib.session import MelleaSession, start_session
from mellea_sc.stdlib.streaming import StreamRequest, stream_with_chunking
from mellea_sc.stdlib.streaming.result import StreamChunkingResult
from mellea_sc.testing._errors.parts import PutInBackend, PutInErrors, PutInRequirement
from mellea_sc.testing._errors.values import ErrorProgram, Judging, Step, Strategy, Work
from mellea_sc.testing.clock import Deadlock, LoopName, run_virtual

__all__ = ["lost_errors"]


def lost_errors(program: ErrorProgram, backend: LoopName) -> list[str]:
    """Run a program in virtual time, and say which of its errors nobody was told of.

    Args:
        program: The program.
        backend: The event loop.

    Raises:
        Deadlock: it hangs.
    """
    errors = PutInErrors()
    with errors.log_kept():
        try:
            run_virtual(_Run(program, errors).main, backend=backend, seed=program.seed)
        except Deadlock:
            raise
        except BaseException as error:  # noqa: ASYNC103, BLE001 - one of those that are told
            errors.told.append(error)
        if errors.lost():
            gc.collect()  # what was forgotten is logged then
    return errors.lost()


_STRATEGIES: Final[Mapping[Strategy, Callable[[], PlannedStrategy | None]]] = {
    "none": lambda: None,
    "reject": lambda: RejectionSamplingStrategy(loop_budget=2),
    "two series": lambda: RejectionSamplingStrategy(loop_budget=2, concurrency_budget=2),
    "repair": lambda: RepairTemplateStrategy(loop_budget=2),
    "race": lambda: RacingStrategy(2),
    "best": lambda: BestOfNStrategy(2),
    "vote": lambda: MajorityVotingStrategy(3),
}


class _Run:
    """One run of a program."""

    def __init__(self, program: ErrorProgram, errors: PutInErrors) -> None:
        self._program = program
        self._errors = errors
        self._started: dict[int, ModelOutputThunk | StreamChunkingResult] = {}
        self._backend = PutInBackend(
            errors, program.answers, program.connecting, program.disconnecting
        )

    async def main(self) -> None:
        """The program."""
        program = self._program
        m = start_session(
            backend=self._backend,
            on_error=program.on_error,
            context_type="chat" if program.chat else None,
            max_concurrency=program.max_concurrency,
        )
        async with anyio.create_task_group() as users:
            if program.bare:
                try:
                    await self._steps(m, users)
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._told(m.aclose)
            else:
                async with m:
                    await self._steps(m, users)

    async def _steps(self, m: MelleaSession, users: anyio.abc.TaskGroup) -> None:
        for step in self._program.steps:
            await self._told(partial(self._do, m, step, users))
        if self._program.ending == "error":
            self._errors.put_in_at_once("plain", "leaving the block")
        elif self._program.ending == "cancel":
            users.cancel_scope.cancel()

    async def _told(self, function: Callable[[], Awaitable[object]]) -> None:
        """Whatever is raised, the program is told of."""
        try:
            await function()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 - also what is no error to Python
            self._errors.told.append(error)

    # --- its steps -------------------------------------------------------------------------------

    async def _do(self, m: MelleaSession, step: Step, users: anyio.abc.TaskGroup) -> None:
        match step.kind:
            case "start":
                await self._start(m, step.work, users)
            case "sleep":
                await anyio.sleep(step.seconds)
            case "cancel session":
                if step.seconds == 2.0:  # seldom: nothing can happen after it
                    m.cancel("the program wants it")
            case "enter":
                work = self._program.works[step.work]
                users.start_soon(self._told, partial(self._enter, m, step, work))
            case "wait for all":
                thunks = [
                    one for one in self._started.values() if isinstance(one, ModelOutputThunk)
                ]
                users.start_soon(self._told, partial(wait_for_all_mots, thunks))
            case "forget":
                self._started.pop(step.work, None)
            case _:
                if (started := self._started.get(step.work)) is not None:
                    self._use(started, step, users)

    def _use(
        self,
        started: ModelOutputThunk | StreamChunkingResult,
        step: Step,
        users: anyio.abc.TaskGroup,
    ) -> None:
        match step.kind:
            case "cancel":
                started.cancel("the program wants it")
            case "read" | "read events":
                users.start_soon(self._told, partial(_read, started, step))
            case "wait briefly":
                users.start_soon(self._told, partial(_wait, started, step.seconds))
            case _:
                users.start_soon(self._told, partial(_wait, started, math.inf))

    async def _start(self, m: MelleaSession, number: int, users: anyio.abc.TaskGroup) -> None:
        work = self._program.works[number]
        if work.kind == "validation":
            validate = partial(m.avalidate, self._requirements(work.judges), output="text")
            users.start_soon(self._told, validate)
        elif work.kind == "thunk":
            thunks = {
                n: one for n, one in self._started.items() if isinstance(one, ModelOutputThunk)
            }
            self._started[number] = await m.ainstruct(
                f"work {number}",
                requirements=self._requirements(work.judges),
                preconditions=self._requirements(work.preconditions),
                grounding_context={f"text {n}": thunks[n] for n in work.needs if n in thunks},
                strategy=_STRATEGIES[work.strategy](),
                model_options={ModelOption.STREAM: work.streamed},
            )
        else:
            self._started[number] = await self._stream(m, work)

    def _stream(self, m: MelleaSession, work: Work) -> StreamRequest:
        requirements = self._requirements(work.judges)
        preconditions = self._requirements(work.preconditions)
        strategy = _STRATEGIES[work.strategy]()
        if work.kind == "stream":
            return m.stream(
                "work", requirements=requirements, preconditions=preconditions, strategy=strategy
            )
        return stream_with_chunking(
            "work",
            self._backend,
            SimpleContext(),
            requirements=requirements,
            preconditions=preconditions,
            strategy=strategy,
        )

    async def _enter(self, m: MelleaSession, step: Step, work: Work) -> None:
        """A block around a stream, that is left early or by an error."""
        async with self._stream(m, work) as result:
            with anyio.move_on_after(step.seconds):
                await _read(result, step)
            if work.streamed:
                self._errors.put_in_at_once("plain", "in a block around a stream")

    def _requirements(self, judges: Sequence[Judging]) -> list[Requirement]:
        return [
            PutInRequirement(self._errors, judging, f"judge {number}")
            for number, judging in enumerate(judges)
        ]


async def _wait(started: ModelOutputThunk | StreamChunkingResult, seconds: float) -> None:
    with anyio.move_on_after(seconds):
        if isinstance(started, ModelOutputThunk):
            await started.avalue()
        else:
            await started.acomplete()


async def _read(started: ModelOutputThunk | StreamChunkingResult, step: Step) -> None:
    if isinstance(started, ModelOutputThunk):
        async for _ in started:
            pass
    elif step.kind == "read events":
        async for _ in started.events():
            pass
    else:
        async for _ in started.astream():
            pass
