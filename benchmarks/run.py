"""The harness: every measurement in a fresh child process, the contestants one after another, in rounds.

A contestant that would take longer than ``--limit`` seconds for one measurement, as its times at smaller
sizes predict, is left out there; the report says so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.contestants import CONTESTANTS, PROJECT, Environments, clean_environment
from benchmarks.report import write_report
from benchmarks.results_file import write_results
from benchmarks.rows import ROWS, Case, Row

__all__ = ["main"]

CHILD = Path(__file__).parent / "child.py"
EXPONENTS = 1.0, 2.2
"""How time may be expected to grow with the size: by the least where only one size is known."""


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    environments = Environments(given.environments)
    given.out.mkdir(parents=True, exist_ok=True)
    results = given.out / "results.json"
    known = json.loads(results.read_text()) if results.exists() else {}
    wanted = given.rows.split(",") if given.rows else [row.number for row in ROWS]
    for row in ROWS:
        if row.number in wanted:
            measured = measure_row(row, environments, given)
            known[row.number] = {"machine": machine(), **measured}
            write_results(results, known)
            write_report(known, given.out)
    print(f"written: {given.out / 'REPORT.md'}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--rows", help="numbers of rows, with commas; all by default")
    add("--repeat", type=int, default=5, help="measurements of each cell")
    add("--quick", action="store_true", help="small sizes, to try the harness itself")
    add("--limit", type=float, default=45.0, help="seconds that one measurement may take")
    add("--contestants", help="keys, with commas; all by default")
    add(
        "--environments",
        type=Path,
        default=PROJECT / ".nox" / "benchmarks",
        help="where the virtual environments are kept",
    )
    add("--out", type=Path, default=Path(__file__).parent, help="where the results go")
    return parser.parse_args(arguments)


def measure_row(
    row: Row, environments: Environments, given: argparse.Namespace
) -> dict[str, object]:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    load = os.getloadavg()[0]
    chosen = given.contestants.split(",") if given.contestants else row.contestants
    names = [name for name in row.contestants if name in chosen]
    inventories = {name: environments.inventory(CONTESTANTS[name]) for name in names}
    cases = row.quick if given.quick and row.quick else row.cases
    cells: list[dict[str, Any]] = []
    for case in cases:
        smaller = [c for c in cells if c["group"] == case.group and c["size"]]
        cell = {
            "label": case.label,
            "group": case.group,
            "size": case.size,
            "results": measure_case(row, case, names, smaller, environments, given),
        }
        if row.number == "9":
            add_inventory(cell["results"], inventories)
        cells.append(cell)
    return {
        "started": started,
        "quick": given.quick,
        "repeat": given.repeat,
        "load_at_start": load,
        "versions": {name: inventories[name]["versions"] for name in names},
        "cases": cells,
    }


def measure_case(
    row: Row,
    case: Case,
    names: Iterable[str],
    smaller: Sequence[Mapping[str, Any]],
    environments: Environments,
    given: argparse.Namespace,
) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    asked = list(names)
    for name in names:
        if (expected := predicted(name, case, smaller)) > given.limit:
            results[name] = {"cannot": why_not(name, expected, smaller)}
            asked.remove(name)
    spent = dict.fromkeys(asked, 0.0)
    for turn in range(given.repeat):
        for name in list(asked):
            print(f"{row.number:>3} {case.group} {case.label} {name} {turn + 1}", flush=True)
            begun = time.monotonic()
            answer = measure(name, row.work, case, environments, given.limit)
            spent[name] += time.monotonic() - begun
            if "measured" in answer:
                results.setdefault(name, {"runs": []}).setdefault("runs", []).append(
                    answer["measured"]
                )
            else:
                results.setdefault(name, {}).update(answer)
            if "measured" not in answer or spent[name] > given.limit:
                asked.remove(name)
    return {name: results[name] for name in names}


def why_not(name: str, expected: float, smaller: Sequence[Mapping[str, Any]]) -> str:
    """Why a measurement is not made: what kept the contestant from a smaller one, or how long it would take."""
    if math.isfinite(expected):
        return f"left out, about {expected:.0f} s each"
    reasons = (cell["results"].get(name, {}).get("cannot") for cell in smaller)
    return next((str(reason) for reason in reasons if reason), "left out")


def predicted(name: str, case: Case, smaller: Sequence[Mapping[str, Any]]) -> float:
    """Seconds that a measurement will take, by those of smaller sizes."""
    known: list[tuple[float, float]] = []
    for cell in smaller:
        result = cell["results"].get(name, {})
        if "cannot" in result:
            return math.inf
        if runs := result.get("runs"):
            known.append((cell["size"], min(run.get("seconds", 0.0) for run in runs)))
    if not known or case.size is None:
        return 0.0
    size, seconds = known[-1]
    least, most = EXPONENTS
    exponent = least
    if len(known) > 1:
        before, earlier = known[-2]
        seen = math.log(seconds / earlier) / math.log(size / before)
        exponent = min(max(seen, least), most)
    return seconds * (case.size / size) ** exponent


def measure(
    name: str, work: str, case: Case, environments: Environments, limit: float
) -> dict[str, Any]:
    """One measurement in a process of its own."""
    contestant = CONTESTANTS[name]
    job = {
        "adapter": contestant.adapter,
        "loop": contestant.loop,
        "work": work,
        "args": dict(case.args),
    }
    command = [str(environments.python(contestant)), str(CHILD), json.dumps(job)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=4 * limit,
            env=clean_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"cannot": f"stopped after {4 * limit:g} s"}
    if done.returncode != 0:
        return {"error": done.stderr.strip().splitlines()[-1:] or ["it was killed"]}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def add_inventory(
    results: Mapping[str, dict[str, Any]], inventories: Mapping[str, Mapping[str, Any]]
) -> None:
    for name, result in results.items():
        for run in result.get("runs", ()):
            run["distributions"] = len(inventories[name]["versions"])
            run["installed"] = inventories[name]["bytes"]


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    git = ["git", "-C", str(PROJECT)]
    commit = subprocess.run(
        [*git, "describe", "--always", "--dirty", "--abbrev=10"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu,
        "cores": os.cpu_count(),
        "commit": commit.stdout.strip(),
    }
