"""No library: a loop over the source, a task for each thing that goes on, a bare HTTP client.

This is the limit, not a contestant: it keeps none of the promises (nothing is checked for timeouts,
nothing is bounded, nobody cancels anybody). Chunks are cut where a delta ends a sentence.
"""

# ruff: noqa: ARG001 - judges have the parameters that their callers give

from __future__ import annotations

import asyncio
import json
import time

from adapters._work import (
    CALL,
    PACE,
    Stopwatch,
    peak_rss,
    rss,
    run_asyncio,
    sentences,
    wire_server,
    words,
)

LOOP = "asyncio"

CANNOT = "there is no library that could do it"


async def at_once(texts):
    for text in texts:
        yield text


async def paced(texts, pace, sleep=asyncio.sleep):
    for text in texts:
        await sleep(pace)
        yield text


async def trivial(chunk):
    return "unknown"


async def chunks_of(deltas, ends):
    pending = []
    async for text in deltas:
        pending.append(text)
        if text.endswith(ends):
            yield "".join(pending)
            pending = []


def stream_chunks(deltas, requirements, chunking, runs=1):
    texts = words(deltas)
    ends = ". " if chunking == "sentence" else " "
    checks = [trivial] * requirements

    async def one():
        chunks = 0
        async for chunk in chunks_of(at_once(texts), ends):
            for check in checks:
                await check(chunk)
            chunks += 1
        return chunks

    async def main():
        watch = Stopwatch()
        chunks = sum(await asyncio.gather(*(one() for _ in range(runs))))
        return watch.read(chunks=chunks, deltas=deltas * runs)

    return run_asyncio(LOOP, main)


def read_thunk(deltas):
    texts = words(deltas)

    async def main():
        watch = Stopwatch()
        length = 0
        async for text in at_once(texts):
            length += len(text)
        return watch.read(deltas=deltas)

    return run_asyncio(LOOP, main)


def slow_lanes():
    async def lane(turn):
        for index in range(20):
            await asyncio.sleep(0.06 if index % 3 == turn else 0.005)

    async def main():
        watch = Stopwatch()
        await asyncio.gather(*(lane(turn) for turn in range(3)))
        return watch.read()

    return run_asyncio(LOOP, main)


def overlap():
    async def main():
        async def judge():
            async for text in paced(sentences(20), PACE):
                arrived.put_nowait(text)

        async def pass_on():
            for _ in range(20):
                text = await arrived.get()
                await asyncio.sleep(0.03)
                judged.put_nowait(text)

        arrived, judged = asyncio.Queue(), asyncio.Queue()
        watch = Stopwatch()
        tasks = [asyncio.create_task(judge()), asyncio.create_task(pass_on())]
        for _ in range(20):
            await judged.get()
            await asyncio.sleep(0.03)
        await asyncio.gather(*tasks)
        return watch.read()

    return run_asyncio(LOOP, main)


async def texts_over_http(client, protocol, url):
    openai = protocol == "openai"
    path = "/v1/chat/completions" if openai else "/api/chat"
    body = {
        "model": "bench",
        "messages": [{"role": "user", "content": "Say it."}],
        "stream": True,
    }
    async with client.stream("POST", url + path, json=body) as response:
        async for line in response.aiter_lines():
            if not openai:
                yield json.loads(line)["message"]["content"]
            elif line.startswith("data: ") and line != "data: [DONE]":
                yield json.loads(line[6:])["choices"][0]["delta"].get("content", "")


def first_delta_latency():
    import httpx

    lags = []

    async def main(url):
        async with httpx.AsyncClient(timeout=120) as client:
            async for text in texts_over_http(client, "openai", url):
                now = time.monotonic_ns()
                lags.extend((now - int(stamp)) / 1e9 for stamp in text.split())

    with wire_server(words(40), pace=PACE, stamp=True) as server:
        run_asyncio(LOOP, main, server.url)
    return {"first": lags[0], "median": sorted(lags)[len(lags) // 2]}


def many_thunks(thunks, deltas):
    texts = words(deltas)

    async def one():
        return "".join([text async for text in paced(texts, 0.001)])

    async def main():
        await one()
        before = rss()
        watch = Stopwatch()
        await asyncio.gather(*[asyncio.create_task(one()) for _ in range(thunks)])
        return watch.read(memory=(peak_rss() - before) / thunks)

    return run_asyncio(LOOP, main)


def three_instructs():
    async def main():
        watch = Stopwatch()
        await asyncio.gather(*(asyncio.sleep(CALL) for _ in range(3)))
        return watch.read(returned=0.0)

    return run_asyncio(LOOP, main)


def import_cost():
    return {"seconds": 0.0, "cpu": 0.0, "memory": peak_rss()}


def first_answer():
    async def main():
        async with httpx.AsyncClient(timeout=120) as client:
            return [text async for text in texts_over_http(client, "openai", server.url)]

    with wire_server(words(12)) as server:
        watch = Stopwatch()
        import httpx

        assert len(run_asyncio(LOOP, main)) >= 12
        return watch.read(memory=peak_rss())


def wire(protocol, streams, deltas, pace=0.0):
    import anyio
    import httpx

    async def main(server):
        chunks = 0

        async def one():
            nonlocal chunks
            deltas = texts_over_http(client, protocol, server.url)
            async for chunk in chunks_of(deltas, ". "):
                await trivial(chunk)
                await trivial(chunk)
                chunks += 1

        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=120, limits=limits) as client:
            await one()
            watch = Stopwatch()
            async with anyio.create_task_group() as tasks:
                for _ in range(streams):
                    tasks.start_soon(one)
            return watch.read(deltas=streams * deltas, chunks=chunks)

    with wire_server(words(deltas), pace=pace) as server:
        if LOOP == "trio":
            return anyio.run(main, server, backend="trio")
        return run_asyncio(LOOP, main, server)


def sync_call(calls):
    import threading

    async def one():
        return "".join([text async for text in at_once(["Done."])])

    async def main():
        watch = Stopwatch()
        for _ in range(calls):
            await asyncio.create_task(one())
        return watch.read()["seconds"] / calls

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    watch = Stopwatch()
    for _ in range(calls):
        asyncio.run_coroutine_threadsafe(one(), loop).result()
    blocking = watch.read()["seconds"] / calls
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    waited_for = run_asyncio(LOOP, main)
    return {"sync": blocking, "async": waited_for, "overhead": blocking - waited_for}
