"""Whose turn it is in a conversation.

In a conversation that remembers, each request has to see the answer to the one before. Requests get in line
when they are made, in that order, and each waits for its turn in its own task. A turn that fails or
is cancelled leaves the line and the conversation as if it had never been.

A request that might wait for itself is refused, such as one that a validator makes, inside a turn. In
another thread it cannot be known that it was a validator that started it. So no request waits for a turn of
another event loop, and no blocking call waits for a turn in which code of the user's runs.

One deadlock cannot be detected, and after a long wait is only logged: a validator has a thread (of
``loop.run_in_executor``, which copies no context variables) that asks in the turn's own event loop, by
``asyncio.run_coroutine_threadsafe``, and waits for the answer. It looks like a thread of the program's own, whose
turn comes when the one before has ended. A requirement's ``timeout`` ends it.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from typing import Final, TypeAlias

import anyio
import attrs

from mellea_sc.core.base import Context
from mellea_sc.core.errors import InvalidOption, UsageError
from mellea_sc.runtime.loops.current import current_loop
from mellea_sc.runtime.loops.forks import tell_of_forks
from mellea_sc.runtime.portal import is_blocking_call
from mellea_sc.stdlib.context import SimpleContext

log: Final = logging.getLogger("mellea_sc")

OVERLAP: Final = (
    "Not using a SimpleContext with asynchronous requests could cause unexpected results due to "
    "stale contexts. Ensure you await between requests."
)

LONG: Final = 30.0
"""Seconds of waiting for a turn in which code of the user's runs, after which the wait is logged."""

LONG_WAIT: Final = (
    "a turn of a conversation has waited %g s for another one in which a validator, a strategy or a tool may run. "
    "If that has a thread ask the same conversation and waits for it, both wait for ever: in a validator use the "
    "backend that it is given, or another session, and give the requirement a timeout"
)


class Turns:
    """What was said in a conversation, and the line of requests that want to go on with it.

    Args:
        ctx: What was said so far.
        in_order: Whether requests wait for one another, where the context remembers what they add; otherwise each
            starts from what is there.

    Raises:
        InvalidOption: ``ctx`` is no context.
    """

    def __init__(self, ctx: Context, *, in_order: bool = True) -> None:
        self._in_order = _remembers(ctx) and in_order
        self.ctx: Context = ctx
        self.replaced: int = 0
        """How often another conversation was put in its place."""
        self._line: deque[_QueuedTurn] = deque()
        self.lock: threading.Lock = threading.Lock()
        """A session may be used in the event loops of several threads."""
        tell_of_forks(self)

    def check_outside(self) -> None:
        """Raise if the caller must not wait for the turns in line, because they might be waiting for the caller.

        Raises:
            UsageError: this is, or might be, called from inside a turn of this conversation, by a validator, say.
        """
        around, here, blocking = _around.get(), current_loop(), is_blocking_call()
        line = tuple(self._line)
        for turn in line:
            if turn in around:
                raise UsageError(
                    "a turn of this conversation cannot wait for another one, which would come after it: "
                    "in a validator use the backend that it is given, or another conversation"
                )
            if turn.loop is not here or (blocking and turn.runs_code):
                raise UsageError(
                    "another thread is in a turn of this conversation, which may itself be waiting for this "
                    "one: take turns after one another, or use another conversation"
                )
        if not _all_waited_for(line).isdisjoint(around):
            raise UsageError(
                "a turn of this conversation is waiting for the turn of another one that this is asked in: "
                "in a validator use the backend that it is given, or a conversation of its own"
            )

    def replace(self, ctx: Context) -> None:
        """Go on with another conversation. What free turns that have begun add to the old one is forgotten.

        Raises:
            InvalidOption: it is no context.
            UsageError: there are turns in line, which would be lost.
        """
        in_order = _remembers(ctx)
        with self.lock:
            if self._line:
                raise UsageError(
                    "the conversation has turns that have not ended, which would be lost: await them, or cancel "
                    "them, before it is replaced"
                )
            self.ctx = ctx
            self._in_order = in_order
            self.replaced += 1

    def take_turn(self, stop_throttling: Callable[[], None], *, runs_code: bool) -> Turn:
        """Get in line; or begin at once, where requests do not wait for one another.

        Args:
            stop_throttling: Called when another request waits for this one, which itself may wait for a reader.
            runs_code: Whether code of the user's runs in the turn, a validator's, say.

        Returns:
            An async context manager: its block begins when the turns before have ended, with the conversation so
            far. ``commit`` in the block says what the conversation is now. Instead of entering it, ``give_up``.

        Raises:
            UsageError: as of :meth:`check_outside`.
        """
        if not self._in_order:
            with self.lock:
                return _FreeTurn(self, self.ctx, self.replaced)
        turn = _QueuedTurn(self, stop_throttling, runs_code)
        with self.lock:
            self.check_outside()
            earlier = tuple(self._line)
            self._line.append(turn)
            turn.waits_for.update(earlier[-1:])
        for outer in turn.around:
            outer.waits_for.add(turn)
        turn.waits_for_code = any(one.runs_code for one in earlier)
        if earlier:
            log.warning(OVERLAP)
            for one in earlier:
                one.stop_throttling()
        else:
            turn.head.set()
        return turn

    async def settled(self) -> Context:
        """Wait until the turns that are in line now have ended, and return the conversation.

        Raises:
            UsageError: as of :meth:`check_outside`.
        """
        with self.lock:
            self.check_outside()
            line = tuple(self._line)
        for earlier in line:
            earlier.stop_throttling()
        if line:
            around = _around.get()
            for outer in around:
                outer.waits_for.add(line[-1])
            try:
                await _wait(line[-1].left, for_code=any(one.runs_code for one in line))
            finally:
                for outer in around:
                    outer.waits_for.discard(line[-1])
        return self.ctx

    def leave(self, turn: _QueuedTurn) -> None:
        """A turn has ended or was given up: the next one begins."""
        with self.lock:
            if turn in self._line:
                self._line.remove(turn)
            following = self._line[0] if self._line else None
        turn.waits_for.clear()
        for outer in turn.around:
            outer.waits_for.discard(turn)
        # of the same event loop, as everybody in the line is
        if following is not None and following.loop is turn.loop:
            following.head.set()
        turn.left.set()

    def forked(self) -> None:
        """The turns in line are the parent's."""
        self.lock = threading.Lock()
        self._line.clear()


@attrs.frozen(weakref_slot=False)
class _FreeTurn:
    """A turn where requests do not wait for one another."""

    _turns: Turns
    _before: Context
    _begun: int

    async def __aenter__(self) -> Context:
        return self._before

    async def __aexit__(self, *_: object) -> None:
        return

    def commit(self, ctx: Context) -> None:
        turns = self._turns
        with turns.lock:
            if turns.replaced == self._begun:  # else the conversation goes on with another one
                turns.ctx = ctx

    def give_up(self) -> None:
        """Nobody waits for it."""


@attrs.define(eq=False)
class _QueuedTurn:
    """A turn in line."""

    _turns: Turns
    stop_throttling: Callable[[], None]
    runs_code: bool
    loop: object = attrs.field(factory=current_loop, init=False)
    around: tuple[_QueuedTurn, ...] = attrs.field(factory=lambda: _around.get(), init=False)
    waits_for: set[_QueuedTurn] = attrs.field(factory=lambda: set[_QueuedTurn](), init=False)
    """The turn before it in line, and those that it waits for in its block."""
    head: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    left: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    waits_for_code: bool = attrs.field(default=False, init=False)
    _token: Token[tuple[_QueuedTurn, ...]] = attrs.field(init=False)

    async def __aenter__(self) -> Context:
        try:
            await _wait(self.head, for_code=self.waits_for_code)
        except BaseException:
            self._turns.leave(self)
            raise
        self._token = _around.set((*_around.get(), self))
        return self._turns.ctx

    async def __aexit__(self, *_: object) -> None:
        _around.reset(self._token)
        self._turns.leave(self)

    def commit(self, ctx: Context) -> None:
        self._turns.ctx = ctx

    def give_up(self) -> None:
        self._turns.leave(self)


Turn: TypeAlias = _FreeTurn | _QueuedTurn
"""One request's part in a conversation; see :meth:`Turns.take_turn`."""


def _remembers(ctx: object) -> bool:
    """Whether a context shows a request what was said before, so that each has to wait for the one before."""
    if not isinstance(ctx, Context):
        raise InvalidOption(
            f"ctx must be a context, not {type(ctx).__name__}: of messages make one with "
            "ChatContext.from_messages(…)"
        )
    return not isinstance(ctx, SimpleContext)


def _all_waited_for(turns: Iterable[_QueuedTurn]) -> set[_QueuedTurn]:
    """These turns and all that they wait for, or might, in whichever conversations."""
    found: set[_QueuedTurn] = set()
    ahead = list(turns)
    while ahead:
        turn = ahead.pop()
        if turn not in found and not turn.left.is_set():
            found.add(turn)
            ahead.extend(tuple(turn.waits_for))
    return found


async def _wait(turn: anyio.Event, *, for_code: bool) -> None:
    with anyio.move_on_after(LONG if for_code else math.inf):
        await turn.wait()
        return
    log.warning(LONG_WAIT, LONG)
    await turn.wait()


_around: Final[ContextVar[tuple[_QueuedTurn, ...]]] = ContextVar("mellea_sc_turns", default=())
"""The turns that the calling task is part of, outermost first."""
