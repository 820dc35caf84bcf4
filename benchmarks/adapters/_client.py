"""What a client library can do: read answers as they come, over HTTP.

Where it has no checks of its own, those of the wire rows are made by hand, between two deltas, as in the
bare adapter.
"""

# ruff: noqa: ARG001 - judges have the parameters that their callers give

from __future__ import annotations

import asyncio
import time

from adapters._work import PACE, Cannot, Stopwatch, peak_rss, run_asyncio, wire_server, words

__all__ = ["CANNOT", "CheckingClient", "Client"]

CANNOT = "it has no checks of running text and no thunks"


async def trivial(chunk):
    return "unknown"


class Client:
    """The work over HTTP.

    Args:
        loop: asyncio's loop or uvloop's.
        open_client: Makes what ``texts`` needs, from the server's address.
        texts: ``texts(client)`` is an async generator of an answer's texts.
    """

    def __init__(self, loop, open_client, texts):
        self.loop = loop
        self.open_client = open_client
        self.texts = texts

    async def checked(self, client):
        chunks, pending = 0, []
        async for text in self.texts(client):
            pending.append(text)
            if text.endswith(". "):
                chunk, pending = "".join(pending), []
                await trivial(chunk)
                await trivial(chunk)
                chunks += 1
        return chunks

    def first_delta_latency(self):
        lags = []

        async def main():
            async for _ in self.texts(self.open_client(server.url)):
                pass  # the first time much is set up
            async for text in self.texts(self.open_client(server.url)):
                now = time.monotonic_ns()
                lags.extend((now - int(stamp)) / 1e9 for stamp in text.split())

        with wire_server(words(40), pace=PACE, stamp=True) as server:
            run_asyncio(self.loop, main)
        return {"first": lags[0], "median": sorted(lags)[len(lags) // 2]}

    def first_answer(self, server, watch):
        async def main():
            return [text async for text in self.texts(self.open_client(server.url))]

        assert len("".join(run_asyncio(self.loop, main))) >= 59
        return watch.read(memory=peak_rss())

    def wire(self, protocol, streams, deltas, pace=0.0):
        if protocol != "openai":
            raise Cannot("it does not speak this protocol")

        async def main():
            client = self.open_client(server.url)
            await self.checked(client)  # everything is imported
            watch = Stopwatch()
            chunks = await asyncio.gather(*(self.checked(client) for _ in range(streams)))
            return watch.read(deltas=streams * deltas, chunks=sum(chunks))

        with wire_server(words(deltas), pace=pace) as server:
            return run_asyncio(self.loop, main)


class CheckingClient(Client):
    """A client that has its own checks: the texts that come out of it have passed them."""

    async def checked(self, client):
        chunks = 0
        async for text in self.texts(client):
            chunks += bool(text)
        return chunks
