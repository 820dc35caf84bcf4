"""The harness: each task by each strategy, one run at a time, all that the model gives counted.

Tokens are counted where they come from the backend: an answer that came to its end has as many as the
server says, one that was aborted as many as there were deltas, which are one token each here.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio

from benchmarks.results_file import write_results
from benchmarks.run import machine
from benchmarks.strategies.report import write_report
from benchmarks.strategies.tasks import LEAST, TASKS, Task
from mellea_sc import (
    Backend,
    BacktrackStrategy,
    Component,
    Context,
    Delta,
    GenerationRequest,
    ModelOption,
    RejectionSamplingStrategy,
    RepairTemplateStrategy,
    Requirement,
    SamplingResult,
    start_session,
)
from mellea_sc.backends import BackendWrapper
from mellea_sc.backends.local import LocalBackend
from mellea_sc.core.backend import Format, ModelOptions
from mellea_sc.core.base import Span
from mellea_sc.stdlib import RacingStrategy, SamplingStrategy

__all__ = ["STRATEGIES", "Counted", "WholeAttempts", "main", "measure_all"]

BUDGET = 6
MAX_TOKENS = 96
TEMPERATURE = 0.7


class WholeAttempts(SamplingStrategy):
    """What others do: generate to the end, judge, and ask the same again."""

    def __init__(self, loop_budget: int) -> None:
        self.loop_budget = loop_budget

    async def sample(
        self,
        action: Component | Span,
        context: Context,
        backend: Backend,
        requirements: Sequence[Requirement],
        *,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
    ) -> SamplingResult:
        answers, verdicts, contexts = [], [], []
        options = dict(model_options or {})
        first_seed = options.get(ModelOption.SEED)
        good = False
        while not good and len(answers) < self.loop_budget:
            if isinstance(first_seed, int):
                options[ModelOption.SEED] = first_seed + len(answers)
            answer, ctx = await backend.generate_from_context(
                action, context, format=format, model_options=options
            )
            await answer.avalue()
            found = [(one, await copy.copy(one).validate(backend, ctx)) for one in requirements]
            good = all(verdict for _, verdict in found)
            answers.append(answer)
            verdicts.append(found)
            contexts.append(ctx)
        return SamplingResult(
            result_index=len(answers) - 1 if good else 0,
            success=good,
            sample_generations=answers,
            sample_validations=verdicts,
            sample_actions=[action] * len(answers),
            sample_contexts=contexts,
        )


STRATEGIES: dict[str, Callable[[], SamplingStrategy]] = {
    "whole attempts": lambda: WholeAttempts(BUDGET),
    "early abort": lambda: RejectionSamplingStrategy(loop_budget=BUDGET),
    "repair": lambda: RepairTemplateStrategy(loop_budget=BUDGET),
    "backtrack": lambda: BacktrackStrategy(budget=BUDGET, feedback=False),
    "backtrack with reason": lambda: BacktrackStrategy(budget=BUDGET, feedback=True),
    "race of 3": lambda: RacingStrategy(3, budget=BUDGET),
}


NO_PREFILL = ", no prefill"
"""Behind a strategy's name: on a server that cannot go on with the beginning of an answer, but is asked to."""
WITHOUT_PREFILL = (
    "whole attempts",
    "backtrack",
    "backtrack" + NO_PREFILL,
    "backtrack with reason" + NO_PREFILL,
)


@dataclass
class Count:
    """What one request gave.

    Args:
        deltas: Those with text in them.
        tokens: As the server says, if it came so far.
    """

    deltas: int = 0
    tokens: int | None = None
    prompt_tokens: int | None = None


class Counted(BackendWrapper):
    """Another backend whose deltas are counted.

    Args:
        inner: The other one.
        prefills: Whether it may write on where an answer has begun, if the other one can.
    """

    def __init__(self, inner: Backend, *, prefills: bool = True) -> None:
        super().__init__(inner)
        self.counts: list[Count] = []
        self.prefills = inner.prefills and prefills

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        count = Count()
        self.counts.append(count)
        async with (
            self.inner.open(request) as deltas,
            aclosing(_counted(deltas, count)) as counted,
        ):
            yield counted


async def _counted(deltas: AsyncIterator[Delta], count: Count) -> AsyncGenerator[Delta]:
    async for delta in deltas:
        if delta.text:
            count.deltas += 1
        if delta.usage is not None:
            count.tokens = delta.usage.completion_tokens
            count.prompt_tokens = delta.usage.prompt_tokens
        yield delta


async def measure(m: Any, backend: Counted, task: Task, strategy: str) -> dict[str, Any]:
    """One task by one strategy."""
    backend.counts.clear()
    begun = time.perf_counter()
    result = await m.ainstruct(
        task.prompt,
        requirements=task.requirements(),
        strategy=STRATEGIES[strategy.removesuffix(NO_PREFILL)](),
        return_sampling_results=True,
        model_options={
            ModelOption.SEED: task.seed,
            ModelOption.TEMPERATURE: TEMPERATURE,
            ModelOption.MAX_NEW_TOKENS: MAX_TOKENS,
        },
    )
    seconds = time.perf_counter() - begun
    counts = backend.counts
    return {
        "kind": task.kind,
        "prompt": task.prompt,
        "seed": task.seed,
        "strategy": strategy,
        "valid": result.success,
        "seconds": round(seconds, 3),
        "tokens": sum(one.deltas if one.tokens is None else one.tokens for one in counts),
        "attempts": len(result.sample_generations),
        "by_attempt": [one.deltas if one.tokens is None else one.tokens for one in counts],
        "aborted": sum(1 for one in counts if one.tokens is None),
        "text": result.value,
    }


async def measure_all(
    backend: Backend, tasks: Sequence[Task] = TASKS, strategies: Sequence[str] = tuple(STRATEGIES)
) -> list[dict[str, Any]]:
    """Every task by every strategy, the strategies in turns."""
    runs: list[dict[str, Any]] = []
    async with backend.connected() as connected:
        both = {fills: Counted(connected, prefills=fills) for fills in (True, False)}
        async with (
            start_session(backend=both[True]) as filled,
            start_session(backend=both[False]) as unfilled,
        ):
            sessions = {True: filled, False: unfilled}
            await filled.ainstruct("Say hello.", strategy=None, await_result=True)  # warm
            for number, task in enumerate(tasks):
                for strategy in strategies:
                    fills = not strategy.endswith(NO_PREFILL)
                    run = await measure(sessions[fills], both[fills], task, strategy)
                    runs.append(run)
                    print(
                        f"{number + 1:>3} {strategy:<33} {run['tokens']:>4} tokens"
                        f" {run['seconds']:>6.1f} s {run['attempts']}"
                        f" {'valid' if run['valid'] else '-'}",
                        flush=True,
                    )
    return runs


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.strategies", description=__doc__)
    add = parser.add_argument
    add("--tasks", type=int, help="of each kind, instead of eight")
    add("--kinds", help="numbers from 1, with commas; all by default")
    add("--strategies", help="names, with commas; what is left out stays as it was")
    add("--out", type=Path, default=Path(__file__).parents[1], help="where the results go")
    add("--no-prefill", action="store_true", help="what backtracking costs without it, instead")
    add("--report", action="store_true", help="write the page from results that are there")
    given = parser.parse_args(arguments)
    path = given.out / ("strategies-no-prefill.json" if given.no_prefill else "strategies.json")
    if not given.report:
        write_results(path, _measured(given, path))
    write_report(json.loads((given.out / "strategies.json").read_text()), given.out)
    print(f"written: {given.out / 'STRATEGIES.md'}")


def _measured(given: argparse.Namespace, path: Path) -> dict[str, Any]:
    kinds = list(dict.fromkeys(task.kind for task in TASKS))
    if given.kinds:
        kinds = [kinds[int(number) - 1] for number in given.kinds.split(",")]
    tasks = [
        task for kind in kinds for task in [one for one in TASKS if one.kind == kind][: given.tasks]
    ]
    before = json.loads(path.read_text())["runs"] if path.exists() else []
    known = list(WITHOUT_PREFILL if given.no_prefill else STRATEGIES)
    names = given.strategies.split(",") if given.strategies else known
    results: dict[str, Any] = {
        "machine": machine(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_at_start": os.getloadavg()[0],
        "settings": {
            "budget": BUDGET,
            "max_tokens": MAX_TOKENS,
            "temperature": TEMPERATURE,
            "least": LEAST,
            "model": LocalBackend().model_id,
        },
    }
    runs = anyio.run(measure_all, LocalBackend(), tasks, names)
    kept = [
        run
        for run in before
        if (run["kind"] not in kinds or run["strategy"] not in names) and run["strategy"] in known
    ]
    results["runs"] = sorted(
        kept + runs, key=lambda run: (run["seed"], known.index(run["strategy"]))
    )
    return results
