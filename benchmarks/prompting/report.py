"""From the answers to a page: a table for each part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["write_report"]

READING = Path(__file__).parent / "reading.md"

HEAD = """# Which words a small model answers best to

Written by `python -m benchmarks.prompting`, on the embedded model at temperature 0, at most {tokens} tokens an
answer; `prompting.json` has every answer. A rule says what is right: the answer has the fact that was asked
for, and does not say a requirement's words or speak of requirements. *Met*: of the answers whose requirements a rule
can check too, those that meet them. *Both*: right, and nothing that a rule can check is not met.

- {model}; Python {python}, {system}, {cpu}, {cores} cores; mellea_sc at `{commit}`; {started} UTC
"""

TITLES = {
    "asking": "A task and its requirements",
    "writing": "The same, where something of two sentences is to be written",
    "system": "What the embedded model is told where a user gives no system prompt",
    "repairing": (
        "Asking again, with the reasons why an answer was rejected (`RepairTemplateStrategy`, "
        "`BacktrackStrategy`)"
    ),
    "turning": "The reasons as the user's next turn (`MultiTurnStrategy`)",
    "going on": "Going on with an answer that has begun (backtracking)",
}
NOTES = {
    "writing": (
        "`Write a two-sentence summary of …`, at most 3 sentences, at most 100 tokens. Right: two or three "
        "sentences, ended, with one of a few words in them that such a text cannot do without.\n"
    ),
    "system": "The questions and the writings of above, with the requirements before the task.\n",
    "repairing": (
        "The requirements are said as the library says them. Right is here, too: no word about answers, mistakes "
        "or apologies, and none of the reason's.\n"
    ),
    "turning": "Right: as above.\n",
    "going on": (
        "Right: at least four words come, no five words in a row of the beginning again, no word about answers or "
        "going on; and a sentence that has begun is gone on with, in small letters. *Rest*: right, where a "
        "beginning that is repeated to the letter is taken away.\n"
    ),
}


def write_report(results: Mapping[str, Any], out: Path) -> None:
    """Write PROMPTING.md."""
    machine = results["machine"]
    parts = [
        HEAD.format(
            tokens=results["tokens"],
            model=results["model"],
            started=results["started"][:16],
            **{name: machine[name] for name in ("python", "system", "cpu", "cores", "commit")},
        )
    ]
    if READING.exists():
        parts += ["## Reading\n", READING.read_text()]
    for name, title in TITLES.items():
        if rows := results.get(name):
            parts += [f"## {title}\n", *([NOTES[name]] if name in NOTES else []), *_table(rows)]
    (out / "PROMPTING.md").write_text("\n".join(parts).rstrip() + "\n")


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = _going_on if "rest" in rows[0] else _answered
    by = {
        name: columns([row for row in rows if row["wording"] == name])
        for name in dict.fromkeys(row["wording"] for row in rows)
    }
    heads = list(next(iter(by.values())))
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cells.values())} |" for name, cells in by.items()]
    return [*lines, ""]


def _answered(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    checked = [row for row in rows if row["met"] is not None]
    words = sum(len(row["said"].split()) for row in rows)
    return {
        "right": _share(rows, lambda row: row["right"]),
        "met": _share(checked, lambda row: row["met"]),
        "both": _share(rows, lambda row: row["right"] and row["met"] is not False),
        "words, mean": f"{words / len(rows):.0f}",
    }


def _going_on(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {
        f"{which} {where}": _share(
            [r for r in rows if r["where"] == where], lambda r, key=key: r[key]
        )
        for which, key in (("right", "right"), ("rest", "rest"))
        for where in ("after a sentence", "in a sentence")
    }


def _share(rows: Sequence[Mapping[str, Any]], holds: Callable[[Mapping[str, Any]], Any]) -> str:
    return f"{sum(bool(holds(row)) for row in rows)}/{len(rows)}"
