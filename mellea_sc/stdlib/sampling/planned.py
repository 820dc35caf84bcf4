"""Strategies that only decide, and leave generating and validating to the library."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final

import attrs

from mellea_sc.core.backend import Backend, Format, checked_format
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.errors import BackendNotBound
from mellea_sc.core.model_options import ModelOptions
from mellea_sc.core.question import Question, several
from mellea_sc.core.requirement import OnFail, Requirement, ValidationResult, as_requirement
from mellea_sc.core.sampling import SamplingResult, SamplingStrategy
from mellea_sc.runtime.checks.attempt import Attempt
from mellea_sc.runtime.checks.edits import Edits
from mellea_sc.runtime.checks.lanes import View
from mellea_sc.runtime.checks.ledger import Ledger
from mellea_sc.runtime.generation.answers import read_meaning
from mellea_sc.runtime.generation.bound import BoundBackend
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.pacing import Valves
from mellea_sc.stdlib.sampling.by_requirement import ByRequirement
from mellea_sc.stdlib.sampling.engine.options import StreamOptions
from mellea_sc.stdlib.sampling.engine.runner import AttemptRunner, Nurseries
from mellea_sc.stdlib.sampling.engine.tracing import trace_of
from mellea_sc.stdlib.sampling.plan import Ask, Once, Plan

__all__ = ["PlannedStrategy", "plan_for", "sampled"]


_WITHOUT_READER: Final = StreamOptions(validator_timeout=None)


class PlannedStrategy(Plan, SamplingStrategy):
    """A strategy that decides what to ask, and leaves generating and validating to the library.

    A subclass implements :meth:`after`, and :meth:`begin` unless it begins with one attempt. It has no state: each
    call gets all that it needs to know.

    Args:
        requirements: Requirements in addition to those of a call.
    """

    requirements: Sequence[Requirement] = ()
    """Requirements in addition to those of a call."""

    def __init__(self, requirements: Sequence[Requirement | str] | None = None) -> None:
        self.requirements = [as_requirement(one) for one in several("requirements", requirements)]

    def is_needed(self, requirements: Sequence[Requirement]) -> bool:
        """Whether more than a plain generation is needed; a plain one can stream its text."""
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
        """Run attempts until the strategy makes a choice.

        Every attempt is validated while it is generated, and ends at its first failing chunk.

        Cancellation: every attempt is cancelled and has ended.
        """
        if not isinstance(backend, BoundBackend):
            raise BackendNotBound(f"{backend!r} is not bound to a session: use its m.backend")
        question = Question(
            action=action,
            requirements=requirements,
            format=None if format is None else checked_format(format),
            model_options=model_options,
        )
        return await sampled(self, question, context, (await backend.place()).nursery)


async def sampled(
    strategy: PlannedStrategy, question: Question, context: Context, nursery: Nursery
) -> SamplingResult:
    """What :meth:`PlannedStrategy.sample` does, for a caller who has the nursery.

    Args:
        strategy: Decides what to ask.
        question: The arguments of the call.
        context: The conversation before it.
        nursery: Its backend generates and judges. Nothing is left in it at the end.

    Cancellation: every attempt is cancelled and has ended.
    """
    if strategy.requirements:
        required = [*strategy.requirements, *question.requirements]
        question = attrs.evolve(question, requirements=required)
    plan = plan_for(strategy, question.requirements)
    runner = AttemptRunner(plan, question, _WITHOUT_READER, _HiddenStage())
    choice = await runner.run(context, Nurseries(nursery, nursery))
    tried = sorted(runner.results, key=attrgetter("number"))
    answers = [one.thunk() for one in tried]
    for one, answer in zip(tried, answers, strict=True):
        read_meaning(answer, one.text, one.ask.action, question.format)
    return SamplingResult(
        result_index=next(i for i, one in enumerate(tried) if one.number == choice.number),
        success=choice.success,
        sample_generations=answers,
        sample_validations=[one.verdicts for one in tried],
        sample_actions=[one.ask.action for one in tried],
        sample_contexts=[
            one.ask.context.add(one.ask.action).add(answer)
            for one, answer in zip(tried, answers, strict=True)
        ],
        trace=trace_of(
            question.action,
            "accepted" if choice.success else "rejected",
            runner.attempts,
            runner.asks,
            accepted=choice.number if choice.success else None,
        ),
    )


def plan_for(strategy: Plan | None, requirements: Sequence[Requirement]) -> Plan:
    """The plan of a call: the ``on_fail`` of its requirements has priority over its strategy.

    Args:
        strategy: Decides unless a requirement does; ``None``: one attempt.
        requirements: The requirements of the call.
    """
    plan = Once() if strategy is None else strategy
    said: set[OnFail | None] = {requirement.on_fail for requirement in requirements}
    if said.isdisjoint(("stop", "retry", "backtrack")):
        return plan
    return ByRequirement(plan, said)


class _HiddenStage:
    """A stage and view that shows nothing: for attempts without readers."""

    is_full = False

    def begin_attempt(self, number: int, ask: Ask, ledger: Ledger, edits: Edits) -> View:
        return self

    def end_attempt(self, number: int, attempt: Attempt) -> int:
        return 0

    def advance(self) -> None: ...

    async def room(self, valves: Valves) -> None: ...

    def reasoned(self, text: str) -> None: ...

    def generated(self, text: str) -> None: ...

    def validated(self, validations: Sequence[ValidationResult]) -> None: ...
