"""Pydantic AI: an agent without tools, and the texts of its stream."""

from __future__ import annotations

from adapters._client import CANNOT
from adapters._work import Stopwatch, peak_rss, wire_server, words

LOOP = "asyncio"
__all__ = ["CANNOT", "LOOP", "first_answer", "import_cost"]


def client():
    from adapters._client import Client
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    def open_client(url):
        provider = OpenAIProvider(base_url=url + "/v1", api_key="none")
        return Agent(OpenAIChatModel("bench", provider=provider))

    async def texts(agent):
        async with agent.run_stream("Say it.") as result:
            async for text in result.stream_text(delta=True, debounce_by=None):
                yield text

    return Client(LOOP, open_client, texts)


def import_cost():
    watch = Stopwatch()
    from pydantic_ai import Agent  # noqa: F401
    from pydantic_ai.models.openai import OpenAIChatModel  # noqa: F401

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
