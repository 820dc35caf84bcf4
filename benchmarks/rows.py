"""The table: what work is measured, what is read from it, and what is to be reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["ROWS", "Case", "Goal", "Look", "Metric", "Row"]

Measured = Mapping[str, float]

PACE = 0.02
"""Seconds before each delta, where deltas are to come one by one."""

OURS = ("ours", "ours-uvloop", "ours-trio")
ALL = (*OURS, "m8", "m7", "bare")
CLIENTS = ("openai", "pydantic-ai", "agents", "guardrails", "nemo", "bare-httpx")


@dataclass(frozen=True)
class Case:
    """A column: one size of the work.

    Args:
        label: What is different about it.
        args: For the adapter's function; ``collector=False`` is for the child process, which switches
            Python's garbage collector off.
        size: On the plot's horizontal axis.
        group: Cases of one group are a table, and a plot, of their own.
    """

    label: str
    args: Mapping[str, object] = field(default_factory=dict)
    size: float | None = None
    group: str = ""


@dataclass(frozen=True)
class Metric:
    """A number that is read from what was measured.

    Args:
        name: What it is.
        unit: Its unit.
        read: Takes it from what the adapter returned.
        better: Which way is better.
        plotted: Whether it is on the plot.
        shown: Whether it is in the table.
    """

    name: str
    unit: str
    read: Callable[[Measured], float]
    better: str = "less"
    plotted: bool = False
    shown: bool = True


@dataclass(frozen=True)
class Look:
    """The medians of a row.

    Args:
        median: ``median(contestant, group, label, metric)``; raises ``LookupError`` where there is none.
        cases: The row's cases.
    """

    median: Callable[[str, str, str, str], float]
    cases: Sequence[Case]

    def growth(self, who: str, group: str, metric: str = "time", *, start: float = 0.0) -> float:
        """The exponent p of time ~ size^p, from the first size not below ``start`` to the last."""
        cases = [c for c in self.cases if c.group == group and c.size and c.size >= start]
        if len(cases) < 2:
            raise LookupError(group)
        first, last = cases[0], cases[-1]
        times = [self.median(who, group, case.label, metric) for case in (first, last)]
        return math.log(times[1] / times[0]) / math.log(last.size / first.size)  # type: ignore[operator]


@dataclass(frozen=True)
class Goal:
    """What is to be reached.

    Args:
        text: In words, with its bound.
        look: Takes the number from the medians.
        bound: What it has to be, at most or at least.
        better: ``"less"``: at most; ``"more"``: at least.
    """

    text: str
    look: Callable[[Look], float]
    bound: float
    better: str = "less"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        number: Its name.
        title: What is done.
        work: The adapter's function.
        cases: The sizes, ascending within each group.
        metrics: What is read.
        goals: What is to be reached.
        contestants: Who does it.
        note: What a reader has to know.
        quick: The cases of a quick run.
    """

    number: str
    title: str
    work: str
    cases: Sequence[Case]
    metrics: Sequence[Metric]
    goals: Sequence[Goal] = ()
    contestants: Sequence[str] = ALL
    note: str = ""
    quick: Sequence[Case] = ()


def thousands(count: int) -> str:
    return f"{count // 1000} k" if count >= 1000 else str(count)


TIME = Metric("time", "s", lambda m: m["seconds"])
RATE = Metric("rate", "deltas/s", lambda m: m["deltas"] / m["seconds"], "more")
PER_DELTA = Metric(
    "per delta", "µs", lambda m: m["seconds"] / m["deltas"] * 1e6, plotted=True, shown=False
)
HIDDEN_TIME = Metric("time", "s", lambda m: m["seconds"], shown=False)


def seconds(key: str, name: str, unit: str = "ms") -> Metric:
    factor = {"s": 1, "ms": 1e3, "µs": 1e6}[unit]
    return Metric(name, unit, lambda m: m[key] * factor)


def streams(counts: Sequence[int], requirements: Sequence[int], chunking: str) -> list[Case]:
    return [
        Case(
            f"{thousands(n)} deltas",
            {"deltas": n, "requirements": r, "chunking": chunking},
            size=n,
            group=f"{chunking} chunks, {r} requirement{'s' * (r != 1)}",
        )
        for r in requirements
        for n in counts
    ]


def against(who: str, group: str, label: str, metric: str) -> Callable[[Look], float]:
    """Ours as a multiple of somebody else's."""
    return lambda at: at.median("ours", group, label, metric) / at.median(who, group, label, metric)


def of_another(who: str, other: str, label: str, metric: str) -> Callable[[Look], float]:
    """Somebody's as a multiple of somebody else's."""
    return lambda at: at.median(who, "", label, metric) / at.median(other, "", label, metric)


FOUR = "sentence chunks, 4 requirements"
NONE = "sentence chunks, 0 requirements"
NO_COLLECTION = "no garbage collection"
JUDGE = "four judges"
MAY_EDIT = "two editors and two judges, nothing to edit"
EDIT = "two editors and two judges, every tenth sentence is edited"
EDITED: Mapping[str, Mapping[str, object]] = {
    JUDGE: {"editors": 0, "every": 0},
    MAY_EDIT: {"editors": 2, "every": 0},
    EDIT: {"editors": 2, "every": 10},
}
STREAMS = "streams of 200 deltas with 2 requirements at the same time"


def side_by_side(n: int, group: str = STREAMS, **more: object) -> Case:
    """So many streams at the same time."""
    args = {"deltas": 200, "requirements": 2, "chunking": "sentence", "runs": n, **more}
    return Case(f"{n}", args, size=n, group=group)


ROWS = [
    Row(
        "1",
        "Text that is cut into sentences and checked by trivial requirements while it streams",
        "stream_chunks",
        streams([2_000, 10_000, 50_000, 200_000], [0, 1, 4], "sentence"),
        [RATE, PER_DELTA, HIDDEN_TIME],
        [
            Goal(
                "the rate of Mellea 0.8.0 at 10 k deltas with 4 requirements, twice (≥ 2)",
                against("m8", FOUR, "10 k deltas", "rate"),
                2,
                "more",
            ),
            Goal(
                "growth from 10 k to 200 k deltas with 4 requirements (time ~ N^p, p ≤ 1.05)",
                lambda at: at.growth("ours", FOUR, start=10_000),
                1.05,
            ),
            Goal(
                "trio's time in terms of asyncio's at 10 k deltas with 4 requirements (≤ 1.5)",
                lambda at: (
                    at.median("ours-trio", FOUR, "10 k deltas", "time")
                    / at.median("ours", FOUR, "10 k deltas", "time")
                ),
                1.5,
            ),
        ],
        note="Every twelfth delta ends a sentence; the source never waits.",
        quick=streams([500, 2_000], [0, 4], "sentence"),
    ),
    Row(
        "2",
        "The same, cut into words: every delta is a chunk",
        "stream_chunks",
        streams([2_000, 10_000, 50_000], [0, 1, 4], "word"),
        [RATE, PER_DELTA, HIDDEN_TIME],
        [
            Goal(
                "the rate of Mellea 0.8.0 at 10 k deltas with 4 requirements, three times (≥ 3)",
                against("m8", "word chunks, 4 requirements", "10 k deltas", "rate"),
                3,
                "more",
            ),
            Goal(
                "growth from 10 k to 50 k deltas with 4 requirements (≤ 1.05)",
                lambda at: at.growth("ours", "word chunks, 4 requirements", start=10_000),
                1.05,
            ),
        ],
        quick=streams([500, 2_000], [4], "word"),
    ),
    Row(
        "2b",
        "Long texts without requirements",
        "stream_chunks",
        streams([50_000, 200_000], [0], "sentence"),
        [TIME],
        [
            Goal(
                "200 k deltas in at most 4.2 times the time of 50 k",
                lambda at: (
                    at.median("ours", NONE, "200 k deltas", "time")
                    / at.median("ours", NONE, "50 k deltas", "time")
                ),
                4.2,
            )
        ],
        quick=streams([2_000, 8_000], [0], "sentence"),
    ),
    Row(
        "3",
        "A streamed thunk, read to its end",
        "read_thunk",
        [
            Case(f"{thousands(n)} deltas", {"deltas": n}, size=n)
            for n in (2_000, 10_000, 50_000, 200_000)
        ],
        [
            Metric("per delta", "µs", lambda m: m["seconds"] / m["deltas"] * 1e6, plotted=True),
            HIDDEN_TIME,
        ],
        [
            Goal(
                "Mellea 0.8.0's time per delta at 200 k deltas in terms of ours (≥ 5)",
                lambda at: 1 / against("m8", "", "200 k deltas", "per delta")(at),
                5,
                "more",
            ),
            Goal(
                "growth from 10 k to 200 k deltas (≤ 1.05)",
                lambda at: at.growth("ours", "", start=10_000),
                1.05,
            ),
        ],
        quick=[Case(f"{n} deltas", {"deltas": n}, size=n) for n in (500, 2_000)],
    ),
    Row(
        "4",
        "20 chunks, three requirements that are slow in turn (60, 5 and 5 ms)",
        "slow_lanes",
        [Case("")],
        [TIME],
        [
            Goal(
                "at most 1.05 times the slowest lane's own time of 0.485 s",
                lambda at: at.median("ours", "", "", "time") / 0.485,
                1.05,
            )
        ],
        note="The slowest requirement by itself needs 0.485 s.",
    ),
    Row(
        "4b",
        "A source of 20 ms a chunk, a requirement of 30 ms, a consumer of 30 ms, 20 chunks",
        "overlap",
        [Case("")],
        [TIME],
        [
            Goal(
                "at most 1.05 times the 0.65 s that it takes when all three overlap",
                lambda at: at.median("ours", "", "", "time") / 0.65,
                1.05,
            )
        ],
    ),
    Row(
        "5",
        "A requirement fails while another one is in a call of 2 s, over HTTP",
        "fail_while_sibling_sleeps",
        [Case("")],
        [
            seconds("knows", "until the consumer knows"),
            seconds("closed", "until the server sees the close"),
            Metric("deltas sent after the fail", "", lambda m: m["sent_after"]),
        ],
        [
            Goal(
                "the consumer knows in less than 5 ms",
                lambda at: at.median("ours", "", "", "until the consumer knows"),
                5,
            ),
            Goal(
                "the server sees the close in less than 5 ms",
                lambda at: at.median("ours", "", "", "until the server sees the close"),
                5,
            ),
            Goal(
                "at most one delta is sent after the fail",
                lambda at: at.median("ours", "", "", "deltas sent after the fail"),
                1,
            ),
        ],
        note="The server sends a sentence every 20 ms. Times count from the return of the verdict.",
    ),
    Row(
        "5b",
        "The backend breaks while a requirement of 20 ms is behind",
        "backend_error_after",
        [Case("", {"deltas": list(range(51, 61))})],
        [
            Metric(
                "of the text before the error reaches the user",
                "%",
                lambda m: m["received"] * 100,
                "more",
            ),
            Metric("of the errors are raised", "%", lambda m: m["raised"] * 100, "more"),
        ],
        [
            Goal(
                "all of the text",
                lambda at: at.median(
                    "ours", "", "", "of the text before the error reaches the user"
                ),
                100,
                "more",
            )
        ],
        note="Ten streams, which break after 51, 52, … 60 sentences.",
    ),
    Row(
        "6",
        "From the server's socket to the reader's hands, a delta every 20 ms",
        "first_delta_latency",
        [Case("")],
        [seconds("first", "the first delta"), seconds("median", "median of all")],
        [
            Goal(
                "the first delta in less than 1 ms",
                lambda at: at.median("ours", "", "", "the first delta"),
                1,
            )
        ],
        contestants=(*OURS, "m8", "m7", *CLIENTS),
        note="The delta is the moment of its sending. Includes both processes and the loopback.",
    ),
    Row(
        "7",
        "Many generations at the same time, 20 deltas each, 1 ms before each delta",
        "many_thunks",
        [
            Case(f"{thousands(n)} thunks", {"thunks": n, "deltas": 20}, size=n)
            for n in (100, 1_000, 10_000)
        ]
        + [
            Case(
                "10 k thunks",
                {"thunks": 10_000, "deltas": 20, "collector": False},
                group=NO_COLLECTION,
            )
        ],
        [TIME, Metric("memory", "kB each", lambda m: m["memory"] / 1000)],
        [
            Goal(
                "at most three times the time of bare tasks, 10 k thunks",
                against("bare", "", "10 k thunks", "time"),
                3,
            ),
            Goal(
                "at most 9 kB for each thunk, 10 k thunks",
                lambda at: at.median("ours", "", "10 k thunks", "memory"),
                9,
            ),
        ],
        contestants=(*ALL, "bare-anyio", "bare-trio"),
        note="Memory is the process's growth at its peak, over the number of generations. Bare anyio is"
        " what the design itself costs, a task of a task group in a cancel scope, before it does anything."
        " Much of the time is that of Python's garbage collector, which looks through all that is alive"
        " again and again: the last table is without it.",
        quick=[Case("100 thunks", {"thunks": 100, "deltas": 20}, size=100)],
    ),
    Row(
        "8",
        "Three instructions of 0.5 s each, with the default strategy, awaited together",
        "three_instructs",
        [Case("")],
        [TIME, seconds("returned", "until the three calls have returned")],
        [Goal("at most 0.55 s", lambda at: at.median("ours", "", "", "time"), 0.55)],
    ),
    Row(
        "9",
        "What it costs to import and to install",
        "import_cost",
        [Case("")],
        [
            seconds("seconds", "import"),
            Metric("memory after it", "MB", lambda m: m["memory"] / 1e6),
            Metric("distributions", "", lambda m: m["distributions"]),
            Metric("installed", "MiB", lambda m: m["installed"] / 2**20),
        ],
        [
            Goal("at most 90 ms", lambda at: at.median("ours-alone", "", "", "import"), 90),
            Goal(
                "at most 30 MB", lambda at: at.median("ours-alone", "", "", "memory after it"), 30
            ),
            Goal(
                "at most 14 distributions",
                lambda at: at.median("ours-alone", "", "", "distributions"),
                14,
            ),
            Goal("at most 20 MiB", lambda at: at.median("ours-alone", "", "", "installed"), 20),
        ],
        contestants=(
            *("ours-alone", "m8", "m7", "openai", "pydantic-ai", "agents"),
            *("guardrails", "nemo", "bare-alone"),
        ),
        note="The import of what a program with a checked stream needs; files are compiled and in the"
        " page cache. Bare httpx imports asyncio, to compare. Sizes are without compiled files.",
    ),
    Row(
        "9b",
        "A fresh process, from the import to its first answer over HTTP",
        "first_answer",
        [Case("")],
        [
            seconds("seconds", "time"),
            Metric("memory", "MB", lambda m: m["memory"] / 1e6),
        ],
        contestants=(
            *("ours-alone", "m8", "m7", "openai", "pydantic-ai", "agents"),
            *("guardrails", "nemo", "bare-alone"),
        ),
    ),
    Row(
        "10",
        "Streams over HTTP at the same time, 200 deltas each, with two trivial requirements each",
        "wire",
        [
            Case(f"{n} streams", {"protocol": p, "streams": n, "deltas": 200}, size=n, group=p)
            for p in ("openai", "ollama")
            for n in (20, 200)
        ],
        [
            RATE,
            Metric("CPU", "µs/delta", lambda m: m["cpu"] / m["deltas"] * 1e6),
            HIDDEN_TIME,
        ],
        [
            Goal(
                "the rate of the openai client (≥ 1)",
                against("openai", "openai", "200 streams", "rate"),
                1,
                "more",
            ),
            Goal(
                "at most 1.5 times the CPU of bare httpx, OpenAI's protocol",
                against("bare-httpx", "openai", "200 streams", "CPU"),
                1.5,
            ),
            Goal(
                "at most 1.5 times the CPU of bare httpx, Ollama's protocol",
                against("bare-httpx", "ollama", "200 streams", "CPU"),
                1.5,
            ),
        ],
        contestants=(*OURS, "m8", "m7", *CLIENTS),
        note="CPU is that of the measured process, without the server's. openai, pydantic-ai-slim and"
        " openai-agents have no checks of running text: theirs are made by hand between two deltas,"
        " and so are those of bare httpx. The rails of nemoguardrails judge batches of twelve tokens"
        " here, as long as the sentences; guardrails-ai asks through LiteLLM.",
        quick=[
            Case("20 streams", {"protocol": p, "streams": 20, "deltas": 50}, group=p)
            for p in ("openai", "ollama")
        ],
    ),
    Row(
        "10b",
        "The same as real models send them: one delta a read, 40 streams with two trivial requirements each",
        "wire",
        [Case("40 streams", {"protocol": "openai", "streams": 40, "deltas": 200, "pace": PACE})],
        [Metric("CPU", "µs/delta", lambda m: m["cpu"] / m["deltas"] * 1e6)],
        [
            Goal(
                f"{words}: at most {bound:g} times the CPU of bare httpx, which checks nothing",
                of_another(who, other, "40 streams", "CPU"),
                bound,
            )
            for words, who, other, bound in (
                ("with the extra fast, asyncio", "ours-fast", "bare-httpx", 0.6),
                ("with the extra fast, uvloop", "ours-fast-uvloop", "bare-httpx-uvloop", 0.65),
                ("without it, asyncio", "ours", "bare-httpx", 1.2),
                ("trio", "ours-trio", "bare-httpx-trio", 1.2),
            )
        ],
        contestants=(
            *("ours-fast", "ours-fast-uvloop", *OURS, "openai", "pydantic-ai"),
            *("bare-httpx", "bare-httpx-uvloop", "bare-httpx-trio"),
            *("bare-aiohttp", "bare-aiohttp-uvloop"),
        ),
        note="There are 20 ms before each delta, so that it is on its own in a packet. CPU is that of the"
        " measured process, without the server's: what an event loop costs to wake up for a delta is in it,"
        " whoever asks. On a busy machine two deltas come in one read, and all numbers are too small.",
        quick=[
            Case("40 streams", {"protocol": "openai", "streams": 40, "deltas": 50, "pace": PACE})
        ],
    ),
    Row(
        "11",
        "A blocking call, and the same awaited",
        "sync_call",
        [Case("", {"calls": 500})],
        [
            seconds("sync", "blocking", "µs"),
            seconds("async", "awaited", "µs"),
            seconds("overhead", "difference", "µs"),
        ],
        [
            Goal(
                "what blocking adds: at most 1.1 times what asyncio.run_coroutine_threadsafe adds",
                against("bare", "", "", "difference"),
                1.1,
            )
        ],
        note="The model answers at once. Bare: a coroutine on a loop in another thread, by"
        " asyncio.run_coroutine_threadsafe.",
        quick=[Case("", {"calls": 50})],
    ),
    Row(
        "12",
        "Growth with the number of requirements and of concurrent streams",
        "stream_chunks",
        [
            Case(
                f"{r}",
                {"deltas": 10_000, "requirements": r, "chunking": "sentence"},
                size=r,
                group="requirements on one stream of 10 k deltas",
            )
            for r in (1, 2, 4, 8, 16)
        ]
        + [side_by_side(n) for n in (1, 10, 100, 1_000)]
        + [side_by_side(n, f"{STREAMS}, {NO_COLLECTION}", collector=False) for n in (10, 1_000)],
        [PER_DELTA, TIME],
        [
            Goal(
                "growth from 1 to 16 requirements (≤ 1.05)",
                lambda at: at.growth("ours", "requirements on one stream of 10 k deltas"),
                1.05,
            ),
            Goal(
                "growth from 10 to 1,000 streams (≤ 1.05)",
                lambda at: at.growth("ours", STREAMS, start=10),
                1.05,
            ),
        ],
        note="What grows with the number of streams is mostly what Python's garbage collector does, which"
        " looks through all that is alive again and again: the last table is without it.",
        quick=[side_by_side(n) for n in (1, 10)],
    ),
    Row(
        "13",
        "Sentences, judged by four requirements of which two may edit",
        "edited_sentences",
        [
            Case(f"{thousands(n)} sentences", {"sentences": n, **args}, size=n, group=group)
            for group, args in EDITED.items()
            for n in (2_500, 10_000, 40_000)
        ],
        [RATE, PER_DELTA, HIDDEN_TIME],
        [
            Goal(
                "half the rate of four judges, where nothing has to be edited (≥ 0.5)",
                lambda at: (
                    at.median("ours", MAY_EDIT, "10 k sentences", "rate")
                    / at.median("ours", JUDGE, "10 k sentences", "rate")
                ),
                0.5,
                "more",
            ),
            Goal(
                "growth from 10 k to 40 k sentences, of which every tenth is edited twice (≤ 1.05)",
                lambda at: at.growth("ours", EDIT, start=10_000),
                1.05,
            ),
        ],
        contestants=OURS,
        note="A delta is a sentence. What edits is given the text twice, and judges the outcome.",
        quick=[
            Case(f"{n} sentences", {"sentences": n, **args}, size=n, group=group)
            for group, args in EDITED.items()
            for n in (500, 2_000)
        ],
    ),
]
