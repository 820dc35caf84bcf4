"""The tasks of the running event loop, seen from outside: which there are and where they wait.

The one place that asks asyncio and trio for their lists of tasks.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Coroutine, Iterator
from pathlib import PurePath
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import cast

import attrs

__all__ = ["TaskView", "all_tasks", "code_place", "frames_of", "is_plumbing"]


@attrs.frozen
class TaskView:
    """One task.

    Args:
        task: The event loop's own object.
        name: What the event loop calls it.
        coroutine: What it runs.
    """

    task: object
    name: str
    coroutine: object

    def __str__(self) -> str:
        every = list(frames_of(self.coroutine))
        frames = [frame for frame in every if not is_plumbing(frame)] or every
        if not frames:
            return f"task {self.name!r}"
        first, last = frames[0], frames[-1]
        return (
            f"task {self.name!r} running {code_place(first.f_code)}, "
            f"now in {code_place(last.f_code, last.f_lineno)}"
        )


def is_plumbing(frame: FrameType) -> bool:
    """Whether it is a frame of the event loop or of what lies under it."""
    module = str(frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in _PLUMBING


_PLUMBING = {"anyio", "asyncio", "concurrent", "contextlib", "socket", "threading", "trio"}


def code_place(code: CodeType, line: int | None = None) -> str:
    """A function and where it is: ``name (folder/file.py:12)``."""
    path = PurePath(code.co_filename)
    place = "/".join(path.parts[-2:])
    return f"{code.co_qualname} ({place}:{line or code.co_firstlineno})"


def frames_of(coroutine: object) -> Iterator[FrameType]:
    """The frames of a suspended coroutine or async generator, outermost first."""
    current: object = coroutine
    while current is not None:
        frame, current = _step(current)
        if frame is not None:
            yield frame


def _step(awaited: object) -> tuple[FrameType | None, object]:
    match awaited:
        case Coroutine():  # perhaps not Python's own type: steps.py puts one in its place
            coroutine = cast("object", awaited)
            frame: object = getattr(coroutine, "cr_frame", None)
            inside: object = getattr(coroutine, "cr_await", None)
            return frame if isinstance(frame, FrameType) else None, inside
        case GeneratorType():
            return awaited.gi_frame, cast("object", awaited.gi_yieldfrom)  # pyright: ignore[reportUnknownMemberType] # typeshed: Iterator[Any]
        case AsyncGeneratorType():
            return awaited.ag_frame, awaited.ag_await
        case _ if type(awaited).__name__ in _WRAPPERS:
            # An asend() or a coroutine's __await__ does not tell what it drives; its references do.
            inner: list[object] = gc.get_referents(awaited)
            return None, next((o for o in inner if type(o) in _KINDS), None)
        case _:
            return None, None


_KINDS = (CoroutineType, GeneratorType, AsyncGeneratorType)
_WRAPPERS = {
    "async_generator_asend",
    "async_generator_athrow",
    "coroutine_wrapper",
    "anext_awaitable",
}


def all_tasks() -> list[TaskView]:
    """The tasks of the event loop that runs in this thread, without the loop's own."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return list(_trio_tasks())
    import asyncio

    tasks = cast("set[asyncio.Task[object]]", asyncio.all_tasks())
    views = (TaskView(task, task.get_name(), task.get_coro()) for task in tasks)
    return sorted(views, key=lambda view: view.name)


def _trio_tasks() -> Iterator[TaskView]:
    import trio

    root = trio.lowlevel.current_root_task()
    if root is None:
        return
    # The first of the root's nurseries holds trio's own task, the others what was started by users.
    pending = [task for nursery in root.child_nurseries[1:] for task in nursery.child_tasks]
    while pending:
        task = pending.pop()
        yield TaskView(task, task.name, task.coro)
        pending.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
