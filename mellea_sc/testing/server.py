"""A model server on loopback that answers as a test has written down, misbehaves on demand, and records what it saw.

It speaks both wire protocols over real sockets, so that what is tested is everything down to them::

    async with ModelServer(Answer(["Hello", " world."], delay=0.1)) as server:
        backend = OpenAIBackend("any", base_url=server.openai_url)
        ...
        await server.requests[0].wait_closed()
        assert server.requests[0].ended == "client_closed"

Programs without an event loop, and child processes, are served from a thread::

    with ModelServer.in_thread(Answer("Hello.")) as server:
        session = start_session("ollama", base_url=server.ollama_url)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import anyio
import anyio.abc
import anyio.from_thread

from mellea_sc.testing._server.connection import Connection, Reply
from mellea_sc.testing._server.values import Answer, Ended, RecordedRequest
from mellea_sc.testing._server.wire import OllamaWire, OpenAIWire, Wire

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Answer", "Ended", "ModelServer", "RecordedRequest", "ServerScript"]

ServerScript: TypeAlias = Answer | Sequence[Answer] | Callable[[RecordedRequest], Answer]
"""The answer to every request; answers in turn; or a function of the request."""


class ModelServer:
    """A model server on loopback; serves while its ``async with`` block runs.

    It answers ``POST /v1/chat/completions`` and ``POST /api/chat`` by the script, and
    ``GET /v1/models`` and ``GET /api/tags`` with the names of its models. Leaving the block closes
    every connection. A script that raises, or has too few answers, fails the block.

    Args:
        script: What to answer.
        models: The names of its models.
        uds: Path of a unix socket to serve on, instead of a port.
    """

    def __init__(
        self,
        script: ServerScript,
        *,
        models: Sequence[str] = ("test-model",),
        uds: str | None = None,
    ) -> None:
        self._answer = _by_turns(script)
        self._models = tuple(models)
        self._uds = uds
        self._port = 0
        self._connections = count()
        self._portal: anyio.from_thread.BlockingPortal | None = None
        self._running: AsyncExitStack | None = None
        self._arrival = anyio.Event()
        self.requests: list[RecordedRequest] = []
        """What was received so far, in order, the lists of models included."""

    @classmethod
    @contextmanager
    def in_thread(
        cls,
        script: ServerScript,
        *,
        models: Sequence[str] = ("test-model",),
        uds: str | None = None,
    ) -> Generator[Self]:
        """A server in a thread of its own, with an event loop of its own.

        Its async methods, and those of its records, are called through :attr:`portal`.
        """
        server = cls(script, models=models, uds=uds)
        with (
            anyio.from_thread.start_blocking_portal() as portal,
            portal.wrap_async_context_manager(server),
        ):
            server._portal = portal
            yield server

    @property
    def portal(self) -> anyio.from_thread.BlockingPortal:
        """The way into the thread's event loop: ``server.portal.call(server.wait_for, 2)``.

        Raises:
            RuntimeError: the server does not run in a thread of its own.
        """
        if self._portal is None:
            raise RuntimeError("only a server made with ModelServer.in_thread has a portal")
        return self._portal

    @property
    def url(self) -> str:
        """Where it is, without a path."""
        return "http://localhost" if self._uds is not None else f"http://127.0.0.1:{self._port}"

    @property
    def openai_url(self) -> str:
        """What to give the openai backend as ``base_url``."""
        return f"{self.url}/v1"

    @property
    def ollama_url(self) -> str:
        """What to give the ollama backend as ``base_url``."""
        return self.url

    async def wait_for(self, count: int) -> None:
        """Wait until so many requests have been received."""
        while len(self.requests) < count:
            await self._arrival.wait()

    async def __aenter__(self) -> Self:
        stack = AsyncExitStack()
        await stack.enter_async_context(self._serving())
        self._running = stack
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._running is not None
        # Not a cleanup on the way out: it is here that the block's task group is left.
        return await self._running.__aexit__(exc_type, exc_value, traceback)  # noqa: ASYNC102

    @asynccontextmanager
    async def _serving(self) -> AsyncGenerator[None]:
        listener: anyio.abc.Listener[anyio.abc.SocketStream]
        if self._uds is not None:
            listener = await anyio.create_unix_listener(self._uds)
        else:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            self._port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, self._serve)
            yield
            tasks.cancel_scope.cancel()

    async def _serve(self, stream: anyio.abc.SocketStream) -> None:
        await Connection(stream, next(self._connections), self._reply).serve()

    def _reply(self, record: RecordedRequest) -> Reply:
        self.requests.append(record)
        arrival, self._arrival = self._arrival, anyio.Event()
        arrival.set()
        model = record.json.get("model")
        name = model if isinstance(model, str) else ""
        wire: Wire = OllamaWire(name) if record.path.startswith("/api/") else OpenAIWire(name)
        match record.method, record.path:
            case "POST", "/v1/chat/completions" | "/api/chat":
                return Reply(self._answer(record), wire)
            case "GET", "/v1/models" | "/api/tags":
                body = wire.models(self._models)
                return Reply(Answer(body=body, content_type="application/json"), wire)
            case _:
                return Reply(Answer(status=404, body=b"404 page not found"), wire)


def _by_turns(script: ServerScript) -> Callable[[RecordedRequest], Answer]:
    if callable(script):
        return script
    if isinstance(script, Answer):
        return lambda _: script
    answers = iter(script)

    def next_answer(record: RecordedRequest) -> Answer:
        for answer in answers:
            return answer
        raise AssertionError(f"the script has no more answers, and one was asked for: {record!r}")

    return next_answer
