"""Which event loop is running, and what only that one can say.

trio is imported only where the program has imported it before: a program that runs under trio has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine

from mellea_sc.core.errors import UsageError
from mellea_sc.runtime import _asyncio

__all__ = ["clock", "current_loop", "running_loop", "spawn_root"]


def running_loop() -> object | None:
    """A token of the event loop that runs the caller, or ``None``; tokens are compared by identity."""
    if "trio" in sys.modules:
        from mellea_sc.runtime import _trio

        if (token := _trio.running_loop()) is not None:
            return token
    return _asyncio.running_loop()


def current_loop() -> object:
    """A token of the event loop that runs the caller.

    Raises:
        UsageError: there is none.
    """
    if (token := running_loop()) is None:
        raise UsageError("no event loop is running here: call this from an async function")
    return token


def clock() -> Callable[[], float]:
    """The clock of the running loop (seconds), as a plain function: cheaper than asking anyio each time."""
    if _is_trio():
        from mellea_sc.runtime import _trio

        return _trio.clock()
    return _asyncio.clock()


def spawn_root(function: Callable[[], Coroutine[object, object, None]], name: str) -> None:
    """Run a function in a task that the event loop itself owns: cancelled and joined when it ends.

    Args:
        function: Must not raise anything but the loop's cancellation.
        name: The task's name, for people.
    """
    if _is_trio():
        from mellea_sc.runtime import _trio

        _trio.spawn_root(function, name)
    else:
        _asyncio.spawn_root(function, name)


def _is_trio() -> bool:
    if "trio" not in sys.modules:
        return False
    from mellea_sc.runtime import _trio

    return _trio.running_loop() is not None
