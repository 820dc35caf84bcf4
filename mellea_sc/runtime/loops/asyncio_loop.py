"""The implementation of :mod:`.current` for asyncio: its loop, its clock, and a task that the loop itself owns.

anyio offers no task without a task group, on purpose. A session that is used without a block needs exactly one:
its root task, which the loop cancels and joins when it ends (``asyncio.run`` cancels all remaining tasks and waits
for them).
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from inspect import CORO_CREATED, getcoroutinestate
from typing import Final

import anyio
import anyio.abc

current_task: Final[Callable[[], object]] = asyncio.current_task

raises_exits: Final = True
"""asyncio raises an exit in a task at once, out of ``asyncio.run``."""

_roots: Final[set[asyncio.Task[None]]] = set()
"""The loop refers to its tasks weakly; these references keep the root tasks alive until they are done."""


running_loop: Final[Callable[[], object | None]] = asyncio._get_running_loop  # noqa: SLF001 - public by its documentation
"""The running loop, or ``None`` outside of one. asyncio's own C function: it is called for every item that is read."""


def clock() -> Callable[[], float]:
    """The running loop's clock as a plain function."""
    # asyncio's own loops only call time.monotonic(). Others (uvloop, virtual time in tests) have their own clock.
    loop = asyncio.get_running_loop()
    if getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time:
        return time.monotonic
    return loop.time


def was_cancelled_natively() -> bool:
    """Whether a native cancellation of the running task (``task.cancel()``) is pending."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def may_run(loop: object) -> bool:
    """Whether an asyncio loop is running, in whichever thread; true for other loops, which cannot be asked."""
    return not isinstance(loop, asyncio.AbstractEventLoop) or loop.is_running()


def start_task(
    tasks: anyio.abc.TaskGroup,
    task: Coroutine[object, object, None],
    *,
    name: str,
    on_never_started: Callable[[], None] | None = None,
    context: Context | None = None,
) -> anyio.TaskHandle[None]:
    """Start a task of a task group, and tell if it never takes its first step."""
    # The coroutine is not wrapped in another one: all of a task's coroutines are resumed with every delta.
    handle = tasks.create_task(task, name=name, context=context)
    # Tasks take their first step in the loop's next iteration, not in every loop in the order in which they were
    # started: so this is called in the iteration after that.
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, _close_if_never_started, task, on_never_started)
    return handle


def _close_if_never_started(
    task: Coroutine[object, object, None], on_never_started: Callable[[], None] | None
) -> None:
    if getcoroutinestate(task) == CORO_CREATED:
        task.close()
        if on_never_started is not None:
            on_never_started()


def call_soon_in(loop: object, function: Callable[[], object]) -> bool:
    """Have a loop call a function soon, from any thread; false: the loop is not asyncio's."""
    if not isinstance(loop, asyncio.AbstractEventLoop):
        return False
    with suppress(RuntimeError):  # it is closed
        loop.call_soon_threadsafe(function)
    return True


def errors_collected_by(tasks: object, /) -> list[BaseException]:
    """The list in which anyio's task group collects the errors of its tasks and its block."""
    # a private attribute; without it (another anyio) an error may be replaced by a cancellation, no more
    errors: list[BaseException] = getattr(tasks, "_exceptions", [])
    return errors


def has_ended(_: object, /) -> bool:
    """Never: a task may be started until the block has been left."""
    return False


def pass_on_interrupt() -> None:
    """Nothing: a ``KeyboardInterrupt`` leaves the loop by itself."""


def spawn_root(
    function: Callable[[], Coroutine[object, object, None]],
    name: str,
    on_never_started: Callable[[], None],
) -> None:
    """Run a function, which never raises, in a task that the loop itself owns."""
    has_begun = False

    async def run() -> None:
        nonlocal has_begun
        has_begun = True
        await function()

    def ended(task: asyncio.Task[None]) -> None:
        _roots.discard(task)
        if not has_begun:
            on_never_started()

    task = asyncio.get_running_loop().create_task(run(), name=name)
    _roots.add(task)
    task.add_done_callback(ended)


def start_task_of_loop(
    coroutine: Coroutine[object, object, None], context: Context
) -> asyncio.Task[None]:
    """Start a task that is in no task group; the caller has to hold it until it is done.

    Args:
        coroutine: What to run.
        context: What to run it in. It may have been copied in a trio task.
    """
    if "sniffio" in sys.modules:
        # a context that was copied in a trio task would tell anyio that trio runs
        import sniffio

        context.run(sniffio.current_async_library_cvar.set, "asyncio")
    return asyncio.get_running_loop().create_task(coroutine, context=context)


def wake_on_signals() -> None:
    """Have every signal wake the running loop, so that a callback that a signal handler schedules runs at once.

    As a side effect, ``add_signal_handler`` has every signal write to the loop's wake-up descriptor. It is called here
    for a signal that does nothing by default. Closing the loop undoes it.
    """
    loop = asyncio.get_running_loop()
    # on Windows, or in another thread than the main one
    with suppress(ValueError, RuntimeError, NotImplementedError, AttributeError):
        # the only way to read it is to set it
        if (before := signal.set_wakeup_fd(-1)) != -1:
            signal.set_wakeup_fd(before)
        elif signal.getsignal(signal.SIGURG) is signal.SIG_DFL:
            loop.add_signal_handler(signal.SIGURG, lambda: None)
