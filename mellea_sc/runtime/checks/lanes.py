"""The lanes of one text: each validates it by one requirement, in a task of its own.

::

    feed(delta) ──> Cutter ──chunk──> ledger.cut()                       the main chunking
                      │
                      ├──chunk──> lane 0 ──verdict──┐
                      └──chunk──> lane 1 ──verdict──┤
        own Cutter ────piece──> lane 2 ──verdict──┴──> ledger ──> view.advance(), or cancel()
        (a requirement with its own chunking)

Lanes do not wait for one another: one may be as many pieces ahead of another as its buffer is long. While more
pieces wait for a lane than its buffer holds, the producer waits in :meth:`Lanes.room`. Only the pieces of one delta
can exceed the buffer, unless the valve was opened. A lane that does not block (an advisory one) never makes the
producer wait.

The pieces wait in a deque. A lane validates all of them, then waits on its memory object stream, which wakes it when
there are more and ends it when the text has ended. The stream carries no pieces: to send and receive each of them
takes ten times as long as the deque, and would add nearly a tenth to the time of a stream with four requirements.

A fail is data: the lane reports it, and ends if it is told to. An error is raised out of the lane's task, and
cancels the task group.
"""

from __future__ import annotations

import copy
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import anyio
import anyio.abc
import anyio.lowlevel
import attrs
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.core.errors import InvalidVerdict, ValidatorTimeout
from mellea_sc.core.requirement import PartialValidationResult, Requirement, is_misdefined
from mellea_sc.runtime.checks.chunks import UNKNOWN, Chunk, Cutter, Ledger
from mellea_sc.runtime.checks.interfaces import PieceSource, VerdictSink, View, WhatNext
from mellea_sc.runtime.checks.memory import Memory
from mellea_sc.runtime.failures import stray_cancellation_as, without_internals
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.loops.current import checkpoint_before_error
from mellea_sc.runtime.nursery import Nursery, reraise_if_cancelled
from mellea_sc.runtime.pacing import Valve, Valves, WaitTimeout

log: Final = logging.getLogger("mellea_sc")


@attrs.frozen
class ValidatorCalls:
    """What the lanes of one attempt need to call their validators.

    Args:
        backend: The backend that validators are given.
        ctx: The conversation that validators are given.
        nursery: Has the timer of their timeouts.
    """

    backend: Backend
    ctx: Context
    nursery: Nursery


class Lane:
    """The validation of a running text by one requirement.

    Args:
        index: The number of the requirement.
        requirement: The copy of it that validates.
        cutter: Its own chunking; ``None``: it validates the chunks that the reader sees.
        timeout: Seconds that one call may take; may be infinite.
        buffer: The number of pieces that may wait for it before the producer has to wait.
        records: Whether its fail is only recorded: it neither ends nor edits the text.
        judged: The position up to which it has validated the text already.
        memory: Its earlier states and verdicts, if another attempt or another pass needs them.

    Attributes:
        waiting: The pieces that it has not begun to validate.
    """

    __slots__ = (
        "_blocking",
        "_is_woken",
        "_records",
        "_sink",
        "_source",
        "_wake_ups",
        "_waker",
        "buffer",
        "cutter",
        "index",
        "judged",
        "memory",
        "requirement",
        "timeout",
        "waiting",
    )

    _sink: VerdictSink
    _source: PieceSource | None

    def __init__(
        self,
        index: int,
        requirement: Requirement,
        cutter: Cutter | None,
        *,
        timeout: float,
        buffer: int,
        records: bool,
        judged: int = 0,
        memory: Memory | None = None,
    ) -> None:
        self.index: int = index
        self.requirement: Requirement = requirement
        """The copy of the requirement that validates, or has validated."""
        self.judged: int = judged
        self.memory: Memory | None = memory
        self.cutter: Cutter | None = cutter
        self.timeout: float = timeout
        self.buffer: int = buffer
        self.waiting: deque[Chunk] = deque()
        self._blocking = requirement.blocking
        self._records = records
        self._waker: MemoryObjectSendStream[None]
        self._wake_ups: MemoryObjectReceiveStream[None]
        self._waker, self._wake_ups = anyio.create_memory_object_stream[None](1)
        # Whether a wake-up was sent that the lane has not received. One is enough for all pieces that come until then.
        self._is_woken = False

    def offer(self, piece: Chunk) -> bool:
        """Give the lane the next piece; true if the producer should wait."""
        if piece.end <= self.judged:
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

    async def run(
        self, calls: ValidatorCalls, sink: VerdictSink, source: PieceSource | None = None
    ) -> None:
        """Validate one piece after the other until the text has ended or the receiver of the verdicts says "stop".

        Args:
            calls: What it needs to call its validator.
            sink: The receiver of its verdicts.
            source: The source of its pieces; ``None``: they come by :meth:`offer`.

        Raises:
            ValidatorTimeout: a call took longer than the timeout.
            InvalidVerdict: a call returned something else than a verdict.
            Exception: as the validator raised it.

        Cancellation: the call of the validator is cancelled; the pieces that wait are not validated.
        """
        self._sink, self._source = sink, source
        # A timeout has ended the scope of _judge(). If the requirement fails open, it goes on in a new one.
        while late := await self._judge(calls, calls.nursery.limit(self.timeout)):
            error = ValidatorTimeout(
                f"stream_validate of {self.requirement!r} did not return within {self.timeout:g} s"
            )
            if not self.requirement.fail_open:
                raise error
            log.warning("an error in %r counts as unknown", self.requirement, exc_info=error)
            if self.memory is not None:
                self.memory.keep(late, UNKNOWN, self.requirement)
            sink.judged(self.index, late, UNKNOWN)

    async def _judge(self, calls: ValidatorCalls, limit: WaitTimeout) -> Chunk | None:
        """Validate until the end; if a call takes too long, return the piece that it was about."""
        memory, judged, waiting, now = (
            self.memory,
            self._sink.judged,
            self.waiting,
            calls.nursery.now,
        )
        requirement, stream_validate = self.requirement, self.requirement.stream_validate
        takes_over = memory is not None and memory.takes_over
        windowed, ctx = requirement.window > 0, calls.ctx
        piece: Chunk | None = None
        verdict: PartialValidationResult | None
        with limit, stray_cancellation_as(f"stream_validate of {requirement!r}"):
            while waiting or await self._has_more(limit):
                piece = waiting.popleft()
                if len(waiting) == self.buffer:
                    self._sink.caught_up()
                verdict = self._taken_over(piece) if takes_over else None
                if verdict is None:
                    if takes_over:
                        takes_over, stream_validate = False, self.requirement.stream_validate
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
                    if memory is not None:
                        memory.keep(piece, verdict, self.requirement)
                if verdict.success == "fail" and not self._records:
                    # Let the other lanes pass what they can pass without waiting, so that what is shown before a fail
                    # does not depend on which task ran first. It takes two turns: a lane that was woken for
                    # the same piece begins with the checkpoint of receive(). A lane whose own fails are only recorded
                    # must not wait here, or it would need more turns.
                    await anyio.lowlevel.cancel_shielded_checkpoint()
                    await anyio.lowlevel.cancel_shielded_checkpoint()
                if (next_step := judged(self.index, piece, verdict)) == "stop":
                    return None
                if next_step == "wait":
                    assert self._source is not None
                    limit.pause()
                    await self._source.wait()
                    limit.resume()
            if takes_over:  # from now on, no finding refers to the copy of the requirement
                self.requirement = copy.copy(self.requirement)
            self._sink.ended(self.index)
            return None
        return piece  # the block was left by its timeout

    def _taken_over(self, piece: Chunk) -> PartialValidationResult | None:
        """The verdict of the pass before; ``None``: this piece is another one, and so may be all after it."""
        assert self.memory is not None
        if (found := self.memory.next_finding(piece)) is None:
            # from now on this copy is called: its state is also in the findings, which must not change
            self.requirement = copy.copy(self.requirement)
            return None
        self.requirement = found.requirement
        return found.verdict

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


class Lanes:
    """The lanes of one text.

    Args:
        main: The chunking that the reader sees.
        lanes: One for each requirement that validates running text.
        ledger: Decides what may be shown.
        view: Shows it; ``None``: nobody does.
        remembers: Whether its chunks are kept.
    """

    def __init__(
        self,
        main: Cutter,
        lanes: Sequence[Lane],
        ledger: Ledger,
        view: View | None,
        *,
        remembers: bool,
    ) -> None:
        self.parts: list[str] = []
        """The text, in the pieces in which it came."""
        self.chunks: list[Chunk] = []
        """Its chunks, if they are kept."""
        self.lanes: Sequence[Lane] = lanes
        self.ledger: Ledger = ledger
        self._main = main
        self._on_chunk = [lane for lane in lanes if lane.cutter is None]
        self._on_own = [(lane, lane.cutter) for lane in lanes if lane.cutter is not None]
        self._view = view
        self._remembers = remembers
        # Whether a chunking is at work, or has raised. While it is set, the text is not known to be cut to its end.
        self._is_cutting = False
        self._valve = Valve(self._is_behind, for_reader=False)

    def start(
        self, tasks: anyio.abc.TaskGroup, calls: ValidatorCalls, cancel: Callable[[], None]
    ) -> None:
        """Start the lanes' tasks.

        Args:
            tasks: Their task group.
            calls: What they need to call their validators.
            cancel: Called when a requirement has failed.
        """
        self._cancel = cancel
        for lane in self.lanes:
            name = f"lane {lane.index}: {lane.requirement!r}"
            calls.nursery.loop_services.start_task(tasks, lane.run(calls, self), name=name)

    # --- the producer's side ------------------------------------------------------------------

    def feed(self, text: str) -> bool:
        """Cut the text and give the pieces to the lanes; true if the producer should wait for a lane or the reader."""
        full = False
        self.parts.append(text)
        self._is_cutting = True
        for chunk in self._main.feed(text):
            full |= self._take(chunk, self._on_chunk)
        for lane, cutter in self._on_own:
            for piece in cutter.feed(text):
                full |= lane.offer(piece)
        self._is_cutting = False
        view = self._view
        return (full and not self._valve.is_open) or (view is not None and view.is_full)

    def end(self) -> None:
        """End the text: give the lanes its trailing fragments, unless a chunking has raised."""
        try:
            if not self._is_cutting:
                self._is_cutting = True
                for chunk in self._main.flush():
                    self._take(chunk, self._on_chunk)
                for lane, cutter in self._on_own:
                    for piece in cutter.flush():
                        lane.offer(piece)
                self._is_cutting = False
        finally:
            for lane in self.lanes:
                lane.end()

    def finish(self) -> None:
        """Add what stands after the last chunk, after all of the text was validated."""
        if rest := self._main.rest():
            self._take(rest, ())

    def _take(self, chunk: Chunk, lanes: Sequence[Lane]) -> bool:
        full = False
        if self._remembers:
            self.chunks.append(chunk)
        # Not for "cancel": the lane that has failed has called cancel() already.
        if self.ledger.cut(chunk) == "release" and self._view is not None:
            self._view.advance()
        for lane in lanes:
            full |= lane.offer(chunk)
        return full

    def _is_behind(self) -> bool:
        return any(
            len(lane.waiting) > lane.buffer for lane in self.lanes if lane.requirement.blocking
        )

    async def room(self, valves: Valves) -> None:
        """Wait until no lane that blocks is behind, and then for the reader."""
        await self._valve.wait(valves)
        if self._view is not None:
            await self._view.room(valves)

    # --- the lanes' side ------------------------------------------------------------------------

    def judged(self, lane: int, piece: Chunk, verdict: PartialValidationResult) -> WhatNext:
        """Take a lane's verdict on its next piece."""
        move = self.ledger.judged(lane, piece, verdict)
        if move == "cancel":
            self._cancel()
            return "stop"
        if move == "release" and self._view is not None:
            self._view.advance()
        return "go on"

    def caught_up(self) -> None:
        """Wake the producer: a lane has room again."""
        self._valve.look()

    def ended(self, lane: int) -> None:
        """Take notice that a lane has validated all of its pieces: of all the text, if that was cut to its end."""
        if self._is_cutting:
            return
        if self.ledger.passed(lane, math.inf) == "release" and self._view is not None:
            self._view.advance()
