"""The blocking halves with strategies: no event loop around them."""

from __future__ import annotations

import pytest
from kit import Without

from mellea_sc import (
    BacktrackStrategy,
    BestOfNStrategy,
    MajorityVotingStrategy,
    RejectionSamplingStrategy,
    RepairTemplateStrategy,
    start_session,
)
from mellea_sc.stdlib import RacingStrategy, SamplingStrategy
from mellea_sc.testing import ScriptedBackend


@pytest.mark.parametrize(
    "strategy",
    [
        RejectionSamplingStrategy(loop_budget=2),
        RepairTemplateStrategy(loop_budget=2),
        RacingStrategy(1),
        BacktrackStrategy(),
        BestOfNStrategy(1),
        MajorityVotingStrategy(1),
    ],
)
def test_each_strategy_in_a_blocking_call(strategy: SamplingStrategy) -> None:
    repairs = not isinstance(strategy, BestOfNStrategy | MajorityVotingStrategy)
    answers = ["Bad curse.", "Good."] if repairs else ["Good."]
    backend = ScriptedBackend(*answers)
    with start_session(backend=backend) as m:
        thunk = m.instruct("?", requirements=[Without("curse")], strategy=strategy)
        assert thunk.value == "Good."
    backend.assert_exhausted()
