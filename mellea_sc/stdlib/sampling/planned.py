"""Strategies that only decide, and leave generating and validating to the library.

Here are their base class, the strategy that backtracks, and the plan by which the ``on_fail`` of requirements goes
before a strategy.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Final

import attrs

from mellea_sc.core.backend import Backend, Format, checked_format
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.counts import check_count
from mellea_sc.core.errors import BackendNotBound
from mellea_sc.core.model_options import ModelOptions
from mellea_sc.core.question import Question, several
from mellea_sc.core.requirement import OnFail, Requirement, as_requirement
from mellea_sc.core.sampling import SamplingResult, SamplingStrategy
from mellea_sc.runtime.generation.answers import read_meaning
from mellea_sc.runtime.generation.bound import BoundBackend
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.stdlib.components.feedback import WithFeedback
from mellea_sc.stdlib.sampling.engine.options import StreamOptions
from mellea_sc.stdlib.sampling.engine.runner import AttemptRunner
from mellea_sc.stdlib.sampling.engine.tracing import trace_of
from mellea_sc.stdlib.sampling.plan import Ask, AttemptResult, Choice, Once, Plan

__all__ = ["BacktrackStrategy", "PlannedStrategy", "plan_for", "sampled"]


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
    runner = AttemptRunner(plan, question, _WITHOUT_READER)
    choice = await runner.run(context, nursery, nursery)
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


class BacktrackStrategy(PlannedStrategy):
    """Keeps the chunks before the one that failed, and has the model continue from there.

    When a position has had its tries, the next attempt begins one chunk further back, but never before text that
    a reader has been shown: so nothing is ever retracted. At the beginning there is no limit of tries: the model is
    asked again as long as the budget lasts. The same happens to a text that fails only its final validation, if
    nothing of it was shown.

    Args:
        tries: The number of attempts at each position, except the beginning.
        budget: The maximum number of attempts in all.
        feedback: Whether the reason of a fail goes into the prompt of the next attempt. Without it, a model needs a
            temperature above 0 to give a different answer.
        requirements: Requirements in addition to those of the call.

    Raises:
        InvalidOption: a number is less than 1.
    """

    goes_on = True
    asks_anew = False

    def __init__(
        self,
        *,
        tries: int = 2,
        budget: int = 8,
        feedback: bool = True,
        requirements: Sequence[Requirement | str] | None = None,
    ) -> None:
        super().__init__(requirements)
        check_count("tries", tries)
        check_count("budget", budget)
        self.tries = tries
        self.budget = budget
        self.feedback = feedback

    def after(self, past: Sequence[AttemptResult], running: int) -> Sequence[Ask] | Choice:
        """Ask for the rest of the text again, from the last good position that has tries left."""
        last = past[-1]
        if last.valid:
            return Choice(last.number, True)
        position = self._position(past)
        if position is None or len(past) >= self.budget:
            return Choice(last.number, False)
        action = last.ask.action
        return [
            Ask(
                action=WithFeedback(action, last.reasons) if self.feedback else action,
                context=last.ask.context,
                reason=last.reason,
                keep=position,
                of=last.number,
                chain=last.ask.chain,
            )
        ]

    def _position(self, past: Sequence[AttemptResult]) -> int | None:
        last = past[-1]
        if last.completed:
            return None if last.released else 0
        again = [one for one in past if one.ask.chain == last.ask.chain and one.ask.of]
        for position in range(last.failed_at, last.released - 1, -1):
            begun_there = sum(1 for one in again if one.ask.keep == position)
            if begun_there < self.tries:
                return position
        return None if last.released else 0


class RetryOnce(Plan):
    """A second attempt, with the reasons why the first one was rejected."""

    def after(self, past: Sequence[AttemptResult], running: int) -> Sequence[Ask] | Choice:
        """Ask for the second attempt, or keep the last one."""
        last = past[-1]
        begun = sum(1 for one in past if one.ask.chain == last.ask.chain and not one.ask.keep)
        if last.valid or begun > 1:
            return Choice(last.number, last.valid)
        return [
            Ask(
                action=WithFeedback(last.ask.action, last.reasons),
                context=last.ask.context,
                reason=last.reason,
                chain=last.ask.chain,
            )
        ]


class ByRequirement(Plan):
    """A plan that follows the ``on_fail`` of failed requirements, or else another plan.

    Args:
        plan: Decides unless a requirement does.
        said: The values of ``on_fail`` of the requirements.
    """

    def __init__(self, plan: Plan, said: Collection[OnFail | None]) -> None:
        self._plan = plan
        # A strategy that retries (or backtracks) itself is also used for a requirement that asks for that: so its
        # budget and its feedback apply.
        self._anew: Plan = RetryOnce() if plan.goes_on or isinstance(plan, Once) else plan
        self._back: Plan = plan if plan.goes_on else BacktrackStrategy()
        self.concurrent: bool = self._plan.concurrent
        self.weighs: bool = self._plan.weighs
        self.goes_on: bool = self._plan.goes_on or "backtrack" in said
        self.asks_anew: bool = self._plan.asks_anew or "retry" in said

    def begin(self, action: Component | Span, context: Context) -> Sequence[Ask]:
        """The same as the strategy."""
        return self._plan.begin(action, context)

    def after(self, past: Sequence[AttemptResult], running: int) -> Sequence[Ask] | Choice:
        """Follow the strictest ``on_fail`` of the failed requirements, or else the strategy."""
        last = past[-1]
        said: set[OnFail | None] = {requirement.on_fail for requirement, _ in last.rejected}
        if "stop" in said:
            return Choice(last.number, False)
        if "retry" in said:
            return self._anew.after(past, running)
        if "backtrack" in said and self._back is not self._plan:
            step = self._back.after(past, running)
            if not isinstance(step, Choice):
                return step
            # Backtracking has used up its budget. Other attempts may still be running, or be good already.
        return self._plan.after(past, running)

    async def weigh(self, result: AttemptResult, backend: Backend) -> float | None:
        """The same as the strategy."""
        return await self._plan.weigh(result, backend)

    def __repr__(self) -> str:
        return repr(self._plan)


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
