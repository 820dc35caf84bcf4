"""Both HTTP backends over real sockets: what they give, what they raise, and what the server sees of it."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from http_clients import CLIENTS, http_client
from httpcore._backends.auto import AutoBackend

from mellea_sc.backends.ollama import OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import Backend, ChatMessage, Delta, GenerationRequest, Usage
from mellea_sc.core.errors import (
    BackendBusy,
    BackendError,
    BackendProtocolError,
    BackendRejected,
    BackendUnreachable,
    InvalidOption,
    MissingExtra,
    ModelError,
    ModelNotFound,
    NotAuthorized,
    StreamInterrupted,
)
from mellea_sc.testing.server import Answer, ModelServer

pytestmark = pytest.mark.anyio

Make = Callable[[ModelServer], Backend]

REQUEST = GenerationRequest((ChatMessage("user", "hi"),))


@pytest.fixture(params=["ollama", *CLIENTS])
async def make(
    request: pytest.FixtureRequest, anyio_backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Make]:
    """Makes the backend of one of the two protocols, the one of them on every client."""
    if request.param == "ollama":
        yield lambda server: OllamaBackend("m", base_url=server.ollama_url)
        return
    async with http_client(request.param, anyio_backend_name, monkeypatch) as client:
        yield lambda server: OpenAIBackend(
            "m", base_url=server.openai_url, api_key="sk-secret", client=client
        )


async def read(backend: Backend, into: list[Delta] | None = None) -> list[Delta]:
    deltas: list[Delta] = [] if into is None else into
    async with backend.open(REQUEST) as stream:
        async for delta in stream:
            deltas.append(delta)  # noqa: PERF401 - what came before an error is kept
    return deltas


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def test_an_answer_is_its_text_its_finish_reason_and_its_usage(make: Make) -> None:
    answer = Answer(["He", "llo ", "wörld \U0001f600"], finish_reason="length", usage=Usage(3, 5))
    async with ModelServer(answer) as server:
        deltas = await read(make(server))
    assert text_of(deltas) == "Hello wörld \U0001f600"
    assert [d.finish_reason for d in deltas if d.finish_reason] == ["length"]
    assert [d.usage for d in deltas if d.usage] == [Usage(3, 5)]
    assert server.requests[0].ended == "complete"
    assert server.requests[0].messages == REQUEST.messages


async def test_the_wire_is_always_streamed(make: Make) -> None:
    async with ModelServer(Answer()) as server:
        await read(make(server))
    assert server.requests[0].json["stream"] is True


@pytest.mark.parametrize("sent", [1, 2, 3])
async def test_a_delta_is_handed_out_before_the_next_one_is_sent(make: Make, sent: int) -> None:
    async with ModelServer(Answer(["a", "b", "c", "d"], stall_after=sent)) as server:
        async with make(server).open(REQUEST) as stream:
            with anyio.fail_after(5):
                text = "".join([(await anext(stream)).text for _ in range(sent)])
            assert text == "abcd"[:sent]
            assert server.requests[0].deltas_sent == sent
        await server.requests[0].wait_closed()


async def test_deltas_of_one_read_come_without_a_task_switch_between_them(make: Make) -> None:
    async with ModelServer(Answer(["x"] * 50)) as server:
        switches = 0
        seen: list[int] = []

        async def count_switches() -> None:
            nonlocal switches
            while True:
                await anyio.lowlevel.checkpoint()
                switches += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_switches)
            async with make(server).open(REQUEST) as stream:
                seen.extend([switches async for delta in stream if delta.text])
            tasks.cancel_scope.cancel()
    assert len(seen) == 50
    # They come in one write, and so in one read, or in two when the head of the response ends the first.
    assert len(set(seen)) <= 2


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (Answer(cut_after=2), StreamInterrupted, "Hello, "),
        (Answer(cut_after=0), StreamInterrupted, ""),
        (Answer(cut_after=2, reset=True), StreamInterrupted, "Hello, "),
        (Answer(half_close=True), StreamInterrupted, "Hello, world."),
        (Answer(omit_end=True), StreamInterrupted, "Hello, world."),
        (Answer(body=b""), StreamInterrupted, ""),
        (Answer(malformed_after=2), BackendProtocolError, "Hello, "),
        (Answer(huge_line=20_000_000), BackendProtocolError, "Hello, world."),
        (Answer(body=b"data: \xff\xfe\n\n"), BackendProtocolError, ""),
        (Answer(body=b"data: 17\n\n"), BackendProtocolError, ""),
        (Answer(body=b'{"half": '), StreamInterrupted, ""),
        (Answer(body=b'data: {"half": '), StreamInterrupted, ""),
        (Answer(body=b"<p>a page</p>", content_type="text/html"), BackendProtocolError, ""),
        (Answer(error_after=2, error="out of memory"), ModelError, "Hello, "),
        (Answer(status=500), BackendRejected, ""),
        (Answer(status=400, error="context too long"), BackendRejected, ""),
        (Answer(status=302, headers={"location": "/there"}), BackendRejected, ""),
        (Answer(status=401), NotAuthorized, ""),
        (Answer(status=403), NotAuthorized, ""),
        (Answer(status=404, error="model 'm' not found"), ModelNotFound, ""),
        (Answer(status=404, body=b"404 page not found"), BackendRejected, ""),
        (Answer(status=429, retry_after=7), BackendBusy, ""),
        (Answer(status=503), BackendBusy, ""),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_what_goes_wrong_is_a_typed_error_after_all_that_was_received(
    make: Make, answer: Answer, kind: type[BackendError], text: str
) -> None:
    deltas: list[Delta] = []
    with anyio.fail_after(10):
        async with ModelServer(answer) as server, make(server).connected() as backend:
            with pytest.raises(BackendError) as caught:
                await read(backend, deltas)
            await server.requests[0].wait_closed()
    assert type(caught.value) is kind
    assert text_of(deltas) == text
    assert "sk-secret" not in f"{caught.value!r} {vars(caught.value)}"


async def test_an_error_status_says_what_the_server_said_and_what_to_do(make: Make) -> None:
    answers = [
        Answer(status=404, error="model 'm' not found"),
        Answer(status=503, error="loading", retry_after=2.5),
        Answer(status=500, error="it broke"),
    ]
    async with ModelServer(answers) as server:
        backend = make(server)
        with pytest.raises(ModelNotFound, match=r"not found.*(ollama pull m|/models)"):
            await read(backend)
        with pytest.raises(BackendBusy, match="loading") as busy:
            await read(backend)
        with pytest.raises(BackendRejected, match=r"500.*it broke") as rejected:
            await read(backend)
    assert busy.value.retry_after == 2.5
    assert rejected.value.status == 500
    assert "it broke" in rejected.value.body


async def test_a_key_that_a_server_repeats_is_in_no_error() -> None:
    def echo(request: Any) -> Answer:
        return Answer(status=401, error=f"what is {request.headers['authorization']}?")

    async with ModelServer(echo) as server:
        backend = OpenAIBackend("m", base_url=server.openai_url, api_key="sk-secret")
        with pytest.raises(NotAuthorized, match=r"what is Bearer \*\*\*") as caught:
            await read(backend)
    assert server.requests[0].headers["authorization"] == "Bearer sk-secret"
    assert "secret" not in f"{caught.value!r} {caught.value.body} {server.requests}"


async def test_no_server_is_said_at_once_with_what_to_do(make: Make) -> None:
    async with ModelServer(Answer()) as server:
        backend = make(server)
    with pytest.raises(
        BackendUnreachable, match=r"Connection refused.*(ollama serve|base_url)"
    ) as caught:
        await read(backend)
    assert str(server.url) in str(caught.value)
    assert isinstance(caught.value, ConnectionError)


async def test_something_that_is_no_http_server_is_a_protocol_error(make: Make) -> None:
    async def talk_nonsense(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"220 mail.example.com ESMTP\r\n\r\n")
            await anyio.sleep_forever()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, talk_nonsense)
        server = ModelServer(Answer())
        server._port = listener.extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises(BackendProtocolError, match="does not speak HTTP"):
            await read(make(server))
        tasks.cancel_scope.cancel()


async def test_a_server_that_closes_without_an_answer_interrupts(make: Make) -> None:
    async def hang_up(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, hang_up)
        server = ModelServer(Answer())
        server._port = listener.extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises(StreamInterrupted):
            await read(make(server))
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "answer", [Answer(slow_headers=60), Answer(stall_after=2), Answer(half_close=True)]
)
async def test_a_cancelled_generation_is_closed_at_the_server_at_once(
    make: Make, answer: Answer
) -> None:
    async with ModelServer(answer) as server, anyio.create_task_group() as tasks:

        async def generate() -> None:
            try:
                await read(make(server))
            except StreamInterrupted:
                assert answer.half_close

        tasks.start_soon(generate)
        await server.wait_for(1)
        if not answer.slow_headers:
            await wait_until(lambda: server.requests[0].deltas_sent >= 2)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True), anyio.fail_after(2):
            await server.requests[0].wait_closed()
        assert server.requests[0].ended == "client_closed"


async def wait_until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - a counter has no event
            await anyio.sleep(0.001)


async def test_leaving_early_closes_the_connection_whatever_is_left_unread(make: Make) -> None:
    async with (
        ModelServer(Answer(["word "] * 100_000)) as server,
        make(server).connected() as backend,
    ):
        async with backend.open(REQUEST) as stream:
            await anext(stream)
        with anyio.fail_after(2):
            await server.requests[0].wait_closed()
        assert server.requests[0].ended == "client_closed"
        assert server.requests[0].deltas_sent < 100_000


async def test_a_reader_that_stops_holds_the_server_back(make: Make) -> None:
    async with ModelServer(Answer(["x" * 1000] * 50_000)) as server:
        async with make(server).open(REQUEST) as stream:
            await anext(stream)
            await anyio.sleep(0.2)  # time for the server to send all it can
            assert server.requests[0].deltas_sent < 50_000
        await server.requests[0].wait_closed()


async def test_leaving_a_stalled_response_by_an_error_takes_no_time(make: Make) -> None:
    async with ModelServer(Answer(stall_after=1)) as server:
        with anyio.fail_after(2), pytest.raises(ZeroDivisionError):
            async with make(server).open(REQUEST) as stream:
                await anext(stream)
                raise ZeroDivisionError
        await server.requests[0].wait_closed()


@pytest.mark.parametrize("answer", [Answer(["x"] * 1000), Answer(stall_after=3)])
async def test_no_generator_is_left_to_the_garbage_collector(
    make: Make, answer: Answer, anyio_backend_name: str
) -> None:
    left: list[str] = []
    async with ModelServer(answer) as server, make(server).connected() as backend:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=lambda agen: left.append(agen.__qualname__))
        try:
            async with backend.open(REQUEST) as stream:
                await anext(stream)
            async with backend.open(REQUEST):
                pass
            with anyio.move_on_after(0.05):
                async with backend.open(REQUEST) as stream:
                    async for _ in stream:
                        await anyio.lowlevel.checkpoint()
            gc.collect()
        finally:
            sys.set_asyncgen_hooks(*hooks)
    assert left == []


async def test_cancelled_requests_leave_the_pool_empty_and_the_next_one_works() -> None:
    async with ModelServer(Answer(["x"] * 3)) as server, httpx.AsyncClient() as client:
        backend = OpenAIBackend("m", base_url=server.openai_url, client=client)
        pool: Any = client._transport
        for ticks in range(120):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, backend)
                for _ in range(ticks):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert pool._pool._requests == []
            assert all(connection.is_idle() for connection in pool._pool.connections)
        assert text_of(await read(backend)) == "xxx"


async def test_a_cancel_just_when_the_connection_is_there_forgets_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect = AutoBackend.connect_tcp
    scope = anyio.CancelScope()

    async def connect_and_cancel(*args: Any, **kwargs: Any) -> Any:
        stream = await connect(*args, **kwargs)
        scope.cancel()
        return stream

    monkeypatch.setattr(AutoBackend, "connect_tcp", connect_and_cancel)
    async with ModelServer([]) as server, httpx.AsyncClient() as client:
        backend = OpenAIBackend("m", base_url=server.openai_url, client=client)
        with scope:
            await read(backend)
        pool: Any = client._transport
        assert scope.cancelled_caught
        assert pool._pool.connections == []
    gc.collect()  # an unclosed socket would be told of here


async def test_a_cancel_within_the_tls_handshake_closes_the_connection() -> None:
    hello, gone = anyio.Event(), anyio.Event()

    async def wait_until_it_closes(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    await stream.receive()
                    hello.set()
            gone.set()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, wait_until_it_closes)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        backend = OpenAIBackend("m", base_url=f"https://127.0.0.1:{port}")
        async with anyio.create_task_group() as asking:
            asking.start_soon(read, backend)
            await hello.wait()
            asking.cancel_scope.cancel()
        with anyio.fail_after(2):
            await gone.wait()
        tasks.cancel_scope.cancel()
    gc.collect()  # an unclosed socket would be told of here


async def test_a_finished_generation_gives_its_connection_to_the_next(make: Make) -> None:
    async with ModelServer(Answer()) as server, make(server).connected() as backend:
        for _ in range(3):
            await read(backend)
    assert [record.connection for record in server.requests] == [0, 0, 0]


async def test_a_refused_request_gives_its_connection_to_the_next(make: Make) -> None:
    async with (
        ModelServer([Answer(status=500), Answer()]) as server,
        make(server).connected() as backend,
    ):
        with pytest.raises(BackendRejected):
            await read(backend)
        await read(backend)
    assert [record.connection for record in server.requests] == [0, 0]


async def test_requests_at_the_same_time_are_not_limited_in_number(make: Make) -> None:
    async with (
        ModelServer(Answer(stall_after=1)) as server,
        make(server).connected() as backend,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(120):
            tasks.start_soon(read, backend)
        with anyio.fail_after(20):
            await server.wait_for(120)
        tasks.cancel_scope.cancel()


async def test_a_stream_that_ends_its_protocol_but_not_its_response_is_an_answer(
    make: Make,
) -> None:
    async def never_end(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            body = (
                b'{"message": {"content": "yes"}, "done": false}\n{"done": true}\n'
                if isinstance(backend, OllamaBackend)
                else b'data: {"choices": [{"delta": {"content": "yes"}}]}\n\ndata: [DONE]\n\n'
            )
            kind = (
                b"application/x-ndjson"
                if isinstance(backend, OllamaBackend)
                else b"text/event-stream"
            )
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\n\r\n" + body)
            await anyio.sleep_forever()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        server = ModelServer(Answer())
        server._port = listener.extra(anyio.abc.SocketAttribute.local_port)
        backend = make(server)
        tasks.start_soon(listener.serve, never_end)
        with anyio.fail_after(5):
            assert text_of(await read(backend)) == "yes"
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(("status", "kind"), [(200, StreamInterrupted), (500, BackendRejected)])
async def test_no_compression_is_asked_for_and_half_of_one_says_nothing(
    make: Make, status: int, kind: type[BackendError]
) -> None:
    answer = Answer(status=status, body=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    async with ModelServer(answer) as server:
        with pytest.raises(kind) as caught:
            await read(make(server))
    assert type(caught.value) is kind
    assert "\x1f" not in str(caught.value)
    assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_a_proxy_has_no_part_in_what_is_on_this_machine(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with ModelServer(Answer()) as server:
        assert text_of(await read(make(server))) == "Hello, world."


async def test_a_proxy_that_cannot_be_used_is_the_callers_to_mend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "ftp://me:hidden@proxy")
    with pytest.raises(InvalidOption, match="proxy") as caught:
        await read(OpenAIBackend("m", base_url="http://192.0.2.1"))
    assert "hidden" not in repr(caught.value)


async def test_a_proxy_that_needs_a_package_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(MissingExtra, match=r"httpx\[socks\]"):
        await read(OpenAIBackend("m", base_url="http://192.0.2.1"))


async def test_an_address_that_no_client_can_use_is_the_callers_to_mend() -> None:
    with pytest.raises(InvalidOption, match="cannot be asked"):
        await read(OpenAIBackend("m", base_url="http://\u200d"))


@pytest.mark.parametrize("status", [200, 500])
async def test_a_body_that_is_cut_off_is_quoted_as_far_as_it_came(make: Make, status: int) -> None:
    async def hang_up_in_the_middle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            received = b""
            while b'"stream"' not in received:
                received += await stream.receive()
            head = (
                b"HTTP/1.1 %d X\r\ncontent-type: text/html\r\ncontent-length: 99\r\n\r\n" % status
            )
            await stream.send(head + b"out of or")

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, hang_up_in_the_middle)
        server = ModelServer(Answer())
        server._port = listener.extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises((BackendRejected, BackendProtocolError), match="out of or"):
            await read(make(server))
        tasks.cancel_scope.cancel()


async def test_a_cut_after_the_finish_reason_loses_nothing_that_matters() -> None:
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    event = b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}\n\n'

    async def hang_up_at_the_end(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            received = b""
            while b'"stream_options"' not in received:
                received += await stream.receive()
            await stream.send(head + b"%x\r\n%s\r\n" % (len(event), event))

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, hang_up_at_the_end)
        server = ModelServer(Answer())
        server._port = listener.extra(anyio.abc.SocketAttribute.local_port)
        assert await read(OpenAIBackend("m", base_url=server.openai_url)) == [Delta("a", "stop")]
        tasks.cancel_scope.cancel()


async def test_openai_goes_through_a_unix_socket(tmp_path: Path) -> None:
    uds = str(tmp_path / "engine")
    async with ModelServer(Answer(), uds=uds) as server:
        backend = OpenAIBackend("m", uds=uds, api_key="sk-engine")
        assert text_of(await read(backend)) == "Hello, world."
    assert server.requests[0].headers["authorization"] == "Bearer sk-engine"
    with pytest.raises(BackendUnreachable, match="unix:"):
        await read(backend)


async def test_a_client_of_the_callers_is_used_and_not_closed() -> None:
    async with (
        ModelServer(Answer(first_delay=0.1)) as server,
        httpx.AsyncClient(timeout=0.01) as client,
    ):
        backend = OpenAIBackend("m", base_url=server.openai_url, client=client)
        async with backend.connected() as connected:
            await read(connected)
        assert text_of(await read(backend)) == "Hello, world."


async def test_openai_knows_the_ways_in_which_servers_differ() -> None:
    chunks: list[object] = [
        {"choices": [], "prompt_filter_results": []},
        {"choices": [{"delta": {"role": "assistant", "content": None}}], "usage": None},
        {
            "choices": [{"delta": {"content": "a"}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        },
        {"choices": [{"delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"delta": {"refusal": "b"}}]},
        {"choices": [{"delta": None, "finish_reason": "stop"}]},
        {"usage": {"prompt_tokens": 2, "completion_tokens": None}},
    ]
    body = b": hello\r\n\r\n" + b"".join(
        b"data:" + json.dumps(c).encode() + b"\r\n\r\n" for c in chunks
    )
    async with ModelServer(Answer(body=body)) as server:  # no [DONE] at the end
        deltas = await read(OpenAIBackend("m", base_url=server.openai_url))
    assert text_of(deltas) == "ab"
    assert [d.usage for d in deltas if d.usage] == [Usage(1, 1)]  # null says nothing
    assert [d.finish_reason for d in deltas if d.finish_reason] == ["stop"]


async def test_what_follows_the_finish_reason_may_be_lost() -> None:
    body = (
        b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}\n\ndata: {"us'
    )
    async with ModelServer(Answer(body=body)) as server:
        assert text_of(await read(OpenAIBackend("m", base_url=server.openai_url))) == "a"


async def test_ollama_may_end_without_a_reason_counts_or_line_end() -> None:
    body = b'\n{"message": {"content": "a", "thinking": "hm"}, "done": false}\r\n{"done": true}'
    async with ModelServer(Answer(body=body)) as server:
        deltas = await read(OllamaBackend("m", base_url=server.ollama_url))
        assert deltas == [Delta("a", reasoning="hm"), Delta("", "stop")]


async def test_an_option_that_is_no_json_is_refused(make: Make) -> None:
    async with ModelServer(Answer()) as server:
        for value in (object(), float("nan")):
            request = GenerationRequest(REQUEST.messages, {"top_p": value})
            with pytest.raises(InvalidOption, match="JSON"):
                async with make(server).open(request):
                    pass
    assert server.requests == []
