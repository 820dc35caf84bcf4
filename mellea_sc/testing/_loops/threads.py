"""The threads of this process, and which of them only wait for work.

Pools keep their threads for later, and tqdm the one that looks after its bars: such a thread is neither
a leak nor somebody who may yet wake an event loop.
"""

from __future__ import annotations

import gc
import sys
import threading
from types import FrameType

from mellea_sc.testing._loops.tasks import code_place

__all__ = ["innermost_place", "is_idle", "pool_of"]

# Where such threads sit between two jobs; the calls below that are those of the waiting itself.
_POOLS = {
    ("anyio._backends._asyncio", "run"): "anyio",
    ("concurrent.futures.thread", "_worker"): "executor",
    ("trio._core._thread_cache", "_work"): "trio",
    ("tqdm._monitor", "run"): "tqdm",
}
_WAITING = {"queue", "threading"}


def pool_of(thread: threading.Thread) -> str | None:
    """Whose pool it belongs to: ``"anyio"``, ``"executor"``, ``"trio"``, ``"tqdm"``; ``None``: to nobody's."""
    frame = _innermost(thread)
    while frame is not None:
        if pool := _POOLS.get((_module(frame), frame.f_code.co_name)):
            return pool
        frame = frame.f_back
    return None


def is_idle(thread: threading.Thread) -> bool:
    """Whether it belongs to a pool (or to tqdm) and waits for a job, or has one that it has not begun."""
    frame = _innermost(thread)
    while frame is not None and _module(frame) in _WAITING:
        frame = frame.f_back
    return frame is not None and (_module(frame), frame.f_code.co_name) in _POOLS


def innermost_place(thread: threading.Thread) -> str:
    """What it is doing now: the innermost function that is not the threading module's own."""
    frame = innermost = _innermost(thread)
    while frame is not None and _module(frame) in _WAITING:
        frame = frame.f_back
    frame = frame or innermost
    return "its end" if frame is None else code_place(frame.f_code, frame.f_lineno)


def _innermost(thread: threading.Thread) -> FrameType | None:
    # Up to CPython 3.11.5 the garbage collector, when it runs inside this call, can wait for a lock
    # that the call holds (python/cpython#106883).
    collecting = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames().get(thread.ident or 0)
    finally:
        if collecting:
            gc.enable()


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
