"""From the runs to a page: a table over all, one for each kind of requirement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["write_report"]

BASE = "whole attempts"
READING = Path(__file__).parent / "reading.md"

HEAD = """# What strategies cost

Written by `python -m benchmarks.strategies` (or `nox -s strategies`), on the embedded model: how many
tokens it generates, over all attempts, until an answer meets its requirement or the budget is spent.

- **The same budget** means: at most {budget} generations, each of at most {max_tokens} tokens; so the most that a call
  can cost is the same for all. An attempt that ends early costs less, and still counts as one: with the tokens
  of whole attempts there could be more of them.
- *whole attempts*: generates to the end, judges, asks the same again, as others do. *early abort*:
  `RejectionSamplingStrategy`; *repair*: `RepairTemplateStrategy`; *backtrack*: `BacktrackStrategy`; *race of n*: `RacingStrategy(n)`.
- Every prompt has a seed, and every further attempt the next one: the first attempt of whole attempts and that
  of early abort are the same text.
- Every answer has to have at least {least} words too, known at its end only: or a model that answers with
  one sentence of apology would be valid.
- Tokens: as the server says; of an aborted attempt as many as were received. *per valid answer*: all tokens,
  those of runs that stayed without a valid answer too, by the number of valid answers.
- Seconds: of the runs that ended valid; one run at a time on a machine that has other work, so noisy.
"""


def write_report(results: Mapping[str, Any], out: Path) -> None:
    """Write STRATEGIES.md."""
    runs: Sequence[Mapping[str, Any]] = results["runs"]
    machine, settings = results["machine"], results["settings"]
    parts = [
        HEAD.format(**settings),
        (
            f"- {settings['model']} at temperature {settings['temperature']}; Python {machine['python']}, "
            f"{machine['system']}, {machine['cpu']}, {machine['cores']} cores; mellea_sc at "
            f"`{machine['commit']}`; {results['started'][:16]} UTC, load {results['load_at_start']:.1f}\n"
        ),
        f"## Over all {len({run['seed'] for run in runs})} prompts\n",
        *table(runs),
    ]
    hard = {run["seed"] for run in runs if run["strategy"] == BASE and run["attempts"] > 1}
    if hard:
        parts += [
            f"## Over the {len(hard)} of them whose first attempt is not valid\n",
            *table([run for run in runs if run["seed"] in hard]),
        ]
    unfilled = out / "strategies-no-prefill.json"
    if unfilled.exists():
        parts += _without_prefill(json.loads(unfilled.read_text()))
    if READING.exists():
        parts += ["## Reading\n", READING.read_text()]
    for kind in dict.fromkeys(run["kind"] for run in runs):
        parts += [
            f"## {kind[0].upper()}{kind[1:]}\n",
            *table([r for r in runs if r["kind"] == kind]),
        ]
    (out / "STRATEGIES.md").write_text("\n".join(parts).rstrip() + "\n")


def _without_prefill(results: Mapping[str, Any]) -> list[str]:
    runs, machine = results["runs"], results["machine"]
    return [
        "## Where a server cannot prefill\n",
        (
            f"Over {len({run['seed'] for run in runs})} of the prompts, in a run of its own (mellea_sc at "
            f"`{machine['commit']}`; {results['started'][:16]} UTC, load {results['load_at_start']:.1f}). *No prefill*: "
            "the model is asked to go on with what it has said, as most hosted servers have to be.\n"
        ),
        *table(runs),
    ]


def table(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each strategy."""
    lines = [
        (
            "| | tokens, median | of whole attempts | tokens, mean | of whole attempts "
            "| tokens per valid answer | seconds, median | attempts, mean | valid |"
        ),
        "|---" * 9 + "|",
    ]
    by = {
        name: [run for run in runs if run["strategy"] == name]
        for name in dict.fromkeys(run["strategy"] for run in runs)
    }
    base = [run["tokens"] for run in by.get(BASE, ())]
    for name, mine in by.items():
        tokens = [run["tokens"] for run in mine]
        good = [run for run in mine if run["valid"]]
        middle, mean = median(tokens), sum(tokens) / len(tokens)
        shares = (
            [f"{middle / median(base):.0%}", f"{mean * len(base) / sum(base):.0%}"]
            if base
            else ["", ""]
        )
        cells = [
            name,
            f"{middle:.0f}",
            shares[0],
            f"{mean:.0f}",
            shares[1],
            f"{sum(tokens) / len(good):.0f}" if good else "",
            f"{median(run['seconds'] for run in good):.1f}" if good else "",
            f"{sum(run['attempts'] for run in mine) / len(mine):.1f}",
            f"{len(good)}/{len(mine)}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]
