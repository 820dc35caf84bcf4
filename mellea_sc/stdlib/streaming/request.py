"""Starts checked streams: a run that has not been started yet, and the session or event loop that it is started in."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Unpack

import attrs

from mellea_sc.backends.retry import retrying
from mellea_sc.core.backend import Backend, no_backend
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.question import STREAM_DEFAULTS, Question, StreamOptions, describe, several
from mellea_sc.core.requirement import Requirement, as_requirement, check_judges
from mellea_sc.runtime.failures import raises_briefly
from mellea_sc.runtime.generation.bound import BoundBackend, SpawnTarget
from mellea_sc.runtime.loops.current import loop_services
from mellea_sc.runtime.nursery import Nursery, current_nursery
from mellea_sc.runtime.unobserved import OwnError, Unobserved
from mellea_sc.stdlib.calls import StreamArguments, keyword_arguments
from mellea_sc.stdlib.sampling.base import PlannedStrategy, plan_for
from mellea_sc.stdlib.streaming.result import StreamChunkingResult, Streamer
from mellea_sc.stdlib.streaming.run import StreamRun
from mellea_sc.stdlib.turns import Turn, Turns


class StreamRequest(Awaitable[StreamChunkingResult]):
    """A streaming run that has not been started: await it or enter it, once.

    Args:
        question: The arguments of the call.
        options: The options for checking and showing the text.
        turn: Takes the run's turn in a conversation. Gets a callback that stops back-pressure by readers, for when
            another request waits for the turn.
        backend: The backend that generates. The run is started where the backend is bound to. With a bare
            backend it is started in the current session, or by the event loop itself.
        validation_backend: The backend for validators, if it is another one.
    """

    def __init__(
        self,
        question: Question,
        options: StreamOptions,
        turn: Callable[[Callable[[], None]], Turn],
        backend: Backend,
        validation_backend: Backend | None,
    ) -> None:
        self._question = question
        self._options = options
        self._turn = turn
        self._backend = backend
        self._validation_backend = validation_backend
        self._name = describe(question.action)
        self._result: StreamChunkingResult | None = None
        self._used = False

    def __await__(self) -> Generator[object, None, StreamChunkingResult]:
        return self.__aenter__().__await__()

    @raises_briefly
    async def __aenter__(self) -> StreamChunkingResult:
        self._result = StreamChunkingResult(await self.start())
        return self._result

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Leave the block of the result.

        Raises:
            Exception: the error that ended the run, if nobody has observed it and the block raised none.
        """
        assert self._result is not None
        await self._result.__aexit__(exc_type, exc, tb)  # noqa: ASYNC102 - it shields itself

    async def start(self) -> StreamRun:
        """Start the run.

        Raises:
            InvalidOption: it was started before, or an argument is not usable.
            SessionClosed: the session of the backend has ended.
            Exception: as a requirement's ``__copy__`` raises it.
        """
        if self._used:
            raise InvalidOption("a stream request can be awaited or entered once; make another one")
        self._used = True
        place = await _place_of(self._backend)
        session = None if place is None else place.nursery
        generating = await _nursery_for(self._backend, session)
        judging = None
        if self._validation_backend is not None:
            judging = await _nursery_for(self._validation_backend, None)
        return self._started(place, generating, judging)

    def _started(
        self,
        place: SpawnTarget | None,
        generating: AbstractAsyncContextManager[Nursery],
        judging: AbstractAsyncContextManager[Nursery] | None,
    ) -> StreamRun:
        # Not async: a cancellation between taking the turn, which the run's __init__ does, and the start of its task
        # would leave the turn taken for ever.
        if place is not None:
            place.check_usable()
        session = None if place is None else place.nursery
        run = self._made(session)
        task = partial(run.run, generating, judging, session)
        if place is not None and session is not None:
            session.start(
                task, name=self._name, tasks=place.tasks, on_never_started=run.on_never_started
            )
        else:
            spawn_root = loop_services().spawn_root
            spawn_root(task, self._name, run.on_never_started)
            observing = partial(_wait_for_observer, run)
            spawn_root(observing, f"what became of {self._name}", run.dismiss)
        return run

    def _made(self, session: Nursery | None) -> StreamRun:
        question = self._question
        strategy: object = question.strategy
        if strategy is not None and not isinstance(strategy, PlannedStrategy):
            raise InvalidOption(
                "a stream's strategy must be a PlannedStrategy, which judges while it streams, not "
                f"{strategy!r}"
            )
        if strategy is not None:
            judged = [*strategy.requirements, *question.requirements]
            question = attrs.evolve(question, requirements=judged)
        judges = self._validation_backend or self._backend
        check_judges([*question.requirements, *question.preconditions], judges)
        plan = plan_for(strategy, question.requirements)
        if session is not None:
            own_error = OwnError(session.unobserved, work=self._name)
        else:
            own_error = OwnError(Unobserved("a stream without a session", "log"))
        return StreamRun(question, plan, self._options, self._turn, own_error)

    def __del__(self) -> None:
        if not self._used:
            warnings.warn(
                f"the stream {self._name!r} was never awaited or entered: nothing was generated",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )


async def _wait_for_observer(run: StreamRun) -> None:
    """Keep the error of a run that the event loop hosts until it is observed, or logged at the loop's end.

    This is a separate task, because the run's own may have replaced the cancellation at the loop's end by an error,
    and asyncio does not deliver that cancellation a second time.
    """
    try:
        await run.ended.wait()
        if run.own_error.error is not None:
            await run.observed.wait()
    finally:
        run.dismiss()


async def _place_of(backend: Backend) -> SpawnTarget | None:
    """The place where a run is started; ``None``: the event loop hosts it."""
    if isinstance(backend, BoundBackend):
        return await backend.place()
    nursery = current_nursery()
    return None if nursery is None else SpawnTarget(nursery, nursery.tasks)


async def _nursery_for(
    backend: Backend, session: Nursery | None
) -> AbstractAsyncContextManager[Nursery]:
    """A block with the nursery that has a backend's connections: that of a session, or one made for the run.

    Args:
        backend: A backend that is bound to a session, or a bare one.
        session: The nursery in which the run is started, if there is one.
    """
    if isinstance(backend, BoundBackend):
        return nullcontext(session or (await backend.place()).nursery)
    return _own_nursery(backend, session)


@asynccontextmanager
async def _own_nursery(backend: Backend, session: Nursery | None) -> AsyncGenerator[Nursery]:
    """A nursery for one run with a bare backend, in the run's task."""
    options = None if session is None else session.own_options
    async with Nursery(
        retrying(backend),
        options=options,
        inside=session,
        name="a stream of its own",
    ) as nursery:
        yield nursery


def stream_request(
    action: Component | Span,
    backend: Backend,
    turn: Callable[[Callable[[], None]], Turn],
    given: StreamArguments,
) -> StreamRequest:
    """The request from the arguments as a user gives them.

    Raises:
        InvalidOption: one of them is not usable.
        Exception: as a precondition's ``__copy__`` raises it.
    """
    judges: object = given.get("validation_backend")
    if not isinstance(backend, Backend):
        raise no_backend("backend", backend)
    if not isinstance(judges, Backend | None):
        raise no_backend("validation_backend", judges)
    usual = STREAM_DEFAULTS
    options = StreamOptions(
        chunking=given.get("chunking", usual.chunking),
        lane_buffer=given.get("lane_buffer", usual.lane_buffer),
        validator_timeout=given.get("validator_timeout", usual.validator_timeout),
        lookahead=given.get("lookahead", usual.lookahead),
        hold_back=given.get("hold_back", usual.hold_back),
    )
    question = Question.of(
        action,
        given,
        requirements=[
            as_requirement(one) for one in several("requirements", given.get("requirements"))
        ],
        strategy=given.get("strategy"),
    )
    return StreamRequest(question, options, turn, backend, judges)


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
