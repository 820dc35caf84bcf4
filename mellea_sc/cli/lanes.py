"""Shows a run's lanes as lines: one for each requirement, with its verdicts and the reason of a fail.

Imports rich; imported when a run is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mellea_sc.cli.lines import hanging
from mellea_sc.core.plain_text import harmless
from mellea_sc.stdlib.streaming.events import (
    FullValidationEvent,
    QuickCheckEvent,
    RetryEvent,
    StreamEvent,
)

__all__ = ["LaneView"]

LABEL: Final = 36
"""Columns of a requirement's name."""
VERDICTS: Final = 24
"""The number of last verdicts that are shown; fewer on a narrow terminal."""
FEW: Final = 8
"""Verdicts that a narrow terminal keeps room for."""
MARKS: Final = {"unknown": "·", "pass": "✓", "fail": "✗", "again": "↻"}
ASCII_MARKS: Final = {"unknown": ".", "pass": "+", "fail": "x", "again": "|"}
MEANINGS: Final = {
    "unknown": "open",
    "pass": "passed",
    "fail": "failed",
    "again": "another attempt",
}
STYLES: Final = {"unknown": "dim", "pass": "green", "fail": "bold red", "again": "yellow"}


@attrs.define(eq=False)
class _Lane:
    label: str
    verdicts: list[str] = attrs.field(factory=list[str])
    final: str | None = None
    why: str | None = None

    @property
    def state(self) -> str:
        """The lane's verdict on the last attempt."""
        begun = len(self.verdicts)
        while begun and self.verdicts[begun - 1] != "again":
            begun -= 1
        return "fail" if "fail" in self.verdicts[begun:] else self.final or "unknown"


class LaneView:
    """The verdicts of a run's lanes so far.

    Args:
        labels: The requirements' names, in their order.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._lanes = [_Lane(label) for label in labels]

    def add(self, event: StreamEvent) -> None:
        """Process an event."""
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

    def lines(self, console: Console) -> Iterator[Text]:
        """A line for each requirement with its verdicts, more lines if its reason is long, and a legend."""
        if not self._lanes:
            return
        marks = ASCII_MARKS if console.options.ascii_only else MARKS
        labels = max(cell_len(_in_a_line(lane.label)) for lane in self._lanes)
        room = console.width - len("  ✓   ") if console.is_terminal else LABEL + VERDICTS
        width = max(min(LABEL, labels, room - FEW), 1)
        verdicts = max(min(VERDICTS, room - width), 1)
        for lane in self._lanes:
            yield from _lines_of(lane, console, marks, width, verdicts)
        if any(lane.verdicts for lane in self._lanes):
            yield from hanging(console, "  ", "  ", self._legend(marks))

    def _legend(self, marks: dict[str, str]) -> Text:
        seen = {mark for lane in self._lanes for mark in [lane.state, *lane.verdicts]}
        said = [f"{marks[mark]} {meaning}" for mark, meaning in MEANINGS.items() if mark in seen]
        return Text(f"one mark for each chunk: {', '.join(said)}", "dim")


def _because(where: str, reason: str | None) -> str:
    return where if reason is None else f"{where}: {reason}"


def _in_a_line(text: str) -> str:
    return " ".join(harmless(text).split())


def _lines_of(
    lane: _Lane, console: Console, marks: dict[str, str], width: int, verdicts: int
) -> Iterator[Text]:
    line = Text("  ").append(f"{marks[lane.state]} ", STYLES[lane.state])
    label = Text(_in_a_line(lane.label))
    label.truncate(width, overflow="ellipsis", pad=True)
    line.append_text(label).append("  ")
    for verdict in lane.verdicts[-verdicts:]:
        line.append(marks[verdict], STYLES[verdict])
    why = Text("" if lane.why is None else _in_a_line(lane.why), "red")
    if not console.is_terminal or line.cell_len + 2 + why.cell_len <= console.width:
        yield line.append_text(Text("  ").append_text(why)) if why else line
        return
    yield line
    yield from hanging(console, "      ", "      ", why)
