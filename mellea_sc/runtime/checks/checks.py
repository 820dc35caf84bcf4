"""The lanes, the editors and the ledger of one attempt."""

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
    """The parts that check one attempt.

    Args:
        copies: The copies of the requirements, in order.
        main: The chunking that the reader sees.
        lanes: One for each requirement that validates running text.
        editors: The chain of editors that the text passes before; several for each requirement that edits.
        edits: Records the edits.
        ledger: Has one lane for each requirement, whether or not it validates running text.
        timeout: Seconds that one final validation may take, unless the requirement has its own timeout.
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
        """The copies of the requirements that validate it now, in order."""
        requirements = list(self.copies)
        for lane in self.lanes:
            requirements[lane.index] = lane.requirement
        return requirements

    @property
    def cut_off(self) -> tuple[Requirement, PartialValidationResult] | None:
        """The requirement that has cut the text off, if one has, with its verdict."""
        for editor in self.editors:
            if editor.cut_off is not None:
                return self.requirements[editor.lane.index], editor.cut_off
        return None

    def begin(self) -> None:
        """Tell the ledger how far the kept text is validated, and which requirements do not validate running text."""
        judged = {lane.index: lane.memory.judged for lane in self.lanes}
        for index in range(len(self.copies)):
            if index in judged:
                self.ledger.passed(index, judged[index])
            else:
                self.ledger.passed(index, math.inf)

    def close(self) -> None:
        """Close the lanes, and those of the editors."""
        for lane in self.lanes:
            lane.close()
        for editor in self.editors:
            editor.lane.close()

    def checkpoints(self) -> list[Callable[[int], LaneCheckpoint]]:
        """For each requirement, a function from a position to what the requirement knew there.

        Only for an attempt that remembers.
        """
        memories = {lane.index: lane.memory for lane in self.lanes}
        return [
            memories[index].known_at if index in memories else partial(_as_it_is, requirement)
            for index, requirement in enumerate(self.requirements)
        ]


def _as_it_is(requirement: Requirement, _: int) -> LaneCheckpoint:
    """The checkpoint of a requirement that does not validate running text."""
    return LaneCheckpoint(0, copy.copy(requirement))
