"""From the results to a page: tables, what was reached, plots."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contestants import CONTESTANTS
from benchmarks.plots import Series, plot
from benchmarks.rows import ROWS, Goal, Look, Metric, Row

__all__ = ["write_report"]

HEAD = """# Side by side

Written by `nox -s bench`; [README.md](README.md) says how to read and to repeat it. Every number is the
median of the measurements, each in a process of its own, with the least and the greatest in brackets.

"""


def write_report(results: Mapping[str, Any], out: Path) -> None:
    """Write REPORT.md and its plots."""
    rows = [row for row in ROWS if row.number in results]
    parts = [HEAD, *conditions(results), "## What was to be reached\n", *goals(rows, results)]
    for row in rows:
        parts += row_section(row, results[row.number], out)
    parts += [*soak_section(out), "## Versions\n", *versions(results)]
    (out / "REPORT.md").write_text("\n".join(parts).rstrip() + "\n")
    (out / "SUMMARY.md").write_text(summary(results).rstrip() + "\n")


def conditions(results: Mapping[str, Any]) -> list[str]:
    machines = {tuple(map(str, result["machine"].values())) for result in results.values()}
    lines = [
        f"- Python {python}, {system}, {cpu}, {cores} cores; mellea_sc at `{commit}`"
        for python, system, cpu, cores, commit in sorted(machines)
    ]
    if any(result["quick"] for result in results.values()):
        lines.append("- **Some rows are from a quick run: their sizes are too small to compare.**")
    return [*lines, ""]


# --- numbers -------------------------------------------------------------------------------------


def values(result: Mapping[str, Any], metric: Metric) -> list[float]:
    return [metric.read(run) for run in result.get("runs", ())]


def look_at(row: Row, result: Mapping[str, Any]) -> Look:
    metrics = {metric.name: metric for metric in row.metrics}
    cells = {(cell["group"], cell["label"]): cell["results"] for cell in result["cases"]}

    def find(who: str, group: str, label: str, metric: str) -> float:
        found = values(cells[group, label][who], metrics[metric])
        if not found:
            raise LookupError(who)
        return median(found)

    return Look(find, row.cases)


def number(value: float) -> str:
    """Three digits that mean something."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{value:.3f}"


def cell_text(result: Mapping[str, Any], metric: Metric) -> str:
    if found := values(result, metric):
        least, most = number(min(found)), number(max(found))
        spread = f" ({least} to {most})" if least != most else ""
        return f"{number(median(found))}{spread}"
    if "cannot" in result:
        return f"*{result['cannot']}*"
    return f"**error:** {result.get('error', ['not measured'])[0][:80]}"


# --- the page ------------------------------------------------------------------------------------


def goals(rows: Iterable[Row], results: Mapping[str, Any]) -> list[str]:
    lines = ["| row | to reach | measured | |", "|---|---|---|---|"]
    for row in rows:
        look = look_at(row, results[row.number])
        for goal in row.goals:
            try:
                reached = goal.look(look)
            except LookupError:
                lines.append(f"| {row.number} | {goal.text} | | not measured |")
            else:
                verdict = "reached" if is_reached(goal, reached) else "**missed**"
                lines.append(f"| {row.number} | {goal.text} | {number(reached)} | {verdict} |")
    return [*lines, ""]


def is_reached(goal: Goal, value: float) -> bool:
    return value <= goal.bound if goal.better == "less" else value >= goal.bound


def row_section(row: Row, result: Mapping[str, Any], out: Path) -> list[str]:
    lines = [f"## {row.number}. {row.title}\n"]
    if row.note:
        lines.append(row.note + "\n")
    lines.append(f"Measured {result['started'][:16]} UTC, load {result['load_at_start']:.1f}.\n")
    for group in dict.fromkeys(cell["group"] for cell in result["cases"]):
        cells = [cell for cell in result["cases"] if cell["group"] == group]
        if group:
            lines.append(f"### {group}\n")
        lines += table(row, cells)
        lines += growth_plot(row, cells, out)
    return lines


def table(row: Row, cells: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = [(cell, metric) for metric in row.metrics if metric.shown for cell in cells]
    heads = [heading(cell["label"], metric) for cell, metric in columns]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
    for who in cells[0]["results"]:
        texts = [cell_text(cell["results"][who], metric) for cell, metric in columns]
        if len(set(texts)) == 1 and texts[0].startswith("*"):
            texts[1:] = [""] * (len(texts) - 1)
        lines.append(f"| {CONTESTANTS[who].name} | {' | '.join(texts)} |")
    return [*lines, ""]


def heading(label: str, metric: Metric) -> str:
    unit = f", {metric.unit}" if metric.unit else ""
    arrow = "↑" if metric.better == "more" else "↓"
    return f"{label + ': ' if label else ''}{metric.name}{unit} {arrow}"


def growth_plot(row: Row, cells: Sequence[Mapping[str, Any]], out: Path) -> list[str]:
    metric = next((metric for metric in row.metrics if metric.plotted), None)
    if metric is None or len(cells) < 3:
        return []
    series = []
    for who in cells[0]["results"]:
        points = [
            (cell["size"], median(found), min(found), max(found))
            for cell in cells
            if (found := values(cell["results"][who], metric))
        ]
        if points:
            series.append(Series(who, CONTESTANTS[who].name, points))
    group = cells[0]["group"]
    name = "-".join(f"row {row.number} {group}".replace(",", "").split()) + ".svg"
    (out / "plots").mkdir(exist_ok=True)
    (out / "plots" / name).write_text(plot(series, y_label=f"{metric.unit} {metric.name}"))
    alt = f"{metric.name} of each contestant by size, {group or row.title}"
    return [f"![{alt}](plots/{name})\n"]


def soak_section(out: Path) -> list[str]:
    if not (out / "soak.json").exists():
        return []
    found = json.loads((out / "soak.json").read_text())
    done = (
        f"{found['sessions']} sessions at a time for {found['seconds']:.0f} s on {found['loop']}, with"
        " random cancels, failing checks and faults of the server, over both protocols:"
        f" {found['done']:,} sessions, {found['lost_count']} with another outcome than asked for.\n"
    )
    head = ["| | last fifth in terms of the second | |", "|---|---|---|"]
    lines = ["## Soak\n", done, *head]
    for name, (ratio, is_flat) in found["verdicts"].items():
        lines.append(f"| {name} | {number(ratio)} | {'flat' if is_flat else '**not flat**'} |")
    return [*lines, "", "![Memory, descriptors and throughput over time](plots/soak.svg)\n"]


def summary(results: Mapping[str, Any]) -> str:
    """The block for the project's README: what was to be reached, and where we stand."""
    rows = [row for row in ROWS if row.number in results]
    return "\n".join([*conditions(results)[:1], "", *goals(rows, results)])


def versions(results: Mapping[str, Any]) -> list[str]:
    main = {
        "ours": ("mellea_sc", "anyio", "trio", "uvloop", "httpx", "attrs"),
        "m8": ("mellea", "openai"),
        "m7": ("mellea", "openai"),
        "openai": ("openai", "httpx"),
        "pydantic-ai": ("pydantic-ai-slim", "openai"),
        "agents": ("openai-agents", "openai"),
        "guardrails": ("guardrails-ai", "litellm"),
        "nemo": ("nemoguardrails", "httpx"),
    }
    installed: dict[str, Mapping[str, str]] = {}
    for result in results.values():
        installed |= result["versions"]
    return [
        f"- {CONTESTANTS[who].name}: "
        + ", ".join(f"{name} {installed[who][name]}" for name in names if name in installed[who])
        for who, names in main.items()
        if who in installed
    ]
