"""Many sessions for a long time, with cancels, fails and faults at random: what stays flat and what is lost.

``python -m benchmarks.soak --seconds 300`` needs this project installed, with trio. A hundred sessions at a
time ask a model server on loopback, in a process of its own. Each prompt says what the server is to do, so
that it is known what has to come of it: a value, a failed check, a typed error, a cancellation. Whatever else
comes, or does not come, is a *lost* error. Memory, descriptors, tasks and throughput are sampled all along.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import anyio
import anyio.lowlevel
import anyio.to_thread

from benchmarks.results_file import write_results

__all__ = ["main"]

WORDS = [f"word{index} " if index % 8 else "end. " for index in range(1, 49)]
FAULTS = ("cut", "error", "malformed", "status")
KINDS = ("value", "value", "stream", "stream", "fail", "cancel", "leave", *FAULTS)
WARM_UP = 0.2
"""Share of the time after which nothing may grow any more."""
FLAT = {"memory": 1.1, "descriptors": 1.15, "throughput": 0.85}
"""The last fifth in terms of the one after the warm-up: at most, but throughput at least."""


# --- the server's process ------------------------------------------------------------------------


async def serve() -> None:
    from mellea_sc.testing.server import Answer, ModelServer, RecordedRequest

    def answer(request: RecordedRequest) -> Answer:
        server.requests.clear()
        kind = request.prompt.split()[0]
        at = random.randrange(len(WORDS))
        return {
            "cut": Answer(WORDS, cut_after=at, reset=at % 2 == 0),
            "error": Answer(WORDS, error_after=at, error="overloaded"),
            "malformed": Answer(WORDS, malformed_after=at),
            "status": Answer(status=500, error="broken"),
        }.get(kind, Answer(WORDS, delay=0.002))

    async with ModelServer(answer) as server:
        print(server.url, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)  # until the soak has ended


# --- the sessions ----------------------------------------------------------------------------------


class Soak:
    """The counts of one soak."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.done = 0
        self.lost: list[str] = []

    async def worker(self, until: float, rng: random.Random) -> None:
        """One session after another."""
        while time.monotonic() < until:
            kind = rng.choice(KINDS)
            try:
                came = await self.one(kind, rng)
            except Exception as error:  # noqa: BLE001 - that it came out here is what is counted
                came = repr(error)
            expected = "BackendError" if kind in FAULTS else kind
            if came != expected:
                self.lost.append(f"{kind}: {came}")
            self.done += 1

    async def one(self, kind: str, rng: random.Random) -> str:
        from mellea_sc import (
            BackendError,
            GenerationCancelled,
            ModelOption,
            PartialValidationResult,
            Requirement,
            start_session,
        )

        class Judge(Requirement):
            async def stream_validate(self, chunk, *, backend, ctx):
                await anyio.lowlevel.checkpoint()
                return PartialValidationResult("fail" if kind == "fail" else "unknown")

            async def validate(self, backend, ctx, *, format=None, model_options=None):
                from mellea_sc import ValidationResult

                return ValidationResult(True)

        protocol = rng.choice(("openai", "ollama"))
        where = f"{self.url}/v1" if protocol == "openai" else self.url
        options = {ModelOption.STREAM: rng.random() < 0.5}
        async with start_session(protocol, "test-model", base_url=where) as m:
            if kind in ("stream", "fail") or (kind in FAULTS and rng.random() < 0.5):
                judges = [Judge("fine"), Judge("good")]
                try:
                    async with m.stream(f"{kind} please", requirements=judges) as result:
                        text = "".join([chunk async for chunk in result.astream()])
                        await result.acomplete()
                except BackendError:
                    return "BackendError"
                if result.streaming_failures:
                    return "fail" if not text and not result.completed else "text that had failed"
                return "stream" if result.completed else "nothing"
            thunk = await m.ainstruct(f"{kind} please", model_options=options)
            try:
                if kind == "cancel":
                    await anyio.sleep(rng.random() * 0.05)
                    thunk.cancel("at random")
                elif kind == "leave":
                    with anyio.move_on_after(rng.random() * 0.05):
                        async with thunk:
                            await anyio.sleep_forever()
                text = await thunk
            except GenerationCancelled:
                return kind if kind in ("cancel", "leave") else "cancelled"
            except BackendError:
                return "BackendError"
            return "value" if text == "".join(WORDS) else "half a text"


def sample(soak: Soak, began: float) -> dict[str, float]:
    with Path("/proc/self/statm").open() as statm:
        pages = int(statm.read().split()[1])
    return {
        "at": time.monotonic() - began,
        "memory": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "descriptors": len([*Path("/proc/self/fd").iterdir()]),
        "done": soak.done,
    }


async def run(url: str, seconds: float, sessions: int, seed: int) -> dict[str, object]:
    soak = Soak(url)
    began = time.monotonic()
    samples: list[dict[str, float]] = []
    pause = max(seconds / 200, 0.25)

    async def watch() -> None:
        while True:
            await anyio.sleep(pause)
            samples.append(sample(soak, began))

    async with anyio.create_task_group() as watching:
        watching.start_soon(watch)
        async with anyio.create_task_group() as tasks:
            for index in range(sessions):
                tasks.start_soon(soak.worker, began + seconds, random.Random(seed + index))
        watching.cancel_scope.cancel()
    gc.collect()
    at_end = sample(soak, began)
    for before, now in zip([{"at": 0.0, "done": 0.0}, *samples], samples, strict=False):
        now["throughput"] = (now["done"] - before["done"]) / (now["at"] - before["at"])
    return {
        "seconds": seconds,
        "sessions": sessions,
        "done": soak.done,
        "lost": soak.lost[:20],
        "lost_count": len(soak.lost),
        "descriptors_at_end": at_end["descriptors"],
        "samples": samples,
    }


# --- what came of it -----------------------------------------------------------------------------------


def verdicts(found: dict[str, object]) -> dict[str, tuple[float, bool]]:
    """Each measure's last fifth over the fifth after the warm-up, and whether that is flat."""
    samples: Sequence[dict[str, float]] = found["samples"]  # type: ignore[assignment]
    fifth = max(len(samples) // 5, 1)
    first = samples[int(len(samples) * WARM_UP) :][:fifth]
    last = samples[-fifth:]
    said = {}
    for name, bound in FLAT.items():
        ratio = median(s[name] for s in last) / median(s[name] for s in first)
        said[name] = ratio, ratio >= bound if name == "throughput" else ratio <= bound
    return said


def plot(samples: Sequence[dict[str, float]]) -> str:
    """One strip per measure over time; no background and middle tones, for light and dark."""
    width, height, left, right = 760, 110, 120, 20
    end = samples[-1]["at"]
    strips = (
        ("memory", "MB", "#1f8f5f"),
        ("descriptors", "", "#d9622b"),
        ("throughput", "sessions/s", "#8a6fc0"),
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height * 3 + 24}">',
        '<g font-family="system-ui, sans-serif" font-size="12" fill="#808890">',
    ]
    for index, (name, unit, colour) in enumerate(strips):
        top = index * height
        most = max(s[name] for s in samples) * 1.1
        points = " ".join(
            f"{left + s['at'] / end * (width - left - right):.1f},"
            f"{top + height - 8 - s[name] / most * (height - 20):.1f}"
            for s in samples
        )
        parts += [
            f'<path d="M{left} {top + height - 8}H{width - right}" stroke="#808890" stroke-opacity=".4"/>',
            f'<text x="8" y="{top + 50}" fill="{colour}">{name}</text>',
            f'<text x="8" y="{top + 66}">to {most / 1.1:,.0f} {unit}</text>',
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
        ]
    parts.append(
        f'<text x="{width - right}" y="{height * 3 + 14}" text-anchor="end">{end:.0f} s</text>'
    )
    return "\n".join([*parts, "</g></svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--sessions", type=int, default=100, help="at the same time")
    parser.add_argument("--loop", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--serve", action="store_true", help="be the server")
    given = parser.parse_args()
    if given.serve:
        anyio.run(serve)
        return
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.soak", "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        found = anyio.run(run, url, given.seconds, given.sessions, given.seed, backend=given.loop)
        server.stdin.close()
    found["loop"] = given.loop
    said = found["verdicts"] = verdicts(found)
    given.out.mkdir(exist_ok=True)
    write_results(given.out / "soak.json", found)
    (given.out / "plots").mkdir(exist_ok=True)
    (given.out / "plots" / "soak.svg").write_text(plot(found["samples"]))  # type: ignore[arg-type]
    for name, (ratio, is_flat) in said.items():
        print(f"{name}: {ratio:.2f} {'flat' if is_flat else 'NOT FLAT'}")
    print(f"{found['done']} sessions, {found['lost_count']} lost {found['lost']}")
    if found["lost_count"] or not all(is_flat for _, is_flat in said.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
