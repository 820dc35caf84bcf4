"""Backends that can generate: they have a place for the tasks.

:class:`BoundBackend` is what users and validators hold. A session's has the session's nursery for its tasks; the one
of a scope (:func:`opened_scope`), a task group inside the task of whoever has opened it, which ends what was
generated with it.
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
)
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.errors import SessionClosed
from mellea_sc.core.model_options import ModelOptions, merge_options, wants_stream
from mellea_sc.core.prompt import beginning_of
from mellea_sc.runtime.budgets.scope import budget_scope
from mellea_sc.runtime.failures import stray_cancellation_as, task_group
from mellea_sc.runtime.generation.answers import read_meaning, warn_of_misfit
from mellea_sc.runtime.generation.generation import Generation
from mellea_sc.runtime.generation.prompt import describe, request_for
from mellea_sc.runtime.generation.pump import connected_backend, pump
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.nursery import Nursery

__all__ = ["BoundBackend", "SpawnTarget", "opened_scope", "start_generation"]

_on_started: Final[ContextVar[Callable[[ModelOutputThunk], None] | None]] = ContextVar(
    "mellea_sc_on_started", default=None
)
"""Called with every generation that the running task starts, where its scope's opener wants to know."""


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
        backend = await connected_backend(nursery, request)
        with budget_scope():
            async with nursery.slot() as slot, AsyncExitStack() as stack:
                with slot:
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
    """Start one generation in a task of the place's."""
    place.check_usable()
    nursery = place.nursery
    format = nursery.check_format(format)
    options = merge_options(nursery.options, model_options)
    thunk = ModelOutputThunk(nursery, name=describe(action), streamed=wants_stream(options))

    async def work(thunk: ModelOutputThunk, sink: Generation) -> None:
        request = await request_for(nursery, action, ctx, format, model_options)
        beginning = beginning_of(action, prefills=nursery.backend.prefills)
        thunk.generation = await pump(nursery, request, sink, beginning)
        read_meaning(thunk, sink.text, action, format)
        warn_of_misfit(thunk)

    assert thunk.producer is not None
    thunk.producer.start(thunk, work, place.tasks)
    return thunk


@asynccontextmanager
async def opened_scope(
    nursery: Nursery, *, started: Callable[[ModelOutputThunk], None] | None = None
) -> AsyncGenerator[BoundBackend]:
    """A scope inside a task of the nursery, as a bound backend: what it generates ends with the block.

    Args:
        nursery: Has the connections.
        started: Told of every generation that is started with it, or inside the block with another.
    """
    before = _on_started.set(started or _on_started.get())
    try:
        async with task_group() as tasks:
            with stray_cancellation_as("a validator, a strategy or a tool"):
                yield bound_to(SpawnTarget(nursery, tasks), started)
            tasks.cancel_scope.cancel("its scope ended")
    finally:
        _on_started.reset(before)


def bound_to(
    place: SpawnTarget, started: Callable[[ModelOutputThunk], None] | None = None
) -> BoundBackend:
    """A backend whose tasks go to one place."""

    async def here() -> SpawnTarget:
        # who asks while the scope is being cancelled is cancelled, and not told that it has ended
        await anyio.lowlevel.checkpoint_if_cancelled()
        return place

    return BoundBackend(here, place.nursery.backend, started)
