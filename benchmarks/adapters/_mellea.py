"""What the two versions of Mellea have in common: everything but how text is checked while it streams."""

# ruff: noqa: ARG001 - judges have the parameters that their callers give

from __future__ import annotations

import asyncio
import datetime as dt
import time
from functools import partial

from adapters._work import (
    CALL,
    LATE,
    PACE,
    Stopwatch,
    peak_rss,
    rss,
    run_asyncio,
    sentences,
    wire_server,
    words,
)
from mellea.backends import ModelOption
from mellea.core import (
    Backend,
    GenerateLog,
    MelleaLogger,
    ModelOutputThunk,
    Requirement,
    ValidationResult,
)
from mellea.core.base import GenerateType
from mellea.core.requirement import PartialValidationResult
from mellea.helpers.async_helpers import send_to_queue, wait_for_all_mots
from mellea.stdlib.components import Instruction
from mellea.stdlib.context import SimpleContext
from mellea.stdlib.session import MelleaSession

__all__ = ["Adapter"]

MelleaLogger.get_logger().setLevel("ERROR")  # a line for each answer is no part of the work


class Source(Backend):
    """A streaming backend, wired as Mellea's own are; its chunks are plain strings.

    Args:
        make: An async generator function.
        queue_of: What ``send_to_queue`` of this version wants: the thunk, or its queue.
    """

    _model_id = "bench"
    _provider = "bench"

    def __init__(self, make, queue_of):
        self.make = make
        self.queue_of = queue_of

    async def _generate_from_context(
        self, action, ctx, *, format=None, model_options=None, tool_calls=False
    ):
        thunk = ModelOutputThunk(None)
        thunk._gen.start = dt.datetime.now()
        thunk._call.action = action
        thunk._call.context = []
        thunk._call.model_options = model_options or {}
        thunk._gen.process = self.process
        thunk._gen.post_process = self.post_process
        thunk._gen.generate_type = GenerateType.ASYNC
        thunk._gen.generate = asyncio.create_task(
            send_to_queue(self.answer(), self.queue_of(thunk))
        )
        return thunk, ctx.add(action).add(thunk)

    async def answer(self):
        return self.make()

    @staticmethod
    async def process(thunk, chunk):
        thunk._underlying_value = (thunk._underlying_value or "") + chunk

    @staticmethod
    async def post_process(thunk):
        thunk._gen.generate = None
        thunk._generate_log = GenerateLog()

    async def _generate_from_raw(self, actions, ctx, **_):
        raise NotImplementedError


def judged(judging):
    """A class of requirements that are judged by the method of that name."""

    async def judge_chunk(self, chunk, *, backend, ctx):
        if self.judge is None:
            return PartialValidationResult("unknown")
        self.index += 1
        return PartialValidationResult(await self.judge(self.index, chunk) or "unknown")

    class Judged(Requirement):
        def __init__(self, judge):
            super().__init__("it is fine")
            self.judge = judge
            self.index = -1

        async def validate(self, backend, ctx, *, format=None, model_options=None):
            return ValidationResult(True)

    setattr(Judged, judging, judge_chunk)
    return Judged


async def at_once(texts):
    for text in texts:
        yield text


async def paced(texts, pace):
    for text in texts:
        await asyncio.sleep(pace)
        yield text


class Adapter:
    """The work, as one version of Mellea does it.

    Args:
        loop: asyncio's loop or uvloop's.
        queue_of: See :class:`Source`.
        judging: The name of the method that judges a chunk.
        stream: ``await stream(action, backend, ctx, requirements=…, chunking=…)`` gives an object
            whose ``async for`` gives the checked chunks, in an ``async with``.
    """

    def __init__(self, loop, queue_of, judging, stream):
        self.loop = loop
        self.queue_of = queue_of
        self.judged = judged(judging)
        self.stream = stream

    def run(self, main, *args):
        return run_asyncio(self.loop, main, *args)

    def source(self, make, *args):
        return Source(partial(make, *args), self.queue_of)

    def session(self, make, *args):
        return MelleaSession(self.source(make, *args), SimpleContext())

    def requirement(self, judge=None):
        return self.judged(judge)

    def checked(self, backend, requirements, chunking="sentence"):
        return self.stream(
            Instruction("Say it."),
            backend,
            SimpleContext(),
            requirements=requirements,
            chunking=chunking,
        )

    async def count_chunks(self, backend, requirements, chunking="sentence"):
        chunks = 0
        async with self.checked(backend, requirements, chunking) as deltas:
            async for _ in deltas:
                chunks += 1
        return chunks

    async def warm_up(self):
        await self.count_chunks(self.source(at_once, words(24)), [self.requirement()])
        await (await self.thunk(self.session(at_once, words(24)))).avalue()

    async def thunk(self, m, stream=False):
        options = {ModelOption.STREAM: True} if stream else None
        # with the default strategy it would return when it is done
        return await m.ainstruct("Say it.", strategy=None, model_options=options)

    # --- the rows --------------------------------------------------------------------------

    def stream_chunks(self, deltas, requirements, chunking, runs=1):
        async def main():
            await self.warm_up()
            backend = self.source(at_once, words(deltas))
            watch = Stopwatch()
            counts = await asyncio.gather(
                *(
                    self.count_chunks(
                        backend, [self.requirement() for _ in range(requirements)], chunking
                    )
                    for _ in range(runs)
                )
            )
            return watch.read(chunks=sum(counts), deltas=deltas * runs)

        return self.run(main)

    def read_thunk(self, deltas):
        async def main():
            await self.warm_up()
            watch = Stopwatch()
            thunk = await self.thunk(self.session(at_once, words(deltas)), stream=True)
            length = 0
            while not thunk.is_computed():
                length += len(await thunk.astream())
            assert length == 5 * deltas
            return watch.read(deltas=deltas)

        return self.run(main)

    def slow_lanes(self):
        def lane(turn):
            async def judge(index, chunk):
                await asyncio.sleep(0.06 if index % 3 == turn else 0.005)

            return self.requirement(judge)

        async def main():
            await self.warm_up()
            watch = Stopwatch()
            backend = self.source(at_once, sentences(20))
            chunks = await self.count_chunks(backend, [lane(turn) for turn in range(3)])
            return watch.read(chunks=chunks)

        return self.run(main)

    def overlap(self):
        async def judge(index, chunk):
            await asyncio.sleep(0.03)

        async def main():
            await self.warm_up()
            backend = self.source(paced, sentences(20), PACE)
            watch = Stopwatch()
            async with self.checked(backend, [self.requirement(judge)]) as deltas:
                async for _ in deltas:
                    await asyncio.sleep(0.03)
            return watch.read()

        return self.run(main)

    def over_http(self, url, protocol="openai"):
        if protocol == "ollama":
            from mellea.backends.ollama import OllamaModelBackend

            return OllamaModelBackend("bench", base_url=url)
        from mellea.backends.openai import OpenAIBackend

        return OpenAIBackend("bench", base_url=url + "/v1", api_key="none")

    def fail_while_sibling_sleeps(self):
        failed_at = 0.0

        async def sleeping(index, chunk):
            await asyncio.sleep(LATE if index == 3 else 0)

        async def failing(index, chunk):
            nonlocal failed_at
            if index < 3:
                return None
            await asyncio.sleep(PACE / 2)  # the sibling is in its call by now
            server.mark()
            failed_at = time.monotonic()
            return "fail"

        async def main():
            await self.warm_up()
            requirements = [self.requirement(sleeping), self.requirement(failing)]
            async with self.checked(self.over_http(server.url), requirements) as deltas:
                async for _ in deltas:
                    pass
                return time.monotonic()

        with wire_server(sentences(250), pace=PACE) as server:
            knows_at = self.run(main)
            return server.seen_after(failed_at, knows_at)

    def backend_error_after(self, deltas):
        async def breaking(count):
            for text in sentences(count):
                yield text
            raise ConnectionResetError("the source broke")

        async def judge(index, chunk):
            await asyncio.sleep(0.02)

        async def one(count):
            received = 0
            backend = self.source(breaking, count)
            try:
                async with self.checked(backend, [self.requirement(judge)]) as chunks:
                    async for _ in chunks:
                        received += 1
            except ConnectionResetError:
                return received, 1
            return received, 0

        async def main():
            found = await asyncio.gather(*(one(count) for count in deltas))
            received, raised = map(sum, zip(*found, strict=True))
            return {"received": received / sum(deltas), "raised": raised / len(deltas)}

        return self.run(main)

    def first_delta_latency(self):
        lags = []

        async def main(server):
            await self.warm_up()
            m = MelleaSession(self.over_http(server.url), SimpleContext())
            thunk = await self.thunk(m, stream=True)
            while not thunk.is_computed():
                text = await thunk.astream()
                now = time.monotonic_ns()
                lags.extend((now - int(stamp)) / 1e9 for stamp in text.split())

        with wire_server(words(40), pace=PACE, stamp=True) as server:
            self.run(main, server)
        return {"first": lags[0], "median": sorted(lags)[len(lags) // 2]}

    def many_thunks(self, thunks, deltas):
        async def main():
            await self.warm_up()
            m = self.session(paced, words(deltas), 0.001)
            before = rss()
            watch = Stopwatch()
            started = [await self.thunk(m) for _ in range(thunks)]
            await wait_for_all_mots(started)
            return watch.read(memory=(peak_rss() - before) / thunks)

        return self.run(main)

    def three_instructs(self):
        async def main():
            await self.warm_up()
            m = self.session(paced, ["Done."], CALL)
            watch = Stopwatch()
            started = [await m.ainstruct("Say it.") for _ in range(3)]
            returned = watch.read()["seconds"]
            await wait_for_all_mots(started)
            return watch.read(returned=returned)

        return self.run(main)

    def first_answer(self, server):
        async def main():
            m = MelleaSession(self.over_http(server.url), SimpleContext())
            return await (await self.thunk(m, stream=True)).avalue()

        assert len(self.run(main)) >= 59

    def wire(self, protocol, streams, deltas):
        async def main(server):
            backend = self.over_http(server.url, protocol)
            await self.count_chunks(backend, [])  # everything is imported
            watch = Stopwatch()
            counts = await asyncio.gather(
                *(
                    self.count_chunks(backend, [self.requirement(), self.requirement()])
                    for _ in range(streams)
                )
            )
            return watch.read(deltas=streams * deltas, chunks=sum(counts))

        with wire_server(words(deltas)) as server:
            return self.run(main, server)

    def sync_call(self, calls):
        async def main():
            m = self.session(at_once, ["Done."])
            await m.ainstruct("Say it.")
            watch = Stopwatch()
            for _ in range(calls):
                await m.ainstruct("Say it.")
            return watch.read()["seconds"] / calls

        m = self.session(at_once, ["Done."])
        m.instruct("Say it.")
        watch = Stopwatch()
        for _ in range(calls):
            m.instruct("Say it.")
        blocking = watch.read()["seconds"] / calls
        waited_for = self.run(main)
        return {"sync": blocking, "async": waited_for, "overhead": blocking - waited_for}
