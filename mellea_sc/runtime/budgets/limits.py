"""Blocks that are cancelled when a budget is exceeded: the user's, ``with limits(tokens=2000, seconds=10) as spent:``,
and those around the work of tasks. See ``budget.py``.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, cast

import anyio

from mellea_sc.core.errors import BudgetExceeded, InvalidOption
from mellea_sc.core.spending import Limits, Prices, Spent, check_limits
from mellea_sc.runtime.budgets.budget import Budget, open_budgets
from mellea_sc.runtime.failures import raise_unchanged
from mellea_sc.runtime.loops.current import call_soon_in, current_loop, running_loop

if TYPE_CHECKING:
    from mellea_sc.runtime.budgets.metering import Account


def limits(
    *,
    tokens: int | None = None,
    requests: int | None = None,
    seconds: float | None = None,
    cost: float | None = None,
    prices: Prices | Mapping[str, Prices] | None = None,
) -> LimitedBlock:
    """Make a block that may use only so much, and says how much it did.

    ::

        with limits(tokens=2000, seconds=10) as spent:
            answer = await m.ainstruct("…", requirements=["…"], await_result=True)
        print(spent.tokens, spent.seconds)

    Everything that is started inside is debited, in whichever task or thread it runs, also when it goes on
    after the block. With nested blocks all of them are debited. What has no limit is counted all the same:
    ``spent.tokens``.

    Args:
        tokens: Prompt and generated tokens together.
        requests: Requests to a model.
        seconds: Time from entering the block.
        cost: Money; needs prices.
        prices: The price of every model's tokens, or a price for each model by its name.

    Raises:
        InvalidOption: an argument is not usable.
        BudgetExceeded: on leaving the block: more was used. Everything that ran under it has been cancelled, and
            the block itself too. Where no event loop runs, the blocking call inside the block raises this.
        ExceptionGroup: on leaving the block: a limit was exceeded, and the block has failed as well.

    Cancellation: a cancellation from outside is never swallowed; it is raised instead of an exceeded limit.
    """
    return LimitedBlock(
        Limits(tokens=tokens, requests=requests, seconds=seconds, cost=cost, prices=prices)
    )


class LimitedBlock:
    """A block with limits that counts what is spent in it. It can be entered once.

    Args:
        limits: How much may be used.

    Raises:
        InvalidOption: these are no limits.
    """

    def __init__(self, limits: Limits) -> None:
        check_limits(limits)
        self.limits: Limits = limits
        self._budget: Budget | None = None
        self._scope: BudgetScope | None = None
        self._token: Token[tuple[Budget, ...]] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.spent}>"

    # --- what was spent ------------------------------------------------------------------------

    @property
    def spent(self) -> Spent:
        """What was used so far, as a value."""
        return Spent() if self._budget is None else self._budget.spent

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts so far."""
        return self.spent.prompt_tokens

    @property
    def completion_tokens(self) -> int:
        """Tokens generated so far."""
        return self.spent.completion_tokens

    @property
    def tokens(self) -> int:
        """Prompt and generated tokens so far, together."""
        return self.spent.tokens

    @property
    def requests(self) -> int:
        """Requests sent so far."""
        return self.spent.requests

    @property
    def seconds(self) -> float:
        """Time from entering the block until it was left and the last of its requests had ended."""
        return self.spent.seconds

    @property
    def cost(self) -> float | None:
        """Money so far; ``None`` without prices."""
        return self.spent.cost

    @property
    def estimated(self) -> bool:
        """Whether the tokens of any request are an estimate."""
        return self.spent.estimated

    # --- the block ----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._budget is not None:
            raise InvalidOption("a block with limits is entered once: make another one")
        self._budget = Budget(self.limits)
        # Without a running loop there is nothing to cancel here: the thread of a blocking call enters scopes itself.
        if running_loop() is not None:
            self._scope = BudgetScope((self._budget,))
            self._scope.__enter__()
        self._token = open_budgets.set((*open_budgets.get(), self._budget))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        budget = self._budget
        assert budget is not None
        assert self._token is not None
        left: BaseException | None = exc
        try:
            if self._scope is not None and self._scope.__exit__(exc_type, exc, tb):
                left = None
        except BaseExceptionGroup as remaining:
            left = remaining  # the scope has removed its own cancellations from the group
        budget.close()
        open_budgets.reset(self._token)
        # not in place of a cancellation from outside, a KeyboardInterrupt, …
        if budget.is_exceeded and (left is None or isinstance(left, Exception)):
            _raise_exceeded(budget, left)
        if left is not None and left is not exc:
            raise left


def _raise_exceeded(budget: Budget, left: Exception | None) -> None:
    """Raise ``BudgetExceeded``, together with the error that the block has raised, if it has raised one.

    An error whose cause or context already is this excess is not joined with it: ``left`` is then raised as it is.
    """
    exceeded = budget.error(budget.latest, raised_elsewhere=False)
    if isinstance(left, ExceptionGroup):
        left = cast("ExceptionGroup[Exception]", left).split(_is_raised_elsewhere)[1]
    if left is None or isinstance(left, BudgetExceeded):
        raise exceeded from left
    if not any(map(_is_raised_elsewhere, _chain_of(left))):
        both = [left, exceeded]
        raise_unchanged(ExceptionGroup("a block has failed, and has exceeded its limits", both))


def _chain_of(error: BaseException) -> list[BaseException]:
    """The error and the errors that it was raised from, by ``__cause__`` or else ``__context__``."""
    chain: list[BaseException] = []
    above: BaseException | None = error
    while above is not None and above not in chain:
        chain.append(above)
        above = above.__cause__ or above.__context__
    return chain


def _is_raised_elsewhere(error: BaseException) -> bool:
    return isinstance(error, BudgetExceeded) and error.raised_elsewhere


# --- around the work of tasks ---------------------------------------------------------------------

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
