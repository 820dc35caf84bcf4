"""Corners of strategies, each once found by the model or by reading."""

from __future__ import annotations

import pytest
from kit import Check, containing, read_events

from mellea_sc import (
    BestOfNStrategy,
    ChunkEvent,
    RejectionSamplingStrategy,
    RetractEvent,
    start_session,
)
from mellea_sc.core.backend import GenerationRequest, ModelOption
from mellea_sc.stdlib import RacingStrategy
from mellea_sc.testing import Pause, ScriptedBackend

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(two_orders: tuple[str, dict[str, object]]) -> tuple[str, dict[str, object]]:
    """The event loop of a test."""
    return two_orders


async def test_with_some_chunks_held_back_the_text_is_that_of_the_attempt_that_is_shown() -> None:
    backend = ScriptedBackend("A1. A2. bad. A4.", "B1. B2. B3. bad. B5.")
    async with (
        start_session(backend=backend) as m,
        m.stream(
            "Count.",
            requirements=[Check(containing("bad"))],
            strategy=RejectionSamplingStrategy(loop_budget=2),
            hold_back=1,
        ) as result,
    ):
        shown: list[str] = []
        for event in await read_events(result):
            if isinstance(event, RetractEvent):
                del shown[event.chunk_index :]
            elif isinstance(event, ChunkEvent):
                shown.append(event.text)
    assert shown == ["B1.", "B2."]
    assert result.full_text == "B1. B2."
    assert not result.completed


@pytest.mark.parametrize("strategy", [RacingStrategy(2, budget=2), BestOfNStrategy(2)])
@pytest.mark.parametrize("good_is_first", [False, True])
async def test_a_series_that_cannot_go_back_further_does_not_end_the_others(
    strategy: RacingStrategy | BestOfNStrategy, good_is_first: bool
) -> None:
    def answer(request: GenerationRequest) -> list[str | Pause]:
        if request.options[ModelOption.SEED] == 1:
            return [Pause(1 if good_is_first else 5), "One. ", "Two."]
        return [Pause(2), "bad. ", "Two."]

    backend = ScriptedBackend(answer)
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct(
            "Count.",
            requirements=[Check(containing("bad"), on_fail="backtrack")],
            strategy=strategy,
            model_options={ModelOption.SEED: 1},
        )
        assert await thunk == "One. Two."
        assert thunk.sampling is not None
        assert thunk.sampling.success
