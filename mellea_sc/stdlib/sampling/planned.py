"""Strategies that only decide: what they say is asked and judged by the library."""

from __future__ import annotations

from collections.abc import Sequence

from mellea_sc.core.arguments import several
from mellea_sc.core.backend import Backend, Format
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.errors import BackendNotBound
from mellea_sc.core.model_options import ModelOptions
from mellea_sc.core.requirement import Requirement
from mellea_sc.core.sampling import SamplingResult, SamplingStrategy
from mellea_sc.runtime.generation.producer import BoundBackend
from mellea_sc.stdlib.requirements.making import as_requirement
from mellea_sc.stdlib.sampling.engine.runner import sample
from mellea_sc.stdlib.sampling.plan import Plan

__all__ = ["PlannedStrategy"]


class PlannedStrategy(Plan, SamplingStrategy):
    """A strategy that decides, and leaves the asking to the library.

    A subclass gives :meth:`after`, and :meth:`begin` where it does not begin with one attempt. It keeps
    no state: all it needs to know is handed to it each time.

    Args:
        requirements: What must hold, besides what a call says.
    """

    requirements: Sequence[Requirement] = ()
    """What must hold, besides what a call says."""

    def __init__(self, requirements: Sequence[Requirement | str] | None = None) -> None:
        self.requirements = [as_requirement(one) for one in several("requirements", requirements)]

    def is_needed(self, requirements: Sequence[Requirement]) -> bool:
        """Whether there is anything to do beyond a single generation, which could stream its text."""
        return bool(requirements or self.requirements)

    async def sample(
        self,
        action: Component | Span,
        context: Context,
        backend: Backend,
        requirements: Sequence[Requirement],
        *,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
    ) -> SamplingResult:
        """Ask and judge, as the strategy says, until it makes a choice.

        Every attempt is judged while it is generated, and ends at its first failing chunk.
        """
        if not isinstance(backend, BoundBackend):
            raise BackendNotBound(f"{backend!r} is not bound to a session: use its m.backend")
        return await sample(
            self,
            action,
            context,
            backend,
            [*self.requirements, *requirements],
            format=format,
            model_options=model_options,
        )
