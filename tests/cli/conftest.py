"""The command, in this process and as one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import pytest
from click.testing import CliRunner, Result

Spawn: TypeAlias = Callable[..., "subprocess.Popen[str]"]
Invoke: TypeAlias = Callable[..., Result]


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

    def run(*args: str) -> Result:
        from mellea_sc.cli.commands import cli

        return CliRunner().invoke(cli, args, prog_name="mellea-sc")

    return run


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start the command as a process of its own; gone after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "mellea_sc", *args],
            stdin=subprocess.DEVNULL,
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
