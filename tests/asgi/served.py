"""An application whose model never comes to its end; it says what became of each of its answers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from mellea_sc import MelleaSession, start_session
from mellea_sc.asgi import SSEResponse, TextResponse
from mellea_sc.testing import Pause, ScriptedBackend
from mellea_sc.testing.scripted import Step

COUNT = 10_000


def talk() -> Iterator[Step]:
    """Sentences, a hundred a second."""
    for number in range(COUNT):
        yield f"Sentence {number}. "
        yield Pause(0.01)


backend = ScriptedBackend(lambda _: talk())


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[dict[str, MelleaSession]]:
    """One session for the application; says at the end what became of the answers."""
    async with start_session(backend=backend) as m:
        yield {"m": m}
        m.cancel("the server is shutting down")
    print(json.dumps(outcomes()), flush=True)


def outcomes() -> dict[str, int]:
    """How many answers had which end."""
    ends = [call.outcome for call in backend.calls]
    return {end: ends.count(end) for end in ends}


async def sse(request: Request) -> Response:
    """A stream as server-sent events."""
    m: MelleaSession = request.state.m
    response = SSEResponse(lambda: m.stream("q", requirements=[]))
    assert isinstance(response, Response)
    return response


async def text(request: Request) -> Response:
    """A stream as plain text."""
    m: MelleaSession = request.state.m
    response = TextResponse(lambda: m.stream("q"))
    assert isinstance(response, Response)
    return response


async def value(request: Request) -> Response:
    """The whole answer, which the model never gives."""
    m: MelleaSession = request.state.m
    return PlainTextResponse(await (await m.ainstruct("q")))


async def chat(websocket: WebSocket) -> None:
    """A stream over a WebSocket, as the guide has it."""
    m: MelleaSession = websocket.state.m
    await websocket.accept()
    question = await websocket.receive_text()

    async def cancel_when_gone(scope: anyio.CancelScope) -> None:
        async for _ in websocket.iter_text():
            pass
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_when_gone, tasks.cancel_scope)
        async with m.stream(question) as result:
            with suppress(WebSocketDisconnect):
                async for piece in result.atext():
                    await websocket.send_text(piece)
        tasks.cancel_scope.cancel()


async def told(_: Request) -> Response:
    """What became of the answers."""
    return JSONResponse(outcomes())


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/sse", sse),
        Route("/text", text),
        Route("/value", value),
        WebSocketRoute("/chat", chat),
        Route("/outcomes", told),
    ],
)
