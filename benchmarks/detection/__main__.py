"""``python -m benchmarks.detection``: measure, and write the tables into ``docs/guide/detection.md``."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from benchmarks.detection.labelled import Counts, count, is_held_out, lines
from benchmarks.detection.prose import held_back

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "detection.md"


def main() -> None:
    for name, table in (("found", found_table()), ("held back", held_table())):
        print(f"\n{table}")
        said = GUIDE.read_text(encoding="utf-8")
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        GUIDE.write_text(block.sub(lambda m, t=table: f"{m[1]}{t}\n{m[2]}", said), encoding="utf-8")


def found_table() -> str:
    counts: defaultdict[str, tuple[Counts, Counts]] = defaultdict(lambda: (Counts(), Counts()))
    numbered = list(enumerate(lines()))
    for (number, _), (line, spans) in zip(numbered, count(numbered), strict=True):
        script = "Latin script" if line.script == "latin" else "other scripts"
        for group in ("all", line.domain, script):
            counts[group][is_held_out(number)].add(line, spans)
    rows = ["all", "prose", "table", "log", "code", "markdown", "Latin script", "other scripts"]
    said = [
        "| | things | recall | precision | held out: things | recall | precision |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = [f"{one.things} | {one.recall:.3f} | {one.precision:.3f}" for one in counts[row]]
        said.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(said)


def held_table() -> str:
    held = held_back()
    names = list(next(iter(held.values())))
    said = ["| | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    for text, by in held.items():
        said.append(f"| {text} | {' | '.join(f'{by[n].median}, {by[n].most}' for n in names)} |")
    return "\n".join(said)


if __name__ == "__main__":
    main()
