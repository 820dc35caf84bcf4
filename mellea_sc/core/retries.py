"""How often a request is made again that failed before its answer began.

:class:`Retries` says it, and :class:`~mellea_sc.backends.Retrying` does it. What makes requests again
knows nothing of sessions, slots and time-outs, and these know nothing of it: all that passes between the
two are the context variables here.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final, Generic, Protocol, TypeVar

import attrs

from mellea_sc.core.errors import BackendError, InvalidOption

__all__ = [
    "InFlight",
    "Retries",
    "in_flight",
    "of_call",
    "retried",
    "retries_of",
    "untimed",
]

T = TypeVar("T")


def _times(_: object, field: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidOption(f"{field.name} must be an integer from 0 on, not {value!r}")


def _seconds(_: object, field: attrs.Attribute[float], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= math.inf:
        raise InvalidOption(f"{field.name} must be a number of seconds from 0 on, not {value!r}")


@attrs.frozen
class Retries:
    """How often a request is made again, and for how long. A value, to be used often.

    Args:
        times: How often at most; 0: never.
        budget: Seconds, from the first attempt on, in which the last one has to begin. A server that asks
            for more than is left is not waited for.

    Raises:
        InvalidOption: a number is not usable.
    """

    times: int = attrs.field(default=3, validator=_times)
    budget: float = attrs.field(default=30.0, validator=_seconds)


def retries_of(retries: int | Retries | None) -> Retries | None:
    """What was given as ``retries=``, as a value; ``None``: nothing was.

    Raises:
        InvalidOption: it is neither a number of times nor :class:`Retries`.
    """
    if retries is None or isinstance(retries, Retries):
        return retries
    return Retries(retries)


# --- what a call wants ---------------------------------------------------------------------------

of_call: Final[ContextVar[Retries | None]] = ContextVar("mellea_sc_retries", default=None)
"""What the call says that the running task is a part of."""


def retried(retries: int | Retries | None) -> AbstractContextManager[None]:
    """A block whose requests, and those of the tasks that are started in it, are made again so often.

    Raises:
        InvalidOption: it is neither a number of times nor :class:`Retries`.
    """
    wanted = retries_of(retries)
    return _AS_BEFORE if wanted is None else _Setting(of_call, wanted)


_AS_BEFORE: Final = nullcontext()


# --- what a request holds ------------------------------------------------------------------------


class InFlight(Protocol):
    """A request that is being made, to whoever makes it again."""

    async def wait(self, seconds: float, failure: BackendError) -> None:
        """Wait after an attempt that failed, and hold up nobody: no place is taken, no time-out runs."""
        ...

    def untimed(self) -> AbstractContextManager[None]:
        """A block whose waits are bounded by something else: the time-out does not run."""
        ...

    def progressed(self) -> None:
        """Something came that is nothing for the reader; the time-out begins anew."""
        ...


in_flight: Final[ContextVar[InFlight | None]] = ContextVar("mellea_sc_in_flight", default=None)
"""The request that the running task is making, if anybody wants to know of its waiting."""


def untimed() -> AbstractContextManager[None]:
    """A block whose waits are bounded by something else than the time-out of the running task's request."""
    request = in_flight.get()
    return nullcontext() if request is None else request.untimed()


class _Setting(Generic[T]):
    """A block in which a variable has a value. A plain object: one is made for each request."""

    __slots__ = ("_token", "_value", "_variable")

    def __init__(self, variable: ContextVar[T | None], value: T) -> None:
        self._variable = variable
        self._value = value
        self._token: Token[T | None]

    def __enter__(self) -> None:
        self._token = self._variable.set(self._value)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._variable.reset(self._token)
