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
from contextvars import Context
from importlib.util import find_spec
from typing import Protocol

import anyio
import anyio.abc
import anyio.lowlevel

from mellea_sc.core.errors import UsageError, WrongEventLoop


class LoopServices(Protocol):
    """What ``asyncio_loop.py`` and ``trio_loop.py`` both have, each for its kind of loop."""

    def running_loop(self) -> object | None:
        """A token of the running loop, if it is of this kind."""
        ...

    def clock(self) -> Callable[[], float]:
        """The clock of the running loop (seconds) as a plain function: cheaper than ``anyio.current_time``."""
        ...

    def current_task(self) -> object:
        """The running task, to be compared by identity; a ``RuntimeError`` outside of one."""
        ...

    def spawn_root(
        self,
        function: Callable[[], Coroutine[object, object, None]],
        name: str,
        on_never_started: Callable[[], None],
    ) -> None:
        """Run a function in a task that the loop itself owns: it is cancelled and joined when the loop ends.

        Args:
            function: Must not raise anything but the loop's cancellation.
            name: The task's name, for people.
            on_never_started: Called if the task was cancelled before its first step.
        """
        ...

    def start_task(
        self,
        tasks: anyio.abc.TaskGroup,
        task: Coroutine[object, object, None],
        *,
        name: str,
        on_never_started: Callable[[], None] | None = None,
        context: Context | None = None,
    ) -> anyio.TaskHandle[None]:
        """Start a task of a task group, and tell if it never takes its first step.

        asyncio drops a task that is cancelled before its first step: not even a ``finally`` in it runs, and Python
        warns that nobody has awaited its coroutine. That happens to every task that is started just before the loop
        ends. trio runs every task at least to its first checkpoint.

        Args:
            tasks: Where the task goes.
            task: Its coroutine, not started yet.
            name: For people.
            on_never_started: Called if the task was dropped before its first step.
            context: What to run it in, instead of a copy of the caller's context.
        """
        ...

    def errors_collected_by(self, tasks: object, /) -> list[BaseException]:
        """The list in which a task group collects its errors, where a cancellation may replace them."""
        ...

    def has_ended(self, tasks: object, /) -> bool:
        """Whether a task group is closed for new tasks, although the code after its block has not run yet."""
        ...

    def was_cancelled_natively(self) -> bool:
        """Whether a cancellation of the running task is pending that is not that of a cancel scope."""
        ...

    @property
    def raises_exits(self) -> bool:
        """Whether the loop itself raises an exit in one of its tasks, where it was started."""
        ...

    def pass_on_interrupt(self) -> None:
        """Pass a ``KeyboardInterrupt`` that has hit a task of the loop's own on to the main task."""
        ...


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


def loop_services() -> LoopServices:
    """The services of the kind of loop that runs now: trio or else asyncio."""
    if _is_imported("trio"):
        from mellea_sc.runtime.loops import trio_loop

        if trio_loop.running_loop() is not None:
            return trio_loop
    from mellea_sc.runtime.loops import asyncio_loop

    return asyncio_loop


def clock() -> Callable[[], float]:
    """The clock of the running loop; see :meth:`LoopServices.clock`."""
    return loop_services().clock()


def running_task() -> object | None:
    """The running task; ``None`` outside of one, for example while a garbage-collected task is closed."""
    try:
        return loop_services().current_task()
    except RuntimeError:
        return None


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


def is_closed(loop: object) -> bool:
    """Whether a loop is closed. trio's never counts as closed: it ends only after all its tasks."""
    if _is_imported("asyncio"):
        from mellea_sc.runtime.loops import asyncio_loop

        return asyncio_loop.is_closed(loop)
    return False


def call_in(loop: object, function: Callable[[], object]) -> None:
    """Call a function in a loop: at once if that loop is running here, else soon, in its own thread."""
    if loop is running_loop():
        function()
    else:
        call_soon_in(loop, function)


def is_being_cancelled() -> bool:
    """Whether a cancellation of the running task is pending: by a cancel scope, or asyncio's native one."""
    # anyio's documented way to ask whether an enclosing scope is cancelled, shields considered
    if anyio.current_effective_deadline() == -math.inf:
        return True
    return loop_services().was_cancelled_natively()


async def checkpoint_before_error() -> None:
    """A checkpoint before an error is raised in place of a cancellation.

    While a cancellation is being thrown into a coroutine, Python makes it the ``__context__`` of every error that the
    coroutine raises. After one more step of the task it does not any more.

    Cancellation: none. Not even asyncio's native one, which ignores shields, may replace the error.
    """
    with suppress(anyio.get_cancelled_exc_class()):
        await anyio.lowlevel.cancel_shielded_checkpoint()


def _is_imported(name: str) -> bool:
    """Whether the import of a module has ended. Until then no loop of that kind can be running."""
    # An import statement would wait for another thread that is importing the module, and with it the event loop of
    # this one. In this very thread (a finalizer), the module would not be whole. Private, but what the import
    # statement looks at itself; without it (another interpreter) there is the wait.
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec is not None and not getattr(spec, "_initializing", False)
