"""All who check one attempt: the requirements, in the parts that they have in it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial

import attrs

from mellea_sc.core.requirement import PartialValidationResult, Requirement
from mellea_sc.runtime.checks.cutter import Cutter
from mellea_sc.runtime.checks.editors import Editor
from mellea_sc.runtime.checks.edits import Edits
from mellea_sc.runtime.checks.lane import Lane
from mellea_sc.runtime.checks.ledger import Ledger
from mellea_sc.runtime.checks.memory import LaneCheckpoint

__all__ = ["Checks"]


@attrs.frozen(kw_only=True)
class Checks:
    """Who checks an attempt, and by what rules.

    Args:
        copies: The copies of the requirements that judge it, in order.
        main: The chunking that the reader sees.
        lanes: For those that judge while it runs.
        editors: For those that edit it before, one after the other.
        edits: What these do.
        ledger: Made for all of them.
        timeout: Seconds for one final validation, where the requirement does not say.
    """

    copies: Sequence[Requirement]
    main: Cutter
    lanes: Sequence[Lane]
    editors: Sequence[Editor]
    edits: Edits
    ledger: Ledger
    timeout: float

    @property
    def requirements(self) -> list[Requirement]:
        """The copies that judge it, in order, as far as they have come."""
        requirements = list(self.copies)
        for lane in self.lanes:
            requirements[lane.index] = lane.requirement
        return requirements

    @property
    def cut_off(self) -> tuple[Requirement, PartialValidationResult] | None:
        """The requirement after whose verdict nothing more could be shown, if that stopped the model."""
        for editor in self.editors:
            if editor.cut_off is not None:
                return self.requirements[editor.lane.index], editor.cut_off
        return None

    def begin(self) -> None:
        """Tell the ledger how far each has judged: of what an attempt begins with, or, without a lane, all of it."""
        judged = {lane.index: lane.memory.judged for lane in self.lanes}
        for index in range(len(self.copies)):
            if index in judged:
                self.ledger.passed(index, judged[index])
            else:
                self.ledger.passed(index, math.inf)

    def checkpoints(self) -> list[Callable[[int], LaneCheckpoint]]:
        """For each requirement, given a position: what it knew about the text up to there; of those that remember."""
        memories = {lane.index: lane.memory for lane in self.lanes}
        return [
            memories[index].known_at if index in memories else partial(_as_it_is, requirement)
            for index, requirement in enumerate(self.requirements)
        ]


def _as_it_is(requirement: Requirement, _: int) -> LaneCheckpoint:
    """What a requirement knows that does not look at running text."""
    return LaneCheckpoint(0, copy.copy(requirement))
