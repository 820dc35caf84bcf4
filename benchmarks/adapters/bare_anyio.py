"""anyio alone: a task of a task group for each thing that goes on, in a cancel scope of its own.

What every library pays whose generations are cancel-scoped tasks; no contestant either.
"""

from __future__ import annotations

from adapters._work import Stopwatch, peak_rss, rss, sleep_of, words
from adapters.bare import paced

LOOP = "asyncio"

CANNOT = "only its tasks are of interest"


def many_thunks(thunks, deltas):
    import anyio

    texts, sleep = words(deltas), sleep_of(LOOP)

    async def one():
        with anyio.CancelScope():
            return "".join([text async for text in paced(texts, 0.001, sleep)])

    async def main():
        await one()
        before = rss()
        watch = Stopwatch()
        async with anyio.create_task_group() as tasks:
            for _ in range(thunks):
                tasks.start_soon(one)
        return watch.read(memory=(peak_rss() - before) / thunks)

    return anyio.run(main, backend=LOOP)
