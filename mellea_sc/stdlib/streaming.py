"""Text that is checked while it streams: :func:`stream_with_chunking`.

One delta's way, from the socket to the user::

    socket ─> backend.open() ─> pump ─> Attempt.write ─> editors ─> Cutter ─> one bounded channel per requirement
                                                                            │ stream_validate()
      reader <─ astream() / events() <─ View <── release ── Ledger <── verdict
                                                     └────── cancel ──> the attempt's cancel scope
                                                                                 │
                                          the next Attempt <── a strategy's Ask ─┘

``stream/`` has the run and what its user sees, ``sampling/engine/`` the attempts, and the kernel's
``runtime/checks/`` the checking. There are editors only where a requirement filters or fixes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Unpack

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.stdlib.arguments import StreamArguments, keyword_arguments
from mellea_sc.stdlib.stream.events import (
    ChunkEvent,
    CompletedEvent,
    EditEvent,
    ErrorEvent,
    FullValidationEvent,
    InputCheckEvent,
    QuickCheckEvent,
    ReasoningEvent,
    RetractEvent,
    RetryEvent,
    StreamEvent,
    StreamingDoneEvent,
)
from mellea_sc.stdlib.stream.request import STREAM_DEFAULTS, StreamRequest, stream_request
from mellea_sc.stdlib.stream.result import StreamChunkingResult
from mellea_sc.stdlib.turns import Turns

if TYPE_CHECKING:
    from mellea_sc.stdlib.stream.streamer import Streamer, stream
else:

    def __getattr__(name):  # both are made with what is here
        if name not in ("Streamer", "stream"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mellea_sc.stdlib.stream import streamer

        return getattr(streamer, name)


__all__ = [
    "ChunkEvent",
    "CompletedEvent",
    "EditEvent",
    "ErrorEvent",
    "FullValidationEvent",
    "InputCheckEvent",
    "QuickCheckEvent",
    "ReasoningEvent",
    "RetractEvent",
    "RetryEvent",
    "StreamChunkingResult",
    "StreamEvent",
    "StreamRequest",
    "Streamer",
    "StreamingDoneEvent",
    "stream",
    "stream_with_chunking",
]


@keyword_arguments(StreamArguments, **STREAM_DEFAULTS)
def stream_with_chunking(
    action: Component | Span,
    backend: Backend,
    ctx: Context,
    **given: Unpack[StreamArguments],
) -> StreamRequest:
    """Generate text that is checked, chunk by chunk, before anybody sees it.

    Await it, and the run goes on in the session that ``backend`` belongs to (``m.backend``; for a bare
    backend in the current session, or in the event loop itself) while its result is read. Or enter it,
    ``async with stream_with_chunking(…) as result:``, and the run ends with the block.

    Args:
        action: What the model is asked.
        backend: What generates.
        ctx: The conversation before it; it is not changed.
        requirements: What must hold. Each judges a copy of its own, made before anything is started;
            a string is a requirement that a model judges at the end.
        chunking: ``"sentence"``, ``"word"``, ``"paragraph"``, ``None`` (raw deltas) or a strategy. A
            requirement may have another one of its own.
        validation_backend: What validators generate with, instead of ``backend``.
        format: A pydantic model class or a JSON schema that the model is constrained to.
        model_options: For the generation, see :class:`~mellea_sc.ModelOption`.
        lane_buffer: How many chunks one requirement may be ahead of another.
        lookahead: How many released chunks may wait unread before the model is slowed down; ``None``:
            any number.
        validator_timeout: Seconds that one call of a validator may take; ``None``: any time.
        strategy: What follows an attempt that is rejected; ``None``: nothing, unless a requirement's
            ``on_fail`` says so. Several attempts at once are not shown before one is accepted.
        hold_back: Show nothing before its attempt is accepted; or, a number, hold so many chunks back
            until then, which a backtracking strategy may still take back.
        preconditions: What must hold of what the model is asked, judged beside the generation; nothing
            is released before all of them are met, and one that is not ends the run with a
            :class:`PreconditionFailed`.
        limits: What the run may use, all its attempts and judges together; exceeding it ends the run with
            a :class:`BudgetExceeded`. See :func:`mellea_sc.limits`.
        retries: How often a request of the run, its judges' included, is made again when it failed before
            its answer began, or :class:`Retries`; 0: never; ``None``: as the session says, 3 times without one.

    Returns:
        Something to await or to enter, for a :class:`StreamChunkingResult`. Nothing is started before.

    Raises:
        InvalidOption: an argument is not usable; on awaiting or entering: a strategy or a chunking is not, or
            a model would be asked to judge that cannot.
        Exception: as a requirement's ``__copy__`` raises it, on awaiting or entering; then nothing is started either.

    Cancellation: a run belongs to its session (or its block), not to who awaits its result.
    """
    turns = Turns(ctx, in_order=False)
    return stream_request(action, backend, partial(turns.take_turn, runs_code=True), given)
