"""The task of one requirement: it awaits ``stream_validate`` for one piece of the text after the other.

The pieces wait in a deque. A lane validates all of them, then waits on its memory object stream, which wakes it when
there are more and ends it when the text has ended. The stream carries no pieces: to send and receive each of them
takes ten times as long as the deque, and would add nearly a tenth to the time of a stream with four requirements.

A fail is data: the lane reports it, and ends if it is told to. An error is raised out of the lane's task, and
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
from mellea_sc.core.requirement import PartialValidationResult, Requirement, is_misdefined
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
"""What a lane does after a verdict: validate the next piece at once; wait for :meth:`PieceSource.wait` first; end."""


@attrs.frozen
class ValidatorCalls:
    """What the lanes of one attempt need to call their validators.

    Args:
        backend: The backend that validators are given.
        ctx: The conversation that validators are given.
        limit: Makes a timeout of so many seconds.
    """

    backend: Backend
    ctx: Context
    limit: Callable[[float], WaitTimeout]


class VerdictSink(Protocol):
    """Receives the verdicts of a lane."""

    def judged(self, lane: int, piece: Chunk, verdict: PartialValidationResult) -> WhatNext:
        """Take the verdict on the lane's next piece."""
        ...

    def caught_up(self) -> None:
        """Take notice that no more pieces wait for the lane than its buffer holds."""
        ...

    def ended(self, lane: int) -> None:
        """Take notice that the lane has validated all of the text."""
        ...


class PieceSource(Protocol):
    """Gives a lane its pieces when the lane is ready for them, instead of :meth:`Lane.offer`."""

    def take(self) -> Sequence[Chunk]:
        """The next pieces of the text that has come."""
        ...

    def rest(self) -> Sequence[Chunk] | None:
        """The next pieces after the end of the text; ``None``: there are no more."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether the lane should :meth:`wait` before it goes on."""
        ...

    async def wait(self) -> None:
        """Wait until whoever receives the source's own text has room for more."""
        ...


class Lane:
    """The validation of a running text by one requirement. Call :meth:`connect` before anything else.

    Args:
        index: The number of the requirement.
        memory: The requirement, and what it knew after earlier pieces.
        cutter: Its own chunking; ``None``: it validates the chunks that the reader sees.
        timeout: Seconds that one call may take; may be infinite.
        buffer: The number of pieces that may wait for it before the producer has to wait.

    Attributes:
        waiting: The pieces that it has not begun to validate.
    """

    __slots__ = (
        "_blocking",
        "_is_woken",
        "_sink",
        "_source",
        "_wake_ups",
        "_waker",
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
        self._waker: MemoryObjectSendStream[None]
        self._wake_ups: MemoryObjectReceiveStream[None]
        self._waker, self._wake_ups = anyio.create_memory_object_stream[None](1)
        # Whether a wake-up was sent that the lane has not received. One is enough for all pieces that come until then.
        self._is_woken = False

    def connect(self, sink: VerdictSink, source: PieceSource | None = None) -> None:
        """Set the receiver of its verdicts, and the source of its pieces; ``None``: they come by :meth:`offer`."""
        self._sink = sink
        self._source = source

    @property
    def requirement(self) -> Requirement:
        """The copy of the requirement that validates, or has validated."""
        return self.memory.requirement

    @property
    def is_behind(self) -> bool:
        """Whether more pieces wait for it than its buffer holds."""
        return len(self.waiting) > self.buffer

    def offer(self, piece: Chunk) -> bool:
        """Give the lane the next piece; true if the producer should wait."""
        if piece.end <= self.memory.judged:
            return False
        self.waiting.append(piece)
        if not self._is_woken:  # the same as wake(), without the cost of a call for each piece
            self._is_woken = True
            self._waker.send_nowait(None)
        return self._blocking and len(self.waiting) > self.buffer

    def wake(self) -> None:
        """Have the lane ask its source for pieces when it has validated those that it has."""
        if not self._is_woken:
            self._is_woken = True
            self._waker.send_nowait(None)

    def end(self) -> None:
        """End the text: no more pieces will come."""
        self._waker.close()

    def close(self) -> None:
        """Close the memory object stream, which a lane that was cancelled has left open."""
        self._waker.close()
        self._wake_ups.close()

    # --- its task ----------------------------------------------------------------------------------

    async def run(self, calls: ValidatorCalls) -> None:
        """Validate one piece after the other until the text has ended or the receiver of the verdicts says "stop".

        Raises:
            ValidatorTimeout: a call took longer than the timeout.
            InvalidVerdict: a call returned something else than a verdict.
            Exception: as the validator raised it.

        Cancellation: the call of the validator is cancelled; the pieces that wait are not validated.
        """
        # A timeout has ended the scope of _judge(). If the requirement fails open, it goes on in a new one.
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

    async def _judge(self, calls: ValidatorCalls, limit: WaitTimeout) -> Chunk | None:
        """Validate until the end; if a call takes too long, return the piece that it was about."""
        memory, judged, waiting, now = self.memory, self._sink.judged, self.waiting, clock()
        requirement, stream_validate = memory.requirement, memory.requirement.stream_validate
        takes_over, windowed, ctx = memory.takes_over, requirement.window > 0, calls.ctx
        piece: Chunk | None = None
        verdict: PartialValidationResult | None
        with limit, stray_cancellation_as(f"stream_validate of {requirement!r}"):
            while waiting or await self._has_more(limit):
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
                    except Exception as error:  # noqa: BLE001 - raised again, unless the requirement fails open
                        verdict = await self._unknown_after(error)
                    if limit.is_exceeded and verdict.success != "fail":
                        return piece  # the call has swallowed its cancellation, and is late all the same
                    if memory.keeps:
                        memory.keep(piece, verdict)
                if verdict.success == "fail":
                    # Let the other lanes pass what they can pass without waiting, so that what is shown before a fail
                    # does not depend on which task ran first. It takes two turns: a lane that was woken for
                    # the same piece begins with the checkpoint of receive().
                    await anyio.lowlevel.cancel_shielded_checkpoint()
                    await anyio.lowlevel.cancel_shielded_checkpoint()
                if (next_step := judged(self.index, piece, verdict)) == "stop":
                    return None
                if next_step == "wait":
                    assert self._source is not None
                    limit.pause()
                    await self._source.wait()
                    limit.resume()
            memory.end()
            self._sink.ended(self.index)
            return None
        return piece  # the block was left by its timeout

    async def _has_more(self, limit: WaitTimeout) -> bool:
        """Wait until there are pieces; false: the text has ended, and there are none."""
        waiting, source = self.waiting, self._source
        while not waiting:
            limit.since = math.inf  # the next piece may take any time
            try:
                await self._wake_ups.receive()
            except anyio.EndOfStream:
                if source is None or (rest := source.rest()) is None:
                    return False
                waiting.extend(rest)
            else:
                self._is_woken = False
                if source is not None:
                    waiting.extend(source.take())
                    if source.is_full:
                        await source.wait()
            if not limit.is_watched:
                limit.resume()
        return True

    async def _unknown_after(self, error: Exception) -> PartialValidationResult:
        """The verdict if the requirement fails open; otherwise raise the error."""
        await reraise_if_cancelled(error)
        if not self.requirement.fail_open:
            await checkpoint_before_error()
            if is_misdefined(error):
                raise InvalidVerdict(
                    f"stream_validate of {self.requirement!r} must be defined as "
                    f"`async def stream_validate(self, chunk, *, backend, ctx)`: {error}"
                ) from None
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
