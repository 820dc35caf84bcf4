"""What only asyncio can say: its loop, its clock, and a task that belongs to the loop itself.

anyio has no word for a task without a task group, on purpose. A session that is used without a
block needs exactly one: its root, which the loop cancels and joins when it ends (``asyncio.run``
cancels all tasks that are left and waits for them).
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Final

__all__ = [
    "call_after_first_steps",
    "call_soon_in",
    "claim",
    "clock",
    "errors_collected_by",
    "may_run",
    "running_loop",
    "running_task",
    "spawn_root",
    "wake_on_signals",
    "was_cancelled_natively",
]

_roots: Final[set[asyncio.Task[None]]] = set()
"""The loop holds its tasks weakly; this keeps the roots alive until they are done."""


def running_loop() -> object | None:
    """The running loop, or ``None`` outside of one."""
    try:
        return asyncio.get_running_loop()
    except (RuntimeError, AttributeError):  # there is none, or this thread is importing asyncio
        return None


loop_getter: Final[Callable[[], object | None]] = _get_running_loop
"""As :func:`running_loop`, without a function of ours around asyncio's own."""


def clock() -> Callable[[], float]:
    """The running loop's clock; for asyncio's own loops without the call of theirs around it."""
    loop = asyncio.get_running_loop()
    if getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time:
        return time.monotonic
    return loop.time


def was_cancelled_natively() -> bool:
    """Whether somebody has called the running task's ``cancel`` and it is not over."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def claim(context: Context) -> None:
    """Let a copied context be one of asyncio's: from a task under trio, it would tell anyio that trio runs."""
    if "sniffio" in sys.modules:
        import sniffio

        context.run(sniffio.current_async_library_cvar.set, "asyncio")


def may_run(loop: object) -> bool:
    """Whether a loop is running, in whichever thread, if it is one of asyncio's."""
    return not isinstance(loop, asyncio.AbstractEventLoop) or loop.is_running()


def running_task() -> object | None:
    """The task that runs the caller; ``None`` outside of one, as where a forgotten task is closed."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def call_after_first_steps(function: Callable[[], None]) -> None:
    """Call a function when every task that is started now has taken its first step, or will never.

    First steps are taken in the loop's next iteration, in whatever order; this is for the one after.
    """
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, function)


def call_soon_in(loop: object, function: Callable[[], object]) -> bool:
    """Have a loop call a function soon, from whichever thread; false: it is no loop of asyncio's."""
    if not isinstance(loop, asyncio.AbstractEventLoop):
        return False
    with suppress(RuntimeError):  # it is closed
        loop.call_soon_threadsafe(function)
    return True


def errors_collected_by(tasks: object) -> list[BaseException]:
    """The list in which a task group of anyio's collects what its tasks and its block raise."""
    errors: list[BaseException] = getattr(tasks, "_exceptions", [])
    return errors


def spawn_root(function: Callable[[], Coroutine[object, object, None]], name: str) -> None:
    """Run a function that never raises in a task of the loop's own."""
    task = asyncio.get_running_loop().create_task(function(), name=name)
    _roots.add(task)
    task.add_done_callback(_roots.discard)


def wake_on_signals() -> None:
    """Let every signal wake the running loop, so that what a handler has it do is not left until something else does.

    ``add_signal_handler`` does that for all signals while there is one; closing the loop ends it. The signal that it is given
    is one that does nothing by itself.
    """
    loop = asyncio.get_running_loop()
    with suppress(
        ValueError, RuntimeError, NotImplementedError, AttributeError
    ):  # Windows, another thread
        if (before := signal.set_wakeup_fd(-1)) != -1:
            signal.set_wakeup_fd(before)
        elif signal.getsignal(signal.SIGURG) is signal.SIG_DFL:
            loop.add_signal_handler(signal.SIGURG, lambda: None)
