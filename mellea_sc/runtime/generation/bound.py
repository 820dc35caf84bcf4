"""Backends that can generate, because they are bound to a place where tasks are started.

Users and validators hold a :class:`BoundBackend`. That of a session (``m.backend``) starts tasks in the session's
nursery. That of a scope (:func:`opened_scope`) starts them in a task group of the scope, which cancels all that
was started in it when the scope ends.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Final, Self

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
    ModelOption,
    ModelOptions,
    checked_format,
    merge_options,
)
from mellea_sc.core.base import SPANS, Component, Context, Span, no_span
from mellea_sc.core.errors import InvalidOption, SessionClosed
from mellea_sc.core.question import describe, request_for
from mellea_sc.core.retries import in_flight
from mellea_sc.runtime.budgets.limits import budget_scope
from mellea_sc.runtime.failures import stray_cancellation_as, task_group
from mellea_sc.runtime.generation.generation import Generation
from mellea_sc.runtime.generation.pump import connected_backend, pump, read_meaning, warn_of_misfit
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.nursery import Nursery

_on_started: Final[ContextVar[Callable[[ModelOutputThunk], None] | None]] = ContextVar(
    "mellea_sc_on_started", default=None
)
"""The ``started`` callback of the innermost :func:`opened_scope` that the running task is in.

A context variable, because a validator may generate with another backend than the one it was given, and that
generation still belongs to the run's trace.
"""


@attrs.frozen
class SpawnTarget:
    """Where tasks are started: the nursery with the connections, and a task group inside of it."""

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
    """A backend that can generate: it knows where its tasks are started.

    ``m.backend`` is one. Validators and strategies get one that is bound to the scope of their run.

    Args:
        place: Returns where to start a task; called for each task, because a bare session opens its nursery late.
        backend: The backend that makes the requests.
        started: Called with every generation that is started with this backend.

    Attributes:
        started: As given. Without one, the callback of the scope around the calling task is called, so that a run
            learns of judges that a validator asks with a backend of its own.
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
        """This backend itself: the nursery has the connections."""
        return nullcontext(self)

    async def place(self) -> SpawnTarget:
        """Where tasks are started now."""
        return await self._place()

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        """Open a generation over the nursery's connections, within the limits and ``max_concurrency``."""
        nursery = (await self._place()).nursery
        backend = await connected_backend(nursery, request)
        with budget_scope():
            endless = nursery.slot(math.inf, anyio.CancelScope())
            async with endless as slot, backend.open(request) as deltas:
                # The slot is held for the whole block, but the caller's own code must not run as if it were a
                # part of this request.
                in_flight.set(slot.around)
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
            InvalidOption: an argument is not usable.
        """
        if not isinstance(action, SPANS):
            raise no_span("what the model is asked", action)
        if not isinstance(ctx, Context):
            raise InvalidOption(f"ctx must be a context, not {ctx!r}")
        place = await self._place()
        thunk = start_generation(place, action, ctx, format=format, model_options=model_options)
        if (started := self.started or _on_started.get()) is not None:
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
    """Start one generation in a task of the place."""
    place.check_usable()
    nursery = place.nursery
    if format is not None:
        format = checked_format(format)
    options = merge_options(nursery.options, model_options)
    streamed = bool(options.get(ModelOption.STREAM))
    thunk = ModelOutputThunk(name=describe(action))
    thunk.producer = producer = Generation(nursery, thunk.name, streamed=streamed)
    work = partial(answer_once, nursery, action, ctx, options, format)
    producer.start(thunk, work, place.tasks)
    return thunk


async def answer_once(
    nursery: Nursery,
    action: Component | Span,
    ctx: Context,
    options: ModelOptions,
    format: Format | None,
    thunk: ModelOutputThunk,
    sink: Generation,
) -> None:
    """Make one request, and put its answer into a thunk; in the thunk's own task.

    Args:
        nursery: Its backend generates.
        action: What the model is asked.
        ctx: The conversation before it.
        options: All model options of the request.
        format: The format of the answer.
        thunk: Gets what is known of the answer.
        sink: Gets the text.

    Raises:
        Exception: as of :func:`~.pump.pump`, or of a thunk that the prompt needs.

    Cancellation: the connection is closed at once, which stops the model.
    """
    prefills = nursery.backend.prefills
    request, prefix = await request_for(action, ctx, options, format, prefills=prefills)
    thunk.generation = await pump(nursery, request, sink, sink, prefix)
    read_meaning(thunk, sink.text, action, format)
    if thunk.format_error is not None:
        warn_of_misfit(thunk)


@asynccontextmanager
async def opened_scope(
    nursery: Nursery, *, started: Callable[[ModelOutputThunk], None] | None = None
) -> AsyncGenerator[BoundBackend]:
    """A block with a bound backend whose generations are cancelled when the block ends.

    Args:
        nursery: The nursery with the connections; the block runs in one of its tasks.
        started: Called with every generation that is started with it, or in the block with another backend.
    """

    async def here() -> SpawnTarget:
        # If the scope is being cancelled, so is the caller: raise that, instead of SessionClosed.
        await anyio.lowlevel.checkpoint_if_cancelled()
        return SpawnTarget(nursery, tasks)

    before = _on_started.set(started or _on_started.get())
    try:
        async with task_group() as tasks:
            with stray_cancellation_as("a validator, a strategy or a tool"):
                yield BoundBackend(here, nursery.backend, started)
            # a validator may have started a generation and not awaited it: it must not outlive the call
            tasks.cancel_scope.cancel("its scope ended")
    finally:
        _on_started.reset(before)
