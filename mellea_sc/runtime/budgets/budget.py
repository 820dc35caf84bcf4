"""What is under limits: budgets that are debited, and the work that ends when one is exceeded.

::

    with limits(tokens=…):            a Budget, added to those of this task
       │
       ├─ a thunk's task              has inherited them, whoever runs it; so have the tasks that it
       │    └─ attempts, judges       starts, and a blocking call's, in the thread of its session
       │          └─ Metered.open     one request, and its Account: debits every one of them
       │
       └─ Work                        each block, thunk and request has a cancel scope; a budget that is
                                      exceeded cancels those of all that is under it

What was used exactly is not exceeded. Whatever ends because a budget is exceeded raises a
:class:`BudgetExceeded` of its own; as long as the block is open, or it is a part of what ends for the same
reason, these raise one too, and then its own need not be raised to somebody who did not ask.

A budget may be debited from several threads at once: blocking calls run in one of their own.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import TracebackType
from typing import Final, Protocol, Self

import anyio

from mellea_sc.core.errors import BudgetExceeded
from mellea_sc.core.spending import LimitName, Limits, Spent
from mellea_sc.core.usage import Usage
from mellea_sc.runtime.failures import leaves_of
from mellea_sc.runtime.loops.current import call_soon_in, clock, current_loop, running_loop

__all__ = [
    "Budget",
    "Request",
    "Work",
    "began",
    "budget_scope",
    "collapse_budget_errors",
    "latest_request",
    "open_budgets",
    "work_above",
]

MILLION: Final = 1_000_000
ROUNDING: Final = 1 + 1e-9
"""Sums of money are sums of floats: they may be off by this factor."""

open_budgets: Final[ContextVar[tuple[Budget, ...]]] = ContextVar("mellea_sc_budgets", default=())
"""The budgets that the running task is under, the outermost first."""
_work: Final[ContextVar[Work | None]] = ContextVar("mellea_sc_work", default=None)


class Request(Protocol):
    """A request to a model, as far as it has come."""

    @property
    def text(self) -> str:
        """The text so far."""
        ...

    @property
    def usage(self) -> Usage | None:
        """The tokens that the server has told of so far."""
        ...


class Budget:
    """What was used, against what may be used.

    Args:
        limits: How much may be used.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._prompt = 0
        self._completion = 0
        self._requests = 0
        self._cost = 0.0  # in millionths
        self._estimates = 0
        self._running = 0
        self._works: set[Work] = set()
        self._latest: Request | None = None
        self._exceeded: _Excess | None = None
        self._errors: weakref.WeakSet[BudgetExceeded] = weakref.WeakSet()
        self._is_open = True
        self._time = _Stopwatch()

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
        """Whether more was used, or asked for, than is allowed."""
        return self._exceeded is not None

    def close(self) -> None:
        """Its block is left: it goes on for what is still running, and raises nothing more by itself."""
        with self._lock:
            self._is_open = False
            if not self._running:
                self._time.stop()

    # --- what is debited ------------------------------------------------------------------------

    def admit(self, prompt: int, cost: float) -> bool:
        """Debit a request that is about to be sent, by an estimate; false: it is one too many."""
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
        self.exceed(over)
        return False

    def dismiss(self, prompt: int, cost: float) -> None:
        """Take back a request that was admitted: another budget has not admitted it."""
        with self._lock:
            self._requests -= 1
            self._prompt -= prompt
            self._cost -= cost
            self._estimates -= 1
            self._running -= 1

    def began(self, request: Request) -> None:
        """A request that every budget has admitted is sent."""
        self._latest = request

    def debit(
        self, request: Request, prompt: int, completion: int, cost: float, estimates: int
    ) -> bool:
        """Debit what has become known of a request; true when the budget is exceeded."""
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
        """A request that was admitted has ended."""
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
        """When its time is over, by the clock of the running loop."""
        return self._time.moment(self._seconds)

    # --- what happens when it is exceeded ---------------------------------------------------------

    def add(self, work: Work) -> None:
        """Cancel the work when the budget is exceeded, or at once when it is."""
        with self._lock:
            self._works.add(work)
            exceeded = self._exceeded is not None
        if exceeded:
            work.cancel()

    def remove(self, work: Work) -> None:
        """The work has ended."""
        with self._lock:
            self._works.discard(work)

    def exceed(self, limit: LimitName, cut: Request | None = None) -> None:
        """Cancel all that is under it; without effect when it was exceeded before.

        Args:
            limit: Which one.
            cut: The request that was too much; the latest, when none was.
        """
        with self._lock:
            if self._exceeded is not None:
                return
            self._exceeded = _Excess(limit, cut or self._latest, was_open=self._is_open)
            works = list(self._works)
        for work in works:
            work.cancel()

    def error(self, cut: Request | None, above: Work | None) -> BudgetExceeded:
        """That it was exceeded, for who is not its block.

        Args:
            cut: The request that was cut.
            above: What the work that raises it is a part of.
        """
        assert self._exceeded is not None
        told = self._exceeded.was_open or (above is not None and above.tells_of(self))
        return self._error(self._exceeded, cut, told)

    def error_of_block(self) -> BudgetExceeded:
        """That it was exceeded, for its block."""
        assert self._exceeded is not None
        return self._error(self._exceeded, self._exceeded.cut, False)

    def _error(
        self, excess: _Excess, cut: Request | None, raised_elsewhere: bool
    ) -> BudgetExceeded:
        allowed = getattr(self.limits, excess.limit)
        error = BudgetExceeded(
            f"more than {_REASONS[excess.limit].format(allowed)}",
            limit=excess.limit,
            allowed=allowed,
            spent=self.spent,
            partial_text="" if cut is None else cut.text,
            usage=None if cut is None else cut.usage,
            raised_elsewhere=raised_elsewhere,
        )
        self._errors.add(error)
        return error

    def is_told_by(self, error: BaseException) -> bool:
        """Whether the error is one of its own."""
        return isinstance(error, BudgetExceeded) and error in self._errors


_REASONS: Final[Mapping[LimitName, str]] = {
    "tokens": "{} tokens",
    "requests": "{} requests",
    "seconds": "{:g} s",
    "cost": "a cost of {:g}",
}


class _Excess:
    """That a budget was exceeded: by what, and whether its block was still open."""

    __slots__ = ("cut", "limit", "was_open")

    def __init__(self, limit: LimitName, cut: Request | None, *, was_open: bool) -> None:
        self.limit: LimitName = limit
        self.cut = cut
        self.was_open = was_open


class _Stopwatch:
    """Goes by the clock of the loop that it was started in; for everybody else, by the wall's."""

    __slots__ = ("_clock", "_loop", "_started", "_started_by_wall", "_stopped")

    def __init__(self) -> None:
        self._loop = running_loop()
        self._clock = time.monotonic if self._loop is None else clock()
        self._started = self._clock()
        self._started_by_wall = time.monotonic()
        self._stopped: float | None = None

    @property
    def seconds(self) -> float:
        """What it shows."""
        return self.elapsed if self._stopped is None else self._stopped

    @property
    def elapsed(self) -> float:
        """Since it was started."""
        if self._loop is running_loop():
            return self._clock() - self._started
        return time.monotonic() - self._started_by_wall

    def moment(self, seconds: float) -> float:
        """When so many have passed, by the clock of the running loop."""
        if self._loop is running_loop():
            return self._started + seconds
        return clock()() + seconds - (time.monotonic() - self._started_by_wall)

    def stop(self) -> None:
        """Show this moment's time."""
        self._stopped = self.seconds

    def go_on(self) -> None:
        """Show the time as it goes on."""
        self._stopped = None


class Work:
    """A block in one task that is cancelled when a budget that it is under is exceeded.

    Args:
        budgets: The outermost first.
    """

    def __init__(self, budgets: tuple[Budget, ...]) -> None:
        self.budgets = budgets
        self.above: Work | None = _work.get()
        self.latest: Request | None = None
        """The request made last in it, or in what it has started."""
        self._is_open = True
        self._loop = current_loop()
        self._scope = anyio.CancelScope()
        self._first = min(budgets, key=lambda budget: budget.deadline)

    def __enter__(self) -> Self:
        self._scope.deadline = self._first.deadline
        self._scope.__enter__()
        for budget in self.budgets:
            budget.add(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        for budget in self.budgets:
            budget.remove(self)
        self._is_open = False
        return self._scope.__exit__(exc_type, exc, tb)

    def cancel(self) -> None:
        """Cancel it, from whichever thread."""
        if self._loop is running_loop():
            self._scope.cancel("its limits were exceeded")
        else:
            call_soon_in(self._loop, self._scope.cancel)

    def tells_of(self, budget: Budget) -> bool:
        """Whether it raises an error too when the budget is exceeded."""
        return self._is_open and budget in self.budgets

    def find_culprit(self) -> Budget | None:
        """The budget that has ended it, after it was left; a deadline that has passed exceeds its budget."""
        if not self._scope.cancelled_caught:
            return None
        for budget in self.budgets:
            if budget.is_exceeded:
                return budget
        self._first.exceed("seconds")
        return self._first


def budget_scope() -> AbstractContextManager[None]:
    """Around what a task does: it ends when a budget that the task is under is exceeded.

    Raises:
        BudgetExceeded: it did.
    """
    budgets = open_budgets.get()
    return _budget_scope(budgets) if budgets else _FREE


_FREE: Final = nullcontext()


@contextmanager
def _budget_scope(budgets: tuple[Budget, ...]) -> Generator[None]:
    work = Work(budgets)
    token = _work.set(work)
    cut: Request | None = None
    culprit: Budget | None = None
    try:
        with work:
            yield
    except Exception as error:
        exceeded = collapse_budget_errors(error)
        if isinstance(exceeded, BudgetExceeded):
            cut = _Cut(exceeded)
            culprit = next((one for one in budgets if one.is_told_by(exceeded)), None)
        if culprit is None:
            raise
    else:
        cut = work.latest
        culprit = work.find_culprit()
    finally:
        _work.reset(token)
    if culprit is not None:
        # an error of its own: what is a part of it has told that this one tells
        raise culprit.error(cut, work.above) from None


class _Cut:
    """The request that an error tells of."""

    def __init__(self, error: BudgetExceeded) -> None:
        self.text: str = error.partial_text
        self.usage: Usage | None = error.usage


def began(request: Request) -> None:
    """A request is sent, in the work of the running task."""
    work = _work.get()
    while work is not None:
        work.latest = request
        work = work.above


def work_above() -> Work | None:
    """What the work of the running task is a part of."""
    work = _work.get()
    return None if work is None else work.above


def latest_request() -> Request | None:
    """The request that was made before, in the same work or what it is a part of."""
    work = _work.get()
    while work is not None and work.latest is None:
        work = work.above
    return None if work is None else work.latest


def collapse_budget_errors(error: Exception) -> Exception:
    """The error itself; of a group of requests that one limit has cut, the first of them."""
    match leaves_of(error):
        case [BudgetExceeded() as first, *others] if all(
            isinstance(other, BudgetExceeded)
            and (other.limit, other.allowed, other.raised_elsewhere)
            == (first.limit, first.allowed, first.raised_elsewhere)
            for other in others
        ):
            return first
        case _:
            return error
