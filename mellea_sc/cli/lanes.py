"""A run's lanes in lines for people: one for each requirement, with its verdicts and why it failed.

Imports rich; imported when a run is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from mellea_sc.core.plain_text import harmless
from mellea_sc.runtime.thunk import GenerationInfo
from mellea_sc.stdlib.events import FullValidationEvent, QuickCheckEvent, RetryEvent, StreamEvent
from mellea_sc.stdlib.stream_result import StreamChunkingResult

__all__ = ["LaneView", "outcome_of", "told_of"]

LABEL: Final = 36
"""Columns of a requirement's name."""
VERDICTS: Final = 24
"""How many of the last verdicts are shown."""
MARKS: Final = {"unknown": "·", "pass": "✓", "fail": "✗", "again": "↻"}
ASCII_MARKS: Final = {"unknown": ".", "pass": "+", "fail": "x", "again": "|"}
STYLES: Final = {"unknown": "dim", "pass": "green", "fail": "bold red", "again": "yellow"}


@attrs.define(eq=False)
class _Lane:
    label: str
    verdicts: list[str] = attrs.field(factory=list[str])
    final: str | None = None
    why: str | None = None

    @property
    def state(self) -> str:
        """What the lane makes of the last attempt."""
        begun = len(self.verdicts)
        while begun and self.verdicts[begun - 1] != "again":
            begun -= 1
        return "fail" if "fail" in self.verdicts[begun:] else self.final or "unknown"


class LaneView:
    """What is known of a run's lanes.

    Args:
        labels: The requirements' names, in their order.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._lanes = [_Lane(label) for label in labels]

    def add(self, event: StreamEvent) -> None:
        """Take what an event tells."""
        match event:
            case QuickCheckEvent():
                for lane, verdict in zip(self._lanes, event.results, strict=True):
                    lane.verdicts.append(verdict.success)
                    if verdict.success == "fail":
                        lane.why = _because(f"chunk {event.chunk_index}", verdict.reason)
            case RetryEvent():
                for lane in self._lanes:
                    lane.verdicts.append("again")
                    lane.final = lane.why = None
            case FullValidationEvent():
                for lane, final in zip(self._lanes, event.results, strict=True):
                    lane.final = "pass" if final else "fail"
                    lane.why = _because("the whole text", final.reason) if not final else None
            case _:
                pass

    def lines(self, *, ascii_only: bool) -> list[Text]:
        """One line for each requirement."""
        marks = ASCII_MARKS if ascii_only else MARKS
        width = min(LABEL, max((cell_len(lane.label) for lane in self._lanes), default=0))
        return [_line(lane, width, marks) for lane in self._lanes]


def _because(where: str, reason: str | None) -> str:
    return where if reason is None else f"{where}: {reason}"


def _line(lane: _Lane, width: int, marks: dict[str, str]) -> Text:
    line = Text("  ", no_wrap=True, overflow="ellipsis")
    line.append(f"{marks[lane.state]} ", STYLES[lane.state])
    line.append(set_cell_size(" ".join(harmless(lane.label).split()), width))
    line.append("  ")
    for verdict in lane.verdicts[-VERDICTS:]:
        line.append(marks[verdict], STYLES[verdict])
    if lane.why is not None:
        line.append(f"  {' '.join(harmless(lane.why).split())}", "red")
    return line


def outcome_of(result: StreamChunkingResult) -> tuple[str, str]:
    """How a run has ended, in words, and the style of the words."""
    if result.error is not None:
        return "ended by an error", "bold red"
    if result.cancelled:
        return "interrupted", "bold yellow"
    if not result.completed:
        return "stopped by a failed check", "bold red"
    if not all(result.final_validations):
        return "failed at the end", "bold red"
    return "valid" if result.final_validations else "complete", "bold green"


def told_of(generation: GenerationInfo) -> list[str]:
    """Tokens, times and the rest, as far as they are known."""
    said: list[str] = []
    if (usage := generation.usage) is not None:
        said.append(f"{usage.prompt_tokens} prompt + {usage.completion_tokens} answer tokens")
    if generation.time_to_first_token is not None:
        said.append(f"first after {generation.time_to_first_token:.2f} s")
    if generation.total_time is not None:
        said.append(f"{generation.total_time:.2f} s in all")
    if generation.finish_reason is not None:
        said.append(f"finish reason {harmless(generation.finish_reason)}")
    if generation.model:
        said.append(f"{harmless(generation.model)} ({generation.provider})")
    return said
