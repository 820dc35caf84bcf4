"""The keyword arguments of the methods that ask, each list in one place.

Several methods share them, and forward them as they are. What each means is said where it is documented:
:meth:`MelleaSession.aact`, :meth:`MelleaSession.ainstruct` and :func:`stream_with_chunking`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import CBlock, Span
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.question import QuestionArguments, RequestArguments
from mellea_sc.core.sampling import SamplingStrategy
from mellea_sc.stdlib.sampling.planned import PlannedStrategy

__all__ = ["ActArguments", "InstructArguments", "QueryArguments", "StreamArguments"]


class QueryArguments(RequestArguments, total=False):
    """Those of ``query`` and ``transform``."""

    await_result: bool


class ActArguments(QuestionArguments, total=False):
    """Those of ``act``."""

    strategy: SamplingStrategy | None
    await_result: bool


class InstructArguments(ActArguments, total=False):
    """Those of ``instruct``."""

    icl_examples: Sequence[str | CBlock] | None
    grounding_context: Mapping[str, Span] | None
    user_variables: Mapping[str, Span] | None
    prefix: str | CBlock | None
    output_prefix: str | CBlock | None


class StreamArguments(QuestionArguments, total=False):
    """Those of a stream."""

    chunking: str | ChunkingStrategy | None
    validation_backend: Backend | None
    lane_buffer: int
    lookahead: int | None
    validator_timeout: float | None
    strategy: PlannedStrategy | None
    hold_back: bool | int
