"""Connections that are used again: dead ones, and ones on which more came than an answer."""

from __future__ import annotations

import gc
import logging
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, suppress
from types import ModuleType

import anyio
import anyio.abc
import anyio.lowlevel
import httpx
import pytest
from raw_server import (
    HEAD,
    Play,
    RawServer,
    answer,
    chunk,
    hangs_up,
    raw_server,
    resets,
    sends,
)

from mellea_sc.backends.http.client import (
    AnyClient,
    client_errors,
    has_aiohttp,
    is_asyncio,
)
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import Backend, ChatMessage, GenerationRequest
from mellea_sc.core.errors import (
    BackendError,
    BackendProtocolError,
    BackendRejected,
    BackendUnreachable,
    StreamInterrupted,
)

pytestmark = pytest.mark.anyio

REQUEST = GenerationRequest((ChatMessage("user", "hi"),))
GOOD = sends(answer("good"))
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def ask(backend: Backend) -> str:
    async with backend.open(REQUEST) as stream:
        return "".join([delta.text async for delta in stream])


def backend_for(server: RawServer, client: AnyClient | None) -> OpenAIBackend:
    return OpenAIBackend("m", base_url=f"{server.url}/v1", client=client)


@pytest.mark.parametrize("dies", [hangs_up, resets])
async def test_a_request_on_a_reused_connection_that_dies_is_sent_once_more(
    client: AnyClient | None, dies: Play
) -> None:
    async with (
        raw_server(GOOD, dies, GOOD) as server,
        backend_for(server, client).connected() as backend,
    ):
        assert [await ask(backend) for _ in range(2)] == ["good", "good"]
    assert server.connections == [1, 1, 2]


async def test_never_twice(client: AnyClient | None) -> None:
    async with (
        raw_server(GOOD, hangs_up) as server,
        backend_for(server, client).connected() as backend,
    ):
        assert await ask(backend) == "good"
        with pytest.raises(StreamInterrupted) as caught:
            await ask(backend)
    assert server.connections == [1, 1, 2]
    assert caught.value.__context__ is caught.value.__cause__


async def test_never_when_the_connection_was_new(client: AnyClient | None) -> None:
    async with (
        raw_server(hangs_up, GOOD) as server,
        backend_for(server, client).connected() as backend,
    ):
        with pytest.raises(StreamInterrupted):
            await ask(backend)
    assert server.connections == [1]


async def test_never_when_the_connection_was_new_because_the_kept_one_was_spoilt(own: str) -> None:
    has_all, is_spoilt = anyio.Event(), anyio.Event()

    async def spoils(stream: anyio.abc.SocketStream) -> bool:
        await stream.send(answer("good"))
        await has_all.wait()
        await stream.send(answer("another's"))
        is_spoilt.set()
        return True

    async with (
        raw_server(spoils, hangs_up, GOOD) as server,
        backend_for(server, None).connected() as backend,
    ):
        assert await ask(backend) == "good"
        has_all.set()
        await is_spoilt.wait()
        with pytest.raises(StreamInterrupted):
            await ask(backend)
    assert server.connections == [1, 2]


async def test_the_second_one_is_new_even_where_other_kept_ones_are_left(
    client: AnyClient | None,
) -> None:
    together = anyio.Event()

    async def waits(stream: anyio.abc.SocketStream) -> bool:
        if len(server.connections) == 3:
            together.set()
        await together.wait()
        await stream.send(answer("good"))
        return True

    async with (
        raw_server(waits, waits, waits, hangs_up, GOOD) as server,
        backend_for(server, client).connected() as backend,
    ):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask, backend)
        assert await ask(backend) == "good"
    assert server.connections[4:] == [4]


@pytest.mark.parametrize(
    "begun",
    [
        HEAD[:1],
        HEAD[:-1],
        HEAD,
        HEAD + chunk(b'data: {"choices": [{"delta": {"content": "go"}}]}\n\n'),
    ],
)
async def test_never_after_a_byte_of_the_answer(client: AnyClient | None, begun: bytes) -> None:
    async with (
        raw_server(GOOD, sends(begun, keep=False), GOOD) as server,
        backend_for(server, client).connected() as backend,
    ):
        assert await ask(backend) == "good"
        with pytest.raises(StreamInterrupted):
            await ask(backend)
    assert server.connections == [1, 1]


@pytest.mark.parametrize(
    "begun",
    [
        [HEAD[:1]],
        [HEAD[:-1]],
        [CONTINUE],
        [CONTINUE, HEAD[:20]],
    ],
)
@pytest.mark.parametrize("ends", [resets, hangs_up])
async def test_nor_when_the_connection_is_reset_after_that_byte(
    client: AnyClient | None, begun: list[bytes], ends: Play
) -> None:
    if client is not None and begun == [CONTINUE]:
        pytest.skip("clients of others do not tell of it")
    has_begun = anyio.Event()

    async def begins(stream: anyio.abc.SocketStream) -> bool:
        for piece in begun:
            await stream.send(piece)
        await has_begun.wait()
        return await ends(stream)

    async def set_when_idle() -> None:
        await anyio.wait_all_tasks_blocked()
        has_begun.set()

    async with (
        raw_server(GOOD, begins, GOOD) as server,
        backend_for(server, client).connected() as backend,
        anyio.create_task_group() as tasks,
    ):
        assert await ask(backend) == "good"
        tasks.start_soon(set_when_idle)
        with pytest.raises(StreamInterrupted):
            await ask(backend)
    assert server.connections == [1, 1]


async def test_nor_when_something_came_that_is_no_answer(client: AnyClient | None) -> None:
    async with (
        raw_server(GOOD, sends(b"junk\r\n\r\n"), GOOD) as server,
        backend_for(server, client).connected() as backend,
    ):
        assert await ask(backend) == "good"
        with pytest.raises(BackendProtocolError):
            await ask(backend)
    assert server.connections == [1, 1]


async def test_a_hook_of_the_callers_client_that_raises_sends_nothing_twice() -> None:
    async def refuse(response: httpx.Response) -> None:
        if len(server.connections) > 1:
            raise httpx.HTTPError("not today")

    async with (
        raw_server(GOOD) as server,
        httpx.AsyncClient(event_hooks={"response": [refuse]}) as client,
    ):
        backend = backend_for(server, client)
        assert await ask(backend) == "good"
        with pytest.raises(BackendError, match="not today"):
            await ask(backend)
    assert server.connections == [1, 1]


@pytest.mark.parametrize("raises", [False, True])
async def test_a_hook_of_the_callers_client_may_read_an_answer_and_refuse_a_status(
    raises: bool,
) -> None:
    async def log(response: httpx.Response) -> None:
        if not raises:
            await response.aread()
        response.raise_for_status()

    refusal = b'HTTP/1.1 400 No\r\nContent-Length: 20\r\n\r\n{"error": "too hot"}'
    async with (
        raw_server(GOOD, GOOD, sends(refusal), GOOD) as server,
        httpx.AsyncClient(event_hooks={"response": [log]}) as client,
    ):
        backend = backend_for(server, client)
        with anyio.fail_after(4):
            assert [await ask(backend) for _ in range(2)] == ["good"] * 2
            with pytest.raises(BackendRejected, match="400" if raises else "too hot"):
                await ask(backend)
            assert await ask(backend) == "good"


JUNK = [b"x", b"\r\n", b"data: junk\n\n"]
MESSAGES = [answer("another's"), b"HTTP/1.1 500 No\r\n\r\n", b"HTTP/1.1 500 N"]


@pytest.mark.parametrize("behind", JUNK + MESSAGES)
@pytest.mark.parametrize("apart", [False, True])
async def test_bytes_behind_an_answer_are_no_part_of_the_next_one(
    own: str, behind: bytes, apart: bool
) -> None:
    body = answer("first").removeprefix(HEAD)
    has_head, has_all, is_spoilt = anyio.Event(), anyio.Event(), anyio.Event()

    async def sends_more(stream: anyio.abc.SocketStream) -> bool:
        await stream.send(HEAD)
        await has_head.wait()
        await stream.send(body if apart else body + behind)
        await has_all.wait()
        if apart:
            await stream.send(behind)
        is_spoilt.set()
        return True

    async with (
        raw_server(sends_more, sends(answer("second"))) as server,
        backend_for(server, None).connected() as backend,
    ):
        async with backend.open(REQUEST) as stream:
            has_head.set()
            assert "".join([delta.text async for delta in stream]) == "first"
        has_all.set()
        await is_spoilt.wait()
        assert await ask(backend) == "second"
    assert own == "fast" or server.connections == [1, 2]  # aiohttp overlooks an empty line


@pytest.mark.parametrize("behind", JUNK + MESSAGES)
async def test_nor_where_all_of_it_comes_at_once(own: str, behind: bytes) -> None:
    async with (
        raw_server(sends(answer("first") + behind), sends(answer("second"))) as server,
        backend_for(server, None).connected() as backend,
    ):
        assert await ask(backend) == "first"
        assert await ask(backend) == "second"


async def test_an_answer_that_is_broken_spoils_no_other(own: str) -> None:
    async with (
        raw_server(GOOD, sends(HEAD + b"zz\r\n"), GOOD) as server,
        backend_for(server, None).connected() as backend,
    ):
        assert await ask(backend) == "good"
        with pytest.raises(BackendProtocolError):
            await ask(backend)
        assert await ask(backend) == "good"
    assert server.connections == [1, 1, 2]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("words", [b"", b'data: {"choices": [{"delta": {"content": "go"}}]}\n\n'])
async def test_an_answer_that_breaks_off_in_junk_is_an_error_at_once(
    client: AnyClient | None, words: bytes, apart: bool
) -> None:
    async def breaks(stream: anyio.abc.SocketStream) -> bool:
        begun = HEAD + (chunk(words) if words else b"")
        await stream.send(begun if apart else begun + b"zz\r\n")
        if apart:
            await anyio.wait_all_tasks_blocked()
            await stream.send(b"zz\r\n")
        await anyio.sleep_forever()
        return True

    async with (
        raw_server(breaks) as server,
        backend_for(server, client).connected() as backend,
    ):
        with anyio.fail_after(5), pytest.raises(BackendProtocolError):
            await ask(backend)


async def test_requests_at_the_same_time_do_not_take_each_others_connection_for_a_spoilt_one(
    own: str,
) -> None:
    async def comes_in_two(stream: anyio.abc.SocketStream) -> bool:
        await stream.send(HEAD)
        await anyio.lowlevel.checkpoint()
        await stream.send(answer("good").removeprefix(HEAD))
        return True

    async def ask_often(times: int) -> None:
        for _ in range(times):
            assert await ask(backend) == "good"

    async with (
        raw_server(*[comes_in_two] * 800) as server,
        backend_for(server, None).connected() as backend,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(8):
            tasks.start_soon(ask_often, 100)


@pytest.mark.parametrize("reads", [True, False])
async def test_leaving_an_answer_does_not_touch_the_request_that_has_its_connection_by_then(
    client: AnyClient | None, reads: bool
) -> None:
    is_left = anyio.Event()

    async def waits(stream: anyio.abc.SocketStream) -> bool:
        await stream.send(HEAD)
        await is_left.wait()
        await stream.send(answer("second").removeprefix(HEAD))
        return True

    async with (
        raw_server(GOOD, waits) as server,
        backend_for(server, client).connected() as backend,
        AsyncExitStack() as stack,
    ):
        first = await stack.enter_async_context(backend.open(REQUEST))
        if reads:
            assert "".join([delta.text async for delta in first]) == "good"
        async with backend.open(REQUEST) as second:
            await stack.aclose()
            is_left.set()
            assert "".join([delta.text async for delta in second]) == "second"


async def test_an_error_is_translated_while_another_thread_imports_a_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", ModuleType("aiohttp"))
    assert OSError in client_errors()
    monkeypatch.setitem(sys.modules, "asyncio", ModuleType("asyncio"))
    assert not is_asyncio()


async def test_a_cancel_just_when_the_connection_is_there_closes_it(
    own: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if own == "fast":
        pytest.skip("aiohttp connects otherwise")
    connect = anyio.connect_tcp
    scope = anyio.CancelScope()

    async def connect_and_cancel(host: str, port: int) -> anyio.abc.SocketStream:
        stream = await connect(host, port)
        scope.cancel()
        return stream

    monkeypatch.setattr("mellea_sc.backends.http.connection.anyio.connect_tcp", connect_and_cancel)
    async with raw_server(GOOD) as server, backend_for(server, None).connected() as backend:
        with scope:
            await ask(backend)
        assert scope.cancelled_caught
        gc.collect()  # an unclosed socket would be told of here
    assert server.connections == []


async def test_an_idle_connection_is_not_kept_for_long(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mellea_sc.backends.http.client.KEEP_FOR", 0.0)
    async with (
        raw_server(GOOD) as server,
        backend_for(server, None).connected() as backend,
    ):
        assert [await ask(backend) for _ in range(2)] == ["good", "good"]
    assert server.connections == [1, 2]


async def test_aiohttp_is_used_by_itself_under_asyncio_where_it_is_installed(
    anyio_backend_name: str,
) -> None:
    assert has_aiohttp()
    async with OpenAIBackend("m", base_url="http://127.0.0.1:9").connected() as backend:
        assert backend.link is not None
        transport = type(backend.link.transport).__name__
    assert (
        transport == {"asyncio": "AiohttpTransport", "trio": "DirectTransport"}[anyio_backend_name]
    )


async def test_a_proxy_is_left_to_httpx() -> None:
    backend = OpenAIBackend("m", base_url="http://192.0.2.1", proxy="http://127.0.0.1:9")
    async with backend.connected() as connected:
        assert connected.link is not None
        assert type(connected.link.transport).__name__ == "HttpxTransport"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_connections_of_our_own_need_no_httpx(loop: str) -> None:
    program = f"""
import sys, anyio
from mellea_sc.backends import OpenAIBackend
from mellea_sc.core.backend import ChatMessage, GenerationRequest
from mellea_sc.core.errors import BackendUnreachable

async def ask():
    backend = OpenAIBackend("m", base_url="http://127.0.0.1:9")
    try:
        async with backend.open(GenerationRequest((ChatMessage("user", "hi"),))):
            pass
    except BackendUnreachable:
        print(*{{"httpx", "httpcore"}} & set(sys.modules))

anyio.run(ask, backend={loop!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"


@pytest.mark.parametrize("found", ["3.11.18", "2.3", "unknown"])
def test_an_old_aiohttp_is_not_used(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    monkeypatch.setattr("mellea_sc.backends.http.client.version", lambda _: found)
    assert not has_aiohttp.__wrapped__()


async def test_no_cookie_of_an_answer_goes_into_the_next_request(own: str) -> None:
    async def sets_a_cookie(stream: anyio.abc.SocketStream) -> bool:
        await stream.send(answer("good").replace(b"\r\n", b"\r\nset-cookie: a=b\r\n", 1))
        return True

    async with (
        raw_server(sets_a_cookie, GOOD) as server,
        backend_for(server, None).connected() as backend,
    ):
        assert [await ask(backend) for _ in range(2)] == ["good", "good"]
    assert len(server.heads) == 2
    assert not any(b"\r\ncookie:" in head.lower() for head in server.heads)


async def test_a_header_may_be_as_long_as_servers_make_them(client: AnyClient | None) -> None:
    policy = b"\r\ncontent-security-policy: " + b"connect-src https://example.com " * 1500
    async with (
        raw_server(sends(answer("good").replace(b"\r\n", policy + b"\r\n", 1))) as server,
        backend_for(server, client).connected() as backend,
    ):
        assert await ask(backend) == "good"


async def test_there_may_be_as_many_headers_as_gateways_add(client: AnyClient | None) -> None:
    more = b"\r\n" + b"".join(b"x-trace-%d: a\r\n" % number for number in range(500))
    async with (
        raw_server(sends(answer("good").replace(b"\r\n", more, 1))) as server,
        backend_for(server, client).connected() as backend,
    ):
        assert await ask(backend) == "good"


async def test_no_log_shows_the_key_in_the_query_of_an_address(
    client: AnyClient | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with raw_server(GOOD) as server:
        url = server.url.replace("http://", "http://me:pass-secret@")
        backend = OpenAIBackend("m", base_url=f"{url}/v1?key=a-secret", client=client)
        async with backend.connected() as connected:
            assert [await ask(connected), await ask(connected)] == ["good", "good"]
    assert all(b"/v1/chat/completions?key=a-secret" in head for head in server.heads)
    assert "secret" not in caplog.text
    if client is not None:
        assert caplog.text.count(f"POST {server.url}/v1/chat/completions?…") == 2


async def test_a_client_of_the_callers_sees_the_whole_url() -> None:
    seen: list[httpx.URL] = []

    async def note(request: httpx.Request) -> None:
        seen.append(request.url)

    async with (
        raw_server(GOOD) as server,
        httpx.AsyncClient(event_hooks={"request": [note]}) as client,
    ):
        url = f"{server.url}/v1?key=a-secret"
        assert await ask(OpenAIBackend("m", base_url=url, client=client)) == "good"
    assert seen == [f"{server.url}/v1/chat/completions?key=a-secret"]


async def test_an_answer_that_is_no_http_shows_no_key_in_what_caused_the_error(own: str) -> None:
    async with raw_server(sends(b"junk\r\n\r\n")) as server:
        url = f"{server.url}/v1?key=query-secret"
        backend = OpenAIBackend("m", base_url=url, api_key="key-secret", headers={"x": "a-secret"})
        with pytest.raises(BackendProtocolError) as caught:
            await ask(backend)
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret" not in repr(error) + str(error)
        assert error.__context__ is error.__cause__
        error = error.__cause__


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_server_that_does_not_connect_in_time_is_said_so(own: str, scheme: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        address = silent.getsockname()
        with socket.create_connection(address):  # full: the system accepts no more
            url = f"{scheme}://127.0.0.1:{address[1]}/v1?key=a-secret"
            backend = OpenAIBackend("m", base_url=url, timeout=0.2)
            with pytest.raises(BackendUnreachable, match="it took too long") as caught:
                await ask(backend)
    assert caught.value.fault == "server"
    assert "secret" not in repr(caught.value.__cause__)


async def test_a_handshake_that_takes_too_long_is_no_matter_of_certificates(own: str) -> None:
    async with raw_server(GOOD) as server:  # it waits for a request
        backend = OpenAIBackend("m", base_url=server.url.replace("http", "https"), timeout=0.2)
        with pytest.raises(BackendUnreachable, match="it took too long") as caught:
            await ask(backend)
    assert caught.value.fault == "server"


async def test_a_list_of_models_without_end_is_refused(own: str) -> None:
    async def goes_on(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with suppress(anyio.BrokenResourceError):
                await stream.send(b"HTTP/1.1 200 OK\r\n\r\n[")
                while True:
                    await stream.send(b" " * 65536)

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, goes_on)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises(BackendProtocolError, match="longer than"):
            await OpenAIBackend("m", base_url=f"http://127.0.0.1:{port}").get("/models")
        tasks.cancel_scope.cancel()


async def test_a_name_that_nobody_knows_is_said_in_words(own: str) -> None:
    with pytest.raises(BackendUnreachable, match=r"(?i)name|address|host|node"):
        await ask(OpenAIBackend("m", base_url="http://nobody.invalid"))


async def test_a_large_request_that_is_cut_off_while_it_is_sent_is_told_by_its_size_and_not_sent_again(
    client: AnyClient | None,
) -> None:
    async def cut(stream: anyio.abc.SocketStream) -> None:
        await stream.receive(1000)
        await resets(stream)
        await stream.aclose()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    backend = OpenAIBackend("m", base_url=f"http://127.0.0.1:{port}", client=client)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, cut)
        with pytest.raises(StreamInterrupted, match=r"a request of 20\.0 MB was sent") as caught:
            async with backend.open(GenerationRequest((ChatMessage("user", "x" * 20_000_000),))):
                pass
        tasks.cancel_scope.cancel()
    assert not caught.value.retryable


async def test_a_cancel_just_when_the_client_has_a_place_for_the_request_costs_no_place() -> None:
    """The place is assigned at some checkpoint while another request is being left: cancel at each of them."""

    async def goes_on(stream: anyio.abc.SocketStream) -> bool:
        await stream.send(answer("go", b"").partition(chunk(b"data: [DONE]\n\n"))[0])
        await anyio.sleep_forever()
        return False

    async def leave(backend: Backend, now: anyio.Event) -> None:
        async with backend.open(REQUEST) as stream:
            await anext(stream)
            await now.wait()

    for checkpoints in range(25):
        limits = httpx.Limits(max_connections=1)
        async with (
            raw_server(goes_on, GOOD) as server,
            httpx.AsyncClient(limits=limits, verify=False) as client,
            anyio.create_task_group() as tasks,
        ):
            backend, now = backend_for(server, client), anyio.Event()
            tasks.start_soon(leave, backend, now)
            await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(ask, backend)
                await anyio.wait_all_tasks_blocked()
                now.set()
                for _ in range(checkpoints):
                    await anyio.lowlevel.checkpoint()
                waiting.cancel_scope.cancel()
            with anyio.fail_after(5):
                assert await ask(backend) == "good", checkpoints
