"""Starts a checked stream: :func:`stream_with_chunking`."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import attrs

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.stdlib.arguments import StreamArguments, keyword_arguments
from mellea_sc.stdlib.sampling.engine.options import STREAM_DEFAULTS
from mellea_sc.stdlib.streaming.request import StreamRequest, stream_request
from mellea_sc.stdlib.turns import Turns

__all__ = ["stream_with_chunking"]


@keyword_arguments(StreamArguments, **attrs.asdict(STREAM_DEFAULTS))
def stream_with_chunking(
    action: Component | Span,
    backend: Backend,
    ctx: Context,
    **given: Unpack[StreamArguments],
) -> StreamRequest:
    """Generate text that is validated, chunk by chunk, before it is shown.

    If the request is awaited, the run goes on in the session of ``backend`` (``m.backend``; with a bare backend in
    the current session, or in the event loop itself) while its result is read. If it is entered,
    ``async with stream_with_chunking(…) as result:``, the run ends with the block.

    Args:
        action: The question or task for the model.
        backend: The backend that generates.
        ctx: The conversation before it; it is not changed.
        requirements: Requirements on the answer. They are copied for each attempt, the first time before anything is
            started. A string is a requirement that a model judges at the end.
        chunking: ``"sentence"``, ``"word"``, ``"paragraph"``, ``None`` (raw deltas) or a strategy. A
            requirement may have its own chunking.
        validation_backend: The backend for validators, instead of ``backend``.
        format: A pydantic model class or a JSON schema that the model is constrained to.
        model_options: Options of the generation, see :class:`~mellea_sc.ModelOption`.
        lane_buffer: The number of chunks that one requirement may be ahead of another.
        lookahead: The number of released chunks that may wait unread before the model is slowed down; ``None``:
            any number.
        validator_timeout: Seconds that one call of a validator may take; ``None``: no timeout.
        strategy: Decides what follows a rejected attempt; ``None``: nothing, unless a requirement has an
            ``on_fail``. Attempts that run at the same time are not shown before one is accepted.
        hold_back: ``True``: show nothing before the attempt is accepted. A number: hold back that many chunks
            until then, so that a backtracking strategy can still replace them.
        preconditions: Requirements on the input, validated while the answer is generated. Nothing is released
            before all of them are met. One that is not met ends the run with a :class:`PreconditionFailed`.
        limits: Limits of the run, all its attempts and judges together. Exceeding one ends the run with a
            :class:`BudgetExceeded`. See :func:`mellea_sc.limits`.
        retries: How often a request of the run, those of judges included, is retried if it has failed before its
            answer began, or :class:`Retries`; 0: never; ``None``: as the session says, 3 times without one.

    Returns:
        A request to await or to enter, which gives a :class:`StreamChunkingResult`. Nothing is started before.

    Raises:
        InvalidOption: an argument is not usable; on awaiting or entering: a strategy or a chunking is not usable, or
            a model that cannot judge would be asked to.
        Exception: on awaiting or entering, as a requirement's ``__copy__`` raises it; then nothing is started.

    Cancellation: a run belongs to its session (or its block), not to the task that awaits its result.
    """
    turns = Turns(ctx, in_order=False)
    return stream_request(action, backend, partial(turns.take_turn, runs_code=True), given)
