"""Counts what requests use, while their text streams, and debits their budgets.

The tokens of a request are those that its server reports. Until it reports any, and if it never does, they are
estimated: each message of the prompt as a quarter of its characters, but at least one token; generated text,
reasoning and tool calls as a quarter of their characters, but at least one token per delta. A report replaces the
estimate, so the amount spent can also decrease.

A request is debited before it is sent. If that exceeds a budget, it is not sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio.lowlevel
import attrs

from mellea_sc.core.backend import (
    Backend,
    BackendWrapper,
    Delta,
    GenerationRequest,
    Usage,
    other_characters,
)
from mellea_sc.core.generation_info import CHARACTERS, estimated_tokens
from mellea_sc.core.spending import Prices
from mellea_sc.runtime.budgets.budget import Budget
from mellea_sc.runtime.budgets.limits import note_request


class Account:
    """Counts the tokens of one request, and debits all its budgets.

    Args:
        budgets: Its budgets, the outermost first.
        model_id: The model, for the price of its tokens.
        request: The request.

    Raises:
        InvalidOption: a budget has prices, but not for this model.
    """

    def __init__(
        self, budgets: tuple[Budget, ...], model_id: str, request: GenerationRequest
    ) -> None:
        self.usage: Usage | None = None
        self.over: Budget | None = None
        """The budget that this request has exceeded, or would exceed if it were sent."""
        self._shares = [(budget, budget.limits.prices_of(model_id)) for budget in budgets]
        self._parts: list[str] = []
        self._prompt = sum(estimated_tokens(message.content) for message in request.messages)
        self._completion = 0
        self._is_estimated = True
        self._said = 0
        self._deltas_since = 0
        self._characters_since = 0
        self._admit()

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    def _admit(self) -> None:
        for index, (budget, prices) in enumerate(self._shares):
            if not budget.admit(self._prompt, _cost(prices, self._prompt, 0)):
                for other, its in self._shares[:index]:
                    other.dismiss(self._prompt, _cost(its, self._prompt, 0))
                self.over = budget
                return
        for budget, _ in self._shares:
            budget.began(self)
        note_request(self)

    async def check(self) -> None:
        """Raise if a budget is exceeded.

        Raises:
            BudgetExceeded: it is, and the task was not cancelled by that, because it is shielded.
        """
        # Exceeding a budget has cancelled the scopes under it. Usually that reaches this task, and the first line
        # raises the cancellation.
        if self.over is not None:
            await anyio.lowlevel.checkpoint_if_cancelled()
            raise self.over.error(self, raised_elsewhere=self.over.is_raised_by_block)

    def take(self, delta: Delta) -> None:
        """Debit a delta."""
        # Only differences are debited, so that an estimate can be corrected later, also downwards.
        characters = len(delta.text)
        if characters:
            self._parts.append(delta.text)
        if delta.reasoning or delta.tool_calls:
            characters += other_characters(delta)
        if characters:
            self._deltas_since += 1
            self._characters_since += characters
        prompt = self._prompt
        completion = self._said + max(self._deltas_since, self._characters_since // CHARACTERS)
        is_estimated = self._is_estimated or characters > 0
        if (usage := delta.usage) is not None:
            self.usage = usage
            # 0 means that the server does not count
            prompt = usage.prompt_tokens or prompt
            completion = usage.completion_tokens or completion
            is_estimated = not usage.prompt_tokens or (completion != usage.completion_tokens)
            self._said, self._deltas_since, self._characters_since = completion, 0, 0
        more_prompt, more_completion = prompt - self._prompt, completion - self._completion
        estimates = int(is_estimated) - int(self._is_estimated)
        self._prompt, self._completion, self._is_estimated = prompt, completion, is_estimated
        if more_prompt or more_completion or estimates:
            for budget, prices in self._shares:
                cost = _cost(prices, more_prompt, more_completion)
                if budget.debit(self, more_prompt, more_completion, cost, estimates):
                    self.over = self.over or budget

    def close(self) -> None:
        """Note that the request has ended."""
        for budget, _ in self._shares:
            budget.ended()


def _cost(prices: Prices | None, prompt: int, completion: int) -> float:
    """The price of the tokens, in millionths: prices are per million tokens."""
    return 0.0 if prices is None else prices.prompt * prompt + prices.completion * completion


class Metered(BackendWrapper):
    """A backend whose requests are debited, and cut off when a budget is exceeded.

    Args:
        backend: The backend that makes the requests.
        budgets: The budgets, the outermost first.
    """

    def __init__(self, backend: Backend, budgets: tuple[Budget, ...]) -> None:
        super().__init__(backend)
        self._budgets = budgets

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        """Open a generation.

        Cancellation: as the backend's own; an exceeded budget cancels the task that has made the request.
        """
        account = Account(self._budgets, self.model_id, request)
        await account.check()
        try:
            async with self.inner.open(request) as deltas:
                yield _Deltas(deltas, account)
        finally:
            account.close()


@attrs.frozen(eq=False, repr=False)
class _Deltas:
    """The deltas of a request; each is debited, and none is given after the one that exceeds a budget."""

    _deltas: AsyncIterator[Delta]
    _account: Account

    def __aiter__(self) -> _Deltas:
        return self

    async def __anext__(self) -> Delta:
        if self._account.over is not None:
            await self._account.check()
        delta = await self._deltas.__anext__()
        self._account.take(delta)
        return delta
