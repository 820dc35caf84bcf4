"""Mellea's interface of a checked stream::

    async with await stream(action, m.backend, m.ctx, requirements=[…]) as chunks:
        async for chunk in chunks:
            ...

It is a result as :func:`~mellea_sc.stream_with_chunking` gives it, with some of Mellea's names besides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.requirement import Requirement, label_of
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.stdlib.streaming.request import stream_with_chunking
from mellea_sc.stdlib.streaming.result import StreamChunkingResult

__all__ = ["Streamer", "stream"]


async def stream(
    action: Component | Span,
    backend: Backend,
    ctx: Context,
    *,
    chunking: str | ChunkingStrategy | None = None,
    requirements: Sequence[Requirement | str] | None = None,
    validation_backend: Backend | None = None,
) -> Streamer:
    """Start a checked stream, to be entered and iterated.

    Args:
        action: As in :func:`~mellea_sc.stream_with_chunking`, like the other arguments.
        backend: The backend that generates.
        ctx: The conversation before it.
        chunking: By default ``None``, raw deltas, unlike there.
        requirements: Requirements on the answer.
        validation_backend: The backend for validators.

    Raises:
        InvalidOption: an argument is not usable.
        SessionClosed: the session of the backend has ended.

    Cancellation: a stream that has been started belongs to the session of its backend, and to its own block.
    """
    request = stream_with_chunking(
        action,
        backend,
        ctx,
        chunking=chunking,
        requirements=requirements,
        validation_backend=validation_backend,
    )
    return Streamer(await request.start())


class Streamer(StreamChunkingResult):
    """A checked stream under Mellea's names: iterate it for its chunks, inside its block."""

    def __aiter__(self) -> AsyncIterator[str]:
        return self.astream()

    async def aclose(self) -> None:
        """Cancel the stream if it has not ended, and wait for its cleanup.

        Raises:
            Exception: the error that ended it, if nobody has observed it.

        Cancellation: the cleanup is waited for.
        """
        await self.__aexit__(None, None, None)

    @property
    def completed_normally(self) -> bool:
        """Whether the text came to its natural end."""
        return self.completed

    @property
    def failed_early(self) -> bool:
        """Whether a check stopped it."""
        return bool(self.streaming_failures)

    @property
    def failure_reason(self) -> str | None:
        """The reason of the first check that stopped it, or else that requirement's description."""
        for requirement, verdict in self.streaming_failures:
            return verdict.reason or label_of(requirement)
        return None

    @property
    def mot(self) -> ModelOutputThunk | None:
        """After a natural end: the text as a computed thunk."""
        return self.as_thunk if self.completed else None
