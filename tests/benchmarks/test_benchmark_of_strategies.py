"""The harness that measures strategies runs, and counts what the model gave; the model is scripted."""

from __future__ import annotations

from pathlib import Path

import pytest

from mellea_sc.core.backend import GenerationRequest
from mellea_sc.testing.scripted import Script, ScriptedBackend

strategies_run = pytest.importorskip("benchmarks.strategies.run", reason="only in a checkout")

BAD = "It began well enough. Then 12 men came in, and they stayed for all of the evening."
GOOD = "It began well enough. " + "Then nobody came in at all. " * 6


def backend() -> ScriptedBackend:
    """Good answers to those who ask a third time, or go on from a good beginning."""
    asked = 0

    def answer(request: GenerationRequest) -> Script:
        nonlocal asked
        asked += 1
        if request.messages[-1].role == "assistant":
            return Script(GOOD.partition(". ")[2])
        return Script(GOOD if asked % 3 == 0 else BAD)

    return ScriptedBackend(answer)


@pytest.mark.anyio
async def test_tokens_are_counted_over_all_attempts() -> None:
    task = strategies_run.TASKS[0]
    for name in strategies_run.STRATEGIES:
        [run] = await strategies_run.measure_all(backend(), [task], [name])
        assert run["valid"], name
        assert run["tokens"] == sum(run["by_attempt"]) > len(GOOD.split()) / 2
        assert len(run["by_attempt"]) == run["attempts"]
        assert not any(letter.isdigit() for letter in run["text"])


@pytest.mark.anyio
async def test_who_aborts_early_has_fewer_tokens() -> None:
    task = strategies_run.TASKS[0]
    tokens = {}
    for name in ("whole attempts", "early abort", "backtrack"):
        [run] = await strategies_run.measure_all(backend(), [task], [name])
        tokens[name] = run["tokens"]
    assert tokens["backtrack"] <= tokens["early abort"] <= tokens["whole attempts"]


@pytest.mark.anyio
async def test_a_page_is_written(tmp_path: Path) -> None:
    results = {
        "machine": {"python": "3", "system": "s", "cpu": "c", "cores": 2, "commit": "0"},
        "started": "2026-01-01T00:00:00",
        "load_at_start": 0.0,
        "settings": {
            "budget": 6,
            "max_tokens": 9,
            "temperature": 0.7,
            "least": 3,
            "model": "scripted",
        },
        "runs": await strategies_run.measure_all(backend(), strategies_run.TASKS[:1]),
    }
    strategies_run.write_report(results, tmp_path)
    page = (tmp_path / "STRATEGIES.md").read_text()
    assert all(f"| {name} |" in page for name in strategies_run.STRATEGIES)
