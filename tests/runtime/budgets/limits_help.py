"""What the tests of limits share."""

from __future__ import annotations

from collections.abc import Iterable

from mellea_sc import CBlock, Delta, GenerationRequest, MelleaSession, ModelOutputThunk
from mellea_sc.backends import Usage
from mellea_sc.core.backend import ChatMessage
from mellea_sc.testing import Script, ScriptedBackend, Step

ASKED = "hi"
"""A prompt of one token, as long as it is estimated."""


def request(*contents: str) -> GenerationRequest:
    return GenerationRequest(tuple(ChatMessage("user", content) for content in contents))


def words(count: int, *, delay: float = 0.1, usage: Usage | None = None) -> Script:
    """An answer of so many deltas, each a token; what the server says of it is what is estimated."""
    return Script([f"w{n} " for n in range(count)], delay=delay, usage=usage or Usage(1, count))


def text_of(count: int) -> str:
    return "".join(f"w{n} " for n in range(count))


def silent(steps: Iterable[Step], *, delay: float = 0.0) -> Script:
    """An answer whose server says nothing about tokens."""
    return Script([*steps, Delta(finish_reason="stop")], delay=delay)


def server_of(count: int, *, delay: float = 0.1) -> ScriptedBackend:
    return ScriptedBackend(lambda _: words(count, delay=delay))


async def ask(m: MelleaSession, what: str = ASKED) -> ModelOutputThunk:
    """A thunk that makes one request, of one message."""
    return await m.aact(CBlock(what), strategy=None)
