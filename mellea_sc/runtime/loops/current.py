"""Which event loop is running, and what only that one can say.

trio and asyncio are each imported only where the program has imported it before: one that runs under it
has, and importing asyncio takes a program under trio as long as importing this library.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from importlib.util import find_spec

import anyio
import anyio.abc
import anyio.lowlevel

from mellea_sc.core.errors import UsageError, WrongEventLoop

__all__ = [
    "after_first_steps",
    "call_in",
    "call_soon_in",
    "check_loop",
    "checkpoint_before_error",
    "clock",
    "current_loop",
    "errors_collected_by",
    "has_ended",
    "interpreter_is_ending",
    "is_being_cancelled",
    "is_stray_cancellation",
    "loop_getter",
    "loop_options",
    "may_run",
    "pass_on_interrupt",
    "running_loop",
    "running_task",
    "spawn_root",
    "tell_if_never_started",
]


def running_loop() -> object | None:
    """A token of the event loop that runs the caller, or ``None``; tokens are compared by identity."""
    # asked for every delta that is read: an import statement would take longer than all the rest
    global _trio_loop, _asyncio_loop
    if "trio" in sys.modules:
        if (of_trio := _trio_loop) is None:
            with suppress(ImportError):  # this thread is importing it, and a finalizer asks
                from mellea_sc.runtime.loops import trio_loop

                of_trio = _trio_loop = trio_loop.running_loop
        if of_trio is not None and (token := of_trio()) is not None:
            return token
    if "asyncio" in sys.modules:
        if (of_asyncio := _asyncio_loop) is None:
            from mellea_sc.runtime.loops import asyncio_loop

            of_asyncio = _asyncio_loop = asyncio_loop.running_loop
        return of_asyncio()
    return None


_trio_loop: Callable[[], object | None] | None = None
_asyncio_loop: Callable[[], object | None] | None = None


def current_loop() -> object:
    """A token of the event loop that runs the caller.

    Raises:
        UsageError: there is none.
    """
    if (token := running_loop()) is None:
        raise UsageError("no event loop is running here: call this from an async function")
    return token


def loop_getter() -> Callable[[], object | None]:
    """What :func:`running_loop` does, for who will ask often, in a loop of the kind that runs now."""
    if _is_trio():
        from mellea_sc.runtime.loops import trio_loop

        return trio_loop.running_loop
    from mellea_sc.runtime.loops import asyncio_loop

    return asyncio_loop.loop_getter


def loop_options() -> dict[str, bool]:
    """What anyio is told for a loop of asyncio's that we start: uvloop, where it is installed.

    A loop that somebody else starts is theirs to choose. When the interpreter is ending, uvloop cannot be imported
    any more.
    """
    is_here = sys.platform != "win32" and find_spec("uvloop") is not None
    return {"use_uvloop": prefers_uvloop and is_here and not interpreter_is_ending()}


def interpreter_is_ending() -> bool:
    """Whether the interpreter is ending, and may refuse to import modules or to start threads."""
    # the main thread counts as alive while it calls what is registered for its end, and imports fail by then
    shutting_down: object = getattr(threading, "_SHUTTING_DOWN", False)
    return bool(shutting_down) or not threading.main_thread().is_alive()


prefers_uvloop: bool = True
"""Whether to; whoever looks into asyncio's own loops (``mellea_sc.testing``) does not want it meanwhile."""


def check_loop(loop: object, what: str) -> None:
    """Raise unless a loop is the one that runs the caller.

    Args:
        loop: The token of the loop.
        what: What belongs to it, for people.

    Raises:
        WrongEventLoop: another one does, or none.
    """
    if (here := running_loop()) is not loop:
        where = "and none runs here" if here is None else "not to the one that runs here"
        raise WrongEventLoop(f"{what} belongs to another event loop, {where}: use it in its own")


def clock() -> Callable[[], float]:
    """The clock of the running loop (seconds), as a plain function: cheaper than asking anyio each time."""
    if _is_trio():
        from mellea_sc.runtime.loops import trio_loop

        return trio_loop.clock()
    from mellea_sc.runtime.loops import asyncio_loop

    return asyncio_loop.clock()


def spawn_root(function: Callable[[], Coroutine[object, object, None]], name: str) -> None:
    """Run a function in a task that the event loop itself owns: cancelled and joined when it ends.

    Args:
        function: Must not raise anything but the loop's cancellation.
        name: The task's name, for people.
    """
    if _is_trio():
        from mellea_sc.runtime.loops import trio_loop

        trio_loop.spawn_root(function, name)
    else:
        from mellea_sc.runtime.loops import asyncio_loop

        asyncio_loop.spawn_root(function, name)


def call_soon_in(loop: object, function: Callable[[], object]) -> None:
    """Have another loop call a function soon, from whichever thread; without effect when it has ended.

    Args:
        loop: The token of the loop, see :func:`running_loop`.
        function: Must not raise.
    """
    if "asyncio" in sys.modules:
        from mellea_sc.runtime.loops import asyncio_loop

        if asyncio_loop.call_soon_in(loop, function):
            return
    from mellea_sc.runtime.loops import trio_loop

    trio_loop.call_soon_in(loop, function)


def may_run(loop: object) -> bool:
    """Whether a loop is running, in whichever thread; of trio's, whose tasks are never left over, always."""
    if "asyncio" in sys.modules:
        from mellea_sc.runtime.loops import asyncio_loop

        return asyncio_loop.may_run(loop)
    return True


def call_in(loop: object, function: Callable[[], object]) -> None:
    """Call a function, at once if the loop is running here, otherwise soon and there."""
    if loop is running_loop():
        function()
    else:
        call_soon_in(loop, function)


def pass_on_interrupt() -> None:
    """Ctrl-C has hit a task that the loop itself owns: the program is told. Called by such a task.

    asyncio has raised it out of the loop by then.
    """
    if _is_trio():
        from mellea_sc.runtime.loops import trio_loop

        trio_loop.pass_on_interrupt()


def is_stray_cancellation() -> bool:
    """Whether the cancellation that has just been caught is one that nobody has asked for."""
    return not is_being_cancelled()


def is_being_cancelled() -> bool:
    """Whether somebody has asked for the cancellation of the running task, and it is not over."""
    if anyio.current_effective_deadline() == -math.inf:
        return True
    if _is_trio():
        return False
    from mellea_sc.runtime.loops import asyncio_loop

    return asyncio_loop.was_cancelled_natively()


def running_task() -> object | None:
    """The task that runs the caller, compared by identity; ``None`` outside of one."""
    if _is_trio():
        from mellea_sc.runtime.loops import trio_loop

        return trio_loop.running_task()
    from mellea_sc.runtime.loops import asyncio_loop

    return asyncio_loop.running_task()


def tell_if_never_started(
    function: Callable[[], Coroutine[object, object, None]], on_never_started: Callable[[], None]
) -> Callable[[], Coroutine[object, object, None]]:
    """A function for a task of its own, and another one for when that task never takes its first step.

    asyncio drops a task that is cancelled before its first step, so that not even a ``finally`` of it
    runs; its loop does that to tasks made just before it ends.

    Args:
        function: What the task runs.
        on_never_started: Called instead. The task has to be started before anything else is awaited.
    """
    if _is_trio():
        return function
    has_begun = False
    coroutines: list[Coroutine[object, object, None]] = []

    async def run() -> None:
        nonlocal has_begun
        has_begun = True
        await function()

    def begin() -> Coroutine[object, object, None]:
        coroutines.append(run())
        return coroutines[0]

    def check() -> None:
        if not has_begun:
            for coroutine in coroutines:
                coroutine.close()  # or Python warns that nobody has awaited it
            on_never_started()

    after_first_steps(check)
    return begin


def after_first_steps(check: Callable[[], None]) -> None:
    """Call a function when every task that is started now has taken its first step, or will never.

    Under trio it is not called: there, every task takes its first step.
    """
    if not _is_trio():
        from mellea_sc.runtime.loops import asyncio_loop

        asyncio_loop.call_after_first_steps(check)


async def checkpoint_before_error() -> None:
    """Give other tasks a turn before an error is raised.

    A coroutine that a cancellation is being thrown into would put that into the context of the error.

    Cancellation: none; not even asyncio's own, which goes through shields, takes the place of the error.
    """
    with suppress(anyio.get_cancelled_exc_class()):
        await anyio.lowlevel.cancel_shielded_checkpoint()


def errors_collected_by(tasks: anyio.abc.TaskGroup) -> list[BaseException]:
    """The list in which a task group collects its errors under asyncio; an empty one under trio.

    There, no cancellation takes the place of an error.
    """
    if _is_trio():
        return []
    from mellea_sc.runtime.loops import asyncio_loop

    return asyncio_loop.errors_collected_by(tasks)


def has_ended(tasks: anyio.abc.TaskGroup) -> bool:
    """Whether a task group takes no tasks any more, though who is in its block has not gone on yet."""
    if not _is_trio():
        return False
    from mellea_sc.runtime.loops import trio_loop

    return trio_loop.has_ended(tasks)


def _is_trio() -> bool:
    if "trio" not in sys.modules:
        return False
    from mellea_sc.runtime.loops import trio_loop

    return trio_loop.running_loop() is not None
