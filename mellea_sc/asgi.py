"""Checked streams as responses of web servers: pure ASGI, on asyncio and trio.

::

    model ──> lanes ──> result.events() ──> SSEResponse ──send()──> server ──> client
                             ^                  │
                             └── lookahead ─────┘ a slow client slows its own model, nobody else's
      cancelled <── the client has gone, or the server shuts down

A response runs the stream in the server's task for the request. When the client disconnects, the block is left and
the model stops. An async generator that opens a session cannot do that, because it may be closed in another task than
the one that has started it (PEP 789).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

import anyio

from mellea_sc.core.errors import InvalidOption
from mellea_sc.runtime.failures import task_group
from mellea_sc.stdlib.streaming.events import (
    ChunkEvent,
    CompletedEvent,
    ErrorEvent,
    RetractEvent,
    StreamEvent,
)
from mellea_sc.stdlib.streaming.result import StreamChunkingResult

__all__ = ["SSEResponse", "Start", "TextResponse"]

Message: TypeAlias = MutableMapping[str, object]
Scope: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Start: TypeAlias = Callable[[], AbstractAsyncContextManager[StreamChunkingResult]]
"""Starts a stream when the response is sent: ``lambda: m.stream(…)``, or an ``@asynccontextmanager`` that opens a
session and yields the result of its stream."""

LOOKAHEAD: Final = 16
"""Released chunks that may wait for the client, where the stream does not say how many."""
HEARTBEAT: Final = 15.0
"""Seconds without an event, after which a comment is sent: proxies keep the connection, and its loss is noticed."""
CLIENT_GONE: Final = 499
"""The status for logs where the client has gone before the first text; it is nginx's."""


def _starlettes_response() -> type:
    """Starlette's class of responses if it is installed: FastAPI takes an endpoint's result, and its annotation, by it."""
    try:
        from starlette.responses import Response
    except ImportError:
        return object
    return Response


if TYPE_CHECKING:
    _Base = object
else:
    _Base = _starlettes_response()


class _Response(_Base):
    """The base class of the two responses.

    Endpoints of Starlette and FastAPI can return a response (where Starlette is installed, it is one of its own). Quart
    takes it as ``quart.Response(response)``. It is also an ASGI application itself.

    Args:
        start: Starts the stream.
        status: The HTTP status of the response.
        headers: More headers, or others.
        status_code: Another name of ``status``. FastAPI reads its default for the documentation of a route with this
            response class.
    """

    media_type: ClassVar[str]

    def __init__(
        self,
        start: Start,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        status_code: int = 200,
    ) -> None:
        if not callable(start):
            raise InvalidOption(
                f"give a function that starts the stream, lambda: m.stream(…), not {start!r}"
            )
        self.start: Start = start
        self.status_code: int = status_code if status is None else status
        self.background: Callable[[], Awaitable[None]] | None = None
        """Awaited after the response, as Starlette's tasks are."""
        all_headers = {
            "content-type": f"{self.media_type}; charset=utf-8",
            "cache-control": "no-store",
            "x-accel-buffering": "no",  # nginx would hold the chunks back
            **{name.lower(): value for name, value in (headers or {}).items()},
        }
        self.raw_headers: list[tuple[bytes, bytes]] = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in all_headers.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Nothing is sent before the first text is released, so what fails until then (a precondition, an
        unknown model) is raised before the response has begun, for the framework's error handlers.

        Raises:
            Exception: the error that ended the stream, after what was released before it has been sent.

        Cancellation: the model is stopped; so it is when the client goes, which is no error.
        """
        reply = _Reply(send, self.raw_headers)
        async with task_group() as tasks:
            watching = anyio.CancelScope()
            tasks.start_soon(_wait_for_disconnect, receive, watching, tasks.cancel_scope)
            await self._answer(reply, watching)
            tasks.cancel_scope.cancel("the response is complete")
        if not reply.has_begun:
            # The client has gone, and the server drops this. But a middleware (Starlette's BaseHTTPMiddleware) raises
            # an error if there is no response at all.
            with suppress(OSError):
                await reply.write(CLIENT_GONE, b"", is_last=True)
        if self.background is not None:
            await self.background()

    async def _answer(self, reply: _Reply, watching: anyio.CancelScope) -> None:
        async with self.start() as result:
            async for piece in _Pieces(result, self):
                if not reply.has_begun and result.error is not None:
                    break  # raised below, while the framework can still send an error response
                try:
                    await reply.write(self.status_code, piece)
                except OSError:
                    return  # the server raises this if the client has disconnected (ASGI 2.4)
            # After a complete response the server reports a disconnect too. That must not cancel this task, which
            # may still have an error to raise.
            watching.cancel()
            if result.error is None or (reply.has_begun and self.tells_errors):
                await reply.write(self.status_code, b"", is_last=True)
            await result.acomplete()

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, for frameworks that send it themselves; ``aclose()`` ends it, and so does a cancellation."""
        return _Body(self)

    tells_errors: ClassVar[bool]
    """Whether the body can say that it was broken off by an error; otherwise the connection is."""
    heartbeat: ClassVar[bytes | None]

    @staticmethod
    def written(event: StreamEvent, result: StreamChunkingResult) -> bytes:
        """What an event is in the body; mostly nothing."""
        raise NotImplementedError


class SSEResponse(_Response):
    """A checked stream as server-sent events, for ``EventSource`` and other clients.

    ::

        async def answer(request):                                  # Starlette; FastAPI likewise
            question = request.query_params["q"]
            return SSEResponse(lambda: m.stream(question, requirements=[…]))

    Each event's data is JSON:

    - no name: ``{"text": …, "chunk": …}``: released text, with the white space before it. Joined, it is the text.
    - ``retract``: ``{"chunk": …}``: the chunks from this one on do not count; another attempt replaces them.
    - ``error``: ``{"error": …}``: the stream has ended with an error, of this class. Its message is for the server's
      log, where it goes, for the response raises it.
    - ``done``: ``{"completed": …, "failures": […], "finish_reason": …}``: the end. ``completed`` is false where a check
      stopped the text or something cancelled it; the failures are the reasons.
    """

    media_type: ClassVar[str] = "text/event-stream"
    tells_errors: ClassVar[bool] = True
    heartbeat: ClassVar[bytes | None] = b": go on\n\n"

    @staticmethod
    def written(event: StreamEvent, result: StreamChunkingResult) -> bytes:
        """An event of a stream as a server-sent one."""
        match event:
            case ChunkEvent():
                data = {"text": event.before + event.text, "chunk": event.chunk_index}
                return _event(None, data)
            case RetractEvent():
                return _event("retract", {"chunk": event.chunk_index})
            case ErrorEvent():
                return _event("error", {"error": event.exception_type})
            case CompletedEvent():
                data = {
                    "completed": event.success,
                    "failures": [verdict.reason for _, verdict in result.streaming_failures],
                    "finish_reason": result.generation.finish_reason,
                }
                return _event("done", data)
            case _:
                return b""


class TextResponse(_Response):
    """A checked stream as plain text, piece by piece as it is released.

    Text that was sent cannot be taken back: with a strategy that asks anew, give the stream ``hold_back=True``. Where
    an error ends the stream, the connection is broken off, so that no client takes what it has for the whole.
    """

    media_type: ClassVar[str] = "text/plain"
    tells_errors: ClassVar[bool] = False
    heartbeat: ClassVar[bytes | None] = None

    @staticmethod
    def written(event: StreamEvent, result: StreamChunkingResult) -> bytes:  # noqa: ARG004
        """The text of an event."""
        if isinstance(event, RetractEvent):
            raise InvalidOption(
                "a plain text cannot take back what was sent: stream with hold_back=True, or as SSEResponse"
            )
        return (event.before + event.text).encode() if isinstance(event, ChunkEvent) else b""


def _event(name: str | None, data: Mapping[str, object]) -> bytes:
    # compact JSON has no line breaks, so one line of data is enough
    line = f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
    return (line if name is None else f"event: {name}\n{line}").encode(errors="replace")


class _Reply:
    """What is sent for one request; it begins with the first piece of the body."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self.has_begun: bool = False
        self._send = send
        self._headers = headers

    async def write(self, status: int, body: bytes, *, is_last: bool = False) -> None:
        """Send a piece of the body; before the first one, the status and the headers."""
        if not self.has_begun:
            await self._send(
                {"type": "http.response.start", "status": status, "headers": self._headers}
            )
            self.has_begun = True
        await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})


async def _wait_for_disconnect(
    receive: Receive, watching: anyio.CancelScope, response: anyio.CancelScope
) -> None:
    with watching:
        while (await receive())["type"] != "http.disconnect":
            pass  # the body of the request, if nobody has read it
        response.cancel("the client has gone")


class _Pieces:
    """The body of a response, as the stream's events come. A plain object: nothing stays open between two steps."""

    def __init__(self, result: StreamChunkingResult, response: _Response) -> None:
        self._result = result
        self._events = result.events(lookahead=LOOKAHEAD)
        self._response = response
        self._begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            with anyio.move_on_after(HEARTBEAT) as waiting:
                event = await anext(self._events)
                if piece := self._response.written(event, self._result):
                    self._begun = True
                    return piece
            if waiting.cancelled_caught and self._response.heartbeat and self._begun:
                return self._response.heartbeat


class _Body:
    """A body that starts its stream at the first step, and ends it with the last one, however that comes."""

    def __init__(self, response: _Response) -> None:
        self._response = response
        self._block = AsyncExitStack()
        self._pieces: _Pieces | None = None
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        try:
            if self._pieces is None:
                result = await self._block.enter_async_context(self._response.start())
                self._pieces = _Pieces(result, self._response)
            return await anext(self._pieces)
        except StopAsyncIteration:
            await self.aclose()  # raises what has ended the stream
            raise
        except BaseException as error:
            self._ended = True
            await self._block.__aexit__(type(error), error, error.__traceback__)  # noqa: ASYNC102 - it is theirs
            raise

    async def aclose(self) -> None:
        """Stop the model, if it is still at work, and wait for its cleanup.

        Raises:
            Exception: the error that has ended the stream.
        """
        self._ended = True
        await self._block.aclose()
