"""Programs of thunks, in any order: each has one generation, and exactly one way to end."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc import (
    DependencyFailed,
    GenerationCancelled,
    ModelOption,
    ModelOutputThunk,
    start_session,
)
from mellea_sc.core.backend import GenerationRequest
from mellea_sc.testing import Pause, Script, ScriptedBackend
from mellea_sc.testing.clock import LoopName, run_virtual
from mellea_sc.testing.strategies import ThunkStep, thunk_programs


def answer(request: GenerationRequest) -> Script:
    number = request.messages[-1].content.split()[1].rstrip(".")
    return Script([f"text {number}, ", Pause(1), "and ", Pause(1), "its end"])


async def run_program(steps: Sequence[ThunkStep]) -> None:
    backend = ScriptedBackend(answer)
    thunks: list[ModelOutputThunk] = []
    needs = {step.thunk: step.needs for step in steps if step.kind == "start"}
    cancelled: set[int] = set()

    async def use(step: ThunkStep) -> None:
        thunk = thunks[step.thunk]
        expected = f"text {step.thunk}, and its end"
        try:
            if step.kind == "await":
                assert await thunk == expected
            else:
                # a second reader, or one that comes when it is computed, gets the whole text or is told
                assert expected.endswith("".join([delta async for delta in thunk]))
        except (DependencyFailed, GenerationCancelled, anyio.BusyResourceError):
            pass

    try:
        async with start_session(backend=backend) as m, anyio.create_task_group() as users:
            for step in steps:
                if step.kind == "start":
                    thunk = await m.ainstruct(
                        f"Write {step.thunk}.",
                        grounding_context={f"needed {n}": thunks[n] for n in step.needs},
                        model_options={ModelOption.STREAM: step.streamed},
                    )
                    thunks.append(thunk)
                elif step.kind == "cancel":
                    if not thunks[step.thunk].is_computed():
                        cancelled.add(step.thunk)
                    thunks[step.thunk].cancel("the program wants it")
                else:
                    users.start_soon(use, step)
                    users.start_soon(use, step)
                await anyio.sleep(0.5)
    except* DependencyFailed:
        pass

    def may_fail(number: int) -> bool:
        return any(need in cancelled or may_fail(need) for need in needs[number])

    for number, thunk in enumerate(thunks):
        ends = [thunk.is_computed(), thunk.error is not None, thunk.cancelled]
        assert ends.count(True) == 1
        if thunk.is_computed():
            assert thunk.value == f"text {number}, and its end"
        elif thunk.cancelled:
            assert number in cancelled
        else:
            assert isinstance(thunk.error, DependencyFailed)
            assert may_fail(number)
    assert len(backend.calls) <= len(thunks)
    assert all(call.outcome in ("ended", "cancelled") for call in backend.calls)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@given(steps=thunk_programs(), seed=st.integers(0, 2**16))
def test_any_program_of_thunks_ends_and_each_thunk_in_one_way(
    loop: LoopName, steps: list[ThunkStep], seed: int
) -> None:
    run_virtual(run_program, steps, backend=loop, seed=seed)
