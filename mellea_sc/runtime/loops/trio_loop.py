"""The implementation of :mod:`.current` for trio: its run, its clock, and a task that the run itself owns.

trio calls a task outside of the user's nurseries a *system task*: it is cancelled when the main task has returned,
and the run waits for it. An exception in a system task ends the whole run with a ``TrioInternalError``, so a
function that is spawned here must not raise.
"""

from __future__ import annotations

import contextvars
import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Final

import anyio
import anyio.abc
import trio

current_task: Final[Callable[[], object]] = trio.lowlevel.current_task

raises_exits: Final = False
"""To trio an exit in a task of the run's own is an internal error."""


def running_loop() -> object | None:
    """The running trio run, or ``None`` outside of one."""
    if not trio.lowlevel.in_trio_task():
        return None
    return trio.lowlevel.current_trio_token()


def clock() -> Callable[[], float]:
    """The run's clock."""
    return trio.current_time


def has_ended(tasks: object, /) -> bool:
    """Whether a task group's nursery is closed: all its tasks have ended, but the code after its block has not run yet.

    Starting a task then raises a plain ``RuntimeError``; there is no public way to ask before.
    """
    nursery: object = getattr(tasks, "_nursery", None)
    return bool(getattr(nursery, "_closed", False))


def call_soon_in(token: object, function: Callable[[], object]) -> None:
    """Have a run call a function soon, from any thread."""
    assert isinstance(token, trio.lowlevel.TrioToken)
    with suppress(trio.RunFinishedError):
        token.run_sync_soon(function)


def spawn_root(
    function: Callable[[], Awaitable[None]],
    name: str,
    on_never_started: Callable[[], None],  # noqa: ARG001 - every task takes its first step
) -> None:
    """Run a function, which never raises, in a task that the run itself owns."""
    trio.lowlevel.spawn_system_task(function, name=name, context=contextvars.copy_context())


def start_task(
    tasks: anyio.abc.TaskGroup,
    task: Coroutine[object, object, None],
    *,
    name: str,
    on_never_started: Callable[[], None] | None = None,  # noqa: ARG001 - as above
    context: contextvars.Context | None = None,
) -> anyio.TaskHandle[None]:
    """Start a task of a task group."""
    return tasks.create_task(task, name=name, context=context)


def errors_collected_by(_: object, /) -> list[BaseException]:
    """Nothing: a cancellation never replaces an error."""
    return []


def was_cancelled_natively() -> bool:
    """Never: every cancellation is a cancel scope's."""
    return False


def pass_on_interrupt() -> None:
    """Pass a ``KeyboardInterrupt`` on to the main task, by raising the signal again."""
    signal.raise_signal(signal.SIGINT)
