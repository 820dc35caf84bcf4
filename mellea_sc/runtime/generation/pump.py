"""The loop that moves deltas from the backend to their sink, a thunk or a checked stream, and records what came.

::

    backend.open() ──delta──> pump ──text───> sink.write()         a thunk's parts, or a run's lanes
         ^                      ├────rest───> sink.write_other()   reasoning, tool calls
         └── not read ──────────┴── while sink.room() waits        back-pressure, down to the socket

:func:`pump` writes a delta to the sink as soon as the backend has it; there is no task and no queue in between. It
waits for room only if the sink is full. The wait for each delta has a timeout; the wait for room has none.
"""

from __future__ import annotations

from typing import Final, Protocol

import anyio
import anyio.lowlevel
import attrs

from mellea_sc.core.answer_prefix import AnswerPrefix
from mellea_sc.core.backend import Backend, Delta, GenerationRequest, Usage, other_characters
from mellea_sc.core.errors import BackendError, BackendTimeout
from mellea_sc.core.generation_info import GenerationInfo
from mellea_sc.core.model_options import ModelOption, stream_timeout
from mellea_sc.core.tool_calls import ToolCall, ToolCallParts
from mellea_sc.core.usage import CHARACTERS
from mellea_sc.runtime.budgets.budget import open_budgets
from mellea_sc.runtime.budgets.metering import Metered
from mellea_sc.runtime.deadlines import Cancellable, WaitTimeout
from mellea_sc.runtime.failures import raise_if_stray
from mellea_sc.runtime.generation.answers import check_answered
from mellea_sc.runtime.generation.think_tags import without_think_tags
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.pacing import Slot

LONGEST: Final = 4096
"""Characters that are written at once. A longer delta is written in pieces, with checkpoints between them, because
checking a megabyte in one step would block the event loop."""

TURN: Final = 128
"""Deltas between two checkpoints. A backend that always has data never waits, and would starve other tasks."""


@attrs.define(eq=False, repr=False, weakref_slot=False)
class AnswerRecord:
    """What is known of an answer besides its text, while it is generated. The fields are those of :class:`~mellea_sc.core.GenerationInfo`."""

    model: str = ""
    provider: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    time_to_first_token: float | None = None
    total_time: float | None = None
    estimate: int = 0
    """An estimate of the tokens of reasoning and tool calls: at least one for each delta."""
    reasoning_estimate: int = 0
    """The part of the estimate that is reasoning."""
    _reasoning: list[str] | None = None
    _calls: ToolCallParts | None = None

    def take(self, delta: Delta) -> None:
        """Add the reasoning and the tool calls of a delta."""
        tokens = max(1, other_characters(delta) // CHARACTERS)
        self.estimate += tokens
        if delta.reasoning:
            if self._reasoning is None:
                self._reasoning = []
            self._reasoning.append(delta.reasoning)
            self.reasoning_estimate += tokens
        for piece in delta.tool_calls:
            if self._calls is None:
                self._calls = ToolCallParts()
            self._calls.take(piece)

    def note(self, delta: Delta) -> None:
        """Take the usage and the finish reason of a delta, if it has them."""
        self.usage = delta.usage or self.usage
        self.finish_reason = delta.finish_reason or self.finish_reason

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return "".join(self._reasoning) if self._reasoning else ""

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls so far."""
        return self._calls.calls if self._calls is not None else ()

    def info(self) -> GenerationInfo:
        """What is known now, as a value; reasoning and tool calls are in it only after the answer has ended."""
        # joining the reasoning for every look at a running generation would make the work quadratic
        has_ended = self.total_time is not None
        return GenerationInfo(
            model=self.model,
            provider=self.provider,
            finish_reason=self.finish_reason,
            usage=self.usage,
            time_to_first_token=self.time_to_first_token,
            total_time=self.total_time,
            reasoning=self.reasoning if has_ended and self._reasoning else "",
            tool_calls=self.tool_calls if has_ended and self._calls else (),
        )


class Sink(Protocol):
    """Receives the text and the other parts of an answer."""

    parts: list[str]
    """The text that has been written."""
    late: BackendTimeout | None
    """The timeout error, if a late delta has cancelled the scope around the pump. It is raised by the code there, which
    knows whether somebody else has cancelled the task too."""

    @property
    def record(self) -> AnswerRecord:
        """What is known of the answer besides its text."""
        ...

    def write(self, text: str, /) -> bool:
        """Take the text; true if the producer should then wait for :meth:`room`."""
        ...

    def write_other(self, delta: Delta) -> None:
        """Take the parts of a delta that are not text."""
        ...

    async def room(self) -> None:
        """Wait until there is room again."""
        ...


async def pump(
    nursery: Nursery,
    request: GenerationRequest,
    sink: Sink,
    scope: Cancellable,
    beginning: AnswerPrefix | None,
) -> GenerationInfo:
    """Make one request and write its deltas to the sink.

    Args:
        nursery: Its backend generates.
        request: The request.
        sink: Gets the deltas.
        scope: What is around this call; cancelled if a delta, also the first one, takes longer than ``STREAM_TIMEOUT``.
        beginning: The prefix of the answer, if it has one.

    Returns:
        What is known about the generation at its end.

    Raises:
        BackendError: as the backend raised it; deltas before it have been written.
        EmptyAnswer: the model has ended without text.
        UnexpectedToolCalls: the model calls functions, and the request has offered none.
        BudgetExceeded: a limit was exceeded; deltas before that have been written.

    Cancellation: the connection is closed at once, which stops the model.
    """
    backend = await connected_backend(nursery, request)
    record, now, seen = sink.record, nursery.now, 0
    record.model, record.provider = backend.model_id, backend.provider
    async with nursery.slot(stream_timeout(request.options), scope) as slot:
        started, limit = now(), slot.limit
        try:
            async with backend.open(request) as deltas:
                async for delta in deltas:
                    text = delta.text if beginning is None else beginning.feed(delta.text)
                    if delta.reasoning or delta.tool_calls:
                        sink.write_other(delta)
                    if len(text) > LONGEST:
                        await _write_in_pieces(sink, text, limit)
                    elif text and sink.write(text):
                        # the time that a reader or a validator takes is not the server's
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
            # instead of a stray_cancellation_as() block, which would cost one more block for each request
            raise_if_stray(f"{record.provider} ({record.model})", BackendError)
            raise
        finally:
            record.total_time = now() - started
            if limit.is_exceeded:
                # kept for whoever has entered the scope; raised here, it would hide a cancellation from outside
                sink.late = _late(slot, record, "next" if seen else "first")
    known = record.info()
    if known.tool_calls or not sink.parts:
        check_answered(known, request, has_text=bool(sink.parts))
    if beginning is not None and (rest := beginning.end()):
        sink.write(rest)
    return known


async def connected_backend(nursery: Nursery, request: GenerationRequest) -> Backend:
    """The nursery's connected backend, with the wrappers that the request needs: think tags, limits."""
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


def _late(slot: Slot, record: AnswerRecord, which: str) -> BackendTimeout:
    error = BackendTimeout(
        f"{record.provider} ({record.model}) did not send the {which} delta within {slot.limit.seconds:g} s; "
        "raise ModelOption.STREAM_TIMEOUT if the model needs longer"
    )
    if slot.failure is not None:
        error.add_note(f"the attempt before it failed: {slot.failure}")
    return error
