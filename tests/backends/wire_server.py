"""A server on loopback that sends exactly the bytes it is told to: what no well-behaved one can send."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Literal, TypeAlias

Step: TypeAlias = bytes | float | Literal["close", "reset", "hold"]
"""Bytes to send, seconds to wait, or what becomes of the connection, which is else kept for the next request."""

Script: TypeAlias = Callable[[int], Sequence[Step]]
"""What to do with the n-th request of all, counted from 0."""


class RawServer:
    """Reads requests whole and answers each by the script; a thread for each connection.

    Attributes:
        connections: For each request, on which connection it came.
        kept: Released for each answer that was sent whole, on a connection that was then kept.
        url: Where it is.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self.connections: list[int] = []
        self.kept: threading.Semaphore = threading.Semaphore(0)
        self.url: str = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._sockets.append(connection)
                self._start(self._serve, connection, len(self._sockets))

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while _read_request(connection):
                with self._lock:
                    count = len(self.connections)
                    self.connections.append(number)
                if not self._answer(connection, self._script(count)):
                    return
                self.kept.release()

    def _answer(self, connection: socket.socket, steps: Sequence[Step]) -> bool:
        for step in steps:
            match step:
                case bytes():
                    connection.sendall(step)
                case "close":
                    return False
                case "reset":
                    connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                    return False
                case "hold":
                    connection.settimeout(30)
                    while connection.recv(65536):
                        pass
                    return False
                case _:
                    time.sleep(step)
        return True

    def close(self) -> None:
        """Close everything and wait for the threads."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)
            assert not thread.is_alive()


@contextlib.contextmanager
def raw_server(script: Script | Sequence[Step]) -> Generator[RawServer]:
    """A raw server for a block; steps alone are the answer to every request."""
    server = RawServer(script if callable(script) else lambda _: script)
    try:
        yield server
    finally:
        server.close()


def _read_request(connection: socket.socket) -> bool:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return False
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < size:
        if not (more := connection.recv(65536)):
            return False
        body += more
    return True


def chunked(*pieces: bytes, kind: str = "text/event-stream", end: bool = True) -> bytes:
    """A response in chunks."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head.encode() + body + (b"0\r\n\r\n" if end else b"")


def sized(
    body: bytes, *, kind: str = "text/event-stream", status: str = "200 OK", more: int = 0
) -> bytes:
    """A response with a length, which may be wrong."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body) + more}\r\n\r\n"
    )
    return head.encode() + body


def event(**choice: object) -> bytes:
    """One of OpenAI's events."""
    return b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


def word(text: str, reason: str | None = None) -> bytes:
    """An event with a text."""
    return event(delta={"content": text}, finish_reason=reason)


def line(text: str = "", **fields: object) -> bytes:
    """One of Ollama's lines."""
    return json.dumps({"message": {"content": text}, "done": False, **fields}).encode() + b"\n"


STOP = event(delta={}, finish_reason="stop")
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}\n\n'
DONE = b"data: [DONE]\n\n"
