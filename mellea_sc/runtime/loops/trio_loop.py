"""What only trio can say: its run, its clock, and a task that belongs to the run itself.

Trio's word for a task without a nursery of the user's is a system task: it is cancelled when the
main task has returned, and the run waits for it. An exception in one would end the whole run, so
what is spawned here must not raise.
"""

from __future__ import annotations

import contextvars
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

__all__ = [
    "call_soon_in",
    "clock",
    "has_ended",
    "pass_on_interrupt",
    "running_loop",
    "running_task",
    "spawn_root",
]


def running_loop() -> object | None:
    """The running trio run, or ``None`` outside of one."""
    try:
        if not trio.lowlevel.in_trio_task():
            return None
    except AttributeError:  # this thread is importing trio, and a finalizer asks
        return None
    return trio.lowlevel.current_trio_token()


def clock() -> Callable[[], float]:
    """The run's clock."""
    return trio.current_time


def running_task() -> object | None:
    """The task that runs the caller; ``None`` outside of one, as where a forgotten task is closed."""
    return trio.lowlevel.current_task() if trio.lowlevel.in_trio_task() else None


def has_ended(tasks: object) -> bool:
    """Whether the nursery of a task group is closed: all its tasks have ended, and its block is to go on.

    trio says so only by an untyped error in whoever starts a task then.
    """
    nursery: object = getattr(tasks, "_nursery", None)
    return bool(getattr(nursery, "_closed", False))


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
