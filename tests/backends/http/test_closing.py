"""A request that is given up closes its socket at once, whatever the server does meanwhile."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Final

import anyio
import pytest
from wire_server import word

from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import ChatMessage, GenerationRequest
from mellea_sc.core.errors import BackendUnreachable
from mellea_sc.testing._loops.processes import open_descriptors

pytestmark = pytest.mark.anyio

ENDLESS: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + word("go on")


class DeafServer:
    """Sends the beginning of an answer when it has seen the beginning of a request; never reads on, never closes."""

    def __init__(self, tls: ssl.SSLContext | None, answer: bytes) -> None:
        self._tls = tls
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.has_begun: threading.Semaphore = threading.Semaphore(0)
        scheme = "http" if tls is None else "https"
        self.url: str = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._sockets.append(connection)
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                    self._sockets[-1] = connection
                connection.recv(1)
                connection.sendall(self._answer)
                self.has_begun.release()

    @property
    def descriptors(self) -> set[int]:
        return {each.fileno() for each in [self._listener, *self._sockets]}

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        for each in [self._listener, *self._sockets]:
            each.close()


@pytest.fixture(params=["http", "https"])
def tls(request: pytest.FixtureRequest, certificate: Path) -> ssl.SSLContext | None:
    """The server's TLS context, if it has one."""
    if request.param == "http":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context


@contextlib.contextmanager
def deaf_server(tls: ssl.SSLContext | None, answer: bytes) -> Generator[DeafServer]:
    server = DeafServer(tls, answer)
    try:
        yield server
    finally:
        server.close()


async def ask(backend: OpenAIBackend, size: int) -> None:
    async with backend.open(GenerationRequest((ChatMessage("user", "x" * size),))) as deltas:
        async for _ in deltas:
            break


async def wait_until_closed(server: DeafServer, before: set[int]) -> None:
    with anyio.fail_after(1):
        while set(open_descriptors()) - before - server.descriptors:  # noqa: ASYNC110 # nobody tells
            await anyio.sleep(0.01)


async def test_a_request_that_is_cancelled_while_the_server_does_not_read_it(
    own: str, tls: ssl.SSLContext | None, certificate: Path
) -> None:
    with deaf_server(tls, b"") as server:
        async with OpenAIBackend("m", base_url=server.url, verify=certificate).connected() as one:
            before = set(open_descriptors())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, one, 16_000_000)
                await anyio.to_thread.run_sync(server.has_begun.acquire)
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            await wait_until_closed(server, before)


async def test_an_answer_that_is_left_while_the_server_does_not_read(
    own: str, tls: ssl.SSLContext | None, certificate: Path
) -> None:
    with deaf_server(tls, ENDLESS) as server:
        async with OpenAIBackend("m", base_url=server.url, verify=certificate).connected() as one:
            before = set(open_descriptors())
            await ask(one, 1)
            await wait_until_closed(server, before)


async def test_the_timeout_of_connecting_includes_the_resolution_of_the_name(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()

    def hangs(*args: object, flags: int = 0, **kwargs: object) -> list[object]:
        flags = args[5] if len(args) > 5 and isinstance(args[5], int) else flags
        if not flags & socket.AI_NUMERICHOST:  # which is asked in the event loop's own thread
            is_over.wait(10)
        raise socket.gaierror(socket.EAI_NONAME, "no such host")

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    try:
        with anyio.fail_after(5), pytest.raises(BackendUnreachable):
            await ask(OpenAIBackend("m", base_url="http://model.invalid", timeout=0.05), 1)
    finally:
        is_over.set()
