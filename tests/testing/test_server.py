"""The loopback model server, asked by plain sockets and a plain client."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import cast

import anyio
import httpx
import pytest

from mellea_sc.core.backend import ChatMessage, Usage
from mellea_sc.testing.server import Answer, ModelServer, RecordedRequest

pytestmark = pytest.mark.anyio

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
PATHS = ["/v1/chat/completions", "/api/chat"]


def request_bytes(path: str = "/api/chat") -> bytes:
    body = json.dumps(BODY).encode()
    return b"POST %s HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%s" % (
        path.encode(),
        len(body),
        body,
    )


async def connect(server: ModelServer) -> anyio.abc.SocketStream:
    host, port = server.url.removeprefix("http://").split(":")
    return await anyio.connect_tcp(host, int(port))


async def post(server: ModelServer, path: str, body: Mapping[str, object] = BODY) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.post(f"{server.url}{path}", json=body)


async def test_chat_completions_are_events() -> None:
    async with ModelServer(Answer(["a", "b"], usage=Usage(1, 2), finish_reason="length")) as server:
        response = await post(server, "/v1/chat/completions")
    assert response.headers["content-type"] == "text/event-stream"
    *events, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert [c["choices"][0]["delta"].get("content") for c in chunks[:-1]] == ["a", "b", None]
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


async def test_ollamas_chat_is_lines() -> None:
    async with ModelServer(Answer(["a", "b"], usage=Usage(1, 2))) as server:
        response = await post(server, "/api/chat")
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["message"]["content"] for line in lines] == ["a", "b", ""]
    assert [line["done"] for line in lines] == [False, False, True]
    assert (lines[-1]["prompt_eval_count"], lines[-1]["eval_count"]) == (1, 2)


async def test_it_records_what_it_was_asked() -> None:
    async with ModelServer(Answer()) as server:
        await post(server, "/v1/chat/completions?x=1")
        (record,) = server.requests
    assert (record.method, record.path) == ("POST", "/v1/chat/completions")
    assert record.headers["content-type"] == "application/json"
    assert record.json == BODY
    assert record.messages == (ChatMessage("user", "hi"),)
    assert record.prompt == "hi"
    assert (record.deltas_sent, record.ended) == (4, "complete")
    assert record.closed_at is not None
    assert record.closed_at >= record.received_at


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"messages": [3, {"role": "x"}]}'])
async def test_a_body_that_is_no_conversation_has_no_messages(body: bytes) -> None:
    record = RecordedRequest("POST", "/", {}, body, 0, 0.0)
    assert record.messages == ()
    assert record.prompt == ""


async def test_answers_are_given_in_turn() -> None:
    async with ModelServer([Answer("one"), Answer("two")]) as server:
        texts = [(await post(server, "/api/chat")).text for _ in range(2)]
    assert "one" in texts[0]
    assert "two" in texts[1]


async def test_an_answer_may_depend_on_the_request() -> None:
    async with ModelServer(lambda request: Answer(request.prompt * 2)) as server:
        assert '"hihi"' in (await post(server, "/api/chat")).text


async def test_a_script_that_is_too_short_fails_the_test() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with ModelServer([]) as server:
            with pytest.raises(httpx.RemoteProtocolError):
                await post(server, "/api/chat")
            await anyio.sleep_forever()
    assert caught.group_contains(AssertionError, match="no more answers")


async def test_it_lists_its_models() -> None:
    async with ModelServer(Answer(), models=["a", "b"]) as server, httpx.AsyncClient() as client:
        openai = (await client.get(f"{server.openai_url}/models")).json()
        ollama = (await client.get(f"{server.ollama_url}/api/tags")).json()
        assert (await client.get(f"{server.url}/elsewhere")).status_code == 404
    assert [model["id"] for model in openai["data"]] == ["a", "b"]
    assert [model["name"] for model in ollama["models"]] == ["a", "b"]


@pytest.mark.parametrize("path", PATHS)
async def test_an_error_answer_speaks_the_protocol(path: str) -> None:
    answer = Answer(status=429, retry_after=0.5, error="slow down", headers={"x-limit": "3"})
    async with ModelServer(answer) as server:
        response = await post(server, path)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "0.5"
    assert response.headers["x-limit"] == "3"
    error = response.json()["error"]
    assert (error if isinstance(error, str) else error["message"]) == "slow down"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(slow_headers=60),
        Answer(first_delay=60),
        Answer(delay=60),
        Answer(stall_after=2),
        Answer(half_close=True),
        Answer(["x" * 10_000] * 2_000),
    ],
    ids=["slow_headers", "first_delay", "delay", "stall", "half_close", "blocked"],
)
async def test_it_notices_at_once_that_the_client_went_away(answer: Answer) -> None:
    async with ModelServer(answer) as server:
        async with await connect(server) as stream:
            await stream.send(request_bytes())
            await server.wait_for(1)
            assert server.requests[0].ended is None
        with anyio.fail_after(2):
            await server.requests[0].wait_closed()
        assert server.requests[0].ended == "client_closed"


@pytest.mark.parametrize("reset", [False, True])
async def test_a_cut_closes_the_connection_in_the_middle(reset: bool) -> None:
    async with ModelServer(Answer(cut_after=2, reset=reset)) as server:
        async with await connect(server) as stream:
            await stream.send(request_bytes())
            received = bytearray()
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                while True:
                    received += await stream.receive()
        await server.requests[0].wait_closed()
    assert received.count(b'"done": false') == 2
    assert not received.endswith(b"0\r\n\r\n")
    assert (server.requests[0].ended, server.requests[0].deltas_sent) == ("cut", 2)


async def test_a_half_close_leaves_the_other_half_open() -> None:
    async with ModelServer(Answer(half_close=True)) as server, await connect(server) as stream:
        await stream.send(request_bytes())
        with pytest.raises(anyio.EndOfStream):
            while True:
                await stream.receive()
        assert server.requests[0].ended is None


@pytest.mark.parametrize("path", PATHS)
async def test_faults_come_in_the_place_that_was_asked_for(path: str) -> None:
    answer = Answer(["a", "b", "c"], malformed_after=1, error_after=2, error="too hot")
    async with ModelServer(answer) as server:
        text = (await post(server, path)).text
    assert (
        text.index('"a"')
        < text.index("{", text.index('"a"'))
        < text.index('"b"')
        < text.index("too hot")
    )
    assert '"c"' not in text
    assert "[DONE]" not in text
    assert '"done": true' not in text


@pytest.mark.parametrize("path", PATHS)
async def test_a_huge_line_has_no_end_for_as_long_as_was_asked_for(path: str) -> None:
    async with ModelServer(Answer("a", huge_line=200_000, omit_end=True)) as server:
        text = (await post(server, path)).text
    assert len(max(text.split("\n"), key=len)) == 200_000


async def test_a_position_behind_the_last_delta_is_behind_all_of_them() -> None:
    async with ModelServer(Answer(["a"], cut_after=99)) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            await post(server, "/api/chat")
    assert (server.requests[0].ended, server.requests[0].deltas_sent) == ("cut", 1)


async def test_a_body_of_ones_own_is_sent_as_it_is() -> None:
    async with ModelServer(Answer(body=b"\xff\x00", content_type="x/y")) as server:
        response = await post(server, "/api/chat")
    assert (response.content, response.headers["content-type"]) == (b"\xff\x00", "x/y")


async def test_requests_on_one_connection_are_answered_one_after_another() -> None:
    async with ModelServer(Answer("a", omit_end=True)) as server, await connect(server) as stream:
        await stream.send(request_bytes() * 3)
        received = bytearray()
        while received.count(b"0\r\n\r\n") < 3:
            received += await stream.receive()
    assert [record.connection for record in server.requests] == [0, 0, 0]
    assert [record.ended for record in server.requests] == ["complete"] * 3


@pytest.mark.parametrize("nonsense", [b"nonsense\r\n\r\n", b"\x16\x03\x01" * 20, b""])
async def test_a_client_that_talks_nonsense_disturbs_nobody_else(nonsense: bytes) -> None:
    async with ModelServer(Answer()) as server:
        async with await connect(server) as stream:
            if nonsense:
                await stream.send(nonsense)
        assert (await post(server, "/api/chat")).status_code == 200


async def test_leaving_the_block_ends_what_is_still_answered() -> None:
    async with ModelServer(Answer(stall_after=1)) as server:
        stream = await connect(server)
        await stream.send(request_bytes())
        await server.wait_for(1)
    async with stream:
        assert server.requests[0].ended == "server_closed"
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            while True:
                await stream.receive()


def test_in_a_thread_it_serves_programs_without_an_event_loop() -> None:
    with ModelServer.in_thread(Answer()) as server:
        with (
            httpx.Client(trust_env=False) as client,
            client.stream("POST", f"{server.url}/api/chat", json=BODY) as response,
        ):
            assert "Hello" in cast(str, next(response.iter_lines()))
        server.portal.call(server.wait_for, 1)
        server.portal.call(server.requests[0].wait_closed)
    assert server.requests[0].ended in ("complete", "client_closed")


async def test_a_server_in_the_loop_has_no_portal() -> None:
    async with ModelServer(Answer()) as server:
        with pytest.raises(RuntimeError, match="in_thread"):
            _ = server.portal


async def test_delays_are_kept() -> None:
    async with ModelServer(
        Answer(["a", "b", "c"], delay=0.03, first_delay=0.02, slow_headers=0.02)
    ) as server:
        start = time.monotonic()
        await post(server, "/api/chat")
        assert time.monotonic() - start >= 0.1


async def test_a_key_is_in_no_repr_of_what_was_recorded() -> None:
    async with ModelServer(Answer()) as server, httpx.AsyncClient() as client:
        await client.post(
            f"{server.url}/api/chat", json=BODY, headers={"authorization": "Bearer k3y"}
        )
    assert server.requests[0].headers["authorization"] == "Bearer k3y"
    assert "k3y" not in repr(server.requests)
