"""mellea_sc, on asyncio, uvloop or trio."""

# ruff: noqa: ARG001 - judges have the parameters that their callers give

from __future__ import annotations

import time
from functools import cache, partial

from adapters._work import (
    CALL,
    LATE,
    PACE,
    Stopwatch,
    peak_rss,
    rss,
    sentences,
    sleep_of,
    wire_server,
    words,
)

LOOP = "asyncio"


def run(main, *args):
    import anyio

    if LOOP == "trio":
        return anyio.run(main, *args, backend="trio")
    return anyio.run(main, *args, backend_options={"use_uvloop": LOOP == "uvloop"})


def source(make):
    """A backend whose deltas are those of ``make()``, an async generator function."""
    from contextlib import asynccontextmanager

    from mellea_sc import Backend

    class Source(Backend):
        @asynccontextmanager
        async def open(self, request):
            yield make()

    return Source()


def at_once(texts):
    from mellea_sc import Delta

    async def deltas():
        for text in texts:
            yield Delta(text)

    return source(deltas)


def paced(texts, pace):
    from mellea_sc import Delta

    sleep = sleep_of(LOOP)

    async def deltas():
        for text in texts:
            await sleep(pace)
            yield Delta(text)

    return source(deltas)


@cache
def judged():
    """A class of requirements; made once, as a program does, and not before it is needed."""
    from mellea_sc import PartialValidationResult, Requirement, ValidationResult

    class Judged(Requirement):
        def __init__(self, judge):
            super().__init__("it is fine")
            self.judge = judge
            self.index = -1

        async def stream_validate(self, chunk, *, backend, ctx):
            if self.judge is None:
                return PartialValidationResult("unknown")
            self.index += 1
            return PartialValidationResult(await self.judge(self.index, chunk) or "unknown")

        async def validate(self, backend, ctx, *, format=None, model_options=None):
            return ValidationResult(True)

    return Judged


def requirement(judge=None):
    """A requirement that ``judge(index, chunk)``, an async function, judges; trivial without one."""
    return judged()(judge)


async def stream(m, requirements, chunking="sentence"):
    from mellea_sc import Instruction, stream_with_chunking

    return await stream_with_chunking(
        Instruction("Say it."), m.backend, m.ctx, requirements=requirements, chunking=chunking
    )


async def warm_up():
    """Import and set up everything that a stream needs the first time."""
    from mellea_sc import start_session

    async with start_session(backend=at_once(words(24))) as m:
        await count_chunks(m, [requirement()], "sentence")
        await (await m.ainstruct("Say it."))


async def count_chunks(m, requirements, chunking):
    result = await stream(m, requirements, chunking)
    chunks = 0
    async for _ in result.astream():
        chunks += 1
    await result.acomplete()
    return chunks


def stream_chunks(deltas, requirements, chunking, runs=1):
    import anyio

    from mellea_sc import start_session

    texts = words(deltas)

    async def main():
        chunks = 0

        async def one():
            nonlocal chunks
            found = await count_chunks(m, [requirement() for _ in range(requirements)], chunking)
            chunks += found

        await warm_up()
        async with start_session(backend=at_once(texts)) as m:
            watch = Stopwatch()
            async with anyio.create_task_group() as tasks:
                for _ in range(runs):
                    tasks.start_soon(one)
            return watch.read(chunks=chunks, deltas=deltas * runs)

    return run(main)


@cache
def editing():
    """A class of requirements that fail the sentences with a number that ends in 0."""
    from mellea_sc import PartialValidationResult

    class Edits(judged()):
        async def stream_validate(self, chunk, *, backend, ctx):
            if chunk.endswith("0 of them."):
                return PartialValidationResult("fail", replacement="It was left out.")
            return PartialValidationResult("unknown")

    return Edits


def edited_sentences(sentences, editors, every):
    """Four requirements, of which so many may edit; ``every`` is 10, or 0 where nothing is edited."""
    from mellea_sc import start_session

    numbers = range(sentences) if every else range(1, 10 * sentences, 10)
    texts = [f"This is sentence number {n} of them. " for n in numbers]

    def requirements():
        made = [editing()(None) for _ in range(editors)]
        for one, on_fail in zip(made, ("filter", "fix"), strict=False):
            one.on_fail = on_fail
        return [*made, *[requirement() for _ in range(4 - editors)]]

    async def main():
        await warm_up()
        async with start_session(backend=at_once(texts)) as m:
            watch = Stopwatch()
            chunks = await count_chunks(m, requirements(), "sentence")
            return watch.read(chunks=chunks, deltas=sentences)

    return run(main)


def read_thunk(deltas):
    from mellea_sc import ModelOption, start_session

    texts = words(deltas)

    async def main():
        async def one(texts):
            length = 0
            async with start_session(backend=at_once(texts)) as m:
                thunk = await m.ainstruct("Say it.", model_options={ModelOption.STREAM: True})
                async for text in thunk:
                    length += len(text)
            assert length == 5 * len(texts)

        await warm_up()
        watch = Stopwatch()
        await one(texts)
        return watch.read(deltas=deltas)

    return run(main)


def slow_lanes():
    import anyio

    from mellea_sc import start_session

    def lane(turn):
        async def judge(index, chunk):
            await anyio.sleep(0.06 if index % 3 == turn else 0.005)

        return requirement(judge)

    async def main():
        await warm_up()
        async with start_session(backend=at_once(sentences(20))) as m:
            watch = Stopwatch()
            chunks = await count_chunks(m, [lane(turn) for turn in range(3)], "sentence")
            return watch.read(chunks=chunks)

    return run(main)


def overlap():
    import anyio

    from mellea_sc import start_session

    async def judge(index, chunk):
        await anyio.sleep(0.03)

    async def main():
        await warm_up()
        async with start_session(backend=paced(sentences(20), PACE)) as m:
            watch = Stopwatch()
            result = await stream(m, [requirement(judge)])
            async for _ in result.astream():
                await anyio.sleep(0.03)
            await result.acomplete()
            return watch.read()

    return run(main)


def over_http(url, protocol="openai"):
    from mellea_sc import start_session

    if protocol == "openai":
        return start_session("openai", "bench", base_url=url + "/v1", api_key="none")
    return start_session("ollama", "bench", base_url=url)


def fail_while_sibling_sleeps():
    import anyio

    failed_at = 0.0

    async def sleeping(index, chunk):
        await anyio.sleep(LATE if index == 3 else 0)

    async def failing(index, chunk):
        nonlocal failed_at
        if index < 3:
            return None
        await anyio.sleep(PACE / 2)  # the sibling is in its call by now
        server.mark()
        failed_at = time.monotonic()
        return "fail"

    async def main(server):
        await warm_up()
        async with over_http(server.url) as m:
            result = await stream(m, [requirement(sleeping), requirement(failing)])
            async for _ in result.astream():
                pass
            knows_at = time.monotonic()
            await result.acomplete()
            assert not result.completed
        return knows_at

    with wire_server(sentences(250), pace=PACE) as server:
        knows_at = run(main, server)
        return server.seen_after(failed_at, knows_at)


def backend_error_after(deltas):
    import anyio

    from mellea_sc import Delta, start_session

    async def breaking(count):
        for text in sentences(count):
            yield Delta(text)
        raise ConnectionResetError("the source broke")

    async def judge(index, chunk):
        await anyio.sleep(0.02)

    async def main():
        received = raised = 0

        async def one(count):
            nonlocal received, raised
            async with start_session(backend=source(partial(breaking, count))) as m:
                result = await stream(m, [requirement(judge)])
                try:
                    async for _ in result.astream():
                        received += 1
                except ConnectionResetError:
                    raised += 1

        async with anyio.create_task_group() as tasks:
            for count in deltas:
                tasks.start_soon(one, count)
        return {"received": received / sum(deltas), "raised": raised / len(deltas)}

    return run(main)


def first_delta_latency():
    from mellea_sc import ModelOption

    lags = []

    async def main(server):
        await warm_up()
        async with over_http(server.url) as m:
            thunk = await m.ainstruct("Say it.", model_options={ModelOption.STREAM: True})
            async for text in thunk:
                now = time.monotonic_ns()
                lags.extend((now - int(stamp)) / 1e9 for stamp in text.split())

    with wire_server(words(40), pace=PACE, stamp=True) as server:
        run(main, server)
    return {"first": lags[0], "median": sorted(lags)[len(lags) // 2]}


def many_thunks(thunks, deltas):
    from mellea_sc import start_session, wait_for_all_mots

    texts = words(deltas)

    async def main():
        async with start_session(backend=paced(texts, 0.001)) as m:
            await (await m.ainstruct("Say it."))  # the session is set up
            before = rss()
            watch = Stopwatch()
            started = [await m.ainstruct("Say it.") for _ in range(thunks)]
            await wait_for_all_mots(started)
            return watch.read(memory=(peak_rss() - before) / thunks)

    return run(main)


def three_instructs():
    from mellea_sc import start_session, wait_for_all_mots

    async def main():
        await warm_up()
        async with start_session(backend=paced(["Done."], CALL)) as m:
            watch = Stopwatch()
            started = [await m.ainstruct("Say it.") for _ in range(3)]
            returned = watch.read()["seconds"]
            await wait_for_all_mots(started)
            return watch.read(returned=returned)

    return run(main)


def import_cost():
    watch = Stopwatch()
    from mellea_sc import (  # noqa: F401
        Instruction,
        PartialValidationResult,
        Requirement,
        ValidationResult,
        start_session,
        stream_with_chunking,
    )

    return watch.read(memory=peak_rss())


def first_answer():
    async def main():
        async with over_http(server.url) as m:
            return await (await m.ainstruct("Say it."))

    with wire_server(words(12)) as server:
        watch = Stopwatch()
        assert len(run(main)) >= 59
        return watch.read(memory=peak_rss())


def wire(protocol, streams, deltas, pace=0.0):
    import anyio

    texts = words(deltas)

    async def main(server):
        async def one():
            nonlocal chunks
            found = await count_chunks(m, [requirement(), requirement()], "sentence")
            chunks += found

        chunks = 0
        async with over_http(server.url, protocol) as m:
            await count_chunks(m, [requirement(), requirement()], "sentence")  # all is imported
            watch = Stopwatch()
            async with anyio.create_task_group() as tasks:
                for _ in range(streams):
                    tasks.start_soon(one)
            return watch.read(deltas=streams * deltas, chunks=chunks)

    with wire_server(texts, pace=pace) as server:
        return run(main, server)


def sync_call(calls):
    from mellea_sc import start_session

    backend = at_once(["Done."])

    async def main():
        async with start_session(backend=backend) as m:
            await (await m.ainstruct("Say it."))
            watch = Stopwatch()
            for _ in range(calls):
                await (await m.ainstruct("Say it."))
            return watch.read()["seconds"] / calls

    with start_session(backend=backend) as m:
        m.instruct("Say it.")
        watch = Stopwatch()
        for _ in range(calls):
            m.instruct("Say it.")
        blocking = watch.read()["seconds"] / calls
    waited_for = run(main)
    return {"sync": blocking, "async": waited_for, "overhead": blocking - waited_for}
