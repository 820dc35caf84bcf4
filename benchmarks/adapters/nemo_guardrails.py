"""NeMo Guardrails: what it costs to have it."""

from __future__ import annotations

from adapters._work import Stopwatch, peak_rss

LOOP = "asyncio"
CANNOT = "its rails are configured, and judge in batches of tokens"


def import_cost():
    watch = Stopwatch()
    from nemoguardrails import LLMRails, RailsConfig  # noqa: F401

    return watch.read(memory=peak_rss())
