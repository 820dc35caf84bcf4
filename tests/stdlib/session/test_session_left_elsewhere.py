"""A block that is entered in one task and left in another, as the steps of a unittest and fixtures do."""

from __future__ import annotations

import asyncio
import unittest
from contextlib import AsyncExitStack

import pytest

from mellea_sc import BackendError, GenerationCancelled, SessionClosed, UsageError, start_session
from mellea_sc.testing import Fail, Pause, ScriptedBackend, Stall

pytestmark = pytest.mark.usefixtures("collected")


def run(case: type[unittest.IsolatedAsyncioTestCase]) -> unittest.TestResult:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun
    return result


def test_1_10_a_test_of_unittest_may_enter_a_session_as_a_context() -> None:
    backend = ScriptedBackend(lambda _: [Pause(0.01), "One."])

    class Case(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self) -> None:
            self.addAsyncCleanup(self.check_joined)  # called after the session was left
            self.m = await self.enterAsyncContext(start_session(backend=backend))
            self.asked = await self.m.ainstruct("?")

        async def test_it(self) -> None:
            other = await self.enterAsyncContext(start_session(backend=backend))
            assert await self.asked == await (await other.ainstruct("?")) == "One."
            self.left = await self.m.ainstruct("?")

        async def check_joined(self) -> None:
            assert self.left.value == "One."
            with pytest.raises(SessionClosed):
                await self.m.ainstruct("?")

    assert run(Case).wasSuccessful()
    assert [call.outcome for call in backend.calls] == ["ended"] * 3


def test_1_10_what_nobody_observed_fails_such_a_test() -> None:
    class Case(unittest.IsolatedAsyncioTestCase):
        async def test_it(self) -> None:
            backend = ScriptedBackend(Fail(BackendError("lost?")))
            m = await self.enterAsyncContext(start_session(backend=backend))
            await m.ainstruct("?")

    ((_, told),) = run(Case).errors
    assert "errors in the session that nobody observed" in told
    assert "lost?" in told


def test_1_10_a_block_that_is_left_in_another_task_says_so_and_cancels_what_runs() -> None:
    backend = ScriptedBackend(lambda _: ["some ", Stall()])
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        m = runner.run(stack.enter_async_context(start_session(backend=backend)))
        thunk = runner.run(m.ainstruct("?"))
        with pytest.raises(UsageError, match=r"left in another task.*await m\.aclose\(\)"):
            runner.run(stack.aclose())
        with pytest.raises(GenerationCancelled, match="left in another task"):
            runner.run(thunk.avalue())
        with pytest.raises(SessionClosed):
            runner.run(m.ainstruct("?"))
