"""Counts what is used, and cancels when a limit is exceeded.

::

    with limits(tokens=…):         a Budget, added to the budgets of this task
       ├─ tasks                    inherit the budgets by their context, in other threads too (blocking calls)
       ├─ each request             is debited to all of them, see ``metering.py``
       └─ BudgetScope              around the block, and around the work of each thunk and run: cancelled when
                                   one of its budgets is exceeded

Using exactly as much as a limit allows does not exceed it. When a budget is exceeded, everything under it is
cancelled. Then :class:`BudgetExceeded` is raised by the block that has the limit, and by each thunk and run to
whoever awaits it. The work inside of these (requests, judges) is only cancelled and raises no error of its own, so
that one excess is reported once.

A budget may be debited from several threads at once, because blocking calls run their work in another thread.
The lock is held only for arithmetic: scopes are cancelled after it has been released.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from mellea_sc.core.errors import BudgetExceeded
from mellea_sc.core.spending import LimitName, Limits, Spent
from mellea_sc.runtime.loops.current import clock, running_loop
from mellea_sc.runtime.loops.forks import tell_of_forks

if TYPE_CHECKING:
    from mellea_sc.runtime.budgets.limits import BudgetScope
    from mellea_sc.runtime.budgets.metering import Account

MILLION: Final = 1_000_000
ROUNDING: Final = 1 + 1e-9
"""Sums of money are sums of floats: they may be off by this factor."""

open_budgets: Final[ContextVar[tuple[Budget, ...]]] = ContextVar("mellea_sc_budgets", default=())
"""The budgets that the running task is under, the outermost first."""


class Budget:
    """Counts what is used, and cancels its scopes when a limit is exceeded.

    Args:
        limits: How much may be used.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.latest: Account | None = None
        """The latest request; the one that has exceeded the budget, if one has."""
        self.is_raised_by_block: bool = False
        """Whether it was exceeded while its block was open, which raises that when it is left."""
        self._lock = threading.Lock()
        self._prompt = 0
        self._completion = 0
        self._requests = 0
        self._cost = 0.0  # in millionths
        self._estimates = 0
        self._running = 0
        self._scopes: set[BudgetScope] = set()
        self._exceeded: LimitName | None = None
        self._is_open = True
        self._time = _Stopwatch()
        tell_of_forks(self)

    def forked(self) -> None:
        """The child goes on with what was spent by then; the requests that were running are the parent's."""
        self._lock = threading.Lock()
        self._running = 0
        self._scopes.clear()

    @property
    def spent(self) -> Spent:
        """What was used so far."""
        with self._lock:
            return Spent(
                prompt_tokens=self._prompt,
                completion_tokens=self._completion,
                requests=self._requests,
                seconds=self._time.seconds,
                cost=None if self.limits.prices is None else self._cost / MILLION,
                estimated=self._estimates > 0,
            )

    @property
    def is_exceeded(self) -> bool:
        """Whether more was used, or requested, than is allowed."""
        return self._exceeded is not None

    def close(self) -> None:
        """Note that the block has been left. Work that is still running is still counted and bounded."""
        # From now on the block cannot raise an excess any more, so thunks and runs report it as their own error.
        with self._lock:
            self._is_open = False
            if not self._running:
                self._time.stop()

    # --- what is debited ------------------------------------------------------------------------

    def admit(self, prompt: int, cost: float) -> bool:
        """Debit a request, by an estimate, before it is sent; false: it exceeds the budget, and must not be sent."""
        # Debited first and taken back if it is too much: between a check and a later debit another thread could
        # spend the same tokens.
        with self._lock:
            if self._exceeded is not None:
                return False
            self._requests += 1
            self._prompt += prompt
            self._cost += cost
            over = self._over()
            if over is None and self._time.elapsed >= self._seconds:
                over = "seconds"
            if over is None:
                self._estimates += 1
                self._running += 1
                self._time.go_on()
                return True
            self._requests -= 1
            self._prompt -= prompt
            self._cost -= cost
        # outside of the lock: cancelling scopes runs other code, and the lock cannot be taken twice
        self.exceed(over)
        return False

    def dismiss(self, prompt: int, cost: float) -> None:
        """Take an admitted request back, because another budget has refused it."""
        with self._lock:
            self._requests -= 1
            self._prompt -= prompt
            self._cost -= cost
            self._estimates -= 1
            self._running -= 1

    def began(self, request: Account) -> None:
        """Note a request that every budget has admitted."""
        with self._lock:
            if self._exceeded is None:
                self.latest = request

    def debit(
        self, request: Account, prompt: int, completion: int, cost: float, estimates: int
    ) -> bool:
        """Debit what a running request has used since the last call; true if the budget is exceeded."""
        with self._lock:
            self._prompt += prompt
            self._completion += completion
            self._cost += cost
            self._estimates += estimates
            over = self._over()
        if over is not None:
            self.exceed(over, request)
        return over is not None

    def ended(self) -> None:
        """Note that an admitted request has ended."""
        with self._lock:
            self._running -= 1
            if not self._running and not self._is_open:
                self._time.stop()

    def _over(self) -> LimitName | None:
        allowed = self.limits
        if allowed.tokens is not None and self._prompt + self._completion > allowed.tokens:
            return "tokens"
        if allowed.requests is not None and self._requests > allowed.requests:
            return "requests"
        if allowed.cost is not None and self._cost > allowed.cost * MILLION * ROUNDING:
            return "cost"
        return None

    @property
    def _seconds(self) -> float:
        return math.inf if self.limits.seconds is None else self.limits.seconds

    @property
    def deadline(self) -> float:
        """The time at which its seconds are used up, by the clock of the running loop."""
        return self._time.moment(self._seconds)

    # --- exceeding it -----------------------------------------------------------------------------

    def add(self, scope: BudgetScope) -> None:
        """Register a scope to be cancelled when the budget is exceeded; at once, if it already is."""
        with self._lock:
            self._scopes.add(scope)
            exceeded = self._exceeded is not None
        if exceeded:
            scope.cancel()

    def remove(self, scope: BudgetScope) -> None:
        """Unregister a scope that has been left."""
        with self._lock:
            self._scopes.discard(scope)

    def exceed(self, limit: LimitName, cut: Account | None = None) -> None:
        """Note that a limit is exceeded and cancel all scopes; without effect if one was exceeded before.

        Args:
            limit: The limit.
            cut: The request that has exceeded it; ``None``: none has (``seconds``), the latest one is reported.
        """
        with self._lock:
            if self._exceeded is not None:
                return
            self._exceeded, self.is_raised_by_block = limit, self._is_open
            self.latest = cut or self.latest
            scopes = list(self._scopes)
        for scope in scopes:
            scope.cancel()

    def error(self, cut: Account | None, *, raised_elsewhere: bool) -> BudgetExceeded:
        """The error of a budget that is exceeded.

        Args:
            cut: The request that was cut off.
            raised_elsewhere: Whether the block or enclosing work raises an error for the same excess.
        """
        limit = self._exceeded
        assert limit is not None
        allowed = getattr(self.limits, limit)
        return BudgetExceeded(
            f"more than {_REASONS[limit].format(allowed)}",
            limit=limit,
            allowed=allowed,
            spent=self.spent,
            partial_text="" if cut is None else cut.text,
            usage=None if cut is None else cut.usage,
            raised_elsewhere=raised_elsewhere,
        )


_REASONS: Final[Mapping[LimitName, str]] = {
    "tokens": "{} tokens",
    "requests": "{} requests",
    "seconds": "{:g} s",
    "cost": "a cost of {:g}",
}


class _Stopwatch:
    """Measures time by the clock of the loop in which it was started; elsewhere by ``time.monotonic``.

    The loop's clock may be virtual (in tests). Another thread cannot read it.
    """

    __slots__ = ("_clock", "_loop", "_started", "_started_by_wall", "_stopped")

    def __init__(self) -> None:
        self._loop = running_loop()
        self._clock = time.monotonic if self._loop is None else clock()
        self._started = self._clock()
        self._started_by_wall = time.monotonic()
        self._stopped: float | None = None

    @property
    def seconds(self) -> float:
        """The seconds until it was stopped, or until now."""
        return self.elapsed if self._stopped is None else self._stopped

    @property
    def elapsed(self) -> float:
        """The seconds since it was started, stopped or not."""
        if self._loop is running_loop():
            return self._clock() - self._started
        return time.monotonic() - self._started_by_wall

    def moment(self, seconds: float) -> float:
        """The time at which so many seconds have passed, by the clock of the running loop."""
        if self._loop is running_loop():
            return self._started + seconds
        return clock()() + seconds - (time.monotonic() - self._started_by_wall)

    def stop(self) -> None:
        """Freeze :attr:`seconds`."""
        self._stopped = self.seconds

    def go_on(self) -> None:
        """Let :attr:`seconds` go on, as if it had never been stopped."""
        self._stopped = None
