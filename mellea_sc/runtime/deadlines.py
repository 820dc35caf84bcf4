"""Bounded waits: one timer for all the waits of a nursery, however often each of them is restarted.

The wait for a delta is bounded, and is restarted by every delta; the wait for a validator, by every piece that
it judges. A cancel scope with a deadline for each wait would cost a timer of the event loop each time. Here a wait
is restarted or paused by one assignment to :attr:`WaitTimeout.since`. One task sleeps until the first timeout that
could be due, cancels the waits that are, and sleeps on. So most waits never touch a timer of the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType
from typing import Final, Protocol, Self

import anyio
import attrs

from mellea_sc.runtime.loops.current import clock

RESOLUTION: Final = 0.001
"""Seconds by which a timeout may fire early, so that timeouts that are due together need one wake-up."""

STOOD_STILL: Final = 0.05
"""Seconds after which a late wake-up of the timer means that the event loop stood still."""

LONGEST_GRACE: Final = 5.0
"""Seconds that those who wait have after that, at most: enough to connect."""


class Cancellable(Protocol):
    """What a timeout cancels: an :class:`anyio.CancelScope`, or something that has one."""

    @property
    def cancel_called(self) -> bool:
        """Whether it is being cancelled already."""
        ...

    def cancel(self, reason: str | None = None) -> None:
        """Cancel it."""
        ...


class DeadlineTimer:
    """The timeouts of one nursery, and the task that fires them."""

    def __init__(self) -> None:
        self.now: Callable[[], float] = clock()
        self.is_running: bool = False
        """Whether a task for :meth:`run` has been started."""
        self.wakes_at: float = math.inf
        """When its task looks at the timeouts again."""
        self.limits: set[WaitTimeout] = set()
        """The timeouts whose waits have begun."""
        self._context = copy_context()
        self._sleep_scope = anyio.CancelScope()
        self._run_scope = anyio.CancelScope()

    async def run(self) -> None:
        """Cancel the waits whose timeout is due, until :meth:`close`."""
        with self._run_scope:
            while True:
                soon = self.now() + RESOLUTION
                for limit in [*self.limits]:
                    if limit.since == math.inf:
                        # Paused: dropped until it is resumed. So a wait that is restarted by an assignment is always
                        # one that was considered for this sleep, and is due only after it. And a short timeout that
                        # is paused for long wakes this task only once.
                        limit.end()
                    elif limit.since + limit.seconds <= soon:
                        limit.exceed()
                dues = (limit.since + limit.seconds for limit in self.limits)
                self.wakes_at = min(dues, default=math.inf)
                with anyio.CancelScope(deadline=self.wakes_at) as self._sleep_scope:
                    await anyio.sleep_forever()
                late = self.now() - self._sleep_scope.deadline
                if late > STOOD_STILL:
                    # Something has blocked the event loop meanwhile. Those who wait could not go on, and what
                    # came for them is read only now.
                    await anyio.sleep(min(late, LONGEST_GRACE))

    def close(self) -> None:
        """End the task: no wait is bounded any more."""
        self._run_scope.cancel()

    def wake_at(self, due: float) -> None:
        """Look at the timeouts earlier than planned."""
        self.wakes_at = due
        # asyncio's timer handle keeps alive the context in which it is set: that must not be the caller's
        self._context.run(setattr, self._sleep_scope, "deadline", due)


@attrs.define(eq=False, repr=False, weakref_slot=False)
class WaitTimeout:
    """A timeout for each single wait within a block; a wait that takes longer is cancelled.

    Args:
        timer: The timer that fires it.
        seconds: How long each wait may take; may be infinite.
        scope: What it cancels; somebody else calls :meth:`resume` and :meth:`end` at the begin and end of the block,
            and can tell by :attr:`is_exceeded` whether this has cancelled it. Without one: a scope of its own, which
            is entered and left with this context manager.
    """

    _timer: DeadlineTimer
    seconds: float
    _scope: Cancellable = attrs.field(factory=anyio.CancelScope)
    since: float = attrs.field(default=math.inf, init=False)
    """When the wait began. Set it to restart the wait, or to ``math.inf`` to pause. After a pause, call
    :meth:`resume`, or set it again if it :attr:`is_watched` still."""
    is_watched: bool = attrs.field(default=False, init=False)
    """Whether it is registered at the timer: not before its first wait, nor after the timer has found it paused."""
    is_exceeded: bool = attrs.field(default=False, init=False)
    """Whether a wait has taken too long, and was cancelled."""

    @property
    def was_exceeded(self) -> bool:
        """Whether the block was ended by the timeout."""
        return isinstance(self._scope, anyio.CancelScope) and self._scope.cancelled_caught

    def __enter__(self) -> Self:
        assert isinstance(self._scope, anyio.CancelScope)
        self._scope.__enter__()
        self.resume()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        assert isinstance(self._scope, anyio.CancelScope)
        self.end()
        return self._scope.__exit__(exc_type, exc, tb)

    def pause(self) -> None:
        """Stop the clock: the next waits are not bounded."""
        self.since = math.inf

    def resume(self) -> None:
        """Start the clock for the next wait."""
        timer = self._timer
        self.since = timer.now()
        if not self.is_watched:
            self.is_watched = True
            timer.limits.add(self)
            if self.since + self.seconds < timer.wakes_at:
                timer.wake_at(self.since + self.seconds)

    def end(self) -> None:
        """End the block: unregister the timeout."""
        self.is_watched = False
        self._timer.limits.discard(self)

    def exceed(self) -> None:
        """Cancel the wait: it has taken too long."""
        self.end()
        # A block that is being cancelled for another reason may take long for its cleanup: that is not late.
        self.is_exceeded = not self._scope.cancel_called
        self._scope.cancel("it took too long")
