"""The process of the embedded engine: shared by all sessions in this process, with a reference count.

Whoever needs the engine holds a *lease*. The first lease starts the process. The last one to end kills it and
waits until it has ended; no engine is kept for later. Sessions in several event loops and threads may share an
engine. They share only a child process and a count, under a lock that is never held while waiting, and each of
them polls whether the engine is ready. So no task starts the engine on behalf of others, and the cancellation of
one caller does not affect the others.

If an engine dies, the requests that it was serving raise an error, and the next request starts another one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import attrs

from mellea_sc.backends.engine.child import Child
from mellea_sc.core.errors import BackendError, EngineError, MissingExtra

START_TIMEOUT: Final = 60.0
"""Seconds that loading a small model may take."""
LOADING_SPEED: Final = 20e6
"""Bytes per second, at least, at which a large model must be loaded."""
_LOOK_EVERY: Final = 0.01
_SOCKET_PATH_LIMIT: Final = 100
"""The length of a unix socket's path that every system accepts."""
_NOTICE_DEATH: Final = 0.5
"""Seconds that a process may take to end after its connections are lost."""


def require_engine() -> None:
    """Check that the engine is installed.

    Raises:
        MissingExtra: it is not.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise MissingExtra(
            "the embedded model needs the package xllamacpp: pip install 'mellea_sc[local]'"
        )


def _default_command() -> tuple[str, ...]:
    # Run by its path, and without the current directory in sys.path, so that importing the package is avoided.
    return (sys.executable, "-P", str(Path(__file__).with_name("_main.py")))


@attrs.frozen
class EngineSpec:
    """What identifies an engine: leases with equal specs share one.

    Args:
        model: Absolute path of the GGUF file.
        command: The program that serves it; gets the path of a directory as its last argument.
    """

    model: Path
    command: tuple[str, ...] = attrs.field(factory=_default_command)


class Engine:
    """One process that serves a model, or is starting.

    Args:
        spec: The model and the command.

    Raises:
        EngineError: the process cannot be started.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.users = 0
        self.key: Final = secrets.token_urlsafe(24)
        self.url: str = "http://localhost"
        self._is_ready = False
        self._failure: str | None = None
        if not sys.executable:
            raise EngineError("the engine cannot be started: sys.executable is empty")
        try:
            self._limit: Final = START_TIMEOUT + spec.model.stat().st_size / LOADING_SPEED
            directory = Path(tempfile.mkdtemp(prefix="mellea-sc-"))
        except OSError as error:
            raise EngineError(f"the engine cannot be started: {error}") from error
        self._deadline: Final = time.monotonic() + self._limit
        path = directory / "engine.sock"  # the server recognises a socket by this ending
        self.uds: Final = str(path) if _can_be_socket(path) else None
        try:
            config = {"model": str(spec.model), "host": self.uds or "127.0.0.1", "key": self.key}
            (directory / "config").write_text(json.dumps(config), encoding="utf-8")
            self.child: Final = Child([*spec.command, str(directory)], directory)
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise EngineError(f"the engine cannot be started: {error}") from error

    def is_dead(self) -> bool:
        """Whether it has failed or ended."""
        return self._failure is not None or self.child.has_ended()

    async def ready(self) -> None:
        """Wait until it accepts requests.

        Raises:
            EngineError: it did not start, or died.

        Cancellation: the engine is not affected.
        """
        while not self._look():  # noqa: ASYNC110  # an event would belong to one event loop
            await anyio.sleep(_LOOK_EVERY)

    async def check(self, error: BackendError) -> None:
        """After a lost connection: raise an error if the cause is that the engine has died.

        Raises:
            EngineError: from the error given.
        """
        await self.child.wait(_NOTICE_DEATH)
        if self.child.has_ended():
            raise EngineError(self._death_message("the embedded engine died")) from error

    def _look(self) -> bool:
        if self._is_ready and not self.child.has_ended():
            return True
        if self._failure is None:
            # Asked before the report is read, so that a report that was written just before the end is not missed.
            ended = self.child.has_ended()
            report = _read_report(self.child.directory)
            if "error" in report:
                self._failure = self._why_not_started(report)
            elif ended:
                self._failure = self._death_message(
                    "the embedded engine died"
                    if self._is_ready
                    else "the embedded engine did not start"
                )
            elif report:
                if self.uds is None:
                    self.url = report["url"]
                self._is_ready = True
                return True
            elif time.monotonic() > self._deadline:
                self._failure = (
                    f"the embedded engine was not ready within {self._limit:.0f} seconds"
                )
                self.child.kill()
            else:
                return False
        raise EngineError(self._failure)

    def _death_message(self, what: str) -> str:
        words = self.child.last_words()
        return f"{what} ({self.child.how_it_ended()})" + (f"; it said:\n{words}" if words else "")

    def _why_not_started(self, report: dict[str, str]) -> str:
        message = report.get("message", "")
        if "libgomp" in message:
            return (
                "the embedded engine needs the system's library libgomp: "
                f"apt-get install libgomp1, or the like ({message})"
            )
        if report["error"] == "import":
            return (
                "the package xllamacpp cannot be imported by "
                f"{self.spec.command[0]}: {message}. pip install 'mellea_sc[local]' into that Python"
            )
        words = self.child.last_words() or message
        return f"the embedded engine did not start with {self.spec.model}; it said:\n{words}"


def _can_be_socket(path: Path) -> bool:
    return hasattr(socket, "AF_UNIX") and len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT


def _read_report(directory: Path) -> dict[str, str]:
    try:
        report: dict[str, str] = json.loads((directory / "report").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return report


class Lease:
    """The right to a running engine, for as long as a block lasts.

    Args:
        spec: The engine.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._engine: Engine | None = None

    async def engine(self) -> Engine:
        """The engine, ready for requests; a new one if the last one has died.

        Raises:
            EngineError: it does not start.

        Cancellation: an engine that is still starting is stopped when the lease ends, unless others need it.
        """
        gone = None
        if self._engine is None or self._engine.is_dead():
            gone, self._engine = self._engine, _acquire(self._spec)
        engine = self._engine
        if gone is not None:
            await _release(gone)
        await engine.ready()
        return engine

    async def end(self) -> None:
        """Give the engine back.

        Cancellation: shielded, and bounded in time.
        """
        engine, self._engine = self._engine, None
        if engine is not None:
            await _release(engine)


@asynccontextmanager
async def lease(spec: EngineSpec) -> AsyncGenerator[Lease]:
    """A block with an engine, which is ready when the block is entered.

    Raises:
        EngineError: it does not start.
    """
    held = Lease(spec)
    try:
        await held.engine()
        yield held
    finally:
        await held.end()  # noqa: ASYNC102 - it shields and bounds itself


_lock = threading.Lock()
_engines: dict[EngineSpec, Engine] = {}


def _acquire(spec: EngineSpec) -> Engine:
    with _lock:
        engine = _engines.get(spec)
        if engine is None or engine.is_dead():
            engine = _engines[spec] = Engine(spec)
        engine.users += 1
        return engine


async def _release(engine: Engine) -> None:
    with _lock:
        engine.users -= 1
        if engine.users:
            return
        if _engines.get(engine.spec) is engine:
            del _engines[engine.spec]
    await engine.child.aclose()


def _forget_in_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _engines.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_fork)
