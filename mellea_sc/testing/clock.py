"""Virtual time: an hour of delays takes milliseconds, and is the same every time.

The clock of the event loop stands still while anything can run, and jumps to the next deadline when
nothing can. Work in worker threads takes no time. There is no network: sockets are refused, because
nobody could say how long an answer takes. A program in which nothing can run and nothing is due is
told so by a :class:`Deadlock` instead of hanging.

With a seed, the tasks that are ready at the same moment run in a shuffled order, the same one for
the same seed: programs that are right only in one order are found.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal, TypeAlias, TypeVar, TypeVarTuple, Unpack, cast

import anyio

from mellea_sc.testing._loops.deadlock import Deadlock

__all__ = ["Deadlock", "LoopName", "run_virtual", "runs_in", "virtual_backend"]

LoopName: TypeAlias = Literal["asyncio", "trio"]
"""An event loop, by its name."""

T = TypeVar("T")
Args = TypeVarTuple("Args")


def virtual_backend(name: LoopName, *, seed: int | None = None) -> tuple[str, dict[str, object]]:
    """What makes an event loop run in virtual time: a value for anyio's ``anyio_backend`` fixture.

    It serves one run; make a new one for each test.

    Args:
        name: The event loop.
        seed: Shuffles the order of tasks that are ready at the same moment.
    """
    if name == "trio":
        from mellea_sc.testing._loops.virtual_trio import trio_options

        return name, trio_options(seed)
    from mellea_sc.testing._loops.virtual_asyncio import VirtualEventLoop

    return name, {"loop_factory": partial(VirtualEventLoop, seed)}


def runs_in(backend: tuple[str, dict[str, object]]) -> bool:
    """Whether the running event loop is one of that kind: a value of :func:`virtual_backend`."""
    name, options = backend
    if name == "trio":
        from mellea_sc.testing._loops.virtual_trio import is_running

        return is_running(options)
    from mellea_sc.testing._loops.virtual_asyncio import is_running as is_running_virtually

    return is_running_virtually()


def run_virtual(
    async_fn: Callable[[Unpack[Args]], Awaitable[T]],
    *args: *Args,
    backend: LoopName = "asyncio",
    seed: int | None = None,
) -> T:
    """Run an async function in virtual time.

    Args:
        async_fn: The program.
        args: Its arguments.
        backend: The event loop.
        seed: Shuffles the order of tasks that are ready at the same moment; an error that the
            program raises has a note that says it.

    Raises:
        Deadlock: nothing can run and nothing is due; it says where every task waits.
        RuntimeError: the program wants a socket or a child process.
    """
    name, options = virtual_backend(backend, seed=seed)
    try:
        return anyio.run(async_fn, *args, backend=name, backend_options=options)
    except BaseException as error:
        if seed is not None:
            error.add_note(f"the order of tasks was shuffled with seed={seed}")
        if (deadlock := _deadlock_in(error)) not in (None, error):
            raise deadlock from error  # noqa: ASYNC104 - the loop has ended
        raise


def _deadlock_in(error: BaseException) -> Deadlock | None:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return next(filter(None, map(_deadlock_in, group.exceptions)), None)
    return error if isinstance(error, Deadlock) else None
