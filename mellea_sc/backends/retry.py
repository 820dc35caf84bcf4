"""A backend that is asked again when its server is busy."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final

import anyio

from mellea_sc.core.backend import Backend, BackendWrapper, Delta, GenerationRequest
from mellea_sc.core.errors import BackendBusy, InvalidOption

__all__ = ["Retrying"]

FIRST_WAIT: Final = 0.25
"""Seconds, doubled with every further attempt, where the server does not say how long to wait."""
LONGEST_WAIT: Final = 8.0
"""Seconds."""


class Retrying(BackendWrapper):
    """Another backend, asked again when its server is overloaded or limits the rate (429, 503).

    Nothing else is tried again: a server that is not there is said to be so at once, and once an
    answer has begun it is never begun again.

    Args:
        backend: The one that is asked.
        attempts: How often, at most, the first time included.
        budget: Seconds that all the waiting between attempts may add up to, with the attempts
            themselves; a server that asks for more than is left is not waited for.

    Raises:
        InvalidOption: fewer than one attempt, or a negative budget.
    """

    def __init__(self, backend: Backend, *, attempts: int = 4, budget: float = 30.0) -> None:
        if attempts < 1:
            raise InvalidOption(f"attempts must be 1 or more, not {attempts!r}")
        if not budget >= 0:
            raise InvalidOption(f"budget must be 0 seconds or more, not {budget!r}")
        super().__init__(backend)
        self._attempts = attempts
        self._budget = budget

    def __repr__(self) -> str:
        return f"Retrying({self.inner!r}, attempts={self._attempts}, budget={self._budget:g})"

    def open(self, request: GenerationRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Open a generation; see :meth:`Backend.open`.

        Raises:
            BackendBusy: on entering: the server still was, when attempts or budget were used up.

        Cancellation: ends the waiting between attempts at once.
        """
        return _Opening(self.inner, request, self._attempts, self._budget)


class _Opening:
    """One generation: asked for on entering, as often as it takes."""

    __slots__ = ("_attempts", "_backend", "_budget", "_opened", "_request")

    _opened: AbstractAsyncContextManager[AsyncIterator[Delta]]

    def __init__(
        self, backend: Backend, request: GenerationRequest, attempts: int, budget: float
    ) -> None:
        self._backend = backend
        self._request = request
        self._attempts = attempts
        self._budget = budget

    async def __aenter__(self) -> AsyncIterator[Delta]:
        deadline = anyio.current_time() + self._budget
        try:
            return await self._attempt()
        except BackendBusy as error:
            refusal = error
        return await self._attempt_again(refusal, deadline)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        return await self._opened.__aexit__(exc_type, exc, tb)  # noqa: ASYNC102 - bounds itself

    async def _attempt(self) -> AsyncIterator[Delta]:
        opened = self._backend.open(self._request)
        deltas = await opened.__aenter__()
        self._opened = opened
        return deltas

    async def _attempt_again(self, refusal: BackendBusy, deadline: float) -> AsyncIterator[Delta]:
        """All attempts but the first, which was refused."""
        import stamina  # only here: most servers are never busy

        wait = FIRST_WAIT

        def seconds_to_wait(error: Exception) -> float | bool:
            nonlocal wait
            seconds = error.retry_after if isinstance(error, BackendBusy) else None
            if seconds is None:
                # Spread, so that those who were refused together do not come back together.
                seconds = random.uniform(wait / 2, wait)
                wait = min(wait * 2, LONGEST_WAIT)
            return seconds if anyio.current_time() + seconds <= deadline else False

        async for attempt in stamina.retry_context(
            on=seconds_to_wait, attempts=self._attempts, timeout=None
        ):
            if attempt.num > 1:
                try:
                    return await self._attempt()
                except BackendBusy as error:
                    refusal = error
            # Only this goes in there: an attempt holds on to whatever leaves it, and a
            # cancellation must not be held.
            with attempt:
                raise refusal
        raise AssertionError("the last attempt raises")
