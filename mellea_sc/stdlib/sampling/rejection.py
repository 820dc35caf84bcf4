"""Ask, validate, and ask the same again until an answer is good."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from mellea_sc.core.backend import Backend, Format
from mellea_sc.core.base import Component, Context, Span, Thunk
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.model_options import ModelOption, ModelOptions, merge_options
from mellea_sc.core.requirement import Requirement, ValidationResult
from mellea_sc.core.sampling import SamplingResult, SamplingStrategy
from mellea_sc.runtime.validation import validate_all

__all__ = ["RejectionSamplingStrategy"]


class RejectionSamplingStrategy(SamplingStrategy):
    """Generates up to ``loop_budget`` answers, one after the other, and keeps the first good one.

    When none is good, the first one is kept and the result says that it failed.

    Args:
        loop_budget: How many answers at most.
        requirements: What must hold, besides what the call says.
    """

    def __init__(
        self, *, loop_budget: int = 1, requirements: Sequence[Requirement] | None = None
    ) -> None:
        if loop_budget < 1:
            raise InvalidOption(f"loop_budget must be at least 1, not {loop_budget!r}")
        self.loop_budget = loop_budget
        self.requirements: list[Requirement] = list(requirements or ())

    def is_needed(self, requirements: Sequence[Requirement]) -> bool:
        """Only requirements can reject an answer."""
        return bool(requirements or self.requirements)

    @staticmethod
    def select_from_failure(
        sampled_actions: Sequence[Component | Span],
        sampled_results: Sequence[Thunk],
        sampled_val: Sequence[Sequence[tuple[Requirement, ValidationResult]]],
    ) -> int:
        """Which answer to keep when none is good: the first."""
        del sampled_actions, sampled_results, sampled_val
        return 0

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
        """Generate and validate until an answer is good or the budget is spent."""
        wanted = [*self.requirements, *requirements]
        options = merge_options(model_options, {ModelOption.STREAM: False})
        answers: list[Thunk] = []
        validations: list[list[tuple[Requirement, ValidationResult]]] = []
        contexts: list[Context] = []
        for attempt in range(self.loop_budget):
            judges = [copy.copy(requirement) for requirement in wanted]
            answer, ctx = await backend.generate_from_context(
                action, context, format=format, model_options=options
            )
            await answer.avalue()
            verdicts = await validate_all(judges, backend, ctx, format=format)
            answers.append(answer)
            contexts.append(ctx)
            validations.append(list(zip(wanted, verdicts, strict=True)))
            if all(verdicts):
                return self._result(action, attempt, True, answers, validations, contexts)
        kept = self.select_from_failure([action] * len(answers), answers, validations)
        return self._result(action, kept, False, answers, validations, contexts)

    @staticmethod
    def _result(
        action: Component | Span,
        index: int,
        success: bool,
        answers: Sequence[Thunk],
        validations: Sequence[Sequence[tuple[Requirement, ValidationResult]]],
        contexts: Sequence[Context],
    ) -> SamplingResult:
        return SamplingResult(
            result_index=index,
            success=success,
            sample_generations=answers,
            sample_validations=validations,
            sample_actions=[action] * len(answers),
            sample_contexts=contexts,
        )
