"""Mellea 0.8.0, whose ``stream`` checks text while it streams."""

from __future__ import annotations

from contextlib import asynccontextmanager

from adapters._work import Stopwatch, peak_rss, wire_server, words

LOOP = "asyncio"


def adapter():
    from adapters._mellea import Adapter
    from mellea.stdlib.streaming import stream as start_stream

    @asynccontextmanager
    async def stream(*args, **options):
        async with await start_stream(*args, **options) as chunks:
            yield chunks

    return Adapter(LOOP, lambda thunk: thunk, judging="_stream_validate", stream=stream)


def import_cost():
    watch = Stopwatch()
    from mellea import start_session  # noqa: F401
    from mellea.core import PartialValidationResult, Requirement, ValidationResult  # noqa: F401
    from mellea.stdlib.components import Instruction  # noqa: F401
    from mellea.stdlib.streaming import stream  # noqa: F401

    return watch.read(memory=peak_rss())


def first_answer():
    with wire_server(words(12)) as server:
        watch = Stopwatch()
        adapter().first_answer(server)
        return watch.read(memory=peak_rss())


def __getattr__(work):
    """The other rows: Mellea is imported before they begin."""
    if work.startswith("_"):
        raise AttributeError(work)
    return getattr(adapter(), work)
