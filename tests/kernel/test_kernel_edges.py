"""Corners of the kernel that programs seldom meet."""

from __future__ import annotations

import asyncio
import sys

import anyio
import anyio.to_thread
import pytest

from mellea_sc import Backend, Context, SamplingResult, start_session
from mellea_sc.core.base import Component, Span
from mellea_sc.core.requirement import Requirement
from mellea_sc.runtime.loop_thread import LoopThread
from mellea_sc.runtime.portal import _end
from mellea_sc.stdlib import SamplingStrategy
from mellea_sc.testing import ScriptedBackend


def test_where_trio_was_never_imported_a_session_runs_on_asyncio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "trio", raising=False)

    async def main() -> str:
        async with start_session(backend=ScriptedBackend("Hello.")) as m:
            return await (await m.ainstruct("Greet."))

    assert asyncio.run(main()) == "Hello."


@pytest.mark.anyio
async def test_a_thread_of_blocking_calls_collected_in_an_event_loop_is_not_waited_for() -> None:
    called: list[str] = []

    class Watched(LoopThread):
        def stop(self, *, cancel: bool = False) -> None:
            called.append("stop")

        def join(self, timeout: float) -> None:
            called.append("join")

    thread = Watched("never started")
    _end(thread)
    assert called == ["stop"]
    await anyio.to_thread.run_sync(_end, thread)
    assert called == ["stop", "stop", "join"]


@pytest.mark.anyio
async def test_a_strategy_of_ones_own_is_asked_even_without_requirements() -> None:
    class Twice(SamplingStrategy):
        """Asks twice and keeps the second answer."""

        async def sample(
            self,
            action: Component | Span,
            context: Context,
            backend: Backend,
            requirements: list[Requirement],
            *,
            format: object = None,
            model_options: object = None,
        ) -> SamplingResult:
            thunks, contexts = [], []
            for _ in range(2):
                thunk, ctx = await backend.generate_from_context(action, context)
                await thunk
                thunks.append(thunk)
                contexts.append(ctx)
            return SamplingResult(
                result_index=1,
                success=True,
                sample_generations=thunks,
                sample_validations=[[], []],
                sample_actions=[action] * 2,
                sample_contexts=contexts,
            )

    async with start_session(backend=ScriptedBackend("First.", "Second.")) as m:
        thunk = await m.ainstruct("Count.", strategy=Twice())
        assert await thunk == "Second."
        assert thunk.generation.attempts == 2
        assert thunk.sampling is not None
        assert thunk.sampling.value == "Second."
