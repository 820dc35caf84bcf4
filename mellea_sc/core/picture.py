"""Values as HTML: a trace as a timeline, a text with a line about it, verdicts as a table.

Pure text work. Text takes the page's own colour (``currentColor``). The colours of bars can be distinguished on light
and on dark pages, and carry no information alone: each row also says its outcome in words.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from mellea_sc.core.trace import Trace

WIDTH: Final = 900
NAMES: Final = 330
"""Pixels for the names, left of the time axis."""
ROW: Final = 24
CHARACTERS: Final = 46
"""How much of a name is shown; the tooltip has all of it."""

MARKS: Final = {"unknown": "·", "pass": "✓", "fail": "✗"}
"""Marks before the words of verdicts."""
_TONES: Final = {
    **dict.fromkeys(("accepted", "answered"), "#2f9e63"),
    **dict.fromkeys(("rejected", "failed", "stopped", "aborted"), "#d9534a"),
    "cancelled": "#8a8f98",
}
_OTHER: Final = "#4a86d8"


@attrs.frozen
class _Row:
    trace: Trace
    depth: int


def svg_of(trace: Trace) -> str:
    """A trace as a picture: one row for each node, bars on a time axis, a mark where something was stopped."""
    rows = list(_rows(trace, 0))
    end = max([row.trace.ended for row in rows] + [1e-3])
    height = ROW * (len(rows) + 1) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" fill="currentColor"',
        f' style="width:100%;max-width:{WIDTH}px" font-family="system-ui,sans-serif" font-size="12">',
        f"<title>{html.escape(str(trace))}</title>",
        *_axis(end, height),
        *(part for number, row in enumerate(rows) for part in _bar(row, number, end)),
        "</svg>",
    ]
    return "".join(parts)


def _rows(trace: Trace, depth: int) -> Iterator[_Row]:
    yield _Row(trace, depth)
    for child in trace.children:
        yield from _rows(child, depth + 1)


def _axis(end: float, height: int) -> Iterator[str]:
    for second in _ticks(end):
        x = _x(second, end)
        yield f'<line x1="{x}" x2="{x}" y1="{ROW}" y2="{height}" stroke="currentColor" opacity="0.15"/>'
        yield f'<text x="{x}" y="16" text-anchor="middle" opacity="0.7">{second:g} s</text>'


def _ticks(end: float) -> Sequence[float]:
    """Round times, four to ten of them."""
    step = 10.0 ** math.floor(math.log10(end))
    while end / step < 4:
        step /= 2 if f"{step:e}"[0] in "12" else 2.5
    return [round(number * step, 9) for number in range(int(end / step + 1e-9) + 1)]


def _x(second: float, end: float) -> float:
    return round(NAMES + (WIDTH - NAMES - 30) * second / end, 1)


def _bar(row: _Row, number: int, end: float) -> Iterator[str]:
    trace, top = row.trace, ROW * (number + 1)
    begin = _x(trace.began, end)
    width = max(2.0, round(_x(trace.ended, end) - begin, 1))
    tone = _TONES.get(trace.outcome, _OTHER)
    name = f"{trace.what}: {trace.outcome}"
    room = CHARACTERS - 2 * row.depth
    shown = (
        name
        if len(name) <= room
        else f"{trace.what[: room - len(trace.outcome) - 3]}…: {trace.outcome}"
    )
    yield f"<g><title>{html.escape(_tooltip(trace))}</title>"
    yield f'<rect x="0" y="{top}" width="{WIDTH}" height="{ROW}" opacity="0"/>'
    yield f'<text x="{4 + 14 * row.depth}" y="{top + 16}">{html.escape(shown)}</text>'
    yield f'<rect x="{begin}" y="{top + 5}" width="{width}" height="{ROW - 10}" rx="3" fill="{tone}" fill-opacity="0.8"/>'
    if trace.cause is not None and trace.outcome != "accepted":
        x = _x(trace.ended if trace.cause.at is None else trace.cause.at, end)
        yield f'<text x="{x}" y="{top + 17}" text-anchor="middle" font-size="15" stroke-width="0.5">✕</text>'
    yield "</g>"


def _tooltip(trace: Trace) -> str:
    said = (
        f"{trace.what}: {trace.outcome}, {trace.began:.2f} s to {trace.ended:.2f} s, {trace.tokens}"
    )
    return said if trace.cause is None else f"{said}\nbecause of {trace.cause}"


def text_of_answer(text: str, note: str) -> str:
    """A text, and a line about it below."""
    shown = f'<div style="white-space:pre-wrap;overflow-wrap:anywhere">{html.escape(text)}</div>'
    return shown + aside(html.escape(note))


def aside(content: str) -> str:
    """A line of HTML in smaller and fainter print."""
    return f'<div style="opacity:0.7;font-size:85%;white-space:pre-wrap;overflow-wrap:anywhere">{content}</div>'


def table_of(verdicts: Sequence[tuple[str, str, str | None]]) -> str:
    """A table of requirements with their verdicts and reasons; empty if there are none."""

    def line(kind: str, *cells: str) -> str:
        style = "text-align:left;padding:2px 8px"
        each = "".join(f'<{kind} style="{style}">{html.escape(cell)}</{kind}>' for cell in cells)
        return f"<tr>{each}</tr>"

    if not verdicts:
        return ""
    rows = "".join(
        line("td", what, f"{MARKS.get(verdict, '')} {verdict}".strip(), reason or "")
        for what, verdict, reason in verdicts
    )
    return f"<table>{line('th', 'requirement', 'verdict', 'reason')}{rows}</table>"
