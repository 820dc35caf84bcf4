"""Strategies: how often a model is asked, and which of its answers is kept."""

from __future__ import annotations

from mellea_sc.core.sampling import SamplingResult, SamplingStrategy
from mellea_sc.stdlib.sampling.rejection import RejectionSamplingStrategy

__all__ = ["RejectionSamplingStrategy", "SamplingResult", "SamplingStrategy"]
