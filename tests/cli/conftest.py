"""The command, in this process and as one of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import pytest
from click.testing import CliRunner, Result

Spawn: TypeAlias = Callable[..., "subprocess.Popen[str]"]
Invoke: TypeAlias = Callable[..., Result]


class Terminal:
    """The command on a terminal of its own, as wide as told."""

    def __init__(self, *args: str, width: int = 80, env: Mapping[str, str] | None = None) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        given = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mellea_sc", *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**given, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **(env or {})},
        )
        os.close(theirs)
        self._seen = bytearray()

    def read_until(self, expected: str | None) -> str:
        """What has come since the last call, up to and with what is expected, or to the end."""
        while expected is None or expected.encode() not in self._seen:
            ready, _, _ = select.select([self._ours], [], [], 60)
            assert ready, f"{expected!r} did not come, but {bytes(self._seen)!r}"
            try:
                self._seen += os.read(self._ours, 65536)
            except OSError:  # so Linux says that nobody has the other end any more
                assert expected is None, f"{expected!r} did not come, but {bytes(self._seen)!r}"
                break
        found = expected.encode() if expected is not None else b""
        end = self._seen.index(found) + len(found) if found else len(self._seen)
        seen, self._seen = bytes(self._seen[:end]), self._seen[end:]
        return seen.decode(errors="replace").replace("\r\n", "\n")

    def write(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Start the command on a terminal; gone after the test."""
    started: list[Terminal] = []

    def start(*args: str, width: int = 80, env: Mapping[str, str] | None = None) -> Terminal:
        started.append(Terminal(*args, width=width, env=env))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture(params=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> str:
    """The event loop that the command is told to use."""
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "MELLEA_SC_BACKEND",
        "MELLEA_SC_MODEL",
        "OLLAMA_HOST",
        "OPENAI_BASE_URL",
        "OPENAI_API_KEY",
        "FORCE_COLOR",
        "TTY_COMPATIBLE",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def invoke() -> Invoke:
    """Run the command in this process."""

    def run(*args: str, input: str | None = None) -> Result:
        from mellea_sc.cli.commands import cli

        return CliRunner().invoke(cli, args, input=input, prog_name="mellea-sc")

    return run


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start the command as a process of its own; gone after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(
        *args: str, env: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "mellea_sc", *args],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **(env or {})},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
