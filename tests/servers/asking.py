"""What the tests of servers share: sessions with the settings of a server, and what is asked."""

from __future__ import annotations

from running import Running, backend_for

from mellea_sc import ModelOption
from mellea_sc.stdlib.session import MelleaSession, start_session

FOREVER = "Count from one to a thousand, in words, and leave out none."


def session(server: Running, *, retries: int | None = None, **settings: str) -> MelleaSession:
    """A session with a server, as the guide says that it is to be asked."""
    return start_session(
        backend=backend_for(server, **settings),
        model_options=server.server.options,
        retries=retries,
    )


def asked(tokens: int) -> dict[str, object]:
    """Options for so many tokens, the same ones each time."""
    return {ModelOption.MAX_NEW_TOKENS: tokens, ModelOption.TEMPERATURE: 0.0}


def endless(server: Running, tokens: int = 1500) -> dict[str, object]:
    """Options for an answer that takes far longer than any test; its text streams."""
    return {**asked(tokens), **server.server.endless, ModelOption.STREAM: True}
