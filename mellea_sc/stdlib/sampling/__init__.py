"""Strategies: they decide how often a model is asked, with which action, and which of its answers is kept."""

from __future__ import annotations

from mellea_sc.core.sampling import SamplingResult, SamplingStrategy
from mellea_sc.stdlib.sampling.plan import Ask, AttemptResult, Choice
from mellea_sc.stdlib.sampling.planned import BacktrackStrategy, PlannedStrategy
from mellea_sc.stdlib.sampling.repairing import (
    BaseSamplingStrategy,
    MultiTurnStrategy,
    RejectionSamplingStrategy,
    RepairTemplateStrategy,
)
from mellea_sc.stdlib.sampling.several import (
    BestOfNStrategy,
    MajorityVotingStrategy,
    RacingStrategy,
)

__all__ = [
    "Ask",
    "AttemptResult",
    "BacktrackStrategy",
    "BaseSamplingStrategy",
    "BestOfNStrategy",
    "Choice",
    "MajorityVotingStrategy",
    "MultiTurnStrategy",
    "PlannedStrategy",
    "RacingStrategy",
    "RejectionSamplingStrategy",
    "RepairTemplateStrategy",
    "SamplingResult",
    "SamplingStrategy",
]
