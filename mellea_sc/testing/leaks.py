"""Nothing is left behind: checked around any program."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Literal, TypeAlias

import anyio
import anyio.lowlevel
import attrs

from mellea_sc.core.question import several
from mellea_sc.testing._errors.origins import Origins, suspended_in, watch_origins
from mellea_sc.testing._loops.processes import (
    child_processes,
    describe_descriptor,
    open_descriptors,
)
from mellea_sc.testing._loops.tasks import TaskView, all_tasks
from mellea_sc.testing._loops.threads import innermost_place, is_idle

__all__ = ["Leak", "LeakKind", "Leaked", "assert_no_leaks", "assert_no_leaks_of_threads"]

LeakKind: TypeAlias = Literal[
    "task", "async generator", "memory stream", "thread", "file descriptor", "child process"
]
"""What can be left behind."""

_CHECKPOINTS: Final = 10  # for callbacks that the event loop still has to run
_REAL_SECONDS: Final = 1.0  # for threads and processes that are about to end


@attrs.frozen
class Leak:
    """Something that is still there.

    Args:
        kind: What it is.
        what: Which one it is.
        where: Where it was made, as far as that is known.
    """

    kind: LeakKind
    what: str
    where: str | None = None

    def __str__(self) -> str:
        made = f", made in {self.where}" if self.where else ""
        return f"{self.kind} {self.what}{made}"


class Leaked(AssertionError):
    """A program left something behind.

    Args:
        leaks: What it left.
    """

    def __init__(self, leaks: tuple[Leak, ...]) -> None:
        super().__init__(f"{len(leaks)} left behind:" + "".join(f"\n  {leak}" for leak in leaks))
        self.leaks = leaks


@asynccontextmanager
async def assert_no_leaks(*, ignore: Sequence[str] = ()) -> AsyncGenerator[None]:
    """Check that a block leaves nothing behind that was not there before.

    Looked for are tasks, async generators that were neither finished nor closed (one that is left to
    the garbage collector, too), memory object streams of anyio, threads, file descriptors (sockets,
    too) and child processes, with a little patience for what is just ending. Idle threads of the pools of anyio, trio and asyncio
    stay, and tqdm's monitor. Whatever else runs in the process meanwhile should make nothing that lasts.

    Args:
        ignore: Texts: a leak whose line in the report contains one of them is none. For what a library
            starts once and keeps, as ``"thread 'OtelBatchSpanProcessor'"``.

    Raises:
        Leaked: something is left. When the block raises an error itself, that one is raised, with
            a note of what is left.

    Cancellation: a cancelled block is not checked.
    """
    ignored = several("ignore", ignore)
    with watch_origins() as origins:
        before = _Inventory(origins, ignore=ignored)
        try:
            yield
        except Exception as error:
            if leaks := await before.left_behind():  # noqa: ASYNC120 - then nothing is checked
                error.add_note(str(Leaked(leaks)))
            raise
        if leaks := await before.left_behind():
            raise Leaked(leaks)


@contextmanager
def assert_no_leaks_of_threads(tasks: Callable[[], Sequence[TaskView]]) -> Generator[None]:
    """The blocking half of :func:`assert_no_leaks`, for a program that runs event loops in other threads.

    Args:
        tasks: Those of these loops that are still there.

    Raises:
        Leaked: something is left. When the block raises anything itself, that is raised, with a note.
    """
    with watch_origins() as origins:
        before = _Inventory(origins, tasks)
        try:
            yield
        except BaseException as error:
            if leaks := before.left_behind_after_a_while():
                error.add_note(str(Leaked(leaks)))
            raise
        if leaks := before.left_behind_after_a_while():
            raise Leaked(leaks)


class _Inventory:
    """What was there at some time, by identity."""

    def __init__(
        self,
        origins: Origins,
        all_tasks: Callable[[], Sequence[TaskView]] = all_tasks,
        ignore: Sequence[str] = (),
    ) -> None:
        self._origins = origins
        self._ignore = tuple(ignore)
        self._all_tasks = all_tasks
        self._tasks = {view.task for view in all_tasks()}
        self._threads = {thread for thread in threading.enumerate() if not is_idle(thread)}
        self._descriptors = open_descriptors()
        self._processes = child_processes()

    async def left_behind(self) -> tuple[Leak, ...]:
        """What is there now and was not then, after a little patience."""
        leaks = self._new()
        checkpoints = 0
        until = time.monotonic() + _REAL_SECONDS
        while leaks and (checkpoints < _CHECKPOINTS or any(leak.kind in _SLOW for leak in leaks)):
            if checkpoints == _CHECKPOINTS:
                gc.collect()
            elif checkpoints > _CHECKPOINTS:
                if time.monotonic() > until:
                    break
                # In real time, without the event loop's clock, which may be a virtual one.
                time.sleep(0.01)  # noqa: ASYNC251
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            checkpoints += 1
            leaks = self._new()
        return leaks

    def left_behind_after_a_while(self) -> tuple[Leak, ...]:
        """The same where no event loop runs: nothing here has to be given a step."""
        until = time.monotonic() + _REAL_SECONDS
        while (leaks := self._new()) and time.monotonic() < until:
            gc.collect()
            time.sleep(0.01)
        return leaks

    def _new(self) -> tuple[Leak, ...]:
        leaks = tuple(self._found())
        if not self._ignore:
            return leaks
        return tuple(it for it in leaks if not any(text in str(it) for text in self._ignore))

    def _found(self) -> Iterator[Leak]:
        for view in self._all_tasks():
            if view.task not in self._tasks:
                yield Leak("task", str(view).removeprefix("task "))
        for reference, where in list(self._origins.generators.values()):
            generator = reference()
            if generator is not None and generator.ag_frame is not None:
                yield Leak("async generator", f"suspended in {suspended_in(generator)}", where)
        for place, begun_in in self._origins.abandoned:
            what = f"forgotten, not closed, when suspended in {place}"
            yield Leak("async generator", what, begun_in)
        for stream, where in self._origins.memory_streams:
            if not stream._closed:  # noqa: SLF001 - anyio does not say it otherwise
                yield Leak("memory stream", f"{type(stream).__name__} {stream.statistics()}", where)
        for thread in threading.enumerate():
            if thread not in self._threads and not is_idle(thread):
                what = f"{thread.name!r}, now in {innermost_place(thread)}"
                yield Leak("thread", what, self._origins.threads.get(thread.ident))
        for descriptor, leads_to in open_descriptors().items():
            if self._descriptors.get(descriptor) != leads_to:
                what = describe_descriptor(descriptor, leads_to)
                yield Leak("file descriptor", what, self._origins.sockets.get(descriptor))
        for pid, command in child_processes().items():
            if pid not in self._processes:
                yield Leak("child process", f"{pid} {command}", self._origins.processes.get(pid))


_SLOW: Final = {"thread", "child process", "file descriptor"}
