"""asyncio's event loop in virtual time."""

from __future__ import annotations

import asyncio
import random
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from math import inf
from typing import TYPE_CHECKING, NoReturn, TypeVar, TypeVarTuple, Unpack, cast

from anyio._backends._asyncio import WorkerThread

from mellea_sc.testing._loops.deadlock import (
    NETWORK_REFUSED,
    THREAD_PATIENCE,
    WORKER_PATIENCE,
    Bystanders,
    standstill,
)

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["VirtualEventLoop", "is_running"]

T = TypeVar("T")
Args = TypeVarTuple("Args")

_SLICE = 0.01  # real seconds between two looks at whether a thread has finished


class VirtualEventLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while anything can run, and jumps when nothing can.

    Args:
        seed: Shuffles the order of tasks that are ready at the same moment; ``None``: as asyncio
            does it, first come, first served.
    """

    # asyncio's own: what is ready to run, and a heap of what is due later.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, seed: int | None = None) -> None:
        self._virtual_now = 0.0
        self._jobs: set[asyncio.Future[object]] = set()
        self._random = None if seed is None else random.Random(seed)
        super().__init__(_VirtualSelector(self))

    def time(self) -> float:
        """The virtual time, in seconds since the loop was made."""
        return self._virtual_now

    def _next_due(self) -> float:
        return self._scheduled[0].when() if self._scheduled else inf

    def _jump(self, when: float) -> None:
        self._virtual_now = max(self._virtual_now, when)

    def _shuffle(self) -> None:
        if self._random is not None and len(self._ready) > 1:
            shuffled = shuffle_tasks(list(self._ready), self._random)
            for index, handle in enumerate(shuffled):  # another thread may be appending
                self._ready[index] = handle

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Args]], T], *args: *Args
    ) -> asyncio.Future[T]:
        """Run a function in a thread; virtual time stands still meanwhile."""
        job = super().run_in_executor(executor, func, *args)
        self._jobs.add(cast("asyncio.Future[object]", job))
        job.add_done_callback(self._jobs.discard)
        return job

    def _busy_workers(self) -> set[object]:
        workers = (t for t in threading.enumerate() if isinstance(t, WorkerThread))
        return {
            *self._jobs,
            *(w for w in workers if w.loop is self and not w.stopping and w not in w.idle_workers),
        }

    async def create_connection(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refused: there is no network."""
        raise RuntimeError(NETWORK_REFUSED)

    create_unix_connection = create_connection
    create_server = create_connection
    create_unix_server = create_connection
    create_datagram_endpoint = create_connection
    sock_connect = create_connection
    subprocess_exec = create_connection
    subprocess_shell = create_connection


def is_running() -> bool:
    """Whether the running event loop is one in virtual time."""
    return isinstance(asyncio._get_running_loop(), VirtualEventLoop)


def shuffle_tasks(handles: list[asyncio.Handle], rng: random.Random) -> list[asyncio.Handle]:
    """Another order in which an event loop could run these.

    Only steps of different tasks change places, and never over a plain callback: asyncio promises
    that those run in the order in which they were scheduled.
    """
    result: list[asyncio.Handle] = []
    steps: list[tuple[int, asyncio.Handle]] = []

    def mix() -> None:
        waiting: dict[int, deque[asyncio.Handle]] = {}
        for task, handle in steps:
            waiting.setdefault(task, deque()).append(handle)
        order = [task for task, _ in steps]
        rng.shuffle(order)
        result.extend(waiting[task].popleft() for task in order)
        steps.clear()

    for handle in handles:
        task = _stepped_task(handle)
        if task is not None:
            steps.append((id(task), handle))
        else:
            mix()
            result.append(handle)
    mix()
    return result


def _stepped_task(handle: asyncio.Handle) -> asyncio.Task[object] | None:
    callback: object = getattr(handle, "_callback", None)
    owner: object = getattr(callback, "__self__", None)
    name = getattr(callback, "__name__", "")
    if isinstance(owner, asyncio.Task) and name not in _TASK_METHODS:
        return cast("asyncio.Task[object]", owner)
    return None


_TASK_METHODS = {name for name in dir(asyncio.Task) if not name.startswith("_")}


class _VirtualSelector(selectors.BaseSelector):
    """Moves the loop's clock where a selector would sleep; knows no file but the loop's own pipe."""

    def __init__(self, loop: VirtualEventLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()
        self._bystanders = Bystanders()
        self._silent: set[object] = set()

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> selectors.SelectorKey:
        if self._real.get_map():
            raise RuntimeError(NETWORK_REFUSED)
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop._shuffle()
        events = self._real.select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        when = self._loop._next_due()
        if when == inf:
            events, awaited = self._wait_for(self._may_wake, THREAD_PATIENCE)
            if not events:
                raise standstill()
        else:
            events, awaited = self._wait_for(self._may_work, WORKER_PATIENCE)
            if not events:
                self._silent |= awaited
                self._loop._jump(when)
        if events:
            self._silent.clear()
        return events

    def _may_wake(self) -> set[object]:
        return self._loop._busy_workers() | self._bystanders.may_wake()

    def _may_work(self) -> set[object]:
        return (self._loop._busy_workers() | self._bystanders.newcomers()) - self._silent

    def _wait_for(
        self, others: Callable[[], set[object]], patience: float
    ) -> tuple[list[tuple[selectors.SelectorKey, int]], set[object]]:
        """Wait in real time for as long as there are others; also those that stayed silent."""
        until = time.monotonic() + patience
        while (awaited := others()) and time.monotonic() < until:
            if events := self._real.select(_SLICE):
                return events, set()
        return self._real.select(0), awaited
