"""A strategy that keeps the good part of an answer and continues from there."""

from __future__ import annotations

from collections.abc import Sequence

from mellea_sc.core.requirement import Requirement
from mellea_sc.stdlib.sampling.by_requirement import Backtracking
from mellea_sc.stdlib.sampling.planned import PlannedStrategy

__all__ = ["BacktrackStrategy"]


class BacktrackStrategy(Backtracking, PlannedStrategy):
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

    def __init__(
        self,
        *,
        tries: int = 2,
        budget: int = 8,
        feedback: bool = True,
        requirements: Sequence[Requirement | str] | None = None,
    ) -> None:
        Backtracking.__init__(self, tries=tries, budget=budget, feedback=feedback)
        PlannedStrategy.__init__(self, requirements)
