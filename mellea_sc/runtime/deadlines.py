"""Bounded waits: one timer for all the waits of a nursery, however often each of them is restarted.

The wait for a delta is bounded, and begins anew with every delta; so is that for a validator, with every
piece that it judges. A timer for each wait would have to be set and cleared as often; here a wait begins
anew, or stops being one, by an assignment, and one task sleeps until the first limit could be exceeded,
looks which ones are, and sleeps on. So most limits never meet a timer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType
from typing import Final, Self

import anyio

from mellea_sc.runtime.loops.current import clock

__all__ = ["DeadlineTimer", "WaitTimeout"]

RESOLUTION: Final = 0.001
"""Seconds by which a timeout may fire early, so that timeouts that are due together need one wake-up."""


class DeadlineTimer:
    """The timeouts of one nursery, and the task that fires them."""

    def __init__(self) -> None:
        self.now: Callable[[], float] = clock()
        self.is_running: bool = False
        """Whether a task for :meth:`run` has been started."""
        self._limits: set[WaitTimeout] = set()
        self._context = copy_context()
        self._sleep_scope = anyio.CancelScope()
        self._run_scope = anyio.CancelScope()

    def limit(self, seconds: float, scope: anyio.CancelScope | None = None) -> WaitTimeout:
        """A timeout for a wait; see :class:`WaitTimeout`."""
        return WaitTimeout(self, seconds, scope)

    async def run(self) -> None:
        """Cancel the waits whose timeout is due, until :meth:`close`."""
        with self._run_scope:
            while True:
                soon = self.now() + RESOLUTION
                for limit in [*self._limits]:
                    if limit.since == math.inf:
                        # Forgotten until it is resumed. So whatever goes on by an assignment was looked at before
                        # this nap, and is due after it; and a short limit that pauses for long costs one look.
                        self.remove(limit)
                    elif limit.since + limit.seconds <= soon:
                        limit.exceed()
                with anyio.CancelScope(deadline=self._first_due()) as self._sleep_scope:
                    await anyio.sleep_forever()

    def close(self) -> None:
        """End the task: no wait is bounded any more."""
        self._run_scope.cancel()

    def add(self, limit: WaitTimeout) -> None:
        """Look after a limit whose wait has begun."""
        limit.is_watched = True
        self._limits.add(limit)
        due = limit.since + limit.seconds
        if due < self._sleep_scope.deadline:
            # asyncio's timer handle keeps alive the context in which it is set: that must not be the caller's
            self._context.run(setattr, self._sleep_scope, "deadline", due)

    def remove(self, limit: WaitTimeout) -> None:
        """Look after a limit no more."""
        limit.is_watched = False
        self._limits.discard(limit)

    def _first_due(self) -> float:
        return min((limit.since + limit.seconds for limit in self._limits), default=math.inf)


class WaitTimeout:
    """A timeout for each single wait within a block; a wait that takes longer is cancelled.

    Args:
        timer: Looks after it.
        seconds: How long each wait may take; may be infinite.
        scope: What it cancels. Whoever has entered it says by :meth:`resume` and :meth:`end` when the block
            begins and ends, and sees by :attr:`is_exceeded` what has cancelled it. ``None``: a scope of its own,
            and the block is that of the limit.
    """

    __slots__ = ("_scope", "_timer", "is_exceeded", "is_watched", "seconds", "since")

    since: float
    """When the wait began. Set it to begin anew; to ``math.inf`` where what is waited for may take any time, and
    then :meth:`resume` unless it :attr:`is_watched` still."""
    is_watched: bool
    """Whether the timer looks after it: not before its first wait, nor when it was found pausing."""
    is_exceeded: bool
    """Whether a wait has taken too long, and was cancelled."""

    def __init__(
        self, timer: DeadlineTimer, seconds: float, scope: anyio.CancelScope | None = None
    ) -> None:
        self._timer = timer
        self._scope = anyio.CancelScope() if scope is None else scope
        self.seconds: float = seconds
        self.since = math.inf
        self.is_watched = False
        self.is_exceeded = False

    @property
    def was_exceeded(self) -> bool:
        """Whether the block was ended by the timeout."""
        return self._scope.cancelled_caught

    def __enter__(self) -> Self:
        self._scope.__enter__()
        self.resume()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        self._timer.remove(self)
        return self._scope.__exit__(exc_type, exc, tb)

    def pause(self) -> None:
        """What is waited for now may take any time."""
        self.since = math.inf

    def resume(self) -> None:
        """The next wait begins."""
        self.since = self._timer.now()
        if not self.is_watched:
            self._timer.add(self)

    def end(self) -> None:
        """The block has ended."""
        self._timer.remove(self)

    def exceed(self) -> None:
        """Cancel the wait: it has taken too long."""
        self._timer.remove(self)
        # who is cancelled for another reason may take long to end, and is not late
        self.is_exceeded = not self._scope.cancel_called
        self._scope.cancel("it took too long")
