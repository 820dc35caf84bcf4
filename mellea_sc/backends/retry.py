"""A wrapper that retries requests that have failed before their answer began."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Self

import anyio
import attrs

from mellea_sc.core.backend import Backend, BackendWrapper, Delta, GenerationRequest, Usage
from mellea_sc.core.errors import BackendError, BackendUnreachable, InvalidOption
from mellea_sc.core.retries import Retries, in_flight, of_call, retries_of

log: Final = logging.getLogger("mellea_sc")

FIRST_WAIT: Final = 0.5
"""Seconds before the first retry; doubled for each further one. At least half of it is waited, whatever the server
says."""
LONGEST_WAIT: Final = 8.0
"""Seconds."""
SPREAD: Final = 0.1
"""The maximum fraction by which a wait requested by the server is lengthened at random, so that clients that were
refused at the same time do not retry at the same time."""


class Retrying(BackendWrapper):
    """A wrapper that retries requests of a backend that have failed before their answer began.

    A failure is retried if the backend has marked it as ``retryable``: no connection or a lost one, a server that is
    busy, limits the rate or has an internal error (408, 429, 5xx). If a server cannot be reached at all, that is
    raised at once, unless it has answered before. Once a part of an answer was handed out, the request is never
    retried. Every retry is logged, to the logger ``mellea_sc``.

    Sessions and streams wrap their backend themselves; for another setting, give them a backend that is wrapped.

    Args:
        backend: The backend that makes the requests.
        retries: The maximum number of retries, or :class:`Retries`; by default 3; 0: none.

    Raises:
        InvalidOption: ``retries`` is not usable.
    """

    def __init__(self, backend: Backend, retries: int | Retries | None = None) -> None:
        super().__init__(backend)
        self.retries: Retries = Retries() if retries is None else retries_of(retries)
        self.has_answered: bool = False
        """Whether the server has answered before."""

    def __repr__(self) -> str:
        return f"Retrying({self.inner!r}, {self.retries!r})"

    def open(self, request: GenerationRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Open a generation; see :meth:`Backend.open`. Entering waits for the first delta with content.

        Raises:
            BackendError: on entering, the error of the last attempt; its notes say how many attempts there were, or
                why there is no further one.

        Cancellation: ends the waiting between attempts at once.
        """
        return _Opening(self, request, of_call.get() or self.retries)


def retrying(backend: Backend, retries: int | Retries | None = None) -> Backend:
    """Wrap a backend in :class:`Retrying`, unless it already is.

    Raises:
        InvalidOption: it already is, and ``retries`` are given as well.
    """
    inside = backend
    while not isinstance(inside, Retrying):
        if not isinstance(inside, BackendWrapper):
            return Retrying(backend, retries)
        inside = inside.inner
    if retries is not None:
        raise InvalidOption("give either retries, or a backend that is Retrying, not both")
    return backend


@attrs.define(eq=False, weakref_slot=False)
class _Opening:
    """One generation: entering makes the request, with retries; then it iterates over the deltas."""

    _owner: Retrying
    _request: GenerationRequest
    _retries: Retries
    _made: int = 0
    _wait: float = FIRST_WAIT
    _opened: AbstractAsyncContextManager[AsyncIterator[Delta]] = attrs.field(init=False)
    _first: Delta | None = attrs.field(init=False)
    _next: Callable[[], Awaitable[Delta]] = attrs.field(init=False)

    async def __aenter__(self) -> Self:
        began = anyio.current_time()
        while True:
            self._made += 1
            opened = self._owner.inner.open(self._request)
            if not isinstance(opened, AbstractAsyncContextManager):
                raise self._misdefined(f"open() returned {opened!r}")
            try:
                deltas = aiter(await opened.__aenter__())
                self._owner.has_answered = True
                try:
                    # No function of its own, whose frame would wait for the model with thousands of requests.
                    usage: Usage | None = None
                    async for delta in deltas:
                        if not isinstance(delta, Delta):
                            raise self._misdefined(f"open() yielded a stream with {delta!r}")
                        usage = delta.usage or usage
                        if (
                            delta.text
                            or delta.reasoning
                            or delta.tool_calls
                            or delta.finish_reason is not None
                        ):
                            self._first = delta
                            if usage is not delta.usage:
                                self._first = attrs.evolve(delta, usage=usage)
                            break
                        if (request := in_flight.get()) is not None:
                            request.progressed()
                    else:
                        self._first = None if usage is None else Delta(usage=usage)
                except BaseException as error:
                    await opened.__aexit__(type(error), error, error.__traceback__)  # noqa: ASYNC102, ASYNC120 - bounds itself
                    raise
            except BackendError as error:
                failure = error
            else:
                self._opened, self._next = opened, deltas.__anext__
                return self
            await self._wait_or_raise(failure, anyio.current_time() - began)

    def _misdefined(self, what: str) -> BackendError:
        return BackendError(
            f"{type(self._owner.inner).__name__}.open() must be an @asynccontextmanager that yields an async iterator "
            f"of Delta, but {what}"
        )

    async def _wait_or_raise(self, failure: BackendError, elapsed: float) -> None:
        """Wait until the next attempt, or raise the failure if there is no further one."""
        owner = self._owner
        owner.has_answered |= not isinstance(failure, BackendUnreachable)
        seconds = self._seconds_to_wait(failure, elapsed)
        if seconds is None:
            raise failure
        log.warning(
            "%s (%s): attempt %d of %d in %.1f s, because %s",
            owner.provider,
            owner.model_id,
            self._made + 1,
            self._retries.times + 1,
            seconds,
            " ".join(str(failure).split()),
        )
        request = in_flight.get()
        if request is None:
            await anyio.sleep(seconds)
        else:
            await request.wait(seconds, failure)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        return await self._opened.__aexit__(exc_type, exc, tb)  # noqa: ASYNC102 - bounds itself

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[Delta]:
        if self._first is None:
            return self._next()
        first, self._first = self._first, None
        return _at_once(first)

    def _seconds_to_wait(self, failure: BackendError, elapsed: float) -> float | None:
        """The seconds until the next attempt; ``None``: there is none, and a note of the failure says why."""
        if not failure.retryable or not self._retries.times:
            return None
        if isinstance(failure, BackendUnreachable) and not self._owner.has_answered:
            return None
        if self._made > self._retries.times:
            failure.add_note(f"asked {self._made} times, in {elapsed:.1f} s")
            return None
        own = random.uniform(self._wait / 2, self._wait)
        self._wait = min(self._wait * 2, LONGEST_WAIT)
        wish = failure.retry_after or 0.0
        left = self._retries.budget - elapsed
        if max(own, wish) > left:
            failure.add_note(
                f"not asked again: that would be in {max(own, wish):.1f} s, and retries may take "
                f"{self._retries.budget:g} s, of which {max(left, 0.0):.1f} s are left"
            )
            return None
        return min(max(own, wish * random.uniform(1, 1 + SPREAD)), left)


async def _at_once(delta: Delta) -> Delta:  # noqa: ASYNC124 - __anext__ must return an awaitable
    return delta
