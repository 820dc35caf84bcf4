"""One running text, judged by many: a validator task per requirement, each fed by its own channel.

::

    write(delta) ──> Cutter ──chunk──> ledger.cut()                      the main chunking
                        │
                        ├──chunk──> lane 0: batch ──> memory object stream ──> task 0 ─┐
                        └──chunk──> lane 1: …                                          ├─> ledger
         own Cutter ──────piece──> lane 2: …  (a requirement with its own chunking)  ─┘     │
                                                                   release(), cancel() <───────┘

A lane takes what is there as one batch, awaits its requirement's ``stream_validate`` for piece after
piece of it and writes the verdicts into the ledger. A batch is on its way as soon as it has a piece, and
grows until it is taken: a lane that keeps up has batches of one piece.

Lanes do not wait for one another: one may be as far ahead of another as its buffer is long. While more
pieces wait for a lane than its buffer holds, the producer waits in :meth:`Lanes.room`. One delta can
bring many pieces at once; only they go beyond the buffer, unless the valve was opened.

Before a lane reports a fail it gives the others a turn: those that need not wait for anything come as
far as they can. So what is shown before a fail does not depend on whose turn was first.

A lane that does not block (an advisory one) never makes the producer wait. One that remembers keeps a
copy of its requirement from after each piece, so that another text can go on from there.

The tasks are started in a task group of the attempt's. A fail is data: the lane reports it, and ends if
the ledger says "cancel". An error is raised out of the lane's task, and cancels the task group.
"""

from __future__ import annotations

import copy
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

import anyio
import anyio.abc
import anyio.lowlevel
import attrs
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.core.errors import (
    InvalidVerdict,
    ValidatorTimeout,
)
from mellea_sc.core.requirement import PartialValidationResult, Requirement
from mellea_sc.runtime.checks.cutter import Cutter
from mellea_sc.runtime.checks.ledger import UNKNOWN, Chunk, Ledger, Move
from mellea_sc.runtime.deadlines import WaitTimeout
from mellea_sc.runtime.failures import stray_cancellation_as, without_internals
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.loops.current import checkpoint_before_error, clock
from mellea_sc.runtime.nursery import reraise_if_cancelled
from mellea_sc.runtime.pacing import Valve, Valves

__all__ = ["Findings", "Lane", "LaneCheckpoint", "Lanes"]

log: Final = logging.getLogger("mellea_sc")


@attrs.frozen
class LaneCheckpoint:
    """What a requirement knows about the beginning of a text.

    Args:
        judged: Up to where in the text it has judged.
        requirement: A copy that knows it.
        past: What it knew before that, likewise, for a text that goes on from further back.
    """

    judged: int
    requirement: Requirement
    past: Sequence[tuple[int, Requirement]] = ()


@attrs.define
class Finding:
    """A verdict on a piece, and a copy of the requirement from after it. A value, though not frozen.

    Args:
        text: The piece.
        window: What the requirement was given of the text before it.
        verdict: The verdict.
        requirement: The copy.
    """

    text: str
    window: str
    verdict: PartialValidationResult
    requirement: Requirement


Findings: TypeAlias = deque[Finding]
"""What one pass of a requirement over the text has found, for its next pass to take over.

The next pass judges the same pieces as long as nothing was edited: then it has the same verdicts, without
a call.
"""


class Source(Protocol):
    """Where a lane's pieces come from that are cut when it is ready for them."""

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


class Outlet(Protocol):
    """Where a lane's verdicts go."""

    @property
    def judged(self) -> Callable[[int, Chunk, PartialValidationResult], Move]:
        """Takes a verdict; says what follows from it."""
        ...

    def tell(self, move: Move) -> None:
        """Called with what follows, unless it is "hold"."""
        ...

    def caught_up(self) -> None:
        """Called when no more pieces wait for a lane than its buffer holds."""
        ...

    async def wait(self) -> None:
        """Called where what follows is "wait"."""
        ...


@attrs.define(eq=False)
class Lane:
    """The judging of one requirement.

    Args:
        index: Its number in the ledger.
        known: The requirement, and up to where it has judged this text.
        cutter: Its own chunking; ``None``: the main one's chunks.
        timeout: Seconds that one call may take; may be infinite.
        buffer: How many pieces may wait for it before the producer does.
        remembers: Whether it keeps what the requirement knew after each piece, so that another text
            can go on from there.
        earlier: What an earlier pass of the requirement has found.
        later: Where what this pass finds is kept for a later one.
    """

    index: int
    known: LaneCheckpoint
    cutter: Cutter | None
    timeout: float
    buffer: int
    remembers: bool = False
    earlier: Findings | None = None
    later: Findings | None = None
    source: Source | None = attrs.field(default=None, init=False)
    """Where its pieces come from, if nobody offers them."""
    requirement: Requirement = attrs.field(init=False)
    """The copy that judges, or has judged."""
    _states: list[tuple[int, Requirement]] = attrs.field(init=False)
    _state: Requirement | None = attrs.field(default=None, init=False)
    _batch: deque[Chunk] = attrs.field(factory=deque[Chunk], init=False)
    waiting: deque[Chunk] = attrs.field(factory=deque[Chunk], init=False)
    """The pieces that it has taken and not judged yet."""
    _send: MemoryObjectSendStream[deque[Chunk]] = attrs.field(init=False)
    _receive: MemoryObjectReceiveStream[deque[Chunk]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[deque[Chunk]](1)
        self.requirement = self.known.requirement
        self._states = [*self.known.past]
        if self.remembers:
            self._states.append((self.known.judged, copy.copy(self.requirement)))

    def known_at(self, position: int) -> LaneCheckpoint:
        """What the requirement knew about the text up to a position; of a lane that remembers."""
        past = self._states[: bisect_right(self._states, position, key=_place_of)]
        judged, requirement = past.pop()
        return LaneCheckpoint(judged, copy.copy(requirement), past)

    @property
    def is_behind(self) -> bool:
        """Whether more pieces wait for it than its buffer holds."""
        return len(self._batch) + len(self.waiting) > self.buffer

    def offer(self, piece: Chunk) -> bool:
        """Give the lane a piece; true when the producer should wait."""
        if piece.end <= self.known.judged:
            return False
        if not self._batch:
            self._send.send_nowait(self._batch)
        self._batch.append(piece)
        return self.requirement.blocking and self.is_behind

    def wake(self) -> None:
        """The source has something for it, after it had nothing."""
        self._send.send_nowait(self._batch)

    def end(self) -> None:
        """No piece comes after those already given."""
        self._send.close()

    def close(self) -> None:
        """Forget what has not been judged."""
        self._send.close()
        self._receive.close()

    async def judge(
        self, backend: Backend, ctx: Context, limit: Callable[[float], WaitTimeout], outlet: Outlet
    ) -> None:
        """Judge piece after piece until the text ends or the outlet says "cancel".

        Args:
            backend: Handed to the validator.
            ctx: Handed to the validator.
            limit: Bounds each call of the validator.
            outlet: Where the verdicts go.

        Raises:
            ValidatorTimeout: a call took longer than the timeout.
            InvalidVerdict: a call returned something else than a verdict.
            Exception: as the validator raised it.
        """
        while piece := await self._judge_until_timeout(backend, ctx, limit(self.timeout), outlet):
            late = ValidatorTimeout(
                f"stream_validate of {self.requirement!r} did not return within {self.timeout:g} s"
            )
            if not self.requirement.fail_open:
                raise late
            log.warning("an error in %r counts as unknown", self.requirement, exc_info=late)
            self._keep(piece, UNKNOWN)
            outlet.tell(outlet.judged(self.index, piece, UNKNOWN))

    async def _judge_until_timeout(
        self, backend: Backend, ctx: Context, limit: WaitTimeout, outlet: Outlet
    ) -> Chunk | None:
        requirement, now, judged = self.requirement, clock(), outlet.judged
        stream_validate, windowed = requirement.stream_validate, requirement.window > 0
        keeps, follows = self.remembers or self.later is not None, self.earlier is not None
        waiting, batch, buffer, index = self.waiting, self._batch, self.buffer, self.index
        piece: Chunk | None = None
        verdict: PartialValidationResult
        with limit, stray_cancellation_as(f"stream_validate of {requirement!r}"):
            while waiting or await self._take(limit):
                piece = waiting.popleft()
                if len(waiting) + len(batch) == buffer:
                    outlet.caught_up()
                found = self._taken_over(piece) if follows else None
                if found is None:
                    if follows:
                        follows, stream_validate = False, self.requirement.stream_validate
                    limit.since = now()
                    try:
                        verdict = await stream_validate(
                            piece.text,
                            backend=backend,
                            ctx=_with_window(ctx, piece) if windowed else ctx,
                        )
                        if not isinstance(verdict, PartialValidationResult):
                            raise InvalidVerdict(
                                f"stream_validate of {requirement!r} must return a "
                                f"PartialValidationResult, not {verdict!r}"
                            )
                    except Exception as error:  # noqa: BLE001 - raised again, unless it is to be forgiven
                        verdict = await self._unknown_after(error)
                    if limit.is_exceeded and verdict.success != "fail":
                        return piece  # late, though the call kept its cancellation to itself
                    if keeps:
                        self._keep(piece, verdict)
                else:
                    verdict = found
                if verdict.success == "fail":
                    await anyio.lowlevel.cancel_shielded_checkpoint()
                move = judged(index, piece, verdict)
                if move != "hold":
                    outlet.tell(move)
                    if move == "cancel":
                        return None
                    if move == "wait":
                        limit.pause()
                        await outlet.wait()
                        limit.resume()
            if self.earlier is not None:  # what it knows is a copy that others may go on from
                self.requirement = copy.copy(self.requirement)
            return None
        return piece

    def _taken_over(self, piece: Chunk) -> PartialValidationResult | None:
        """The verdict of the pass before, if all that this one was given was the same until now."""
        assert self.earlier is not None
        found = self.earlier.popleft() if self.earlier else None
        if found is None or found.text != piece.text or found.window != piece.window:
            self.requirement = copy.copy(self.requirement)
            self.earlier = None
            return None
        self.requirement = found.requirement
        if self.later is not None:
            self.later.append(found)
        if self.remembers:
            self._states.append((piece.end, found.requirement))
        return found.verdict

    def take_over(self, pieces: Sequence[Chunk]) -> int:
        """How many of the next pieces the pass before has passed: they are judged with that."""
        count, earlier = 0, self.earlier
        if not earlier or self.later is None or self.remembers:
            return 0
        for piece in pieces:
            found = earlier[0] if earlier else None
            if (
                found is None
                or found.text != piece.text
                or found.window != piece.window
                or found.verdict.success == "fail"
            ):
                break
            self.later.append(earlier.popleft())
            self.requirement = found.requirement
            count += 1
        return count

    def _keep(self, piece: Chunk, verdict: PartialValidationResult) -> None:
        """Keep what the requirement knows now, for a later pass or for another text to go on from."""
        if self.later is None and not self.remembers:
            return
        state = self._state = _snapshot(self.requirement, self._state)
        if self.later is not None:
            self.later.append(Finding(piece.text, piece.window, verdict, state))
        if self.remembers:
            self._states.append((piece.end, state))

    async def _take(self, limit: WaitTimeout) -> bool:
        """Wait for a batch, as long as it takes; false: the text has ended."""
        limit.pause()
        while not self.waiting:
            try:
                await self._receive.receive()
            except anyio.EndOfStream:
                rest = None if self.source is None else self.source.rest()
                if rest is None:
                    return False
                self.waiting.extend(rest)
            else:
                self.waiting.extend(self._batch)
                self._batch.clear()
                if self.source is not None:
                    self.waiting.extend(self.source.take())
                    if self.source.is_full:
                        await self.source.wait()
        limit.resume()
        return True

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


def _snapshot(requirement: Requirement, last: Requirement | None) -> Requirement:
    """A copy of the requirement; the last one, if the requirement has not changed since."""
    if last is not None:
        try:
            if requirement.__getstate__() == last.__getstate__():
                return last
        except Exception:  # noqa: BLE001 - what cannot be compared is copied
            pass
    return copy.copy(requirement)


def _with_window(ctx: Context, piece: Chunk) -> Context:
    return ctx.add(ModelOutputThunk.computed(piece.window))


def _place_of(state: tuple[int, Requirement]) -> int:
    return state[0]


class Lanes:
    """All that judges one running text.

    Args:
        main: The chunking that the reader sees.
        lanes: The judges; none is fine. One that does not block never makes the producer wait.
        ledger: For as many lanes.
        cut: Called with each chunk of the main chunking, before it is given to the ledger.
        release: Called when the ledger says that more may be shown.
        cancel: Called when it says that the text is not to go on.
    """

    def __init__(
        self,
        main: Cutter,
        lanes: Sequence[Lane],
        ledger: Ledger,
        *,
        cut: Callable[[Chunk], None],
        release: Callable[[], None],
        cancel: Callable[[], None],
    ) -> None:
        self._main = main
        self._lanes = lanes
        self._blocking = [lane for lane in lanes if lane.requirement.blocking]
        self._main_lanes = [lane for lane in lanes if lane.cutter is None]
        self._own_lanes = [(lane, lane.cutter) for lane in lanes if lane.cutter is not None]
        self._ledger = ledger
        self._cut = cut
        self._release = release
        self._cancel = cancel
        self._cutting = False
        self._valve = Valve(self._is_behind, for_reader=False)
        self.judged: Callable[[int, Chunk, PartialValidationResult], Move] = ledger.judged

    def start(
        self,
        tasks: anyio.abc.TaskGroup,
        backend: Backend,
        ctx: Context,
        limit: Callable[[float], WaitTimeout],
    ) -> None:
        """Start a task for each lane; ``limit`` bounds each call of a requirement's."""
        for lane in self._lanes:
            name = f"lane {lane.index}: {lane.requirement!r}"
            tasks.start_soon(self._run, lane, backend, ctx, limit, name=name)

    async def _run(
        self, lane: Lane, backend: Backend, ctx: Context, limit: Callable[[float], WaitTimeout]
    ) -> None:
        await lane.judge(backend, ctx, limit, self)
        # a lane whose text was not cut to its end has not judged the rest of it
        if not self._ledger.failed and not self._cutting:
            self.tell(self._ledger.ended(lane.index))

    def tell(self, move: Move) -> None:
        """Do what the ledger says."""
        if move == "release":
            self._release()
        elif move == "cancel":
            self._cancel()

    # --- the producer's side ------------------------------------------------------------------

    def feed(self, delta: str) -> bool:
        """Cut a delta and give the pieces to the lanes; true when the producer should wait for one."""
        full = False
        self._cutting = True
        for chunk in self._main.feed(delta):
            full |= self._take(chunk)
        for lane, cutter in self._own_lanes:
            for piece in cutter.feed(delta):
                full |= lane.offer(piece)
        self._cutting = False
        return full and not self._valve.is_open

    def end(self) -> None:
        """The text has ended: give the lanes its trailing fragments.

        After a chunking has raised, none is asked for one.
        """
        try:
            if not self._cutting:
                self._cutting = True
                for chunk in self._main.flush():
                    self._take(chunk)
                for lane, cutter in self._own_lanes:
                    for piece in cutter.flush():
                        lane.offer(piece)
                self._cutting = False
        finally:
            for lane in self._lanes:
                lane.end()

    def _take(self, chunk: Chunk) -> bool:
        self._cut(chunk)
        if self._ledger.cut(chunk) == "release":  # "cancel" was told by the lane that failed
            self._release()
        full = False
        for lane in self._main_lanes:
            full |= lane.offer(chunk)
        return full

    def finish(self) -> None:
        """The text is whole and judged: what no chunk holds at its end may be shown as well."""
        if rest := self._main.rest():
            self._cut(rest)
            self.tell(self._ledger.cut(rest))

    def _is_behind(self) -> bool:
        return any(lane.is_behind for lane in self._blocking)

    async def room(self, valves: Valves) -> None:
        """Wait until no lane that blocks is behind."""
        await self._valve.wait(valves)

    async def wait(self) -> None:
        """Nothing: a ledger never says "wait"."""

    def caught_up(self) -> None:
        """A lane is not behind any more."""
        self._valve.look()

    def close(self) -> None:
        """Forget what has not been judged."""
        for lane in self._lanes:
            lane.close()
