"""One delta's way from the socket to whoever wants it.

::

    backend.open() ──delta──> pump ──text───> sink.write()         a thunk's parts, or a run's lanes
         ^                      ├────rest───> sink.write_other()   reasoning, calls
         └── not read ──────────┴── while sink.room() waits        back-pressure, down to the socket

:func:`pump` hands a delta over the moment the backend has it, with no task in between. It waits for
room only when the sink says that it is full, and it gives other tasks a turn every few deltas in case
the source never has to wait itself. The wait for each delta is bounded; the wait for room is not. An answer that
ends without text is an error, unless the model had nothing to say or wants functions to be called.
"""

from __future__ import annotations

from typing import Final, Protocol

import anyio
import anyio.lowlevel

from mellea_sc.core.backend import Backend, Delta, GenerationRequest
from mellea_sc.core.beginnings import Beginning
from mellea_sc.core.errors import BackendError, BackendTimeout
from mellea_sc.core.generation_info import GenerationInfo
from mellea_sc.core.model_options import ModelOption, stream_timeout
from mellea_sc.runtime.budgets.budget import open_budgets
from mellea_sc.runtime.budgets.metering import Metered
from mellea_sc.runtime.deadlines import WaitTimeout
from mellea_sc.runtime.failures import raise_if_stray
from mellea_sc.runtime.generation.answers import check_said
from mellea_sc.runtime.generation.record import AnswerRecord
from mellea_sc.runtime.generation.think_tags import without_think_tags
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.pacing import Slot

__all__ = ["LONGEST", "Sink", "connected_backend", "pump"]

LONGEST: Final = 4096
"""Characters that are handed over at once: a longer delta comes in pieces, with turns for other tasks
between them, so that whoever checks it holds up nobody for long."""

TURN: Final = 128
"""How many deltas are handed over before other tasks get a turn, from a source that never waits."""


class Sink(Protocol):
    """Where an answer goes."""

    late: BackendTimeout | None
    """Why its scope was cancelled, if that is because a delta did not come in time. Whoever has entered the scope
    raises it, if the scope has ended by that: only there it is known that nobody else has cancelled the task."""

    @property
    def scope(self) -> anyio.CancelScope:
        """A scope around the pump, which a late delta cancels."""
        ...

    @property
    def record(self) -> AnswerRecord:
        """What is known of the answer besides its text."""
        ...

    @property
    def has_text(self) -> bool:
        """Whether any text has come."""
        ...

    def write(self, text: str) -> bool:
        """Take the text; true when the producer should wait for :meth:`room`."""
        ...

    def write_other(self, delta: Delta) -> None:
        """Take what a delta has besides its text."""
        ...

    async def room(self) -> None:
        """Wait until there is room again."""
        ...


async def pump(
    nursery: Nursery, request: GenerationRequest, sink: Sink, beginning: Beginning | None = None
) -> GenerationInfo:
    """Make one request and write its deltas to the sink, after the beginning that the answer was given.

    Where a delta, the first included, takes longer than ``STREAM_TIMEOUT``, the sink's scope is cancelled.

    Returns:
        What is known about it at its end.

    Raises:
        BackendError: as the backend raised it; what came before it has been written.
        EmptyAnswer: it has come to its end, and there is no text.
        UnexpectedToolCalls: there are calls, and nobody has offered functions.
        BudgetExceeded: a limit was exceeded; what came before that has been written.

    Cancellation: the connection is closed at once, and with it the generation.
    """
    backend = await connected_backend(nursery, request)
    limit = nursery.limit(stream_timeout(request.options), sink.scope)
    record, now, seen = sink.record, nursery.now, 0
    record.model, record.provider = backend.model_id, backend.provider
    async with nursery.slot(limit) as slot:
        started = now()
        try:
            with slot:
                async with backend.open(request) as deltas:
                    async for delta in deltas:
                        text = delta.text if beginning is None else beginning.feed(delta.text)
                        if delta.reasoning or delta.tool_calls:
                            sink.write_other(delta)
                        if len(text) > LONGEST:
                            await _write_in_pieces(sink, text, limit)
                        elif text and sink.write(text):
                            limit.pause()
                            await sink.room()
                            limit.resume()
                        if record.time_to_first_token is None and (
                            text or delta.reasoning or delta.tool_calls
                        ):
                            record.time_to_first_token = now() - started
                        if delta.usage is not None or delta.finish_reason is not None:
                            record.note(delta)
                        seen += 1
                        if not seen % TURN:
                            await anyio.lowlevel.checkpoint()
                        limit.since = now()
        except anyio.get_cancelled_exc_class():
            raise_if_stray(f"{backend.provider} ({backend.model_id})", BackendError)
            raise
        finally:
            record.total_time = now() - started
            if limit.is_exceeded:
                sink.late = _late(slot, limit, backend, "next" if seen else "first")
    known = record.info()
    check_said(known, request, has_text=sink.has_text)
    if beginning is not None and (rest := beginning.end()):
        sink.write(rest)
    return known


async def connected_backend(nursery: Nursery, request: GenerationRequest) -> Backend:
    """The nursery's connections, with what is done to the deltas of every request."""
    backend = await nursery.connection()
    if request.options.get(ModelOption.THINK_TAGS):
        backend = without_think_tags(backend, request)
    if budgets := open_budgets.get():
        backend = Metered(backend, budgets)
    return backend


async def _write_in_pieces(sink: Sink, text: str, limit: WaitTimeout) -> None:
    limit.pause()
    for start in range(0, len(text), LONGEST):
        if sink.write(text[start : start + LONGEST]):
            await sink.room()
        await anyio.lowlevel.checkpoint()
    limit.resume()


def _late(slot: Slot, limit: WaitTimeout, backend: Backend, which: str) -> BackendTimeout:
    who = f"{backend.provider} ({backend.model_id})"
    error = BackendTimeout(
        f"{who} did not send the {which} delta within {limit.seconds:g} s; "
        "raise ModelOption.STREAM_TIMEOUT if the model needs longer"
    )
    if slot.failure is not None:
        error.add_note(f"the attempt before it failed: {slot.failure}")
    return error
