"""NeMo Guardrails: rails around its own client, with output rails that judge batches of tokens.

Its rails are configured, and judge in batches of so many tokens: of twelve here, as long as a sentence of
the text, and before the text is shown, which they do not by default. It does the rows over HTTP alone:
there is no thunk, and no fail that is data.
"""

from __future__ import annotations

from adapters._work import Stopwatch, peak_rss, wire_server, words

LOOP = "asyncio"
CANNOT = "its rails are wired to clients over HTTP, judge batches of tokens, and have no thunks"
__all__ = ["CANNOT", "LOOP", "first_answer", "import_cost"]

MODEL = """
models:
  - type: main
    engine: openai
    model: bench
    parameters: {{base_url: {url}/v1, api_key: none}}
"""
RAILS = """
rails:
  output:
    flows: [trivial one, trivial two]
    streaming: {enabled: true, chunk_size: 12, context_size: 0, stream_first: false}
"""
FLOWS = """
define flow trivial one
  $verdict = execute trivial_one
  if $verdict.is_blocked
    stop

define flow trivial two
  $verdict = execute trivial_two
  if $verdict.is_blocked
    stop
"""


def client(checks=False):
    from adapters._client import CheckingClient
    from nemoguardrails import LLMRails, RailsConfig
    from nemoguardrails.actions.rail_outcome import RailOutcome

    async def trivial(**_):
        return RailOutcome.allow()

    def open_client(url):
        model = MODEL.format(url=url)
        if not checks:
            return LLMRails(RailsConfig.from_content(yaml_content=model))
        config = RailsConfig.from_content(yaml_content=model + RAILS, colang_content=FLOWS)
        rails = LLMRails(config)
        for name in ("trivial_one", "trivial_two"):
            rails.register_action(trivial, name)
        return rails

    async def texts(rails):
        async for text in rails.stream_async(messages=[{"role": "user", "content": "Say it."}]):
            yield text

    return CheckingClient(LOOP, open_client, texts)


def import_cost():
    watch = Stopwatch()
    from nemoguardrails import LLMRails, RailsConfig  # noqa: F401

    return watch.read(memory=peak_rss())


def first_answer():
    with wire_server(words(12)) as server:
        watch = Stopwatch()
        return client().first_answer(server, watch)


def first_delta_latency():
    return client().first_delta_latency()


def wire(protocol, streams, deltas):
    return client(checks=True).wire(protocol, streams, deltas)
