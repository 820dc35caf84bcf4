"""How often a request is retried that has failed before its answer began.

:class:`Retries` is the setting; :class:`~mellea_sc.backends.Retrying` makes the retries. That class does not know
sessions, slots and timeouts, and they do not know it. They communicate only by the context variables here.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final, Protocol

import attrs

from mellea_sc.core.errors import BackendError, InvalidOption


def _times(_: object, field: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidOption(f"{field.name} must be an integer from 0 on, not {value!r}")


def _seconds(_: object, field: attrs.Attribute[float], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= math.inf:
        raise InvalidOption(f"{field.name} must be a number of seconds from 0 on, not {value!r}")


@attrs.frozen
class Retries:
    """How often, and for how long, a request is retried. A value that can be used for many calls.

    Args:
        times: The maximum number of retries; 0: none.
        budget: Seconds after the first attempt within which the last one must begin. If a server asks to wait
            longer than that, there is no retry.

    Raises:
        InvalidOption: a number is not usable.
    """

    times: int = attrs.field(default=3, validator=_times)
    budget: float = attrs.field(default=30.0, validator=_seconds)


def retries_of(retries: int | Retries) -> Retries:
    """The argument ``retries=`` as a value.

    Raises:
        InvalidOption: it is neither a number of times nor :class:`Retries`.
    """
    return retries if isinstance(retries, Retries) else Retries(retries)


# --- the setting of a call -----------------------------------------------------------------------

of_call: Final[ContextVar[Retries | None]] = ContextVar("mellea_sc_retries", default=None)
"""The ``retries=`` of the call that the running task is a part of."""


@contextmanager
def retries_of_call(retries: Retries | None) -> Generator[None]:
    """A block with a setting for its requests, and for those of tasks that are started in it; ``None``: unchanged."""
    token = of_call.set(retries or of_call.get())
    try:
        yield
    finally:
        of_call.reset(token)


# --- the slot and the timeout of a request -------------------------------------------------------


class InFlight(Protocol):
    """The running request, as the retry logic sees it."""

    async def wait(self, seconds: float, failure: BackendError) -> None:
        """Wait after a failed attempt, without a slot and without a running timeout."""
        ...

    def untimed(self) -> AbstractContextManager[None]:
        """A block in which the timeout does not run, because its waits are bounded in another way."""
        ...

    def progressed(self) -> None:
        """Restart the timeout: something has come that is not handed to the reader."""
        ...


in_flight: Final[ContextVar[InFlight | None]] = ContextVar("mellea_sc_in_flight", default=None)
"""The running task's request, if it has a slot or a timeout."""


def untimed() -> AbstractContextManager[None]:
    """A block in which the timeout of the running task's request does not run; see :meth:`InFlight.untimed`."""
    request = in_flight.get()
    return nullcontext() if request is None else request.untimed()
