"""Guardrails AI: a guard over LiteLLM's client, with checks that judge sentences.

Its guards validate what a client streams; there is no session, no thunk and no source inside the process
that is wired in as its own are, so it does the rows over HTTP alone.
"""

# ruff: noqa: ARG001 - validators have the parameters that guards give

from __future__ import annotations

import os

from adapters._work import Stopwatch, peak_rss, wire_server, words

LOOP = "asyncio"
CANNOT = "its guards are wired to clients over HTTP, and have no thunks"
__all__ = ["CANNOT", "LOOP", "first_answer", "import_cost"]


def client(checks=0):
    # what would go out to other hosts: LiteLLM's price list, and telemetry
    os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", OTEL_SDK_DISABLED="true")
    from adapters._client import CheckingClient
    from guardrails import AsyncGuard
    from guardrails.validators import PassResult, Validator, register_validator

    def validate(self, value, metadata):
        return PassResult()

    def trivial(number):
        # guards tell validators apart by the names of their classes
        made = type(f"Trivial{number}", (Validator,), {"validate": validate})
        register = register_validator(name=f"bench/trivial-{number}", data_type="string")
        return register(made)(on_fail="noop")

    def guarded():
        guard = AsyncGuard()
        guard.configure(allow_metrics_collection=False)
        return guard.use(*map(trivial, range(checks))) if checks else guard

    async def texts(url):
        said = await guarded()(
            model="openai/bench",
            api_base=url + "/v1",
            api_key="none",
            messages=[{"role": "user", "content": "Say it."}],
            stream=True,
        )
        async for outcome in said:
            yield outcome.validated_output or ""

    return CheckingClient(LOOP, str, texts)


def import_cost():
    watch = Stopwatch()
    from guardrails import Guard  # noqa: F401

    return watch.read(memory=peak_rss())


def first_answer():
    with wire_server(words(12)) as server:
        watch = Stopwatch()
        return client().first_answer(server, watch)


def first_delta_latency():
    return client().first_delta_latency()


def wire(protocol, streams, deltas):
    return client(checks=2).wire(protocol, streams, deltas)
