"""One streaming run: one cancel scope with a producer, the lanes and the gate in it, nothing else.

::

    backend ──delta──> pump ──> StreamRun.write ──> Lanes.feed ──> ledger ──RELEASE──> Gate ──> reader
                                                       │             │
                                                    validators       └──CANCEL──> the race's scope
                                                                                   (connection, lanes,
                                                                                    their judges)

The phases of :meth:`StreamRun.run`:

1. *the race*: the producer and the lanes, until the text has ended and is judged, or a lane fails, or
   something raises. A backend's error ends the text where it happened; what came before it is judged
   and released like any text, and then the error is the run's;
2. after a natural end, *the final validation* of the whole text by every requirement;
3. *the end*: all tasks are gone; only now the consumer learns how it went.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import anyio
import attrs

from mellea_sc.core.backend import Backend, Format
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.model_options import ModelOptions
from mellea_sc.core.requirement import Requirement
from mellea_sc.runtime.generation import opened_scope, pump, request_for
from mellea_sc.runtime.lanes import Cutter, Lane, Lanes
from mellea_sc.runtime.ledger import Ledger, Move
from mellea_sc.runtime.nursery import Nursery, sole_error
from mellea_sc.runtime.thunk import GenerationInfo, ModelOutputThunk
from mellea_sc.runtime.validation import validate_all
from mellea_sc.stdlib.events import (
    CompletedEvent,
    ErrorEvent,
    FullValidationEvent,
    QuickCheckEvent,
    StreamingDoneEvent,
)
from mellea_sc.stdlib.stream_result import ATTEMPT, StreamChunkingResult
from mellea_sc.stdlib.turns import Turn

__all__ = ["StreamRun", "StreamSettings"]


@attrs.frozen(kw_only=True)
class StreamSettings:
    """How a run is made, whatever it generates.

    Args:
        lane_buffer: How many chunks one lane may be ahead of another.
        lookahead: How many released chunks may wait unread; ``None``: any number.
        validator_timeout: Seconds for one call of a validator.
        format: What the answer has to fit.
        model_options: For the generation.
    """

    lane_buffer: int
    lookahead: int | None
    validator_timeout: float
    format: Format | None
    model_options: ModelOptions | None


class StreamRun:
    """The tasks behind a :class:`StreamChunkingResult`.

    Args:
        action: What the model is asked.
        turn: Takes the run's place in a conversation; given what lets the run go when another
            request waits for it.
        requirements: The copies that judge this run.
        main: The main chunking.
        own: For each requirement its own chunking, or ``None``.
        settings: How it is made.
    """

    def __init__(
        self,
        action: Component | Span,
        turn: Callable[[Callable[[], None]], Turn],
        requirements: Sequence[Requirement],
        main: Cutter,
        own: Sequence[Cutter | None],
        settings: StreamSettings,
    ) -> None:
        self._action = action
        self._requirements = requirements
        self._settings = settings
        self._ledger = Ledger(len(requirements))
        self._nursery: Nursery | None = None
        self._keeper: Nursery | None = None
        self._errors: list[Exception] = []
        self.observed: anyio.Event = anyio.Event()
        self._race = anyio.CancelScope()
        self.result: StreamChunkingResult = StreamChunkingResult(
            self._ledger, lookahead=settings.lookahead, observed=self._was_observed
        )
        self._lanes = Lanes(
            main,
            [
                Lane(
                    index,
                    requirement,
                    cutter,
                    settings.validator_timeout
                    if requirement.timeout is None
                    else requirement.timeout,
                    settings.lane_buffer,
                )
                for index, (requirement, cutter) in enumerate(zip(requirements, own, strict=True))
            ],
            self._ledger,
            cut=self.result.gate.hold,
            moved=self._moved,
        )
        # the last step: whoever is in the line of a conversation has to come to run()
        self._turn = turn(self.relieve)

    # --- its task ------------------------------------------------------------------------------

    async def run(
        self,
        backend: AbstractAsyncContextManager[Nursery],
        validation_backend: AbstractAsyncContextManager[Nursery] | None,
        keeper: Nursery | None,
    ) -> None:
        """Run to the end. Raises nothing but cancellation, unless the keeper wants its first error.

        Args:
            backend: The nursery whose backend generates.
            validation_backend: The one that validators generate with, if it is another.
            keeper: Keeps the error if nobody observes it.
        """
        self._keeper = keeper
        result = self.result
        try:
            with result.scope:
                async with backend as nursery:
                    self._nursery = nursery
                    async with self._turn as ctx:
                        if validation_backend is None:
                            await self._phases(nursery, nursery, ctx)
                        else:
                            async with validation_backend as judges:
                                await self._phases(nursery, judges, ctx)
        except Exception as error:  # noqa: BLE001 - kept for whoever reads or awaits the run
            result.error = error
        finally:
            self._end()
        if result.error is not None and keeper is not None and keeper.on_error == "cancel":
            raise result.error

    def never_began(self) -> None:
        """Its task was cancelled before its first step."""
        self._turn.give_up()
        self._end()

    async def _phases(self, nursery: Nursery, judges: Nursery, ctx: Context) -> None:
        asked = ctx.add(self._action)
        try:
            with self._race:
                async with opened_scope(judges) as judging:
                    with sole_error():
                        async with anyio.create_task_group() as tasks:
                            self._lanes.start(tasks, judging, asked)
                            await self._produce(nursery, ctx)
                    await self.room()
                    if not self._errors and not self._ledger.failed:
                        await self._finish(judging, asked)
        except Exception as error:  # noqa: BLE001 - raised with those that ended the text
            self._errors.append(error)
        if self._errors:
            raise self._all_errors()

    def _all_errors(self) -> Exception:
        if len(self._errors) == 1:
            return self._errors[0]
        return ExceptionGroup("a stream failed in more than one way", self._errors)

    async def _finish(self, judging: Backend, asked: Context) -> None:
        result = self.result
        text = "".join(result.text_parts)
        result.gate.events.write(StreamingDoneEvent(ATTEMPT, text))
        answer = ModelOutputThunk.computed(text, generation=result.generation)
        if self._requirements:
            result.final_validations = await validate_all(
                self._requirements,
                judging,
                asked.add(answer),
                timeout=self._settings.validator_timeout,
            )
            result.gate.events.write(
                FullValidationEvent(
                    ATTEMPT, all(result.final_validations), list(result.final_validations)
                )
            )
        result.completed = True
        self._turn.commit(asked.add(answer))

    async def _produce(self, nursery: Nursery, ctx: Context) -> None:
        try:
            settings = self._settings
            await pump(
                nursery,
                await request_for(
                    nursery, self._action, ctx, settings.format, settings.model_options
                ),
                self,
            )
        except Exception as error:  # noqa: BLE001 - it ends the text, and is raised after the text
            self._errors.append(error)
        try:
            self._lanes.end()
        except Exception as error:  # noqa: BLE001 - so does a chunking that cannot end
            self._errors.append(error)

    def _moved(self, move: Move) -> None:
        if move is Move.CANCEL:
            self._race.cancel("a check failed")
        else:
            self.result.gate.release()

    def _end(self) -> None:
        result = self.result
        self._lanes.close()
        if result.error is None and self._errors:
            # cancelled while the text before an error was still being judged
            result.error = self._all_errors()
        if result.error is not None and self._keeper is not None:
            self._keeper.hold(self, result.error)
        write = result.gate.events.write
        if self._ledger.failed:
            failures = self._ledger.failures
            result.streaming_failures = [
                (self._requirements[failure.lane], failure.verdict) for failure in failures
            ]
            index = min(failure.chunk_index for failure in failures)
            write(QuickCheckEvent(index, ATTEMPT, False, self._ledger.verdicts_on_failure()))
        elif result.error is None and not result.completed:
            result.cancelled = True
        if result.error is not None:
            result.completed = False
            write(ErrorEvent(type(result.error).__name__, _message_of(result.error)))
        write(CompletedEvent(result.completed, result.full_text, ATTEMPT))
        result.ended.set()
        result.gate.close()

    def _was_observed(self) -> None:
        self.observed.set()
        if self._keeper is not None:
            self._keeper.observed(self)

    # --- the pump's sink -------------------------------------------------------------------------

    @property
    def generation(self) -> GenerationInfo:
        """What is known about the generation."""
        return self.result.generation

    @generation.setter
    def generation(self, known: GenerationInfo) -> None:
        self.result.generation = known

    def write(self, text: str) -> bool:
        """Take a delta; true when a lane or the reader is behind."""
        self.result.text_parts.append(text)
        return self._lanes.feed(text) or self.result.gate.is_full

    async def room(self) -> None:
        """Wait for the lanes and the reader."""
        hosts = self._hosts()
        if any(host.draining or host.is_short_of_slots for host in hosts):
            self.relieve()
        for host in hosts:
            host.park(self)
        try:
            await self._lanes.room()
            await self.result.gate.room()
        finally:
            for host in hosts:
                host.unpark(self)

    def relieve(self) -> None:
        """Let the producer go: no reader is waited for, and no judge who waits for a free request."""
        self.result.gate.open()
        if any(host.is_short_of_slots for host in self._hosts()):
            self._lanes.relieve()

    def _hosts(self) -> set[Nursery]:
        """Who may have to go on without the reader: the session, and the nursery of the connections."""
        return {host for host in (self._nursery, self._keeper) if host is not None}


def _message_of(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error of somebody's that cannot say its message
        return "(its message cannot be read)"
