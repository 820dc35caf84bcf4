"""Servers that nobody here wrote, as servers.toml describes them: started, asked how busy they are, stopped.

A server is a child process of the kind that the embedded engine is: it does not outlive this process, whichever
way that ends.
"""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx

from mellea_sc.backends import OpenAIBackend
from mellea_sc.backends.engine.child import Child

HERE = Path(__file__).parent
KEY = "sk-the-right-key-0123456789"
START_TIMEOUT = 300.0
"""Seconds until a server that is slow to start can be asked, on a machine that has other things to do."""


@attrs.frozen
class Server:
    """A server's description; servers.toml says what the fields mean."""

    name: str
    command: Sequence[str]
    ready: str
    model: str
    slots: int
    behind: str | None = None
    files: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    variables: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    running: str | None = None
    options: Mapping[str, object] = attrs.field(factory=dict, hash=False)
    endless: Mapping[str, object] = attrs.field(factory=dict, hash=False)
    can: Sequence[str] = ()
    errors: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    slow: bool = False


def described() -> dict[str, Server]:
    """All servers of servers.toml, by name."""
    tables: dict[str, dict[str, Any]] = tomllib.loads((HERE / "servers.toml").read_text())
    fields = {field.name for field in attrs.fields(Server)}
    return {
        name: Server(name, **{key: value for key, value in table.items() if key in fields})
        for name, table in tables.items()
    }


@attrs.define
class Running:
    """A server of the description, on a port of its own; it need not have been started yet.

    Args:
        server: Which.
        weights: The GGUF file that it serves.
        upstream: The one that it stands in front of.
    """

    server: Server
    weights: Path
    upstream: Running | None = None
    port: int = attrs.field(factory=lambda: free_port())
    _child: Child | None = None

    @property
    def url(self) -> str:
        """Where it is, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def openai_url(self) -> str:
        """Where its OpenAI protocol is."""
        return f"{self.url}/v1"

    @property
    def model(self) -> str:
        """What it calls the model."""
        return self._filled(self.server.model)

    def can(self, ability: str) -> bool:
        """Whether it has one of the abilities of servers.toml."""
        return ability in self.server.can

    def start(self) -> None:
        """Start it, and wait until it can be asked."""
        self._save_model()
        directory = Path(tempfile.mkdtemp(prefix=f"server-{self.server.name}-"))
        for name, text in self.server.files.items():
            (directory / name).write_text(self._filled(text, directory))
        variables = {
            name: self._filled(value, directory) for name, value in self.server.variables.items()
        }
        command = [self._filled(word, directory) for word in self.server.command]
        self._child = Child(command, directory, variables)
        deadline = time.monotonic() + START_TIMEOUT
        while not self._is_ready():
            assert not self._child.has_ended(), self._child.last_words()
            assert time.monotonic() < deadline, self._child.last_words()
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill it, if it runs."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    async def is_busy(self) -> bool:
        """Whether it works on any request, by its own metrics; without any, by its processor time."""
        if self.server.running is None:
            before = self._processor_seconds()
            await anyio.sleep(0.3)
            return self._processor_seconds() - before > 0.02
        if self.upstream is not None:
            return await self.upstream.is_busy()
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            response = await client.get(
                f"{self.url}/metrics", headers={"authorization": f"Bearer {KEY}"}
            )
        return sum(_values(response.text, self.server.running)) > 0

    async def seconds_until_idle(self) -> float:
        """Wait until it works on no request any more, and say how long that took."""
        start = time.monotonic()
        with anyio.fail_after(60):
            while await self.is_busy():  # noqa: ASYNC110  # only the server knows
                await anyio.sleep(0.02)
        return time.monotonic() - start

    def _save_model(self) -> None:
        """The model as transformers loads it, if that is what it serves and nobody has saved it before."""
        if "{model_dir}" in self.server.command and not Path(self._filled("{model_dir}")).exists():
            words = ("{python}", "{here}/save_model.py", "{weights}", "{model_dir}")
            subprocess.run([self._filled(word) for word in words], check=True)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}{self.server.ready}", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def _processor_seconds(self) -> float:
        assert self._child is not None
        used = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")

    def _filled(self, text: str, directory: Path | None = None) -> str:
        home = os.environ.get("MELLEA_SC_SERVERS_IN")
        environment = Path(sys.prefix) if home is None else Path(home, self.server.name)
        programs = environment / ("Scripts" if sys.platform == "win32" else "bin")
        values = {
            "python": str(programs / "python"),
            "bin": str(programs),
            "weights": str(self.weights),
            "model_dir": str(environment.with_name("model")),
            "dir": str(directory),
            "here": str(HERE),
            "port": str(self.port),
            "key": KEY,
            "running_url": "" if self.upstream is None else self.upstream.url,
        }
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", value)
        return text


@contextmanager
def installed(name: str, weights: Path) -> Iterator[Running]:
    """A server that is not started yet, in front of one that is, if it stands in front of one.

    Both are stopped at the end.
    """
    server = described()[name]
    with ExitStack() as stack:
        upstream = None
        if server.behind is not None:
            upstream = stack.enter_context(installed(server.behind, weights))
            upstream.start()
        running = Running(server, weights, upstream)
        stack.callback(running.stop)
        yield running


def backend_for(server: Running, **settings: str) -> OpenAIBackend:
    """A backend of ours for a server, with the settings that the guide names for it."""
    known = inspect.signature(OpenAIBackend).parameters
    prefills = {"prefills": True} if server.can("continue") and "prefills" in known else {}
    arguments = {"base_url": server.openai_url, "api_key": KEY, **settings}
    return OpenAIBackend(arguments.pop("model_id", server.model), **arguments, **prefills)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _values(metrics: str, name: str) -> Iterator[float]:
    """The values of a metric in Prometheus' text format."""
    for line in metrics.splitlines():
        if line.partition("{")[0].partition(" ")[0] == name:
            yield float(line.rpartition(" ")[2])
