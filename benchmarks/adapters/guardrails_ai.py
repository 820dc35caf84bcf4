"""Guardrails AI: what it costs to have it."""

from __future__ import annotations

from adapters._work import Stopwatch, peak_rss

LOOP = "asyncio"
CANNOT = "its validators judge a stream of its own making"


def import_cost():
    watch = Stopwatch()
    from guardrails import Guard  # noqa: F401

    return watch.read(memory=peak_rss())
