"""Where things were made: noted while somebody watches.

Sockets, threads, child processes, memory object streams and async generators do not remember who
made them. While a watch is on, making one also notes the calling code, in every thread.
"""

from __future__ import annotations

import functools
import inspect
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, contextmanager
from types import AsyncGeneratorType, FrameType
from typing import TypeAlias, cast

from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from mellea_sc.testing._loops.tasks import code_place, is_plumbing

__all__ = ["Origins", "suspended_in", "watch_origins"]

AsyncGen: TypeAlias = "AsyncGeneratorType[object, object]"
MemoryStream: TypeAlias = MemoryObjectReceiveStream[object] | MemoryObjectSendStream[object]


class Origins:
    """What was made since the watch began, and where."""

    __slots__ = ("abandoned", "generators", "memory_streams", "processes", "sockets", "threads")

    def __init__(self) -> None:
        self.memory_streams: list[tuple[MemoryStream, str]] = []
        self.generators: dict[int, tuple[weakref.ref[AsyncGen], str]] = {}
        """By identity: those that were begun."""
        self.abandoned: list[tuple[str, str | None]] = []
        """Where generators were suspended when nobody held them any more, and who began them."""
        self.sockets: dict[int, str] = {}
        """By file descriptor."""
        self.threads: dict[int | None, str] = {}
        """By identity."""
        self.processes: dict[int, str] = {}
        """By process id."""

    def note(self, made: object) -> None:
        where = _caller()
        match made:
            case MemoryObjectReceiveStream() | MemoryObjectSendStream():
                self.memory_streams.append((cast("MemoryStream", made), where))
            case socket.socket():
                self.sockets[made.fileno()] = where
            case threading.Thread():
                self.threads[made.ident] = where
            case subprocess.Popen():
                self.processes[made.pid] = where
            case _:
                self.generators[id(made)] = weakref.ref(cast("AsyncGen", made)), where

    def note_abandoned(self, generator: AsyncGen) -> None:
        _, where = self.generators.get(id(generator), (None, None))
        self.abandoned.append((suspended_in(generator), where))


def suspended_in(generator: AsyncGen) -> str:
    """Where an async generator has stopped."""
    frame: FrameType | None = generator.ag_frame  # the types do not say that it may be gone
    return code_place(generator.ag_code, frame.f_lineno if frame is not None else None)


def _caller() -> str:
    frame: FrameType | None = inspect.currentframe()
    outermost = frame
    while frame is not None:
        if not is_plumbing(frame) and frame.f_globals.get("__name__") != __name__:
            return code_place(frame.f_code, frame.f_lineno)
        outermost, frame = frame, frame.f_back
    return code_place(outermost.f_code, outermost.f_lineno) if outermost else "?"


_watches: list[Origins] = []
_patches = ExitStack()
_lock = threading.RLock()


@contextmanager
def watch_origins() -> Generator[Origins]:
    """Note what is made within the block; several may be open at once, in any order.

    Async generators are noted in the thread that runs the block only.
    """
    origins = Origins()
    with _lock:
        if not _watches:
            _patch(MemoryObjectReceiveStream, "__post_init__")
            _patch(MemoryObjectSendStream, "__post_init__")
            _patch(socket.socket, "__init__")
            _patch(threading.Thread, "start")
            _patch(subprocess.Popen, "__init__")
        _watches.append(origins)
    try:
        with _watch_generators(origins):
            yield origins
    finally:
        with _lock:
            _watches.remove(origins)
            if not _watches:
                _patches.close()


def _patch(owner: type, method: str) -> None:
    original = cast("Callable[..., object]", getattr(owner, method))

    @functools.wraps(original)
    def noting(self: object, *args: object, **kwargs: object) -> object:
        result = original(self, *args, **kwargs)
        for watch in tuple(_watches):
            watch.note(self)
        return result

    setattr(owner, method, noting)
    _patches.callback(setattr, owner, method, original)


@contextmanager
def _watch_generators(origins: Origins) -> Generator[None]:
    before = sys.get_asyncgen_hooks()
    watching = True

    def first_iteration(generator: AsyncGenerator[object]) -> None:
        if watching:
            origins.note(generator)
        if before.firstiter is not None:
            before.firstiter(generator)

    def abandon(generator: AsyncGenerator[object]) -> None:
        if watching:
            origins.note_abandoned(cast("AsyncGen", generator))
        if before.finalizer is not None:
            before.finalizer(generator)

    sys.set_asyncgen_hooks(firstiter=first_iteration, finalizer=abandon)
    try:
        yield
    finally:
        watching = False
        if sys.get_asyncgen_hooks().firstiter is first_iteration:
            sys.set_asyncgen_hooks(*before)
