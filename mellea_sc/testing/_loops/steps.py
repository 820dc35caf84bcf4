"""Counting the steps of tasks: whenever one of them has given control back to the event loop.

The one place that hooks into the schedulers of asyncio and trio.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from mellea_sc.runtime.loops import current as loops_of_ours

if TYPE_CHECKING:
    import asyncio

__all__ = ["watch_steps", "watch_steps_elsewhere"]

AnyCoroutine: TypeAlias = Coroutine[object, object, object]


def watch_steps(after_step: Callable[[], None]) -> AbstractContextManager[None]:
    """Call a function whenever a task that was started within the block is suspended."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return _watch_trio(after_step)
    return _watch_asyncio(after_step)


@contextmanager
def _watch_trio(after_step: Callable[[], None]) -> Generator[None]:
    import trio

    class Watch(trio.abc.Instrument):
        def __init__(self) -> None:
            self.started: set[trio.lowlevel.Task] = set()

        def task_spawned(self, task: trio.lowlevel.Task) -> None:
            self.started.add(task)

        def task_exited(self, task: trio.lowlevel.Task) -> None:
            self.started.discard(task)

        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            if task in self.started:
                after_step()

    watch = Watch()
    trio.lowlevel.add_instrument(watch)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(watch)


@contextmanager
def _watch_asyncio(after_step: Callable[[], None]) -> Generator[None]:
    import asyncio

    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def make_task(
        loop: asyncio.AbstractEventLoop, coroutine: AnyCoroutine, **options: object
    ) -> asyncio.Future[object]:
        counted = _Counted(coroutine, after_step)
        if before is not None:
            return before(loop, counted, **options)
        return asyncio.Task(counted, loop=loop, **options)  # type: ignore[arg-type] # passed on

    loop.set_task_factory(cast("asyncio.events._TaskFactory", make_task))
    try:
        yield
    finally:
        loop.set_task_factory(before)


@contextmanager
def watch_steps_elsewhere(
    after_step: Callable[[asyncio.AbstractEventLoop], None],
) -> Generator[Sequence[asyncio.Task[object]]]:
    """Call a function whenever a task in another thread is suspended or has ended.

    Watched are the asyncio loops that are made within the block. The function is called in the loop's
    thread, and given the loop.

    Yields:
        The tasks that were started, as they are started.
    """
    import asyncio

    here = threading.get_ident()
    loops: weakref.WeakSet[asyncio.BaseEventLoop] = weakref.WeakSet()
    tasks: list[asyncio.Task[object]] = []
    Loop = asyncio.BaseEventLoop  # noqa: N806 # it is a class
    make, start = Loop.__init__, Loop.create_task
    preferred = loops_of_ours.prefers_uvloop

    @functools.wraps(make)
    def init(self: asyncio.BaseEventLoop) -> None:
        make(self)
        loops.add(self)

    @functools.wraps(start)
    def create_task(self: asyncio.BaseEventLoop, coroutine: Any, **options: Any) -> Any:
        if self not in loops or threading.get_ident() == here:
            return start(self, coroutine, **options)
        counted: Any = _Counted(coroutine, lambda: after_step(self))
        task: asyncio.Task[object] = start(self, counted, **options)
        task.add_done_callback(lambda _: after_step(self))
        tasks.append(task)
        return task

    loops_of_ours.prefers_uvloop = False
    setattr(Loop, "__init__", init)  # noqa: B010 # a plain assignment is an error to type checkers
    setattr(Loop, "create_task", create_task)  # noqa: B010
    try:
        yield tasks
    finally:
        setattr(Loop, "__init__", make)  # noqa: B010
        setattr(Loop, "create_task", start)  # noqa: B010
        loops_of_ours.prefers_uvloop = preferred


class _Counted(Coroutine[object, object, object]):
    """A coroutine that tells when it is suspended."""

    def __init__(self, coroutine: AnyCoroutine, after_step: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._after_step = after_step

    def send(self, value: object) -> object:
        yielded = self._coroutine.send(value)
        self._after_step()
        return yielded

    def throw(self, *error: Any) -> object:
        yielded = self._coroutine.throw(*error)
        self._after_step()
        return yielded

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[object, object, object]:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> object:
        # Its name, its frame, whether it has begun: as the event loop asks for them.
        return getattr(self._coroutine, name)
