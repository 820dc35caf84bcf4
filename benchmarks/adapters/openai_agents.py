"""OpenAI Agents: an agent without tools, and the text events of its stream."""

from __future__ import annotations

from adapters._client import CANNOT
from adapters._work import Stopwatch, peak_rss, wire_server, words

LOOP = "asyncio"
__all__ = ["CANNOT", "LOOP", "first_answer", "import_cost"]


def client():
    from adapters._client import Client
    from agents import (
        Agent,
        OpenAIChatCompletionsModel,
        RunConfig,
        Runner,
        set_tracing_disabled,
    )
    from openai import AsyncOpenAI
    from openai.types.responses import ResponseTextDeltaEvent

    set_tracing_disabled(True)

    def open_client(url):
        openai = AsyncOpenAI(base_url=url + "/v1", api_key="none")
        model = OpenAIChatCompletionsModel(model="bench", openai_client=openai)
        return Agent(name="bench", model=model)

    async def texts(agent):
        result = Runner.run_streamed(agent, "Say it.", run_config=RunConfig(tracing_disabled=True))
        async for event in result.stream_events():
            if event.type == "raw_response_event" and isinstance(
                event.data, ResponseTextDeltaEvent
            ):
                yield event.data.delta

    return Client(LOOP, open_client, texts)


def import_cost():
    watch = Stopwatch()
    from agents import Agent, Runner  # noqa: F401

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
