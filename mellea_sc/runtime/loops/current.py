"""Services of the running event loop, for asyncio and trio alike.

trio and asyncio are imported only if the program has imported them already, as every program that runs under one of
them has. Importing asyncio takes as long as importing this library, and a program under trio does not need it.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from inspect import CORO_CREATED, getcoroutinestate
from types import CoroutineType

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
    "leaves_loop",
    "loop_getter",
    "loop_options",
    "may_run",
    "pass_on_interrupt",
    "running_loop",
    "running_task",
    "spawn_root",
    "start_soon",
    "tell_if_never_started",
]


def running_loop() -> object | None:
    """A token of the event loop that runs the caller, or ``None``; tokens are compared by identity."""
    # Called for every delta that is read. An import statement costs more than all the rest, even if the module
    # is loaded: so the functions are remembered.
    global _trio_loop, _asyncio_loop
    if (of_trio := _trio_loop) is None and "trio" in sys.modules and _is_imported("trio"):
        from mellea_sc.runtime.loops import trio_loop

        of_trio = _trio_loop = trio_loop.running_loop
    if of_trio is not None and (token := of_trio()) is not None:
        return token
    if (of_asyncio := _asyncio_loop) is None and _is_imported("asyncio"):
        from mellea_sc.runtime.loops import asyncio_loop

        of_asyncio = _asyncio_loop = asyncio_loop.running_loop
    return None if of_asyncio is None else of_asyncio()


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
    """A faster :func:`running_loop`, for frequent calls under the kind of loop (asyncio, trio) that runs now."""
    if _is_trio():
        from mellea_sc.runtime.loops import trio_loop

        return trio_loop.running_loop
    from mellea_sc.runtime.loops import asyncio_loop

    return asyncio_loop.running_loop


def loop_options() -> dict[str, bool]:
    """Options of anyio for an asyncio loop that the library itself starts: uvloop, if it is installed.

    The program chooses the loops that it starts itself.
    """
    # while the interpreter is ending, uvloop cannot be imported any more
    is_here = sys.platform != "win32" and find_spec("uvloop") is not None
    usable = is_here and not interpreter_is_ending() and _standard_streams_are_open()
    return {"use_uvloop": prefers_uvloop and usable}


def _standard_streams_are_open() -> bool:
    """Whether the descriptors 0 to 2 are taken. If not, uvloop gets one of them, and aborts the process on closing it."""
    try:
        for descriptor in range(3):
            os.fstat(descriptor)
    except OSError:
        return False
    return True


def interpreter_is_ending() -> bool:
    """Whether the interpreter is ending, and may refuse to import modules or to start threads."""
    # While atexit callbacks run, the main thread still counts as alive, but imports fail already: so the private
    # flag is looked at first.
    shutting_down: object = getattr(threading, "_SHUTTING_DOWN", False)
    return bool(shutting_down) or not threading.main_thread().is_alive()


prefers_uvloop: bool = True
"""Whether :func:`loop_options` chooses uvloop; ``mellea_sc.testing`` turns it off where it inspects asyncio's loops."""


def check_loop(loop: object, what: str) -> None:
    """Raise unless a loop is the running one.

    Args:
        loop: The token of the loop, see :func:`running_loop`.
        what: The object that belongs to the loop, for people.

    Raises:
        WrongEventLoop: another loop is running here, or none.
    """
    if (here := running_loop()) is not loop:
        where = "and none runs here" if here is None else "not to the one that runs here"
        raise WrongEventLoop(f"{what} belongs to another event loop, {where}: use it in its own")


def clock() -> Callable[[], float]:
    """The clock of the running loop (seconds) as a plain function: cheaper than ``anyio.current_time``."""
    if _is_trio():
        from mellea_sc.runtime.loops import trio_loop

        return trio_loop.clock()
    from mellea_sc.runtime.loops import asyncio_loop

    return asyncio_loop.clock()


def spawn_root(function: Callable[[], Coroutine[object, object, None]], name: str) -> None:
    """Run a function in a task that the event loop itself owns: it is cancelled and joined when the loop ends.

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
    """Have another loop call a function soon, from any thread; without effect when that loop has ended.

    Args:
        loop: The token of the loop, see :func:`running_loop`.
        function: Must not raise.
    """
    if _is_imported("asyncio"):
        from mellea_sc.runtime.loops import asyncio_loop

        if asyncio_loop.call_soon_in(loop, function):
            return
    from mellea_sc.runtime.loops import trio_loop

    trio_loop.call_soon_in(loop, function)


def may_run(loop: object) -> bool:
    """Whether a loop may be running, in any thread. Always true for trio, which leaves no unfinished tasks behind."""
    if _is_imported("asyncio"):
        from mellea_sc.runtime.loops import asyncio_loop

        return asyncio_loop.may_run(loop)
    return True


def call_in(loop: object, function: Callable[[], object]) -> None:
    """Call a function in a loop: at once if that loop is running here, else soon, in its own thread."""
    if loop is running_loop():
        function()
    else:
        call_soon_in(loop, function)


def pass_on_interrupt() -> None:
    """Pass a ``KeyboardInterrupt`` on to the main task; called by a task of the loop's own that Ctrl-C has hit.

    Under asyncio there is nothing to do: there a KeyboardInterrupt leaves the loop by itself.
    """
    if _is_trio():
        from mellea_sc.runtime.loops import trio_loop

        trio_loop.pass_on_interrupt()


def leaves_loop(error: BaseException) -> bool:
    """Whether the running loop itself raises an error of one of its tasks where it was started: asyncio, an exit."""
    return isinstance(error, SystemExit | KeyboardInterrupt) and not _is_trio()


def is_being_cancelled() -> bool:
    """Whether a cancellation of the running task is pending: by a cancel scope, or asyncio's native one."""
    # anyio's documented way to ask whether an enclosing scope is cancelled, shields considered
    if anyio.current_effective_deadline() == -math.inf:
        return True
    if _is_trio():
        return False
    from mellea_sc.runtime.loops import asyncio_loop

    return asyncio_loop.was_cancelled_natively()


def running_task() -> object | None:
    """The running task, to be compared by identity; ``None`` outside of one."""
    if _is_trio():
        from mellea_sc.runtime.loops import trio_loop

        return trio_loop.running_task()
    from mellea_sc.runtime.loops import asyncio_loop

    return asyncio_loop.running_task()


def tell_if_never_started(
    function: Callable[[], Coroutine[object, object, None]], on_never_started: Callable[[], None]
) -> Callable[[], Coroutine[object, object, None]]:
    """Wrap the function of a task so that a callback is called if the task never takes its first step.

    asyncio drops a task that is cancelled before its first step: not even a ``finally`` in it runs. That happens
    to every task that is started just before the loop ends. trio runs every task at least to its first checkpoint.

    Args:
        function: The body of the task.
        on_never_started: Called instead of it.

    Returns:
        The wrapped function. The task must be started before the caller awaits anything.
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


def start_soon(
    tasks: anyio.abc.TaskGroup, task: Coroutine[object, object, None], *, name: str
) -> None:
    """Start a task of a task group that nobody has to hear of if it never takes its first step.

    asyncio drops it then, at the end of its loop, and Python would warn that nobody has awaited its coroutine. This
    does not wrap the coroutine, as :func:`tell_if_never_started` has to, because all of a task's coroutines are
    resumed with every delta.

    Args:
        tasks: Where the task goes.
        task: Its coroutine, not started yet.
        name: For people.
    """
    tasks.start_soon(lambda: task, name=name)
    after_first_steps(partial(_close_unless_started, task))


def _close_unless_started(task: Coroutine[object, object, None]) -> None:
    if isinstance(task, CoroutineType) and getcoroutinestate(task) == CORO_CREATED:
        task.close()


def after_first_steps(check: Callable[[], None]) -> None:
    """Call a function when every task that has been started by now has taken its first step, or never will.

    Under trio it is not called: there every task takes its first step.
    """
    if not _is_trio():
        from mellea_sc.runtime.loops import asyncio_loop

        asyncio_loop.call_after_first_steps(check)


async def checkpoint_before_error() -> None:
    """A checkpoint before an error is raised in place of a cancellation.

    While a cancellation is being thrown into a coroutine, Python makes it the ``__context__`` of every error that the
    coroutine raises. After one more step of the task it does not any more.

    Cancellation: none. Not even asyncio's native one, which ignores shields, may replace the error.
    """
    with suppress(anyio.get_cancelled_exc_class()):
        await anyio.lowlevel.cancel_shielded_checkpoint()


def errors_collected_by(tasks: anyio.abc.TaskGroup) -> list[BaseException]:
    """Under asyncio, the list in which a task group collects its errors; an empty list under trio.

    Under trio it is not needed: there a cancellation never replaces an error.
    """
    if _is_trio():
        return []
    from mellea_sc.runtime.loops import asyncio_loop

    return asyncio_loop.errors_collected_by(tasks)


def has_ended(tasks: anyio.abc.TaskGroup) -> bool:
    """Whether a task group is closed for new tasks, although the code after its block has not run yet."""
    # under asyncio a task may be started until the block has been left
    if not _is_trio():
        return False
    from mellea_sc.runtime.loops import trio_loop

    return trio_loop.has_ended(tasks)


def _is_imported(name: str) -> bool:
    """Whether the import of a module has ended. Until then no loop of that kind can be running."""
    # An import statement would wait for another thread that is importing the module, and with it the event loop of
    # this one. In this very thread (a finalizer), the module would not be whole. Private, but what the import
    # statement looks at itself; without it (another interpreter) there is the wait.
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec is not None and not getattr(spec, "_initializing", False)


def _is_trio() -> bool:
    if "trio" not in sys.modules or (_trio_loop is None and not _is_imported("trio")):
        return False
    from mellea_sc.runtime.loops import trio_loop

    return trio_loop.running_loop() is not None
