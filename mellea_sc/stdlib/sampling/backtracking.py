"""Keep what is good and go on from there; and let every requirement say what follows its fail."""

from __future__ import annotations

from collections.abc import Sequence

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.requirement import OnFail, Requirement
from mellea_sc.stdlib.components.feedback import WithFeedback
from mellea_sc.stdlib.sampling.planned import Ask, AttemptResult, Choice, Once, PlannedStrategy
from mellea_sc.stdlib.sampling.repairing import RepairTemplateStrategy, check_count

__all__ = ["BacktrackStrategy", "ByRequirement"]


class BacktrackStrategy(PlannedStrategy):
    """Keeps the chunks before the one that failed, and has the model go on from there.

    When a position has had its tries, the next attempt begins a chunk further back, but never before
    text that a reader has been shown: so nothing is ever retracted. Further back than the beginning
    is nothing: from there it is asked anew, as long as the budget lasts. So is a text that fails only its
    final validation, if nothing of it was shown.

    Args:
        tries: How often at each position but the beginning.
        budget: How many attempts at most, over all.
        feedback: Whether the reason of a fail goes into the prompt of the next attempt. Without it a
            model needs a temperature above 0 to answer otherwise than before.
        requirements: What must hold, besides what the call says.

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
        requirements: Sequence[Requirement] | None = None,
    ) -> None:
        check_count("tries", tries)
        check_count("budget", budget)
        self.tries = tries
        self.budget = budget
        self.feedback = feedback
        self.requirements: list[Requirement] = list(requirements or ())

    @property
    def own_requirements(self) -> Sequence[Requirement]:
        """The strategy's own."""
        return self.requirements

    def begin(self, action: Component | Span, context: Context) -> Sequence[Ask]:
        """One attempt."""
        return [Ask(action=action, context=context)]

    def after(self, past: Sequence[AttemptResult], running: int) -> Sequence[Ask] | Choice:
        """The rest of the text anew, from the last good position that has tries left."""
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
                reason="; ".join(last.reasons),
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


class ByRequirement(PlannedStrategy):
    """What a requirement says of its fail goes before what the strategy would do.

    Args:
        strategy: Decides where requirements do not; ``None``: one attempt.
        requirements: What is judged.
    """

    def __init__(
        self, strategy: PlannedStrategy | None, requirements: Sequence[Requirement]
    ) -> None:
        said = {requirement.on_fail for requirement in requirements}
        self._strategy = strategy or Once()
        self._anew: PlannedStrategy = RepairTemplateStrategy(loop_budget=2)
        self._back: PlannedStrategy = BacktrackStrategy()
        if strategy is not None:
            if strategy.goes_on:
                self._back = strategy
            else:
                self._anew = strategy
        self.concurrent: bool = self._strategy.concurrent
        self.weighs: bool = self._strategy.weighs
        self.goes_on: bool = self._strategy.goes_on or "backtrack" in said
        self.asks_anew: bool = self._strategy.asks_anew or "retry" in said

    def begin(self, action: Component | Span, context: Context) -> Sequence[Ask]:
        """As the strategy."""
        return self._strategy.begin(action, context)

    def after(self, past: Sequence[AttemptResult], running: int) -> Sequence[Ask] | Choice:
        """As the requirements say that have failed, the strictest first; else as the strategy."""
        last = past[-1]
        said: set[OnFail | None] = {requirement.on_fail for requirement, _ in last.rejected}
        if "stop" in said:
            return Choice(last.number, False)
        if "retry" in said:
            return self._anew.after(past, running)
        if "backtrack" in said:
            return self._back.after(past, running)
        return self._strategy.after(past, running)

    async def weigh(self, result: AttemptResult, backend: Backend) -> float | None:
        """As the strategy."""
        return await self._strategy.weigh(result, backend)
