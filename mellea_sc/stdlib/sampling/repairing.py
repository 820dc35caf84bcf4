"""Ask again when an answer is rejected: the same, with the reasons, or in the conversation."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from mellea_sc.core.base import Component, Context, Span, Thunk
from mellea_sc.core.counts import check_count
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import Requirement, ValidationResult
from mellea_sc.stdlib.components.feedback import WithFeedback
from mellea_sc.stdlib.components.message import Message
from mellea_sc.stdlib.context import SimpleContext
from mellea_sc.stdlib.sampling.plan import (
    Ask,
    AttemptResult,
    Choice,
    reasons_in,
)
from mellea_sc.stdlib.sampling.planned import PlannedStrategy

__all__ = [
    "BaseSamplingStrategy",
    "MultiTurnStrategy",
    "RejectionSamplingStrategy",
    "RepairTemplateStrategy",
]

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

    Args:
        loop_budget: The maximum number of attempts in each series.
        concurrency_budget: The number of series that run at the same time; the first good answer ends all of them.
        requirements: Requirements in addition to those of the call.

    Raises:
        InvalidOption: a budget is less than 1.
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

    Args:
        loop_budget: The maximum number of attempts in each series.
        concurrency_budget: The number of series that run at the same time; the first good answer ends all of them.
        requirements: Requirements in addition to those of the call.

    Raises:
        InvalidOption: a budget is less than 1.
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

    Args:
        loop_budget: The maximum number of attempts in each series.
        concurrency_budget: The number of series that run at the same time; the first good answer ends all of them.
        requirements: Requirements in addition to those of the call.

    Raises:
        InvalidOption: a budget is less than 1; when it is used: the context forgets.
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
