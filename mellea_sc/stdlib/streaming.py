"""Text that is checked while it streams: :func:`stream_with_chunking`.

One delta's way, from the socket to the user::

    socket ─> backend.open() ─> pump ─> Attempt.write ─> editors ─> Cutter ─> one bounded channel per requirement
                                                                            │ stream_validate()
      reader <─ astream() / events() <─ Gate <── release ── Ledger <── verdict
                                                     └────── cancel ──> the attempt's cancel scope
                                                                                 │
                                          the next Attempt <── a strategy's Ask ─┘

``stream/`` has the run and what its user sees, ``sampling/engine/`` the attempts, and the kernel's
``runtime/checks/`` the checking. There are editors only where a requirement filters or fixes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final

import attrs

from mellea_sc.backends.retry import retrying
from mellea_sc.core.arguments import several
from mellea_sc.core.backend import Backend, Format
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.model_options import ModelOptions, merge_options
from mellea_sc.core.requirement import Requirement, check_judges
from mellea_sc.core.retries import Retries, retries_of
from mellea_sc.core.spending import Limits
from mellea_sc.runtime.budgets.limits import limited
from mellea_sc.runtime.failures import raises_briefly
from mellea_sc.runtime.generation.producer import BoundBackend, SpawnTarget, describe
from mellea_sc.runtime.loops.current import spawn_root, tell_if_never_started
from mellea_sc.runtime.nursery import Nursery, current_nursery
from mellea_sc.stdlib.conversation import Turn, Turns
from mellea_sc.stdlib.formats import checked
from mellea_sc.stdlib.requirements.making import as_requirement
from mellea_sc.stdlib.sampling.engine.judges import DEFAULT_LANE_BUFFER, AttemptSettings
from mellea_sc.stdlib.sampling.planned import PlannedStrategy
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
from mellea_sc.stdlib.stream.result import StreamChunkingResult
from mellea_sc.stdlib.stream.run import StreamRun, StreamSettings

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

DEFAULT_VALIDATOR_TIMEOUT: Final = 120.0


def stream_with_chunking(
    action: Component | Span,
    backend: Backend,
    ctx: Context,
    *,
    requirements: Sequence[Requirement | str] | None = None,
    chunking: str | ChunkingStrategy | None = "sentence",
    validation_backend: Backend | None = None,
    format: Format | None = None,
    model_options: ModelOptions | None = None,
    lane_buffer: int = DEFAULT_LANE_BUFFER,
    lookahead: int | None = None,
    validator_timeout: float | None = DEFAULT_VALIDATOR_TIMEOUT,
    strategy: PlannedStrategy | None = None,
    hold_back: bool | int = False,
    preconditions: Sequence[Requirement | str] | None = None,
    limits: Limits | None = None,
    retries: int | Retries | None = None,
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
        InvalidOption: an argument is not usable, or a model would be asked to judge that cannot; raised
            on awaiting or entering.
        Exception: as a requirement's ``__copy__`` raises it; then nothing is started either.

    Cancellation: a run belongs to its session (or its block), not to who awaits its result.
    """

    def prepare() -> StreamRun:
        return prepare_run(
            action,
            partial(Turns(ctx, in_order=False).take_turn, runs_code=True),
            judge=validation_backend or backend,
            requirements=requirements,
            chunking=chunking,
            format=format,
            model_options=model_options,
            lane_buffer=lane_buffer,
            lookahead=lookahead,
            validator_timeout=validator_timeout,
            strategy=strategy,
            hold_back=hold_back,
            preconditions=preconditions,
            limits=limits,
            retries=retries,
        )

    async def place() -> SpawnTarget | None:
        if isinstance(backend, BoundBackend):
            return await backend.place()
        nursery = current_nursery()
        return None if nursery is None else SpawnTarget(nursery, nursery.tasks)

    return StreamRequest(place, prepare, describe(action), backend, validation_backend)


def prepare_run(
    action: Component | Span,
    turn: Callable[[Callable[[], None]], Turn],
    *,
    judge: Backend,
    requirements: Sequence[Requirement | str] | None,
    chunking: str | ChunkingStrategy | None,
    format: Format | None,
    model_options: ModelOptions | None,
    lane_buffer: int,
    lookahead: int | None,
    validator_timeout: float | None,
    strategy: PlannedStrategy | None,
    hold_back: bool | int,
    preconditions: Sequence[Requirement | str] | None,
    limits: Limits | None,
    retries: int | Retries | None,
) -> StreamRun:
    """Check the arguments and copy the requirements; starts nothing."""
    if not isinstance(lane_buffer, int) or lane_buffer < 1:
        raise InvalidOption(f"lane_buffer must be an integer from 1 on, not {lane_buffer!r}")
    if lookahead is not None and (not isinstance(lookahead, int) or lookahead < 1):
        raise InvalidOption(f"lookahead must be an integer from 1 on or None, not {lookahead!r}")
    if validator_timeout is not None and not validator_timeout > 0:
        raise InvalidOption(
            f"validator_timeout must be a positive number of seconds or None, not {validator_timeout!r}"
        )
    if not isinstance(hold_back, int) or hold_back < 0:
        raise InvalidOption(f"hold_back must be a bool or a number of chunks, not {hold_back!r}")
    if strategy is not None and not isinstance(strategy, PlannedStrategy):
        raise InvalidOption(
            f"a stream's strategy must be a PlannedStrategy, which judges while it streams, not {strategy!r}"
        )
    format = checked(format)
    merge_options(model_options)
    limited(limits)
    own = () if strategy is None else strategy.requirements
    all_of_them = [*own, *map(as_requirement, several("requirements", requirements))]
    conditions = [as_requirement(one) for one in several("preconditions", preconditions)]
    check_judges([*all_of_them, *conditions], judge)
    return StreamRun(
        action,
        turn,
        all_of_them,
        StreamSettings(
            strategy=strategy,
            preconditions=conditions,
            limits=limits,
            retries=retries_of(retries),
            lookahead=lookahead,
            hold_back=math.inf if hold_back is True else hold_back,
            attempt=AttemptSettings(
                chunking=chunking,
                lane_buffer=lane_buffer,
                validator_timeout=math.inf if validator_timeout is None else validator_timeout,
                format=format,
                model_options=model_options,
            ),
        ),
    )


class StreamRequest(Awaitable[StreamChunkingResult]):
    """A streaming run that has not been started: await it, or enter it; once.

    Args:
        place: Gives the place of the run's task, if a session or a scope has one for it.
        prepare: Makes the run.
        name: For people.
        backend: What generates.
        validation_backend: What validators generate with, if it is another.
    """

    def __init__(
        self,
        place: Callable[[], Awaitable[SpawnTarget | None]],
        prepare: Callable[[], StreamRun],
        name: str,
        backend: Backend,
        validation_backend: Backend | None,
    ) -> None:
        self._place = place
        self._prepare = prepare
        self._name = name
        self._backend = backend
        self._validation_backend = validation_backend
        self._result: StreamChunkingResult | None = None
        self._used = False

    def __await__(self) -> Generator[object, None, StreamChunkingResult]:
        return self._start().__await__()

    @raises_briefly
    async def __aenter__(self) -> StreamChunkingResult:
        self._result = await self._start()
        return self._result

    @raises_briefly
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Cancel the run if it has not ended, and wait for its cleanup.

        Raises:
            Exception: the error that ended the run, if nobody has seen it and the block raised none.
        """
        assert self._result is not None
        await self._result.__aexit__(exc_type, exc, tb)  # noqa: ASYNC102 - it shields itself

    @raises_briefly
    async def _start(self) -> StreamChunkingResult:
        if self._used:
            raise InvalidOption("a stream request can be awaited or entered once; make another one")
        self._used = True
        place = await self._place()
        nursery = None if place is None else place.nursery
        backend = await _nursery_of(self._backend, nursery)
        judges = self._validation_backend
        validation_backend = None if judges is None else await _nursery_of(judges, None)
        if place is not None:
            place.check_usable()
        # from here on nothing waits: the run takes its turn in the conversation and is started
        run = self._prepare()
        if place is not None:
            run.started_at = place.nursery.line_that_starts()
            place.nursery.start(
                run.run,
                backend,
                validation_backend,
                place.nursery,
                name=self._name,
                tasks=place.tasks,
                on_never_started=run.on_never_started,
            )
        else:
            rooted = partial(_rooted, run, backend, validation_backend)
            spawn_root(tell_if_never_started(rooted, run.on_never_started), self._name)
            spawn_root(
                tell_if_never_started(partial(_kept, run), run.dismiss),
                f"what became of {self._name}",
            )
        return run.result

    def __del__(self) -> None:
        if not self._used:
            warnings.warn(
                f"the stream {self._name!r} was never awaited or entered: nothing was generated",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )


async def _rooted(
    run: StreamRun,
    backend: AbstractAsyncContextManager[Nursery],
    validation_backend: AbstractAsyncContextManager[Nursery] | None,
) -> None:
    """A run that the event loop hosts."""
    await run.run(backend, validation_backend, None)


async def _kept(run: StreamRun) -> None:
    """An error of a run that the event loop hosts waits for an observer until the loop ends.

    A task of its own: in that of the run, an error may have gone before the cancellation at the loop's end,
    which asyncio does not repeat.
    """
    try:
        await run.result.ended.wait()
        if run.result.error is not None:
            await run.observed.wait()
    finally:
        run.dismiss()


async def _nursery_of(
    backend: Backend, known: Nursery | None
) -> AbstractAsyncContextManager[Nursery]:
    """A block with the nursery that holds a backend's connections: a session's, or one made for it."""
    if isinstance(backend, BoundBackend):
        return nullcontext(known or (await backend.place()).nursery)
    return _OwnNursery(backend, known)


@attrs.define(eq=False)
class _OwnNursery(AbstractAsyncContextManager[Nursery]):
    """A nursery for one run with a bare backend; made only inside the run's task."""

    backend: Backend
    inside: Nursery | None
    _nursery: Nursery | None = attrs.field(default=None, init=False)

    async def __aenter__(self) -> Nursery:
        inside = self.inside
        self._nursery = Nursery(
            retrying(self.backend),
            options=None if inside is None else inside.own_options,
            inside=inside,
            check_format=checked,
            name="a stream of its own",
        )
        return await self._nursery.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        assert self._nursery is not None
        return await self._nursery.__aexit__(exc_type, exc, tb)  # noqa: ASYNC102 - it joins
