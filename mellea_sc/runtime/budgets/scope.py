"""Cancel scopes that are cancelled when a budget is exceeded."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import anyio

from mellea_sc.runtime.budgets.budget import Budget, open_budgets
from mellea_sc.runtime.loops.current import call_soon_in, current_loop, running_loop

if TYPE_CHECKING:
    from mellea_sc.runtime.budgets.metering import Account

__all__ = ["BudgetScope", "budget_scope", "note_request"]

_innermost: Final[ContextVar[BudgetScope | None]] = ContextVar("mellea_sc_scope", default=None)


class BudgetScope:
    """A block in one task that is cancelled when one of its budgets is exceeded.

    Args:
        budgets: The outermost first.
    """

    def __init__(self, budgets: tuple[Budget, ...]) -> None:
        self.latest: Account | None = None
        """The latest request that was made in this scope, or in tasks that it has started."""
        self._budgets = budgets
        self.around: BudgetScope | None = _innermost.get()
        self._is_open = True
        self._loop = current_loop()
        self._scope = anyio.CancelScope()
        self._due_first = min(budgets, key=lambda budget: budget.deadline)
        self._token: Token[BudgetScope | None]

    def __enter__(self) -> Self:
        self._scope.deadline = self._due_first.deadline
        self._scope.__enter__()
        for budget in self._budgets:
            budget.add(self)
        self._token = _innermost.set(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        # Removed first: another thread could otherwise cancel the scope after it has been left.
        self._is_open = False
        for budget in self._budgets:
            budget.remove(self)
        try:
            return self._scope.__exit__(exc_type, exc, tb)
        finally:
            _innermost.reset(self._token)
            if self._scope.cancel_called and not any(one.is_exceeded for one in self._budgets):
                # Cancelled although no budget was exceeded: the scope's deadline has passed.
                self._due_first.exceed("seconds")

    def cancel(self) -> None:
        """Cancel it; may be called from any thread."""
        if self._loop is running_loop():
            self._scope.cancel("its limits were exceeded")
        else:
            call_soon_in(self._loop, self._scope.cancel)

    def raise_if_exceeded(self) -> None:
        """Raise if the scope was cancelled; to be called after it was left without an error.

        It also raises if the work has come to its end all the same: a limit is a limit.

        Raises:
            BudgetExceeded: it was.
        """
        if self._scope.cancel_called:
            # the outermost: that is the one whose block cancels most
            [budget, *_] = [one for one in self._budgets if one.is_exceeded]
            around = self.around
            raised_around = around is not None and around.cancels_for(budget)
            raise budget.error(
                self.latest, raised_elsewhere=raised_around or budget.is_raised_by_block
            )

    def cancels_for(self, budget: Budget) -> bool:
        """Whether it is open, and cancelled when a budget is exceeded."""
        return self._is_open and budget in self._budgets


def note_request(request: Account) -> None:
    """Note a request of the running task: if a budget is exceeded, the error reports the latest request."""
    scope = _innermost.get()
    while scope is not None:
        scope.latest = request
        scope = scope.around


def budget_scope() -> AbstractContextManager[None]:
    """A block around the work of a task: it is cancelled when one of the task's budgets is exceeded.

    Raises:
        BudgetExceeded: it was.
    """
    budgets = open_budgets.get()
    return _budget_scope(budgets) if budgets else _NO_LIMITS


_NO_LIMITS: Final = nullcontext()
"""Shared: most programs have no limits, and each thunk would make one."""


@contextmanager
def _budget_scope(budgets: tuple[Budget, ...]) -> Generator[None]:
    with BudgetScope(budgets) as scope:
        yield
    scope.raise_if_exceeded()
