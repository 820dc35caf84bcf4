"""Responses of a web server: what is sent, what stops the model, and what a slow client slows."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import fastapi
import pytest
import quart
import starlette.responses
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from mellea_sc import (
    ChatContext,
    InvalidOption,
    MelleaSession,
    ModelError,
    MustNotMatch,
    RepairTemplateStrategy,
    start_session,
)
from mellea_sc.asgi import CLIENT_GONE, HEARTBEAT, LOOKAHEAD, Message, SSEResponse, TextResponse
from mellea_sc.stdlib import StreamChunkingResult
from mellea_sc.testing import Fail, Pause, ScriptedBackend, Stall

pytestmark = pytest.mark.anyio

SENTENCES = [f"Sentence {n}." for n in range(20)]
SLOWLY = [step for text in SENTENCES for step in (f"{text}\n", Pause(0.1))]


class Client:
    """The other side of an ASGI application: takes what is sent, and may go away.

    Args:
        leaves_after: It goes when so many messages have come.
        seconds: It takes so long for each of them.
        broken: What sending to it raises when it has gone.
    """

    def __init__(
        self,
        *,
        leaves_after: float = float("inf"),
        seconds: float = 0,
        broken: OSError | None = None,
    ) -> None:
        self.messages: list[Message] = []
        self.left_at: float | None = None
        self._leaves_after = leaves_after
        self._seconds = seconds
        self._broken = broken
        self._gone = anyio.Event()
        self._asked = False

    async def receive(self) -> Message:
        """The request, and then the end."""
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if self._broken is not None:
            await anyio.sleep_forever()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a message."""
        if self._gone.is_set() and self._broken is not None:
            raise self._broken
        self.messages.append(message)
        await anyio.sleep(self._seconds)
        if message.get("more_body") is False:
            self._gone.set()  # ASGI: after a response, a request is disconnected
            await anyio.sleep(0.001)  # and that may be seen before sending has returned
        if len(self.messages) >= self._leaves_after and not self._gone.is_set():
            self.left_at = anyio.current_time()
            self._gone.set()

    @property
    def body(self) -> str:
        """What it has read."""
        return b"".join(cast("bytes", one.get("body", b"")) for one in self.messages).decode()

    @property
    def is_complete(self) -> bool:
        """Whether the response has come to its end."""
        return self.messages[-1].get("more_body") is False

    @property
    def events(self) -> list[tuple[str, Any]]:
        """The server-sent events."""
        found = []
        for block in self.body.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
            if "data" in fields:
                found.append((fields.get("event", ""), json.loads(fields["data"])))
        return found

    async def asks(self, app: Callable[..., Any]) -> None:
        """Send the request."""
        await app({"type": "http"}, self.receive, self.send)


def session(*answers: object) -> MelleaSession:
    """A session whose model gives these answers."""
    script = cast("Any", answers[0] if len(answers) == 1 else list(answers))
    return start_session(backend=ScriptedBackend(lambda _: script))


async def test_released_text_comes_as_server_sent_events() -> None:
    async with session("One.\nTwo\N{HEAVY BLACK HEART}.  Three.") as m:
        client = Client()
        await client.asks(SSEResponse(lambda: m.stream("q", chunking="sentence")))
    head = client.messages[0]
    assert head["status"] == 200
    headers = dict(cast("list[tuple[bytes, bytes]]", head["headers"]))
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert headers[b"cache-control"] == b"no-store"
    assert client.events == [
        ("", {"text": "One.", "chunk": 0}),
        ("", {"text": "\nTwo\N{HEAVY BLACK HEART}.", "chunk": 1}),
        ("", {"text": "  Three.", "chunk": 2}),
        ("done", {"completed": True, "failures": [], "finish_reason": "stop"}),
    ]
    assert client.is_complete


async def test_plain_text_is_the_released_text_exactly() -> None:
    async with session("One.\n\n  Two.\tThree. ") as m:
        client = Client()
        response = TextResponse(lambda: m.stream("q"), status=201, headers={"X-Kind": "answer"})
        await client.asks(response)
    assert client.body == "One.\n\n  Two.\tThree. "
    assert client.messages[0]["status"] == 201
    assert (b"x-kind", b"answer") in cast("list[object]", client.messages[0]["headers"])
    assert client.is_complete


async def test_an_empty_answer_is_an_empty_body() -> None:
    async with session([]) as m:
        client = Client()
        await client.asks(TextResponse(lambda: m.stream("q")))
    assert client.body == ""
    assert [one["type"] for one in client.messages] == ["http.response.start", "http.response.body"]


async def test_a_check_that_fails_ends_the_events_with_its_reason() -> None:
    async with session(SLOWLY) as m:
        client = Client()
        await client.asks(SSEResponse(lambda: m.stream("q", requirements=[MustNotMatch("e 3")])))
    *texts, (name, last) = client.events
    assert [data["text"].strip() for _, data in texts] == SENTENCES[:3]
    assert name == "done"
    assert last["completed"] is False
    assert "e 3" in last["failures"][0]
    assert client.is_complete


async def test_text_that_is_retracted_is_said_to_be() -> None:
    answers = iter(["Good. Bad.", "Better."])
    async with start_session(backend=ScriptedBackend(lambda _: next(answers))) as m:
        client = Client()
        await client.asks(
            SSEResponse(
                lambda: m.stream(
                    "q",
                    requirements=[MustNotMatch("Bad")],
                    strategy=RepairTemplateStrategy(loop_budget=2),
                )
            )
        )
    assert [name for name, _ in client.events] == ["", "retract", "", "done"]
    assert client.events[1][1] == {"chunk": 0}
    assert client.events[2][1]["text"] == "Better."


@pytest.mark.parametrize("kind", [SSEResponse, TextResponse])
async def test_what_fails_before_the_first_text_is_raised_before_the_response_begins(
    kind: type[SSEResponse | TextResponse],
) -> None:
    async with session(Fail(ModelError("no such thing"))) as m:
        client = Client()
        with pytest.raises(ModelError, match="no such thing"):
            await client.asks(kind(lambda: m.stream("q")))
    assert not client.messages


async def test_an_error_in_the_middle_is_told_as_an_event_and_raised() -> None:
    async with session(["One. Two.", Fail(ModelError("the key was sk-1"))]) as m:
        client = Client()
        with pytest.raises(ModelError):
            await client.asks(SSEResponse(lambda: m.stream("q")))
    assert client.events[0][1]["text"] == "One."
    assert ("error", {"error": "ModelError"}) in client.events
    assert client.events[-1][0] == "done"
    assert "sk-1" not in client.body
    assert client.is_complete


async def test_plain_text_that_an_error_breaks_off_is_no_complete_response() -> None:
    async with session(["One. Two.", Fail(ModelError("gone"))]) as m:
        client = Client()
        with pytest.raises(ModelError):
            await client.asks(TextResponse(lambda: m.stream("q")))
    assert client.body.startswith("One.")
    assert not client.is_complete


@pytest.mark.parametrize("broken", [None, OSError("closed")], ids=["it says so", "sending fails"])
async def test_a_client_that_goes_stops_the_model(broken: OSError | None) -> None:
    backend = ScriptedBackend(SLOWLY)
    async with start_session(backend=backend) as m:
        client = Client(leaves_after=4, broken=broken)
        await client.asks(SSEResponse(lambda: m.stream("q")))
        assert backend.calls[0].outcome == "cancelled"
        assert backend.calls[0].deltas_sent < 8
        assert client.left_at is not None
        assert anyio.current_time() - client.left_at < 0.2


async def test_a_client_that_goes_before_the_first_text_stops_the_model() -> None:
    backend = ScriptedBackend([Stall()])
    async with start_session(backend=backend) as m:

        async def receive() -> Message:
            await anyio.sleep(1)
            return {"type": "http.disconnect"}

        client = Client()
        await SSEResponse(lambda: m.stream("q"))({"type": "http"}, receive, client.send)
        assert backend.calls[0].outcome == "cancelled"
        # said nevertheless, for middlewares that wait for a response
        assert [one.get("status") for one in client.messages] == [CLIENT_GONE, None]
        assert client.body == ""


async def test_a_middleware_that_waits_for_a_response_gets_one_when_the_client_goes_before() -> (
    None
):
    backend = ScriptedBackend([Stall()])
    seen: list[int] = []

    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        seen.append(response.status_code)
        return response

    async with start_session(backend=backend) as m:

        async def receive() -> Message:
            await anyio.sleep(1)
            return {"type": "http.disconnect"}

        app = BaseHTTPMiddleware(cast("Any", SSEResponse(lambda: m.stream("q"))), pass_on)
        client = Client()
        scope = {"type": "http", "headers": [], "path": "/"}
        await app(scope, cast("Any", receive), cast("Any", client.send))
        assert backend.calls[0].outcome == "cancelled"
    assert seen == [CLIENT_GONE]


async def test_one_response_can_be_the_application_for_many_requests() -> None:
    async with session("One.") as m:
        app = TextResponse(lambda: m.stream("q"))
        for _ in range(2):
            client = Client()
            await client.asks(app)
            assert (client.messages[0]["status"], client.body) == (200, "One.")


async def test_a_cancelled_request_stops_its_model_and_no_other() -> None:
    backend = ScriptedBackend(lambda _: SLOWLY)
    async with start_session(backend=backend) as m:
        clients = [Client(), Client()]

        async def cancelled() -> None:
            with anyio.move_on_after(0.5):
                await clients[0].asks(SSEResponse(lambda: m.stream("0")))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancelled)
            await clients[1].asks(SSEResponse(lambda: m.stream("1")))
    outcomes = {call.request.messages[-1].content[-1]: call.outcome for call in backend.calls}
    assert outcomes == {"0": "cancelled", "1": "ended"}
    assert [client.is_complete for client in clients] == [False, True]


async def test_a_slow_client_slows_only_its_own_model() -> None:
    backend = ScriptedBackend(lambda _: (f"Sentence {n}. " for n in range(1000)))
    async with start_session(backend=backend) as m:
        slow, fast = Client(seconds=1.0, leaves_after=6), Client()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(slow.asks, SSEResponse(lambda: m.stream("q")))
            tasks.start_soon(fast.asks, SSEResponse(lambda: m.stream("q")))
    by_sent = sorted(backend.calls, key=lambda call: call.deltas_sent)
    assert by_sent[0].outcome == "cancelled"
    assert by_sent[0].deltas_sent < 5 * LOOKAHEAD
    assert fast.is_complete
    assert len(fast.events) == 1002  # the chunks, the white space that ends the text, and the end


async def test_a_stream_keeps_the_lookahead_that_it_was_given() -> None:
    backend = ScriptedBackend(lambda _: (f"Sentence {n}. " for n in range(1000)))
    async with start_session(backend=backend) as m:
        client = Client(seconds=1.0, leaves_after=6)
        await client.asks(SSEResponse(lambda: m.stream("q", lookahead=1)))
    assert backend.calls[0].deltas_sent < LOOKAHEAD


async def test_a_long_silence_is_filled_with_comments() -> None:
    async with session(["One. ", Pause(2.5 * HEARTBEAT), "Two."]) as m:
        client = Client()
        await client.asks(SSEResponse(lambda: m.stream("q")))
    assert client.body.count("\n\n: ") == 2
    assert [data.get("text") for _, data in client.events] == ["One.", " Two.", None]


async def test_plain_text_has_no_comments() -> None:
    async with session(["One. ", Pause(2.5 * HEARTBEAT), "Two."]) as m:
        client = Client()
        await client.asks(TextResponse(lambda: m.stream("q")))
    assert client.body == "One. Two."


async def test_plain_text_cannot_be_retracted() -> None:
    answers = iter(["Good. Bad.", "Better."])
    async with start_session(backend=ScriptedBackend(lambda _: next(answers))) as m:
        response = TextResponse(
            lambda: m.stream(
                "q",
                requirements=[MustNotMatch("Bad")],
                strategy=RepairTemplateStrategy(loop_budget=2),
            )
        )
        with pytest.raises(InvalidOption, match="hold_back"):
            await Client().asks(response)


async def test_a_session_may_be_opened_for_the_request() -> None:
    backend = ScriptedBackend(lambda _: SLOWLY)

    @asynccontextmanager
    async def answer() -> AsyncGenerator[StreamChunkingResult]:
        async with (
            start_session(backend=backend, ctx=ChatContext()) as m,
            m.stream("q") as result,
        ):
            yield result

    complete, leaving = Client(), Client(leaves_after=3)
    await complete.asks(SSEResponse(answer))
    await leaving.asks(SSEResponse(answer))
    assert [call.outcome for call in backend.calls] == ["ended", "cancelled"]
    assert complete.is_complete


def test_a_stream_that_is_no_function_is_refused() -> None:
    with pytest.raises(InvalidOption, match="lambda"):
        SSEResponse(cast("Any", "q"))


# --- frameworks ---------------------------------------------------------------------------------


async def test_it_is_one_of_starlettes_responses() -> None:
    ran: Sequence[str] = []

    async def task() -> None:
        cast("list[str]", ran).append("task")

    async with session("One.") as m:
        response = SSEResponse(lambda: m.stream("q"))
        assert isinstance(response, starlette.responses.Response)
        assert isinstance(response, SSEResponse)
        response.headers["x-more"] = "1"
        response.background = task
        client = Client()
        await client.asks(response)
    assert (b"x-more", b"1") in cast("list[object]", client.messages[0]["headers"])
    assert ran == ["task"]


async def test_an_endpoint_of_fastapi_may_return_it() -> None:
    app = fastapi.FastAPI()
    async with session("One. Two.") as m:

        @app.get("/")
        async def endpoint(q: str) -> fastapi.Response:
            return cast("fastapi.Response", SSEResponse(lambda: m.stream(q)))

        client = Client()
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "headers": [],
            "query_string": b"q=x",
        }
        await app(cast("Any", scope), cast("Any", client.receive), cast("Any", client.send))
    assert [data.get("text") for _, data in client.events] == ["One.", " Two.", None]


def test_an_endpoint_of_fastapi_may_say_that_it_returns_it() -> None:
    app = fastapi.FastAPI()

    @app.get("/events")
    async def events() -> SSEResponse:
        raise NotImplementedError

    @app.get("/text")
    async def text() -> TextResponse:
        raise NotImplementedError

    assert set(app.openapi()["paths"]) == {"/events", "/text"}


@pytest.mark.parametrize(
    ("kind", "media"), [(SSEResponse, "text/event-stream"), (TextResponse, "text/plain")]
)
async def test_a_route_of_fastapi_may_have_it_as_its_response_class(
    kind: type[SSEResponse] | type[TextResponse], media: str
) -> None:
    app, client = fastapi.FastAPI(), Client()
    async with session("One.") as m:

        @app.get("/", response_class=cast("Any", kind))
        async def endpoint() -> Any:
            return kind(lambda: m.stream("q"), status_code=201)

        said = app.openapi()["paths"]["/"]["get"]["responses"]["200"]
        assert list(said["content"]) == [media]
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        await app(cast("Any", scope), cast("Any", client.receive), cast("Any", client.send))
    assert client.messages[0]["status"] == 201
    assert "One." in client.body


# --- bodies that a framework sends itself ---------------------------------------------------------


async def test_the_body_can_be_iterated() -> None:
    async with session("One.  Two.") as m:
        body = aiter(TextResponse(lambda: m.stream("q")))
        assert b"".join([piece async for piece in body]) == b"One.  Two."
        with pytest.raises(StopAsyncIteration):
            await anext(body)


async def test_a_body_raises_what_has_ended_its_stream() -> None:
    async with session(["One. Two.", Fail(ModelError("gone"))]) as m:
        body = aiter(TextResponse(lambda: m.stream("q")))
        assert await anext(body) == b"One."
        with pytest.raises(ModelError):
            while True:
                await anext(body)


async def test_a_body_that_is_left_stops_the_model() -> None:
    backend = ScriptedBackend(SLOWLY)
    async with start_session(backend=backend) as m:
        body = cast("AsyncGenerator[bytes]", aiter(TextResponse(lambda: m.stream("q"))))
        await anext(body)
        await body.aclose()
        assert backend.calls[0].outcome == "cancelled"


async def test_a_body_whose_reader_is_cancelled_stops_the_model() -> None:
    backend = ScriptedBackend(SLOWLY)
    async with start_session(backend=backend) as m:
        body = aiter(TextResponse(lambda: m.stream("q")))
        with anyio.move_on_after(0.45):
            while True:
                await anext(body)
        assert backend.calls[0].outcome == "cancelled"
        with pytest.raises(StopAsyncIteration):
            await anext(body)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("leaves_after", [3, 1000])
async def test_quart_sends_it(leaves_after: int) -> None:
    backend = ScriptedBackend([step for n in range(9) for step in (f"{n}. ", Pause(0.01))])
    app = quart.Quart(__name__)
    async with start_session(backend=backend) as m:

        @app.get("/")
        async def endpoint() -> quart.Response:
            body = TextResponse(lambda: m.stream("q"))
            return quart.Response(cast("Any", body), mimetype="text/plain")

        client = Client(leaves_after=leaves_after)
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "scheme": "http",
            "headers": [],
            "query_string": b"",
            "http_version": "1.1",
            "extensions": {},
        }
        await app(cast("Any", scope), cast("Any", client.receive), cast("Any", client.send))
        wanted = "ended" if leaves_after == 1000 else "cancelled"
        assert backend.calls[0].outcome == wanted
        assert client.body == "".join(f"{n}. " for n in range(9))[: len(client.body)]
