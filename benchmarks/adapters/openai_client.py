"""The client of OpenAI, and a loop over its stream."""

from __future__ import annotations

from adapters._client import CANNOT
from adapters._work import Stopwatch, peak_rss, wire_server, words

LOOP = "asyncio"
__all__ = ["CANNOT", "LOOP", "first_answer", "import_cost"]


def client():
    from adapters._client import Client
    from openai import AsyncOpenAI

    def open_client(url):
        return AsyncOpenAI(base_url=url + "/v1", api_key="none")

    async def texts(openai):
        message = {"role": "user", "content": "Say it."}
        stream = await openai.chat.completions.create(
            model="bench", messages=[message], stream=True
        )
        async for event in stream:
            yield event.choices[0].delta.content or ""

    return Client(LOOP, open_client, texts)


def import_cost():
    watch = Stopwatch()
    from openai import AsyncOpenAI  # noqa: F401

    return watch.read(memory=peak_rss())


def first_answer():
    with wire_server(words(12)) as server:
        watch = Stopwatch()
        return client().first_answer(server, watch)


def __getattr__(work):
    """The other rows, which import the library before they begin."""
    if work not in ("first_delta_latency", "wire"):
        raise AttributeError(work)
    return getattr(client(), work)
