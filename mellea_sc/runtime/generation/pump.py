"""The loop that moves deltas from the backend to their sink, and records what came; and whether the whole is an answer.

::

    backend.open() ──delta──> pump ──text───> sink.write()         a thunk's parts, or a run's lanes
         ^                      ├────rest───> sink.write_other()   reasoning, tool calls
         └── not read ──────────┴── while sink.room() waits        back-pressure, down to the socket

:func:`pump` writes a delta to the sink as soon as the backend has it; there is no task and no queue in between. It
waits for room only if the sink is full. The wait for each delta has a timeout; the wait for room has none.

What came is an answer if :func:`check_answered` says so, and :func:`read_meaning` parses it: ``format=``, a component's
``parse``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, cast

import anyio
import anyio.lowlevel
import attrs

from mellea_sc.core.answer_prefix import AnswerPrefix
from mellea_sc.core.backend import (
    Backend,
    CheckedSchema,
    Delta,
    Format,
    GenerationRequest,
    ModelOption,
    asks_for_calls,
    other_characters,
    stream_timeout,
)
from mellea_sc.core.base import Component, Span
from mellea_sc.core.errors import BackendError, BackendTimeout, EmptyAnswer, UnexpectedToolCalls
from mellea_sc.core.generation_info import (
    CHARACTERS,
    GenerationInfo,
    ToolCall,
    ToolCallParts,
    Usage,
)
from mellea_sc.runtime.budgets.budget import open_budgets
from mellea_sc.runtime.budgets.metering import Metered
from mellea_sc.runtime.failures import raise_if_stray
from mellea_sc.runtime.generation.think_tags import without_think_tags
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.pacing import Cancellable, Slot, WaitTimeout

if TYPE_CHECKING:
    from mellea_sc.runtime.generation.thunk import ModelOutputThunk

log: Final = logging.getLogger("mellea_sc")

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
                        record.usage = delta.usage or record.usage
                        record.finish_reason = delta.finish_reason or record.finish_reason
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


# --- whether it is an answer -----------------------------------------------------------------------

NOTHING_TO_SAY: Final = frozenset(
    {"stop", "eos", "eos_token", "end", "end_turn", "stop_sequence", "completed", "complete"}
)
"""The finish reasons of a model that has ended by itself. With one of them, and with a server that gives no reason, an
empty text is a valid answer: the model had nothing to say."""


def check_answered(known: GenerationInfo, request: GenerationRequest, *, has_text: bool) -> None:
    """Raise if a finished generation has given no answer.

    An empty text is an answer if the model ended by itself, without reasoning and without tool calls. Tool calls
    are an answer if the request has offered functions.

    Args:
        known: What is known besides the text.
        request: The request.
        has_text: Whether there is any text.

    Raises:
        EmptyAnswer: there is no text, because all tokens went into reasoning or the answer was cut off before it.
        UnexpectedToolCalls: the model calls functions, and the request has offered none.
    """
    who = f"{known.provider} ({known.model})"
    if known.tool_calls and not asks_for_calls(request.options):
        names = ", ".join(f"{call.name or 'one without a name'}()" for call in known.tool_calls)
        raise UnexpectedToolCalls(
            f"{who} wants tools to be called that nobody has offered: {names}. Offer them with "
            "model_options={'tools': […]}, and read the thunk's tool_calls",
            tool_calls=known.tool_calls,
            usage=known.usage,
        )
    if has_text or known.tool_calls:
        return
    usage = known.usage or Usage()
    if not known.reasoning and not usage.reasoning_tokens:
        if known.finish_reason is None or known.finish_reason.lower() in NOTHING_TO_SAY:
            return
        went = "gave no text"
    else:
        tokens = usage.reasoning_tokens or usage.completion_tokens
        went = "gave no text: all that it generated is reasoning" + (
            f", {tokens} tokens of it" if tokens else ""
        )
    raise EmptyAnswer(
        f"{who} {went} (finish reason {known.finish_reason!r}){_advice(known)}",
        finish_reason=known.finish_reason,
        reasoning=known.reasoning,
        usage=known.usage,
    )


def _advice(known: GenerationInfo) -> str:
    if known.is_at_limit:
        return (
            ". It ran into its limit: raise ModelOption.MAX_NEW_TOKENS (or the context window), or have it "
            "think less"
        )
    return ". The error's reasoning has what it thought" if known.reasoning else ""


def read_meaning(
    thunk: ModelOutputThunk, text: str, action: Component | Span, format: Format | None
) -> None:
    """Set the ``parsed_repr`` of a thunk, and its ``format_error`` if the text does not fit the format.

    ``parsed_repr`` is the component's ``parse`` of the text, or the text; if the format is a class, an instance of
    it. It is ``None`` if the text does not fit the format, or if the format is a class and the answer is tool calls.
    """
    has_answer = bool(text) or not thunk.tool_calls
    if format is not None and has_answer:
        instance, thunk.format_error = _read(text, format)
    else:
        instance = None
    if isinstance(format, type) or thunk.format_error is not None:
        thunk.parsed_repr = instance
    else:
        thunk.parsed_repr = action.parse(text) if isinstance(action, Component) else text


def misfit_of(text: str, format: Format) -> str | None:
    """Why a text does not fit its format; ``None``: it does."""
    return _read(text, format)[1]


def _read(text: str, format: Format) -> tuple[object, str | None]:
    """The value of a text in a format, and the reason why the text does not fit."""
    try:
        if isinstance(format, CheckedSchema):
            return None, format.misfit_of(text)
        if isinstance(format, Mapping):
            json.loads(text)
            return None, None
        return format.model_validate_json(text), None
    except (ValueError, RecursionError) as error:
        wanted = "JSON" if isinstance(format, Mapping) else format.__name__
        return None, f"the answer is no {wanted}: {_words_of(error)}"


def _words_of(error: Exception) -> str:
    """The error's message on one line; pydantic's own message has links and the whole input in it."""
    if type(error).__module__.startswith("pydantic"):
        details = cast("Callable[[], Sequence[Mapping[str, object]]]", getattr(error, "errors"))  # noqa: B009 - pydantic, and so the error's type, is not imported here
        found = details()
        return "; ".join(f"{_place(one.get('loc'))}{one.get('msg')}" for one in found)
    return " ".join(str(error).split())


def _place(loc: object) -> str:
    return f"{'.'.join(map(str, cast('tuple[object, ...]', loc)))}: " if loc else ""


def warn_of_misfit(thunk: ModelOutputThunk) -> None:
    """Log that an answer does not fit its format."""
    known = thunk.generation
    why = (
        f"; it was broken off (finish reason {known.finish_reason!r})"
        if known.is_broken_off
        else ""
    )
    log.warning(
        "asked for %r with a format: %s%s. The text is the value, and parsed_repr is None",
        thunk.name,
        thunk.format_error,
        why,
    )
