"""Many requests at once on one backend: each has its own answer or a typed error, and nothing is left open.

What the server does with a request and what the client does with the answer is drawn at random; a request tells the
server. The server runs in a thread with an event loop of its own, and is made of bare sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import random
import threading
from collections.abc import Generator
from typing import Final

import anyio
import attrs
import pytest
from http_clients import CLIENTS, http_client
from wire_server import DONE, STOP, word

from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import Backend, ChatMessage, GenerationRequest
from mellea_sc.core.errors import BackendBusy, BackendError, StreamInterrupted
from mellea_sc.testing.leaks import assert_no_leaks

pytestmark = pytest.mark.anyio

NIGHTLY: Final = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
REQUESTS: Final = 5000 if NIGHTLY else 250
AT_ONCE: Final = 24


@attrs.frozen
class Trial:
    """One request.

    Args:
        number: Its number; the answer and the error have it in their texts.
        does: What the server does: "answers", "refuses", "breaks off", "hangs", "floods".
        framing: "chunked", "sized" or "until closed".
        pieces: How the server sends: "one", "events" or "bytes".
        pause: Seconds before each piece.
        ends: What the server does afterwards: "keeps", "closes", or "lies" (closes without an announcement).
        reader: What the client does: "reads", "is slow", "leaves", "is cancelled".
        seconds: How slow it is, or when it is cancelled.
    """

    number: int
    does: str
    framing: str
    pieces: str
    pause: float
    ends: str
    reader: str
    seconds: float

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def words(self) -> list[str]:
        return [f"{self.number}.{part} " for part in range(self.number % 4 + 1)]

    @property
    def response(self) -> list[bytes]:
        """The response, event by event."""
        status, more = "200 OK", ""
        body = [*map(word, self.words), STOP, DONE]
        if self.does == "refuses":
            status, more = "503 Busy", "Content-Encoding: gzip\r\n"
            body = [gzip.compress(json.dumps({"error": f"not {self.number}."}).encode())]
        if self.framing == "chunked":
            more += "Transfer-Encoding: chunked\r\n"
            body = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in body] + [b"0\r\n\r\n"]
        elif self.framing == "sized":
            more += f"Content-Length: {sum(map(len, body))}\r\n"
        if self.framing == "until closed" or self.ends == "closes":
            more += "Connection: close\r\n"
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/event-stream\r\n{more}\r\n"
        return [head.encode(), *body]

    def judge(self, came: str | BackendError, *, is_whole: bool) -> None:
        told = f"{self}: {came!r}"
        if self.does == "refuses" and isinstance(came, BackendBusy):
            assert f"not {self.number}." in str(came), told
        elif self.does == "breaks off" and isinstance(came, StreamInterrupted):
            pass
        else:
            assert isinstance(came, str), told
            assert self.text.startswith(came), told
            assert not is_whole or (self.does == "answers" and came == self.text), told


def trials(seed: int) -> list[Trial]:
    rng = random.Random(seed)
    made: list[Trial] = []
    for number in range(REQUESTS):
        [does] = rng.choices(
            ["answers", "refuses", "breaks off", "hangs", "floods"], [80, 8, 4, 5, 3]
        )
        has_end = does in ("answers", "refuses")
        made.append(
            Trial(
                number,
                does,
                rng.choice(
                    ["chunked", "chunked", "sized", "sized", "until closed"][: 5 if has_end else 4]
                ),
                rng.choice(["one", "events", "events", "bytes"]),
                rng.choice([0.0, 0.001, 0.003, 0.01]),
                rng.choice(["keeps"] * 6 + ["closes", "lies"]),
                rng.choice(["reads", "reads", "is slow", "is slow", "leaves", "is cancelled"])
                if has_end or does == "breaks off"
                else "is cancelled",
                rng.choice([0.0, 0.001, 0.005, 0.02]),
            )
        )
    return made


class Server:
    """Answers each request as the trial in it says."""

    def __init__(self) -> None:
        self.url = ""
        self.left: list[int] = []
        """The numbers of the requests that it hung at, and whose connection was closed by the client."""
        self.hung: list[int] = []
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        self._is_ready.wait()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_over = asyncio.Event()
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self._is_ready.set()
            await self._is_over.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                said = json.loads(await reader.readexactly(size))["messages"][0]["content"]
                if not await self._answer(Trial(**json.loads(said)), reader, writer):
                    break
        writer.close()

    async def _answer(
        self, trial: Trial, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        pieces = trial.response
        if trial.does in ("hangs", "floods", "breaks off"):
            pieces = pieces[: trial.number % 3]
        if trial.pieces == "one":
            pieces = [b"".join(pieces)]
        elif trial.pieces == "bytes":
            pieces = [bytes([byte]) for piece in pieces for byte in piece]
        for piece in pieces:
            if trial.pause and trial.pieces != "bytes":
                await asyncio.sleep(trial.pause)
            writer.write(piece)
            await writer.drain()
        if trial.does in ("hangs", "floods"):
            self.hung.append(trial.number)
            with contextlib.suppress(OSError):
                while trial.does == "floods" or await reader.read(100):
                    writer.write(
                        b"5\r\n: ...\r\n" if trial.number % 3 else b"HTTP/1.1 103 E\r\n\r\n"
                    )
                    await writer.drain()
                    await asyncio.sleep(0.002)
            self.left.append(trial.number)
            return False
        return (
            trial.ends == "keeps" and trial.framing != "until closed" and trial.does != "breaks off"
        )

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def server() -> Generator[Server]:
    server = Server()
    yield server
    server.close()


async def attempt(backend: Backend, trial: Trial) -> None:
    request = GenerationRequest((ChatMessage("user", json.dumps(attrs.asdict(trial))),))
    came, is_whole = "", False
    try:
        with (
            anyio.fail_after(30),
            anyio.move_on_after(trial.seconds if trial.reader == "is cancelled" else None),
        ):
            async with backend.open(request) as deltas:
                async for delta in deltas:
                    came += delta.text
                    if trial.reader == "leaves":
                        break
                    if trial.reader == "is slow":
                        await anyio.sleep(trial.seconds)
                else:
                    is_whole = True
    except BackendError as error:
        trial.judge(error, is_whole=False)
    else:
        trial.judge(came, is_whole=is_whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLIENTS)
async def test_each_of_many_requests_has_its_own_answer_or_a_typed_error_and_leaves_nothing_open(
    kind: str, server: Server, anyio_backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo = iter(trials(random.randrange(2**32) if NIGHTLY else 7))

    async def work(backend: Backend) -> None:
        for trial in todo:
            await attempt(backend, trial)

    async with (
        assert_no_leaks(),
        http_client(kind, anyio_backend_name, monkeypatch) as client,
        OpenAIBackend("m", base_url=server.url, client=client).connected() as backend,
    ):
        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(work, backend)
        with anyio.fail_after(5):
            while sorted(server.left) != sorted(server.hung):  # noqa: ASYNC110 # it tells nobody
                await anyio.sleep(0.01)
