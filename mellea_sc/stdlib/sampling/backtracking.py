"""Keep what is good, and go on from there."""

from __future__ import annotations

from collections.abc import Sequence

from mellea_sc.core.requirement import Requirement
from mellea_sc.stdlib.sampling.by_requirement import Backtracking
from mellea_sc.stdlib.sampling.planned import PlannedStrategy

__all__ = ["BacktrackStrategy"]


class BacktrackStrategy(Backtracking, PlannedStrategy):
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
