"""One delta's way from the socket to whoever wants it, and the backends that start such ways.

::

    backend.open() ──delta──> pump ──text───> sink.write()     a thunk's parts, or a run's lanes
         ^                      ├────rest───> sink.write_other()   reasoning, calls
         └── not read ──────────┴── while sink.room() waits     back-pressure, down to the socket

:func:`pump` hands a delta over the moment the backend has it, with no task in between. It waits for
room only when the sink says that it is full, and it gives other tasks a turn every few deltas in case
the source never has to wait itself. The wait for each delta is bounded; the wait for room is not. An answer that
ends without text is an error, unless the model had nothing to say or wants functions to be called.

:class:`BoundBackend` is what users and validators hold: a backend with a place for its tasks.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from contextvars import ContextVar
from typing import Final, Protocol, Self

import anyio
import anyio.abc
import anyio.lowlevel
import attrs

from mellea_sc.core.backend import (
    Backend,
    BackendWrapper,
    Delta,
    Format,
    GenerationRequest,
    schema_of,
)
from mellea_sc.core.base import CBlock, Component, Context, Span, pending_thunks
from mellea_sc.core.beginnings import Beginning
from mellea_sc.core.errors import (
    BackendError,
    BackendTimeout,
    DependencyFailed,
    SessionClosed,
    WrongEventLoop,
)
from mellea_sc.core.generation_info import GenerationInfo
from mellea_sc.core.model_options import ModelOptions, merge_options, stream_timeout, wants_stream
from mellea_sc.core.prompt import beginning_of, messages_for, not_yet_read
from mellea_sc.core.retries import sent
from mellea_sc.core.tool_calls import ToolCall
from mellea_sc.runtime.budgets.metering import metered
from mellea_sc.runtime.budgets.scope import budget_scope
from mellea_sc.runtime.failures import raise_if_stray, sole_error, stray_cancellation_as
from mellea_sc.runtime.generation.answers import check_said, read_meaning, warn_of_misfit
from mellea_sc.runtime.generation.think_tags import without_think_tags
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.loops.current import clock
from mellea_sc.runtime.nursery import Nursery

__all__ = ["LONGEST", "BoundBackend", "Sink", "SpawnTarget", "opened_scope", "pump", "settle"]

LONGEST: Final = 4096
"""Characters that are handed over at once: a longer delta comes in pieces, with turns for other tasks
between them, so that whoever checks it holds up nobody for long."""

TURN: Final = 128
"""How many deltas are handed over before other tasks get a turn, from a source that never waits."""


_told: ContextVar[Callable[[ModelOutputThunk], None] | None] = ContextVar("told", default=None)
"""Who wants to know of the generations that a task starts."""


class Sink(Protocol):
    """Where generated text goes."""

    @property
    def generation(self) -> GenerationInfo:
        """What is known about the generation."""
        ...

    @generation.setter
    def generation(self, known: GenerationInfo) -> None: ...

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        ...

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls so far."""
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
) -> None:
    """Make one request and write its deltas to the sink, after the beginning that the answer was given.

    Raises:
        BackendTimeout: a delta, the first included, took longer than ``STREAM_TIMEOUT``.
        BackendError: as the backend raised it; what came before it has been written.
        EmptyAnswer: it has come to its end, and there is no text.
        UnexpectedToolCalls: there are calls, and nobody has offered functions.
        BudgetExceeded: a limit was exceeded; what came before that has been written.

    Cancellation: the connection is closed at once, and with it the generation.
    """
    timeout = stream_timeout(request.options)
    backend = await _backend_for(nursery, request)
    limit = nursery.limit(timeout)
    async with nursery.slot(limit) as slot:
        now = clock()
        seen = 0
        first: float | None = None
        started = now()
        sink.generation = attrs.evolve(
            sink.generation, model=backend.model_id, provider=backend.provider
        )
        try:
            with limit, sent(slot):
                async with backend.open(request) as deltas:
                    async for delta in deltas:
                        text = delta.text if beginning is None else beginning.feed(delta.text)
                        if delta.reasoning or delta.tool_calls:
                            sink.write_other(delta)
                        if len(text) > LONGEST:
                            limit.pause()
                            await _write_in_pieces(sink, text)
                            limit.resume()
                        elif text and sink.write(text):
                            limit.pause()
                            await sink.room()
                            limit.resume()
                        if first is None and (text or delta.reasoning or delta.tool_calls):
                            first = now() - started
                            sink.generation = attrs.evolve(
                                sink.generation, time_to_first_token=first
                            )
                        if delta.usage is not None or delta.finish_reason is not None:
                            _note(sink, delta)
                        seen += 1
                        if not seen % TURN:
                            await anyio.lowlevel.checkpoint()
                        limit.since = now()
        except anyio.get_cancelled_exc_class():
            raise_if_stray(f"{backend.provider} ({backend.model_id})", BackendError)
            raise
        finally:
            total = now() - started
            sink.generation = attrs.evolve(
                sink.generation,
                total_time=total,
                reasoning=sink.reasoning,
                tool_calls=sink.tool_calls,
            )
    if limit.was_exceeded:
        what = "the next delta" if seen else "the first delta"
        error = BackendTimeout(
            f"{backend.provider} ({backend.model_id}) did not send {what} within {timeout:g} s; "
            "raise ModelOption.STREAM_TIMEOUT if the model needs longer"
        )
        if slot.failure is not None:
            error.add_note(f"the attempt before it failed: {slot.failure}")
        raise error
    check_said(sink.generation, request, has_text=sink.has_text)
    if beginning is not None and (rest := beginning.end()):
        sink.write(rest)


async def _backend_for(nursery: Nursery, request: GenerationRequest) -> Backend:
    """The nursery's connections, with what is done to the deltas of every request."""
    return metered(without_think_tags(await nursery.connection(), request))


async def _write_in_pieces(sink: Sink, text: str) -> None:
    for start in range(0, len(text), LONGEST):
        if sink.write(text[start : start + LONGEST]):
            await sink.room()
        await anyio.lowlevel.checkpoint()


def _note(sink: Sink, delta: Delta) -> None:
    known = sink.generation
    sink.generation = attrs.evolve(
        known,
        usage=delta.usage or known.usage,
        finish_reason=delta.finish_reason or known.finish_reason,
    )


async def settle(*spans: Span) -> None:
    """Wait for the thunks inside the spans.

    Raises:
        DependencyFailed: one of them failed or was cancelled; the message names it.
        WrongEventLoop: one of them is being generated in another event loop.
    """
    for thunk in pending_thunks(*spans):
        try:
            await thunk.avalue()
        except WrongEventLoop:
            raise
        except Exception as error:
            raise DependencyFailed(
                f"the prompt needs {thunk!r}, and that failed: {error}"
            ) from error


@attrs.frozen
class SpawnTarget:
    """Where tasks go: the nursery that holds the connections, and a task group inside it."""

    nursery: Nursery
    tasks: anyio.abc.TaskGroup

    def check_usable(self) -> None:
        """Raise unless a task could be started here now.

        Raises:
            SessionClosed: the scope or its session has ended.
            WrongEventLoop: it belongs to another event loop.
        """
        self.nursery.check_usable()
        if self.tasks.cancel_scope.cancel_called:
            raise SessionClosed("the scope that this backend is bound to has ended")


class BoundBackend(BackendWrapper):
    """A backend that can generate: its tasks have a place.

    A session's ``m.backend`` is one, and so is what validators and strategies get, whose place is
    the scope of their run.

    Args:
        place: Says where tasks go, at the moment one is started.
        backend: What it talks to the model with, for what that says of itself.
        started: Told of every generation that is started with it.

    Attributes:
        started: As given. Without it, whoever has opened the scope that the calling task is in is told: so a
            run learns of judges that a validator asks with a backend of its own.
    """

    def __init__(
        self,
        place: Callable[[], Awaitable[SpawnTarget]],
        backend: Backend,
        started: Callable[[ModelOutputThunk], None] | None = None,
    ) -> None:
        super().__init__(backend)
        self.started: Callable[[ModelOutputThunk], None] | None = started
        self._place = place

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.inner!r}>"

    def connected(self) -> AbstractAsyncContextManager[Self]:
        """Itself: the nursery of the place keeps the connections."""
        return nullcontext(self)

    async def place(self) -> SpawnTarget:
        """Where the tasks go that are started now."""
        return await self._place()

    def open(self, request: GenerationRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Open a generation over the connections of the place, within its limits."""
        return self._opened(request)

    @asynccontextmanager
    async def _opened(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        nursery = (await self._place()).nursery
        backend = await _backend_for(nursery, request)
        with budget_scope():
            async with nursery.slot() as slot, AsyncExitStack() as stack:
                with sent(slot):
                    deltas = await stack.enter_async_context(backend.open(request))
                yield deltas

    async def generate_from_context(
        self,
        action: Component | Span,
        ctx: Context,
        *,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
    ) -> tuple[ModelOutputThunk, Context]:
        """Start a generation; it ends with the scope that this backend is bound to.

        Returns:
            The thunk, already generating, and the context with the action and the thunk added.

        Raises:
            SessionClosed: the scope has ended.
            InvalidOption: an option or the format is not usable.
        """
        place = await self._place()
        thunk = start_generation(place, action, ctx, format=format, model_options=model_options)
        if (started := self.started or _told.get()) is not None:
            started(thunk)
        return thunk, ctx.add(action).add(thunk)


def start_generation(
    place: SpawnTarget,
    action: Component | Span,
    ctx: Context,
    *,
    format: Format | None = None,
    model_options: ModelOptions | None = None,
) -> ModelOutputThunk:
    """Start one generation in a task of the place's."""
    place.check_usable()
    nursery = place.nursery
    schema_of(format)
    options = merge_options(nursery.options, model_options)
    thunk = ModelOutputThunk(nursery, name=describe(action), streamed=wants_stream(options))

    async def work(sink: ModelOutputThunk) -> None:
        await generate_into(sink, nursery, action, ctx, format=format, model_options=model_options)
        if isinstance(format, type):  # judges have schemas, and read more than JSON
            warn_of_misfit(sink, format)

    thunk.start(work, place.tasks)
    return thunk


async def generate_into(
    thunk: ModelOutputThunk,
    nursery: Nursery,
    action: Component | Span,
    ctx: Context,
    *,
    format: Format | None,
    model_options: ModelOptions | None,
) -> None:
    """Ask once and write the answer into a thunk; inside the thunk's task."""
    request = await request_for(nursery, action, ctx, format, model_options)
    prefills = nursery.backend.prefills
    await pump(nursery, request, thunk, beginning_of(action, prefills=prefills))
    read_meaning(thunk, action, format)


async def request_for(
    nursery: Nursery,
    action: Component | Span,
    ctx: Context,
    format: Format | None,
    model_options: ModelOptions | None,
) -> GenerationRequest:
    """The request that asks for an answer, when the thunks it needs are computed.

    Raises:
        DependencyFailed: one of them failed.
        InvalidOption: an option or the format is not usable.
    """
    await settle(action, *not_yet_read(ctx))
    options = merge_options(nursery.options, model_options)
    messages = messages_for(action, ctx, options, prefills=nursery.backend.prefills)
    return GenerationRequest(messages, options, schema_of(format))


def describe(action: Component | Span) -> str:
    """A short name for a generation: the beginning of what was asked."""
    match action:
        case str():
            said = action
        case CBlock():
            said = action.value
        case Component():
            said = action.summary()
        case _:
            said = repr(action)
    said = " ".join(said.split())
    return f"{said[:57]}…" if len(said) > 58 else said


@asynccontextmanager
async def opened_scope(
    nursery: Nursery, *, started: Callable[[ModelOutputThunk], None] | None = None
) -> AsyncGenerator[BoundBackend]:
    """A scope inside a task of the nursery, as a bound backend: what it generates ends with the block.

    Args:
        nursery: Has the connections.
        started: Told of every generation that is started with it, or inside the block with another.
    """
    before = _told.set(started or _told.get())
    try:
        with sole_error():
            async with anyio.create_task_group() as tasks:
                with stray_cancellation_as("a validator, a strategy or a tool"):
                    yield bound_to(SpawnTarget(nursery, tasks), started)
                tasks.cancel_scope.cancel("its scope ended")
    finally:
        _told.reset(before)


def bound_to(
    place: SpawnTarget, started: Callable[[ModelOutputThunk], None] | None = None
) -> BoundBackend:
    """A backend whose tasks go to one place."""

    async def here() -> SpawnTarget:
        # who asks while the scope is being cancelled is cancelled, and not told that it has ended
        await anyio.lowlevel.checkpoint_if_cancelled()
        return place

    return BoundBackend(here, place.nursery.backend, started)
