"""The plans for requirements with ``on_fail``, and the one that backtracks."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.requirement import OnFail
from mellea_sc.stdlib.components.feedback import WithFeedback
from mellea_sc.stdlib.sampling.plan import Ask, AttemptResult, Choice, Once, Plan, check_count

__all__ = ["Backtracking", "ByRequirement", "RetryOnce"]


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


class Backtracking(Plan):
    """Keeps the chunks before the one that failed, and continues from there.

    Args:
        tries: The number of attempts at each position, except the beginning.
        budget: The maximum number of attempts in all.
        feedback: Whether the reason of a fail goes into the prompt of the next attempt.

    Raises:
        InvalidOption: a number is less than 1.
    """

    goes_on = True
    asks_anew = False

    def __init__(self, *, tries: int = 2, budget: int = 8, feedback: bool = True) -> None:
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
        self._back: Plan = plan if plan.goes_on else Backtracking()
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
