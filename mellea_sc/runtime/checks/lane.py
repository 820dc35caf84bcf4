"""One requirement's task: it awaits ``stream_validate`` for piece after piece and hands on the verdicts.

A lane works through all that waits for it, and then waits on its memory object stream, which only says that
there is more. A piece is judged as soon as the lane comes to it; several may wait meanwhile.

Before a lane reports a fail it gives the others a turn: those that need not wait for anything come as
far as they can. So what is shown before a fail does not depend on whose turn was first.

A fail is data: the lane hands it on, and ends if it is told to. An error is raised out of the lane's task, and
cancels the task group.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol, TypeAlias

import anyio
import anyio.lowlevel
import attrs
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.core.errors import InvalidVerdict, ValidatorTimeout
from mellea_sc.core.requirement import PartialValidationResult, Requirement
from mellea_sc.runtime.checks.cutter import Cutter
from mellea_sc.runtime.checks.ledger import UNKNOWN, Chunk
from mellea_sc.runtime.checks.memory import Memory
from mellea_sc.runtime.deadlines import WaitTimeout
from mellea_sc.runtime.failures import stray_cancellation_as, without_internals
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.loops.current import checkpoint_before_error, clock
from mellea_sc.runtime.nursery import reraise_if_cancelled

__all__ = ["Lane", "PieceSource", "ValidatorCalls", "VerdictSink", "WhatNext"]

log: Final = logging.getLogger("mellea_sc")

WhatNext: TypeAlias = Literal["go on", "wait", "stop"]
"""What a lane does after a verdict: judge the next piece, at once or when there is room for it; or end."""


@attrs.frozen
class ValidatorCalls:
    """How the validators of one attempt are called.

    Args:
        backend: Handed to them.
        ctx: Handed to them.
        limit: Bounds a call by so many seconds.
    """

    backend: Backend
    ctx: Context
    limit: Callable[[float], WaitTimeout]


class VerdictSink(Protocol):
    """Where a lane's verdicts go."""

    def judged(self, lane: int, piece: Chunk, verdict: PartialValidationResult) -> WhatNext:
        """Take the verdict on the lane's next piece."""
        ...

    def caught_up(self) -> None:
        """No more pieces wait for the lane than its buffer holds."""
        ...

    def ended(self, lane: int) -> None:
        """The lane judges no more: the text has ended, or it was told to stop."""
        ...


class PieceSource(Protocol):
    """Where the pieces come from that are cut when a lane is ready for them."""

    def take(self) -> Sequence[Chunk]:
        """The pieces of the text that has come."""
        ...

    def rest(self) -> Sequence[Chunk] | None:
        """More of them after the end of the text; ``None``: there are no more."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether what it has given away itself has to be waited for."""
        ...

    async def wait(self) -> None:
        """Wait for that."""
        ...


class Lane:
    """The judging of one requirement. :meth:`connect` it before anything else.

    Args:
        index: Its number in the ledger.
        memory: The requirement, and what it has known.
        cutter: Its own chunking; ``None``: the main one's chunks.
        timeout: Seconds that one call may take; may be infinite.
        buffer: How many pieces may wait for it before the producer does.

    Attributes:
        waiting: The pieces that it has not judged yet.
    """

    __slots__ = (
        "_blocking",
        "_calls_for_it",
        "_is_called",
        "_sink",
        "_source",
        "_woken",
        "buffer",
        "cutter",
        "index",
        "memory",
        "timeout",
        "waiting",
    )

    _sink: VerdictSink
    _source: PieceSource | None

    def __init__(
        self, index: int, memory: Memory, cutter: Cutter | None, *, timeout: float, buffer: int
    ) -> None:
        self.index: int = index
        self.memory: Memory = memory
        self.cutter: Cutter | None = cutter
        self.timeout: float = timeout
        self.buffer: int = buffer
        self.waiting: deque[Chunk] = deque()
        self._blocking = memory.requirement.blocking
        self._calls_for_it: MemoryObjectSendStream[None]
        self._woken: MemoryObjectReceiveStream[None]
        self._calls_for_it, self._woken = anyio.create_memory_object_stream[None](1)
        self._is_called = False

    def connect(self, sink: VerdictSink, source: PieceSource | None = None) -> None:
        """Say where its verdicts go, and where its pieces come from, if nobody offers them."""
        self._sink = sink
        self._source = source

    @property
    def requirement(self) -> Requirement:
        """The copy that judges, or has judged."""
        return self.memory.requirement

    @property
    def is_behind(self) -> bool:
        """Whether more pieces wait for it than its buffer holds."""
        return len(self.waiting) > self.buffer

    def offer(self, piece: Chunk) -> bool:
        """Give the lane a piece; true when the producer should wait."""
        if piece.end <= self.memory.judged:
            return False
        self.waiting.append(piece)
        if not self._is_called:  # as wake(), without the call
            self._is_called = True
            self._calls_for_it.send_nowait(None)
        return self._blocking and len(self.waiting) > self.buffer

    def wake(self) -> None:
        """There is something for it, now or when it has judged what it has."""
        if not self._is_called:
            self._is_called = True
            self._calls_for_it.send_nowait(None)

    def end(self) -> None:
        """No piece comes after those already given."""
        self._calls_for_it.close()

    def close(self) -> None:
        """Forget what has not been judged."""
        self._calls_for_it.close()
        self._woken.close()

    # --- its task ----------------------------------------------------------------------------------

    async def run(self, calls: ValidatorCalls) -> None:
        """Judge piece after piece until the text ends or the sink says "stop".

        Raises:
            ValidatorTimeout: a call took longer than the timeout.
            InvalidVerdict: a call returned something else than a verdict.
            Exception: as the validator raised it.

        Cancellation: the validator is cancelled; what it has not judged stays unjudged.
        """
        while late := await self._judge(calls, calls.limit(self.timeout)):
            error = ValidatorTimeout(
                f"stream_validate of {self.requirement!r} did not return within {self.timeout:g} s"
            )
            if not self.requirement.fail_open:
                raise error
            log.warning("an error in %r counts as unknown", self.requirement, exc_info=error)
            if self.memory.keeps:
                self.memory.keep(late, UNKNOWN)
            self._sink.judged(self.index, late, UNKNOWN)
        self._sink.ended(self.index)

    async def _judge(self, calls: ValidatorCalls, limit: WaitTimeout) -> Chunk | None:
        """Judge until the limit is exceeded: then the piece on which there is no verdict."""
        memory, judged, waiting, now = self.memory, self._sink.judged, self.waiting, clock()
        requirement, stream_validate = memory.requirement, memory.requirement.stream_validate
        takes_over, windowed, ctx = memory.takes_over, requirement.window > 0, calls.ctx
        piece: Chunk | None = None
        verdict: PartialValidationResult | None
        with limit, stray_cancellation_as(f"stream_validate of {requirement!r}"):
            while True:
                if not waiting:
                    limit.since = math.inf  # the next piece may take any time
                    try:
                        await self._woken.receive()
                    except anyio.EndOfStream:
                        if not self._take_rest():
                            memory.end()
                            return None
                    else:
                        self._is_called = False
                        if self._source is not None:
                            await self._take(self._source)
                    if not limit.is_watched:
                        limit.resume()
                    continue
                piece = waiting.popleft()
                if len(waiting) == self.buffer:
                    self._sink.caught_up()
                verdict = memory.next_verdict(piece) if takes_over else None
                if verdict is None:
                    if takes_over:
                        takes_over, stream_validate = False, memory.requirement.stream_validate
                    limit.since = now()
                    try:
                        verdict = await stream_validate(
                            piece.text,
                            backend=calls.backend,
                            ctx=_with_window(ctx, piece) if windowed else ctx,
                        )
                        if not isinstance(verdict, PartialValidationResult):
                            raise _invalid(verdict, requirement)
                    except Exception as error:  # noqa: BLE001 - raised again, unless it is to be forgiven
                        verdict = await self._unknown_after(error)
                    if limit.is_exceeded and verdict.success != "fail":
                        return piece  # late, though the call kept its cancellation to itself
                    if memory.keeps:
                        memory.keep(piece, verdict)
                if verdict.success == "fail":
                    # two turns: who was woken for the same piece may begin with a checkpoint
                    await anyio.lowlevel.cancel_shielded_checkpoint()
                    await anyio.lowlevel.cancel_shielded_checkpoint()
                if (next_step := judged(self.index, piece, verdict)) == "stop":
                    return None
                if next_step == "wait":
                    assert self._source is not None
                    limit.pause()
                    await self._source.wait()
                    limit.resume()
        return piece

    async def _take(self, source: PieceSource) -> None:
        self.waiting.extend(source.take())
        if source.is_full:
            await source.wait()

    def _take_rest(self) -> bool:
        """Take what only the end of the text has finished; false: there is nothing more."""
        rest = None if self._source is None else self._source.rest()
        self.waiting.extend(rest or ())
        return rest is not None

    async def _unknown_after(self, error: Exception) -> PartialValidationResult:
        """The verdict where the requirement fails open; otherwise the error is raised."""
        await reraise_if_cancelled(error)
        if not self.requirement.fail_open:
            await checkpoint_before_error()
            raise error
        log.warning(
            "an error in %r counts as unknown", self.requirement, exc_info=without_internals(error)
        )
        return UNKNOWN


def _with_window(ctx: Context, piece: Chunk) -> Context:
    return ctx.add(ModelOutputThunk.computed(piece.window))


def _invalid(verdict: object, requirement: Requirement) -> InvalidVerdict:
    return InvalidVerdict(
        f"stream_validate of {requirement!r} must return a PartialValidationResult, not {verdict!r}"
    )
