"""Mellea's import path of the strategies that ask again."""

from __future__ import annotations

from mellea_sc.core.sampling import SamplingResult, SamplingStrategy
from mellea_sc.stdlib.sampling.repairing import (
    BaseSamplingStrategy,
    MultiTurnStrategy,
    RejectionSamplingStrategy,
    RepairTemplateStrategy,
)

__all__ = [
    "BaseSamplingStrategy",
    "MultiTurnStrategy",
    "RejectionSamplingStrategy",
    "RepairTemplateStrategy",
    "SamplingResult",
    "SamplingStrategy",
]
