"""A plot as SVG: lines over sizes, both axes logarithmic.

There is no background, and every colour is of a middle tone: the same picture on light and on dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

__all__ = ["Series", "plot"]

WIDTH, HEIGHT = 760, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 16, 44
GREY = "#808890"
COLOURS = {
    "ours": "#1f8f5f",
    "ours-uvloop": "#5aa02c",
    "ours-trio": "#1c93a8",
    "m8": "#d9622b",
    "m7": "#b5485f",
    "bare": "#8a6fc0",
}


@dataclass(frozen=True)
class Series:
    """One line.

    Args:
        key: Chooses the colour.
        name: Stands at its end.
        points: Size, median, least, greatest.
    """

    key: str
    name: str
    points: Sequence[tuple[float, float, float, float]]


class Axis:
    """A logarithmic axis from one pixel to another."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self.low, self.high = math.log10(min(values)), math.log10(max(values))
        margin = max((self.high - self.low) * 0.06, 0.04)
        self.low, self.high = self.low - margin, self.high + margin
        self.start, self.end = start, end

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Ones of each decade, and twos and fives where that are few."""
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        for steps in ((1,), (1, 2, 5)):
            found = [step * 10.0**d for d in decades for step in steps]
            inside = [value for value in found if self.low <= math.log10(value) <= self.high]
            if len(inside) >= 3:
                break
        return inside


def plot(series: Sequence[Series], y_label: str) -> str:
    """The lines as an SVG document.

    Args:
        series: At least one, with at least one point.
        y_label: What stands beside the vertical axis.
    """
    sizes = sorted({point[0] for line in series for point in line.points})
    x = Axis(sizes, LEFT, WIDTH - RIGHT)
    y = Axis(
        [value for line in series for point in line.points for value in point[1:]],
        HEIGHT - BOTTOM,
        TOP,
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}">',
        f'<g font-family="system-ui, sans-serif" font-size="12" fill="{GREY}">',
    ]
    for value in y.ticks():
        parts += [
            stroke(f"M{LEFT} {y.at(value):.1f}H{WIDTH - RIGHT}", GREY, 'stroke-opacity=".3"'),
            text(LEFT - 8, y.at(value) + 4, short(value), "end"),
        ]
    for size in sizes:
        parts.append(text(x.at(size), HEIGHT - BOTTOM + 20, short(size), "middle"))
    parts.append(text(LEFT - 8, HEIGHT - 8, y_label, "start"))
    labels = spread([y.at(line.points[-1][1]) for line in series])
    for line, label_y in zip(series, labels, strict=True):
        parts += drawn(line, x, y, label_y)
    return "\n".join([*parts, "</g></svg>"]) + "\n"


def drawn(line: Series, x: Axis, y: Axis, label_y: float) -> list[str]:
    colour = COLOURS.get(line.key, GREY)
    path = "L".join(f"{x.at(size):.1f} {y.at(middle):.1f}" for size, middle, _, _ in line.points)
    parts = [stroke(f"M{path}", colour, 'stroke-width="2"')]
    for size, middle, least, most in line.points:
        parts += [
            stroke(f"M{x.at(size):.1f} {y.at(least):.1f}V{y.at(most):.1f}", colour),
            f'<circle cx="{x.at(size):.1f}" cy="{y.at(middle):.1f}" r="3" fill="{colour}"/>',
        ]
    last, middle, _, _ = line.points[-1]
    end = WIDTH - RIGHT + 12
    parts += [
        stroke(
            f"M{x.at(last) + 4:.1f} {y.at(middle):.1f}L{end - 3} {label_y:.1f}",
            colour,
            'stroke-opacity=".5" stroke-dasharray="2 3"',
        ),
        f'<text x="{end}" y="{label_y + 4:.1f}" fill="{colour}">{escape(line.name)}</text>',
    ]
    return parts


def spread(heights: Sequence[float], distance: float = 15) -> list[float]:
    """Where labels stand that want to stand at these heights, so that none covers another."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    placed = list(heights)
    for above, below in pairwise(order):
        placed[below] = max(placed[below], placed[above] + distance)
    overflow = max(0.0, max(placed) - (HEIGHT - BOTTOM))
    return [height - overflow for height in placed]


def stroke(path: str, colour: str, more: str = "") -> str:
    return f'<path d="{path}" fill="none" stroke="{colour}" {more}/>'


def text(x: float, y: float, said: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def short(value: float) -> str:
    if value >= 1000:
        return f"{value / 1000:g} k"
    return f"{value:g}"
