"""A server that is told, byte by byte, what to send and when to close: for connections, not for answers."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeVar

import anyio
import anyio.abc

Play = Callable[[anyio.abc.SocketStream], Awaitable[bool]]
"""Answers one request; true: the connection is kept."""


class RawServer:
    """Answers its requests in turn; the last play is for all that follow."""

    def __init__(self, *plays: Play) -> None:
        self.plays = plays
        self.url = ""
        self.connections: list[int] = []
        """For each request, which connection it came on."""
        self.open = 0
        self.heads: list[bytes] = []

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        number = self.open = self.open + 1
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async with stream:
                while await self._read(stream):
                    self.connections.append(number)
                    play = self.plays[min(len(self.connections), len(self.plays)) - 1]
                    if not await play(stream):
                        return

    async def _read(self, stream: anyio.abc.SocketStream) -> bool:
        received = b""
        try:
            while b"\r\n\r\n" not in received:
                received += await stream.receive()
            head, _, body = received.partition(b"\r\n\r\n")
            self.heads.append(head)
            [size] = [
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ]
            while len(body) < size:
                body += await stream.receive()
        except anyio.EndOfStream:
            return False
        return True


class Server(Protocol):
    """Serves the connections of a listener."""

    url: str

    async def serve(self, stream: anyio.abc.SocketStream) -> None: ...


S = TypeVar("S", bound=Server)


@asynccontextmanager
async def served(server: S) -> AsyncGenerator[S]:
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        server.url = f"http://127.0.0.1:{port}"
        tasks.start_soon(listener.serve, server.serve)
        yield server
        tasks.cancel_scope.cancel()


def raw_server(*plays: Play) -> AbstractAsyncContextManager[RawServer]:
    return served(RawServer(*plays))


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(text: str, behind: bytes = b"") -> bytes:
    """A whole answer of OpenAI's protocol, and what is sent in the same breath behind it."""
    event = b'data: {"choices": [{"delta": {"content": "%s"}, "finish_reason": "stop"}]}\n\n'
    return HEAD + chunk(event % text.encode()) + chunk(b"data: [DONE]\n\n") + chunk(b"") + behind


def sends(*pieces: bytes, keep: bool = True) -> Play:
    """Sends these pieces and keeps the connection, or closes it."""

    async def play(stream: anyio.abc.SocketStream) -> bool:
        for piece in pieces:
            await stream.send(piece)
        return keep

    return play


async def hangs_up(stream: anyio.abc.SocketStream) -> bool:
    return False


async def resets(stream: anyio.abc.SocketStream) -> bool:
    sock = stream.extra(anyio.abc.SocketAttribute.raw_socket)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False
