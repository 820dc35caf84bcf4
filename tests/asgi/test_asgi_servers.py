"""Real servers in front of checked streams: clients that go, and a shutdown, stop every model."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import cast

import attrs
import httpx
import pytest
from websockets.sync.client import connect

CLIENTS = 120
AT_A_TIME = 12
PATIENCE = 60.0
"""Seconds, for hangs only."""

COMMANDS = {
    "uvicorn": [
        *("-m", "uvicorn", "served:app", "--fd", "{fd}", "--log-level", "warning"),
        *("--timeout-graceful-shutdown", "1", "--ws", "auto"),
    ],
    "hypercorn on trio": [
        *("-m", "hypercorn", "served:app", "--bind", "fd://{fd}", "--worker-class", "trio"),
        *("--graceful-timeout", "1"),
    ],
}


@attrs.frozen
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, wanted: dict[str, int]) -> None:
        """Wait until this has become of the answers."""
        deadline = time.monotonic() + PATIENCE
        while (outcomes := httpx.get(f"{self.url}/outcomes").json()) != wanted:
            assert time.monotonic() < deadline, outcomes
            time.sleep(0.05)


@pytest.fixture(params=COMMANDS)
def served(request: pytest.FixtureRequest) -> Generator[Served]:
    """The application on a server."""
    with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as listener:
        fd = listener.fileno()
        command = [part.format(fd=fd) for part in COMMANDS[cast("str", request.param)]]
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=Path(__file__).parent,
            pass_fds=[fd],
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        port = listener.getsockname()[1]
    with process:
        try:
            yield Served(process, port)
        finally:
            # hypercorn has a worker process, which would outlive it
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def read_some_of(path: str) -> Callable[[Served], None]:
    """A client that asks, reads the first sentences and goes."""

    def client(served: Served) -> None:
        with closing(socket.create_connection(("127.0.0.1", served.port), PATIENCE)) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            got = b""
            while b"Sentence 2." not in got:
                more = connection.recv(4096)
                assert more, got
                got += more

    return client


def talk_a_little(served: Served) -> None:
    """A client that asks over a WebSocket, reads some pieces and goes."""
    with connect(f"ws://127.0.0.1:{served.port}/chat") as connection:
        connection.send("q")
        pieces = [connection.recv(PATIENCE) for _ in range(3)]
    assert pieces == ["Sentence 0.", " Sentence 1.", " Sentence 2."]


@pytest.mark.parametrize(
    "client",
    [read_some_of("/sse"), read_some_of("/text"), talk_a_little],
    ids=["sse", "text", "websocket"],
)
def test_1_10_every_client_that_goes_stops_its_model(
    served: Served, client: Callable[[Served], None]
) -> None:
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        list(threads.map(client, [served] * CLIENTS))
    served.wait_for({"cancelled": CLIENTS})
    served.process.send_signal(signal.SIGTERM)
    out, err = served.process.communicate(timeout=PATIENCE)
    assert json.loads(out.splitlines()[-1]) == {"cancelled": CLIENTS}
    assert "Traceback" not in err, err


@pytest.mark.parametrize("path", ["/sse", "/value"])
def test_a_shutdown_stops_the_models_within_its_grace(served: Served, path: str) -> None:
    with closing(socket.create_connection(("127.0.0.1", served.port), PATIENCE)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        served.wait_for({"running": 1})
        if path == "/sse":
            assert connection.recv(100)
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        out, _ = served.process.communicate(timeout=PATIENCE)
    assert json.loads(out.splitlines()[-1]) == {"cancelled": 1}
    assert time.monotonic() - began < PATIENCE / 2  # its answer would go on for 100 s
