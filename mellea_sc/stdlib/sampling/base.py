"""Strategies that only decide, and leave generating and validating to the library: Mellea's module of this name.

Here are their base class, those that ask again when an answer is rejected (the same, with the reasons, in the
conversation, or from the last good chunk on), and the plan by which the ``on_fail`` of requirements goes before a
strategy. ``several.py`` has those that ask several times at once.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Final

import attrs

from mellea_sc.core.backend import Backend, Format, ModelOptions, checked_format
from mellea_sc.core.base import Component, Context, Span, Thunk
from mellea_sc.core.errors import BackendNotBound, InvalidOption
from mellea_sc.core.question import Question, StreamOptions, check_count, several
from mellea_sc.core.requirement import (
    OnFail,
    Requirement,
    ValidationResult,
    as_requirement,
    reasons_in,
)
from mellea_sc.core.sampling import SamplingResult, SamplingStrategy
from mellea_sc.runtime.generation.bound import BoundBackend
from mellea_sc.runtime.generation.pump import read_meaning
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.stdlib.components.chat import Message
from mellea_sc.stdlib.context import SimpleContext
from mellea_sc.stdlib.sampling.plan import Ask, Choice, Plan, WithFeedback
from mellea_sc.stdlib.sampling.results import AttemptResult, trace_of
from mellea_sc.stdlib.sampling.runner import AttemptRunner, Once

__all__ = [
    "BacktrackStrategy",
    "BaseSamplingStrategy",
    "MultiTurnStrategy",
    "PlannedStrategy",
    "RejectionSamplingStrategy",
    "RepairTemplateStrategy",
    "SamplingResult",
    "SamplingStrategy",
    "plan_for",
    "sampled",
]


_WITHOUT_READER: Final = StreamOptions(validator_timeout=None)


class PlannedStrategy(Plan, SamplingStrategy):
    """A strategy that decides what to ask, and leaves generating and validating to the library.

    A subclass implements :meth:`after`, and :meth:`begin` unless it begins with one attempt. It has no state: each
    call gets all that it needs to know.
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
    """What :meth:`PlannedStrategy.sample` does, for a caller who has the nursery, in which nothing is left at the end.

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
        if self.feedback:
            action = WithFeedback(action, last.reasons)
        of = last.number
        return [attrs.evolve(last.ask, action=action, reason=last.reason, keep=position, of=of)]

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


Actions = Sequence[Component | Span]
Verdicts = Sequence[Sequence[tuple[Requirement, ValidationResult]]]


class BaseSamplingStrategy(PlannedStrategy):
    """Attempts one after the other, each but the first a repair of the one before.

    A subclass says with :meth:`repair` what to ask next, and may say with :meth:`select_from_failure` which
    answer to keep when none is good; both as in Mellea.

    Args:
        loop_budget: The maximum number of attempts in each series.
        concurrency_budget: The number of series that run at the same time; the first good answer ends all of them.
        requirements: Requirements in addition to those of the call.

    Raises:
        InvalidOption: a budget is less than 1.
    """

    def __init__(
        self,
        *,
        loop_budget: int = 1,
        concurrency_budget: int = 1,
        requirements: Sequence[Requirement | str] | None = None,
    ) -> None:
        super().__init__(requirements)
        check_count("loop_budget", loop_budget)
        check_count("concurrency_budget", concurrency_budget)
        self.loop_budget = loop_budget
        self.concurrency_budget = concurrency_budget
        self.concurrent: bool = concurrency_budget > 1
        self.asks_anew: bool = loop_budget > 1

    def __repr__(self) -> str:
        more = f", concurrency_budget={self.concurrency_budget}" if self.concurrent else ""
        return f"{type(self).__name__}(loop_budget={self.loop_budget}{more})"

    @staticmethod
    @abc.abstractmethod
    def repair(
        old_ctx: Context,
        new_ctx: Context,
        past_actions: Actions,
        past_results: Sequence[Thunk],
        past_val: Verdicts,
    ) -> tuple[Component | Span, Context]:
        """What to ask after answers that were rejected.

        Args:
            old_ctx: The conversation before the last action.
            new_ctx: The conversation with the last action and all that the model said to it.
            past_actions: What was asked, attempt by attempt.
            past_results: The answers, as far as they may be shown.
            past_val: For each answer the requirements with their verdicts; of one that was stopped
                early only those that it failed.

        Returns:
            The next action, and the conversation before it.
        """

    @staticmethod
    def select_from_failure(
        sampled_actions: Actions, sampled_results: Sequence[Thunk], sampled_val: Verdicts
    ) -> int:
        """The index of the answer to keep when none is good, by default the first; it may count from the end."""
        del sampled_actions, sampled_results, sampled_val
        return 0

    def begin(self, action: Component | Span, context: Context) -> Sequence[Ask]:
        """The same in each series."""
        return [
            Ask(action=action, context=context, chain=chain)
            for chain in range(self.concurrency_budget)
        ]

    def after(self, past: Sequence[AttemptResult], running: int) -> Sequence[Ask] | Choice:
        """A repair, while the budget lasts."""
        last = past[-1]
        if last.valid:
            return Choice(last.number, True)
        series = [one for one in past if one.ask.chain == last.ask.chain]
        if sum(1 for one in series if not one.ask.keep) < self.loop_budget:
            action, context = self.repair(
                last.ask.context,
                last.context,
                [one.ask.action for one in series],
                [one.thunk() for one in series],
                [one.verdicts for one in series],
            )
            return [Ask(action=action, context=context, reason=last.reason, chain=last.ask.chain)]
        if running:
            return ()
        tried = sorted(past, key=lambda one: one.number)
        kept = self.select_from_failure(
            [one.ask.action for one in tried],
            [one.thunk() for one in tried],
            [one.verdicts for one in tried],
        )
        return Choice(tried[kept].number, False)


class RejectionSamplingStrategy(BaseSamplingStrategy):
    """Asks the same again until an answer is good, and keeps the first answer when none is.

    With a seed in the model options, each attempt has the next one.

    Its arguments are those of a :class:`BaseSamplingStrategy`.
    """

    @staticmethod
    def repair(
        old_ctx: Context,
        new_ctx: Context,
        past_actions: Actions,
        past_results: Sequence[Thunk],
        past_val: Verdicts,
    ) -> tuple[Component | Span, Context]:
        """The same again."""
        del new_ctx, past_results, past_val
        return past_actions[-1], old_ctx


class RepairTemplateStrategy(BaseSamplingStrategy):
    """Asks again with the reasons why the answer was rejected, and keeps the first when none is good.

    Its arguments are those of a :class:`BaseSamplingStrategy`.
    """

    @staticmethod
    def repair(
        old_ctx: Context,
        new_ctx: Context,
        past_actions: Actions,
        past_results: Sequence[Thunk],
        past_val: Verdicts,
    ) -> tuple[Component | Span, Context]:
        """The first action, with the reasons of the last rejection."""
        del new_ctx, past_results
        return WithFeedback(past_actions[0], reasons_in(past_val[-1])), old_ctx


class MultiTurnStrategy(BaseSamplingStrategy):
    """Tells the model in the conversation why its answer was rejected, and keeps the last answer.

    Needs a context that remembers, a ``ChatContext``.

    Its arguments are those of a :class:`BaseSamplingStrategy`.

    Raises:
        InvalidOption: when it is used: the context forgets.
    """

    def begin(self, action: Component | Span, context: Context) -> Sequence[Ask]:
        """The same in each series."""
        if isinstance(context, SimpleContext):
            raise InvalidOption(
                "MultiTurnStrategy needs a conversation that remembers: start_session(ctx=ChatContext()),"
                " or use RepairTemplateStrategy"
            )
        return super().begin(action, context)

    @staticmethod
    def repair(
        old_ctx: Context,
        new_ctx: Context,
        past_actions: Actions,
        past_results: Sequence[Thunk],
        past_val: Verdicts,
    ) -> tuple[Component | Span, Context]:
        """The reasons, as the next thing that the user says."""
        del old_ctx, past_actions, past_results
        lines = "\n".join(map("- {}".format, reasons_in(past_val[-1])))
        said = (
            f"Your answer was rejected, because:\n{lines}\nGive another one that meets all of this."
        )
        return Message("user", said), new_ctx

    @staticmethod
    def select_from_failure(
        sampled_actions: Actions, sampled_results: Sequence[Thunk], sampled_val: Verdicts
    ) -> int:
        """The last."""
        del sampled_actions, sampled_results, sampled_val
        return -1


# --- the on_fail of requirements goes before a strategy ----------------------------------------


class _RetryOnce(RepairTemplateStrategy):
    """A second attempt, with the reasons why the first one was rejected; then the last one is kept."""

    def __init__(self) -> None:
        super().__init__(loop_budget=2)

    select_from_failure = staticmethod(MultiTurnStrategy.select_from_failure)


class _ByRequirement(Plan):
    """A plan that follows the ``on_fail`` of failed requirements, or else another plan."""

    def __init__(self, plan: Plan, said: Collection[OnFail | None]) -> None:
        self._plan = plan
        # A strategy that retries (or backtracks) itself is also used for a requirement that asks for that: so its
        # budget and its feedback apply.
        self._anew: Plan = _RetryOnce() if plan.goes_on or isinstance(plan, Once) else plan
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
    """The plan of a call: the ``on_fail`` of its requirements has priority over its strategy, or a single attempt."""
    plan = Once() if strategy is None else strategy
    said: set[OnFail | None] = {requirement.on_fail for requirement in requirements}
    if said.isdisjoint(("stop", "retry", "backtrack")):
        return plan
    return _ByRequirement(plan, said)
