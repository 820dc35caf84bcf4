"""Bounded waits: one timer for all the waits of a nursery, however often each of them begins anew.

The wait for a delta is bounded, and begins anew with every delta; so is that for a validator, with every
piece that it judges. A timer for each wait would have to be set and cleared as often; here a wait begins
anew by an assignment, and one task sleeps until the first limit could be exceeded, looks which ones are,
and sleeps on. So most limits never meet a timer.
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
"""Seconds by which a limit may be early: those that are due together are exceeded together."""


class DeadlineTimer:
    """The limits of one nursery, and the task that looks after them."""

    def __init__(self) -> None:
        self.now: Callable[[], float] = clock()
        self.is_running: bool = False
        """Whether somebody has seen to it that :meth:`run` does."""
        self._limits: set[WaitTimeout] = set()
        self._context = copy_context()
        self._nap = anyio.CancelScope()
        self._life = anyio.CancelScope()

    def limit(self, seconds: float, scope: anyio.CancelScope | None = None) -> WaitTimeout:
        """A limit for a wait; see :class:`WaitTimeout`."""
        return WaitTimeout(self, seconds, scope)

    async def run(self) -> None:
        """Cancel the waits that have exceeded their limits, until :meth:`close`."""
        with self._life:
            while True:
                with anyio.CancelScope(deadline=self._first_due()) as self._nap:
                    await anyio.sleep_forever()
                soon = self.now() + RESOLUTION
                for limit in [limit for limit in self._limits if limit.due <= soon]:
                    limit.exceed()

    def close(self) -> None:
        """No wait is bounded any more."""
        self._life.cancel()

    def add(self, limit: WaitTimeout) -> None:
        """A wait begins."""
        self._limits.add(limit)
        due = limit.since + limit.seconds
        if due < self._nap.deadline:
            # not in the caller's context, which the timer would keep alive with all that is in it
            self._context.run(setattr, self._nap, "deadline", due)

    def remove(self, limit: WaitTimeout) -> None:
        """A wait is over."""
        self._limits.discard(limit)

    def _first_due(self) -> float:
        return min((limit.due for limit in self._limits), default=math.inf)


class WaitTimeout:
    """A bound on each of the waits within a block; what takes longer is cancelled.

    Args:
        watch: Looks after it.
        seconds: How long each wait may take; may be infinite.
        scope: What it cancels. Whoever has entered it says by :meth:`resume` and :meth:`pause` when the block
            begins and ends, and sees by :attr:`is_exceeded` what has cancelled it. ``None``: a scope of its own,
            and the block is that of the limit.
    """

    __slots__ = ("_scope", "_watch", "is_exceeded", "seconds", "since")

    since: float
    """When the wait began; set it to begin anew."""
    is_exceeded: bool
    """Whether a wait has taken too long, and was cancelled."""

    def __init__(
        self, watch: DeadlineTimer, seconds: float, scope: anyio.CancelScope | None = None
    ) -> None:
        self._watch = watch
        self._scope = anyio.CancelScope() if scope is None else scope
        self.seconds: float = seconds
        self.is_exceeded = False

    @property
    def due(self) -> float:
        """When the wait has taken too long."""
        return self.since + self.seconds

    @property
    def was_exceeded(self) -> bool:
        """Whether the block was ended by the limit."""
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
        self.pause()
        return self._scope.__exit__(exc_type, exc, tb)

    def pause(self) -> None:
        """What is waited for now may take any time."""
        self._watch.remove(self)

    def resume(self) -> None:
        """The next wait begins."""
        self.since = self._watch.now()
        self._watch.add(self)

    def exceed(self) -> None:
        """Cancel the wait: it has taken too long."""
        self.pause()
        # who is cancelled for another reason may take long to end, and is not late
        self.is_exceeded = not self._scope.cancel_called
        self._scope.cancel("it took too long")
