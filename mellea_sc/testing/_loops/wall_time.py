"""The process's clocks, put forward for code under test while its event loop goes by the real ones."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from types import ModuleType
from typing import Final

from mellea_sc.testing._loops.tasks import is_plumbing

__all__ = ["adjustable_clocks"]

_CLOCKS: Final = ("time", "monotonic", "perf_counter")


@contextmanager
def adjustable_clocks(modules: Iterable[ModuleType]) -> Generator[Callable[[float], None]]:
    """A block in which the functions of the ``time`` module can be put forward.

    Args:
        modules: Which may have imported functions of ``time`` by their names.

    Returns:
        What puts them forward, by seconds.
    """
    ahead = 0.0

    def put_forward(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    def seconds_of(real: Callable[[], float]) -> Callable[[], float]:
        return lambda: real() if is_plumbing(sys._getframe(1)) else real() + ahead

    def nanoseconds_of(real: Callable[[], int]) -> Callable[[], int]:
        return lambda: real() if is_plumbing(sys._getframe(1)) else real() + int(ahead * 1e9)

    instead: dict[object, object] = {}
    for name in _CLOCKS:
        seconds, nanoseconds = getattr(time, name), getattr(time, f"{name}_ns")
        instead[seconds] = seconds_of(seconds)
        instead[nanoseconds] = nanoseconds_of(nanoseconds)
    replaced = [
        (module, name, value)
        for module in {time, *modules}
        for name, value in list(vars(module).items())
        if callable(value) and type(value) is type(time.time) and value in instead
    ]
    for module, name, real in replaced:
        setattr(module, name, instead[real])
    try:
        yield put_forward
    finally:
        for module, name, real in replaced:
            setattr(module, name, real)
