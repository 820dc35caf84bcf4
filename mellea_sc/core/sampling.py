"""The contract of a sampling strategy: how often to ask, and which answer to keep."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import attrs

from mellea_sc.core.backend import Backend, Format, ModelOptions
from mellea_sc.core.base import Component, Context, Span, Thunk
from mellea_sc.core.picture import table_of, text_of_answer
from mellea_sc.core.requirement import Requirement, ValidationResult, label_of
from mellea_sc.core.trace import Trace


@attrs.frozen(kw_only=True)
class SamplingResult:
    """All attempts of a strategy; the lists are in the order of the attempts.

    Args:
        result_index: The index of the attempt that was kept.
        success: Whether the kept attempt meets every requirement.
        sample_generations: The answers, computed. An answer that was stopped early (``finish_reason`` is
            ``"aborted"``) has only its good text.
        sample_validations: For each answer, every requirement with its verdict; for an answer that was stopped
            early, the requirements that it failed. An answer that does not fit its ``format`` has a verdict on
            that too.
        sample_actions: For each attempt, the action that the model was asked.
        sample_contexts: For each attempt, the conversation with its action and answer added.
        trace: The trace: what ended each attempt, and what it cost; ``None`` if the strategy makes none.
    """

    result_index: int
    success: bool
    sample_generations: Sequence[Thunk]
    sample_validations: Sequence[Sequence[tuple[Requirement, ValidationResult]]]
    sample_actions: Sequence[Component | Span]
    sample_contexts: Sequence[Context]
    trace: Trace | None = attrs.field(default=None, repr=False)

    @property
    def result(self) -> Thunk:
        """The answer that was kept."""
        return self.sample_generations[self.result_index]

    @property
    def value(self) -> str:
        """The text of the answer that was kept."""
        return self.result.value

    @property
    def result_ctx(self) -> Context:
        """The conversation that ends with the answer that was kept."""
        return self.sample_contexts[self.result_index]

    @property
    def result_action(self) -> Component | Span:
        """The action of the answer that was kept."""
        return self.sample_actions[self.result_index]

    @property
    def result_validations(self) -> Sequence[tuple[Requirement, ValidationResult]]:
        """The requirements with their verdicts on the answer that was kept."""
        return self.sample_validations[self.result_index]

    def __str__(self) -> str:
        return self.value

    def _repr_html_(self) -> str:
        state = "accepted" if self.success else "not valid"
        verdicts = [
            (label_of(one), "pass" if verdict else "fail", verdict.reason)
            for one, verdict in self.result_validations
        ]
        note = f"{state}, attempt {self.result_index + 1} of {len(self.sample_generations)}"
        picture = "" if self.trace is None else self.trace.to_svg()
        return text_of_answer(self.value, note) + table_of(verdicts) + picture


class SamplingStrategy(abc.ABC):
    """Decides how often a model is asked, with which action, and which of its answers is kept."""

    def is_needed(self, requirements: Sequence[Requirement]) -> bool:
        """Whether there is anything to do beyond a single generation, which could stream its text."""
        return True

    @abc.abstractmethod
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
        """Generate and validate until an answer is good or the budget is spent.

        Args:
            action: The action for the model.
            context: The conversation before it.
            backend: Bound to the scope of this call: its generations end with the call.
            requirements: Requirements on the answer; copied for each attempt.
            format: The format of the answer.
            model_options: Options of every generation of the call.

        Cancellation: everything that it has started is cancelled, and has ended when it returns.
        """
