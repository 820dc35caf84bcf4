"""What only trio can say: its run, its clock, and a task that belongs to the run itself.

Trio's word for a task without a nursery of the user's is a system task: it is cancelled when the
main task has returned, and the run waits for it. An exception in one would end the whole run, so
what is spawned here must not raise.
"""

from __future__ import annotations

import contextvars
import math
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

__all__ = [
    "call_soon_in",
    "clock",
    "is_being_cancelled",
    "pass_on_interrupt",
    "running_loop",
    "running_task",
    "spawn_root",
]


def running_loop() -> object | None:
    """The running trio run, or ``None`` outside of one."""
    if not trio.lowlevel.in_trio_task():
        return None
    return trio.lowlevel.current_trio_token()


def clock() -> Callable[[], float]:
    """The run's clock."""
    return trio.current_time


def running_task() -> object | None:
    """The task that runs the caller; ``None`` outside of one, as where a forgotten task is closed."""
    return trio.lowlevel.current_task() if trio.lowlevel.in_trio_task() else None


def is_being_cancelled() -> bool:
    """Whether the running task is to be cancelled at its next checkpoint."""
    return trio.current_effective_deadline() == -math.inf


def call_soon_in(token: object, function: Callable[[], object]) -> None:
    """Have a run call a function soon, from whichever thread."""
    assert isinstance(token, trio.lowlevel.TrioToken)
    with suppress(trio.RunFinishedError):
        token.run_sync_soon(function)


def spawn_root(function: Callable[[], Awaitable[None]], name: str) -> None:
    """Run a function that never raises in a task of the run's own."""
    trio.lowlevel.spawn_system_task(function, name=name, context=contextvars.copy_context())


def pass_on_interrupt() -> None:
    """Ctrl-C has hit a task of the run's own: it goes on to the main task. Called by such a task."""
    signal.raise_signal(signal.SIGINT)
