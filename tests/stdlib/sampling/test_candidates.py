"""A candidate that was to begin in the moment of a decision counts as one, and does not begin after it."""

from __future__ import annotations

import pytest

from mellea_sc import BackendError, check, simple_validate, start_session
from mellea_sc.core.backend import GenerationRequest, ModelOption
from mellea_sc.stdlib import RacingStrategy
from mellea_sc.testing import Fail, Pause, Script, ScriptedBackend

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(two_orders: tuple[str, dict[str, object]]) -> tuple[str, dict[str, object]]:
    """The event loop of a test."""
    return two_orders


SEED = {ModelOption.SEED: 1}


async def test_candidates_that_fail_in_the_same_moment_are_not_replaced_beyond_the_budget() -> None:
    backend = ScriptedBackend(lambda _: "no")
    async with start_session(backend=backend) as m:
        await m.ainstruct(
            "Count.",
            requirements=[check("never", simple_validate(lambda _: False))],
            strategy=RacingStrategy(3, budget=4),
            await_result=True,
        )
    assert len(backend.calls) == 4


async def test_a_candidate_that_fails_by_an_error_counts_to_the_budget() -> None:
    broken = Fail(BackendError("down"))
    backend = ScriptedBackend(broken, *[Script([Pause(after), "no"]) for after in (1, 2, 3, 4)])
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct(
            "Count.",
            requirements=[check("never", simple_validate(lambda _: False))],
            strategy=RacingStrategy(3, budget=4),
        )
        with pytest.raises(BackendError, match="down"):
            await thunk
    assert len(backend.calls) == 4


async def test_no_candidate_begins_after_another_one_has_won() -> None:
    def answer(request: GenerationRequest) -> str:
        return "no" if request.options[ModelOption.SEED] == 1 else "yes"

    backend = ScriptedBackend(answer)
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct(
            "Count.",
            requirements=[check("yes", simple_validate(lambda text: text == "yes"))],
            strategy=RacingStrategy(2, budget=4),
            model_options=SEED,
        )
        assert await thunk == "yes"
    # its replacement, if one was to begin, was asked for before the other had won
    losers = [call for call in backend.calls[2:] if call.outcome == "ended"]
    assert not losers
