"""When an answer is whole: soon after its reason to stop, whatever the connection does; never before."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import cast

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_server import DONE, STOP, USAGE, event, line, word

from mellea_sc import ModelOption, start_session
from mellea_sc.backends.http.codings import Inflater
from mellea_sc.backends.ollama import OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import Backend, ChatMessage, Delta, GenerationRequest, Usage
from mellea_sc.core.errors import (
    BackendError,
    BackendProtocolError,
    BackendTimeout,
    ModelError,
    StreamInterrupted,
)
from mellea_sc.testing.clock import LoopName, run_virtual, virtual_backend

pytestmark = pytest.mark.anyio

REQUEST = GenerationRequest((ChatMessage("user", "hi"),))
Step = bytes | float | Exception
LOST = httpx.ReadError("")
HOLD = 10_000.0
PING = b": ping\n\n"
LAST = line(done=True, done_reason="stop", prompt_eval_count=3, eval_count=5)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Both event loops, in virtual time."""
    return virtual_backend(cast("LoopName", request.param))


class Body(httpx.AsyncByteStream):
    """Gives pieces, waits, and breaks, as it is told."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = iter(steps)
        self.closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for step in () if self.closed else self._steps:
            if isinstance(step, bytes):
                return step
            if isinstance(step, Exception):
                raise step
            await anyio.sleep(step)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


class Transport(httpx.AsyncBaseTransport):
    """Answers every request with the same."""

    def __init__(self, status: int, headers: dict[str, str], steps: Sequence[Step]) -> None:
        self._answer = (status, headers, steps)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, headers, steps = self._answer
        return httpx.Response(status, headers=headers, stream=Body(steps))


@asynccontextmanager
async def answering(
    *steps: Step, kind: str | None = "text/event-stream", coding: str = "", status: int = 200
) -> AsyncGenerator[Backend]:
    headers = {"content-encoding": coding} if coding else {}
    headers |= {"content-type": kind} if kind else {}
    async with httpx.AsyncClient(transport=Transport(status, headers, steps)) as client:
        yield OpenAIBackend("m", base_url="http://127.0.0.1:1", client=client)


async def read(
    *steps: Step,
    into: list[Delta] | None = None,
    kind: str | None = "text/event-stream",
    coding: str = "",
    status: int = 200,
) -> str:
    """The text, if it is whole."""
    deltas: list[Delta] = [] if into is None else into
    async with (
        answering(*steps, kind=kind, coding=coding, status=status) as backend,
        backend.open(REQUEST) as stream,
    ):
        async for delta in stream:
            deltas.append(delta)  # noqa: PERF401 - what came before an error is kept
    return "".join(delta.text for delta in deltas)


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [
        ([STOP, USAGE, DONE], 0),
        ([STOP, DONE], 0),
        ([DONE], 0),
        ([STOP, USAGE, HOLD], 0.1),
        ([STOP, HOLD], 2),
        ([STOP, *[0.5, PING] * 100], 2),
        ([STOP, *[0.5, b"data: cost=0.1\n\n"] * 100], 2),
        ([STOP, 1.5, USAGE, HOLD], 1.6),
        ([STOP, DONE, HOLD], 0.1),
        ([STOP, LOST], 0),
        ([STOP, 1.0, LOST], 1),
        ([STOP], 0),
        ([STOP, b'data: {"cost": 0.1\n\n', DONE], 0),
        ([STOP, b"data: \xff\n\n", DONE], 0),
        ([STOP, b"junk", DONE], 0),
        ([STOP, b"data: [DO"], 0),
    ],
)
async def test_after_its_reason_to_stop_an_answer_is_whole_whatever_comes_and_soon(
    steps: Sequence[Step], seconds: float
) -> None:
    started = anyio.current_time()
    assert await read(word("Hello"), *steps) == "Hello"
    assert anyio.current_time() - started == pytest.approx(seconds)


async def test_the_usage_is_taken_though_it_comes_a_moment_later() -> None:
    deltas: list[Delta] = []
    await read(word("Hello"), STOP, 1.9, USAGE, DONE, into=deltas)
    assert [delta.usage for delta in deltas if delta.usage] == [Usage(3, 5)]


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [LOST],
        [PING],
        [b"data: cost=0.1\n\n", STOP, DONE],
        [b'xdata: {"choices": [{"delta": {"content": " world"}}]}\n\n', STOP, DONE],
        [word(" world", "stop"), b"data: \xff\n\n", word("."), DONE],
        [STOP, b"data: {\n\n", word(" world."), DONE],
        [STOP, b'{"error": "too hot"}\n', DONE],
        [b"error: too hot\n\n", STOP, DONE],
    ],
)
async def test_an_answer_that_may_lack_something_is_an_error(steps: Sequence[Step]) -> None:
    with pytest.raises(BackendError):
        await read(word("Hello"), *steps)


async def test_a_server_that_gives_a_reason_with_every_delta_is_read_to_its_end() -> None:
    words = [part for text in "abcd" for part in (word(text, "stop"), 4.0)]
    assert await read(*words, DONE) == "abcd"
    assert await read(*words) == "abcd"
    with pytest.raises(StreamInterrupted):
        await read(*words, LOST)
    with pytest.raises(StreamInterrupted):
        await read(word("a", "stop"), word("b"))


async def test_a_server_that_gives_a_reason_before_the_first_delta_is_read_to_its_end() -> None:
    assert await read(STOP, STOP, 60.0, word("a"), 60.0, word("b"), STOP, DONE) == "ab"


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_a_reason_not_to_write_anything_is_one(reason: str) -> None:
    started = anyio.current_time()
    deltas: list[Delta] = []
    with suppress(BackendError):
        await read(event(delta={}, finish_reason=reason), HOLD, into=deltas)
    assert [delta.finish_reason for delta in deltas] == [reason]
    assert anyio.current_time() - started == pytest.approx(2)


async def test_what_is_whole_is_given_though_the_connection_was_lost_before_its_blank_line() -> (
    None
):
    assert await read(word("Hello"), STOP.rstrip(), LOST) == "Hello"
    deltas: list[Delta] = []
    with pytest.raises(StreamInterrupted):
        await read(word("Hello").rstrip(), LOST, into=deltas)
    assert [delta.text for delta in deltas] == ["Hello"]


@pytest.mark.parametrize("steps", [[STOP, HOLD], [STOP, USAGE, HOLD], [DONE, HOLD]])
async def test_the_time_for_a_delta_does_not_run_out_after_the_last_one(
    steps: Sequence[Step],
) -> None:
    options = {ModelOption.STREAM_TIMEOUT: 0.05}
    async with (
        answering(word("Hello"), *steps) as backend,
        start_session(backend=backend, model_options=options) as m,
    ):
        assert await (await m.ainstruct("Hi.")) == "Hello"
        async with m.stream("Hi.", chunking=None) as result:
            await result.acomplete()
            assert result.full_text == "Hello"


async def test_the_time_for_a_delta_runs_out_before_the_last_one() -> None:
    options = {ModelOption.STREAM_TIMEOUT: 0.05}
    async with (
        answering(word("Hello"), HOLD) as backend,
        start_session(backend=backend, model_options=options) as m,
    ):
        with pytest.raises(BackendTimeout):
            await (await m.ainstruct("Hi."))


async def test_who_leaves_while_the_end_is_awaited_does_not_wait_for_it() -> None:
    async with answering(word("Hello"), STOP, HOLD) as backend:
        started = anyio.current_time()
        with anyio.move_on_after(0.5) as scope:
            async with backend.open(REQUEST) as stream:
                async for _ in stream:
                    pass
        assert scope.cancelled_caught
        assert anyio.current_time() - started == pytest.approx(0.5)
        started = anyio.current_time()
        async with backend.open(REQUEST) as stream:
            async for delta in stream:
                if delta.finish_reason:
                    break
        assert anyio.current_time() - started == 0


async def test_a_stream_whose_reasons_are_the_word_null_is_not_whole_before_its_end() -> None:
    words = [part for text in "ab" for part in (word(text, "null"), 60.0)]
    assert await read(*words, STOP) == "ab"
    with pytest.raises(StreamInterrupted):
        await read(*words)


def message(text: str, **more: object) -> bytes:
    return event(message={"role": "assistant", "content": text}, **more)


async def test_an_answer_that_comes_once_more_as_a_whole_is_there_once() -> None:
    """MiniMax's last event has the whole message, and some gateways send it behind the last one."""
    last = message("Hello world", finish_reason="stop")
    for end in ([last], [STOP, last], [last, USAGE, DONE], [STOP, last, DONE]):
        assert await read(word("Hello"), word(" world"), *end) == "Hello world"
    assert await read(message("Hello"), message(" world", finish_reason="stop")) == "Hello world"
    assert await read(event(delta={"role": "assistant"}), last) == "Hello world"
    assert await read(word("Hello"), word(" world", "stop"), DONE) == "Hello world"


async def test_calls_that_come_once_more_as_a_whole_are_there_once() -> None:
    calls = [{"index": 0, "id": "x", "function": {"name": "f", "arguments": "{}"}}]
    last = event(message={"content": "", "tool_calls": calls}, finish_reason="tool_calls")
    deltas: list[Delta] = []
    await read(event(delta={"tool_calls": calls}), last, DONE, into=deltas)
    assert [len(delta.tool_calls) for delta in deltas] == [1, 0]
    assert deltas[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"code": 500, "msg": "too hot", "success": false}',
        b'{"error_code": 336003, "error_msg": "too hot"}',
        b'{"choices": null, "base_resp": {"status_code": 1004, "status_msg": "too hot"}}',
        b'{"success": false, "errors": [{"code": 7009, "message": "too hot"}], "result": {}}',
        b'{"message": "too hot"}',
        b'data: {"type": "response.failed", "response": {"error": {"message": "too hot"}}}\n\n',
    ],
)
async def test_what_was_said_in_place_of_an_answer_is_quoted(body: bytes, kind: str) -> None:
    with pytest.raises(BackendProtocolError, match="too hot"):
        await read(body, kind=kind)


@pytest.mark.parametrize(
    "error",
    [
        {"choices": None, "base_resp": {"status_code": 1027, "status_msg": "too hot"}},  # MiniMax
        {"code": "Throttling", "message": "too hot"},
        {"type": "error", "message": "too hot"},
    ],
)
async def test_half_an_answer_is_none_whatever_the_form_of_the_error_after_it(
    error: object,
) -> None:
    steps = [word("Hel"), f"data: {json.dumps(error)}\n\n".encode(), DONE]
    with pytest.raises(BackendProtocolError, match="too hot"):
        await read(*steps)
    assert await read(word("Hello"), STOP, *steps[1:]) == "Hello"


async def test_halves_of_a_character_on_both_sides_of_a_reason_are_joined() -> None:
    first, second = "\ud83d", "\ude00"
    assert await read(word(first, "stop"), word(second, "stop"), DONE) == "\U0001f600"
    assert await read(word(first, "stop"), DONE) == "\ufffd"


# --- labels -----------------------------------------------------------------------------------


STREAM = word("Hello") + STOP + USAGE + DONE
WHOLE = b'{"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}'


@pytest.mark.parametrize(
    "kind",
    [None, "", "text/plain", "application/json", "text/html", "a, b", "application/x-ndjson"],
)
@pytest.mark.parametrize("body", [STREAM, WHOLE, WHOLE.replace(b"{", b"{\n", 1), b"\n\n" + WHOLE])
async def test_a_good_answer_is_read_whatever_its_label(kind: str | None, body: bytes) -> None:
    if body.startswith(b"{\n"):
        body = body[:-1] + b"\n}"
    assert await read(body, kind=kind) == "Hello"
    assert await read(body[:30], body[30:], kind=kind) == "Hello"


@pytest.mark.parametrize("body", [b'{"error": "too hot"}', b'[{\n "error": "too hot"\n}\n]\n'])
async def test_an_error_object_with_a_good_status_is_an_error(body: bytes) -> None:
    with pytest.raises(ModelError, match="too hot"):
        await read(body, kind="application/json")


@pytest.mark.parametrize("kind", ["text/html", "text/plain", None])
@pytest.mark.parametrize(
    "steps",
    [
        [b"<html>", b"<p>Log in</p></html>"],
        [b"<html>\n", b"<p>Log in</p></html>", LOST],
        [b"<html>\n", b"<p>Log in</p></html>", HOLD],
        [b"Log in"],
        [b"Log in\n", LOST],
    ],
)
async def test_what_is_no_answer_at_all_is_quoted(steps: Sequence[Step], kind: str | None) -> None:
    with pytest.raises(BackendProtocolError, match=r"Log in.*base_url"):
        await read(*steps, kind=kind)


async def test_words_in_the_middle_of_an_answer_are_quoted() -> None:
    with pytest.raises(StreamInterrupted, match="upstream timed out"):
        await read(word("Hello"), b"upstream timed out\n")


# --- codings ----------------------------------------------------------------------------------


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def flushed(*pieces: bytes) -> list[bytes]:
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    return [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]


CODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("gzip, gzip", gzip.compress),
    ("gzip", bytes),  # a proxy has decompressed it, and left the label
    ("deflate", bytes),
    ("none", bytes),
    ("utf-8", bytes),
    ("identity", bytes),
]


@pytest.mark.parametrize(("coding", "pack"), CODINGS)
async def test_a_compressed_answer_is_read(coding: str, pack: Callable[[bytes], bytes]) -> None:
    body = pack(STREAM)
    assert await read(body, coding=coding) == "Hello"
    assert await read(*[bytes([byte]) for byte in body], coding=coding) == "Hello"
    halves = pack(STREAM[:40]), pack(STREAM[40:])  # each flush a body of its own
    assert await read(*halves, coding=coding) == "Hello"
    assert await read(b"".join(halves), coding=coding) == "Hello"


@pytest.mark.parametrize(("coding", "pack"), CODINGS)
async def test_the_words_of_a_compressed_error_are_read(
    coding: str, pack: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(BackendError, match="too long a prompt"):
        await read(pack(b'{"error": "too long a prompt"}'), coding=coding, status=400)


async def test_compressed_deltas_are_given_as_they_come() -> None:
    first, second = flushed(word("Hello"), STOP + DONE)
    async with (
        answering(first, 7.0, second, coding="gzip") as backend,
        backend.open(REQUEST) as stream,
    ):
        started = anyio.current_time()
        assert (await anext(stream)).text == "Hello"
        assert anyio.current_time() == started
        assert [delta.text async for delta in stream] == [""]


@pytest.mark.parametrize("cut", range(1, 60, 3))
async def test_a_compressed_answer_that_is_cut_or_broken_is_an_error(cut: int) -> None:
    body = gzip.compress(STREAM)
    with pytest.raises(BackendError):
        await read(body[:cut], coding="gzip")
    with pytest.raises(BackendError):
        await read(body[:cut] + bytes(20), coding="gzip")


@pytest.mark.parametrize("coding", ["br", "zstd", "BR"])
async def test_a_coding_that_cannot_be_read_is_named(coding: str) -> None:
    with pytest.raises(BackendProtocolError, match=f"compress.*{coding.lower()}"):
        await read(b"\x8b\x00", coding=coding)


def test_what_is_inflated_comes_in_pieces() -> None:
    inflater = Inflater()
    inflater.take(gzip.compress(bytes(1_000_000)))
    pieces = list(iter(inflater.give, b""))
    assert sum(map(len, pieces)) == 1_000_000
    assert max(map(len, pieces)) < 300_000


async def test_little_that_stands_for_much_is_refused_in_little_room() -> None:
    bomb = gzip.compress(b"data: " + bytes(50_000_000))
    with pytest.raises(BackendProtocolError, match="longer than"):
        await read(bomb, coding="gzip")
    with pytest.raises(BackendError) as caught:
        await read(bomb, coding="gzip", status=500)
    assert len(str(caught.value)) < 1000


# --- Ollama -----------------------------------------------------------------------------------


async def test_ollamas_last_line_ends_an_answer_at_once() -> None:
    for kind in ("application/x-ndjson", "application/json", "text/event-stream", ""):
        transport = Transport(200, {"content-type": kind}, [line("Hello") + LAST, HOLD])
        started = anyio.current_time()
        async with httpx.AsyncClient(transport=transport) as client:
            backend = OllamaBackend("m")
            backend._client = client
            async with backend.open(REQUEST) as stream:
                assert [delta.text async for delta in stream] == ["Hello", ""]
        assert anyio.current_time() - started == pytest.approx(0.1)


# --- anything ---------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *(word("a"), word("\ud83d"), word("\ude00", ""), word("b", "stop"), STOP, USAGE, DONE),
        *(STOP.rstrip(b"\n"), word("c").rstrip(b"\n"), word("d").replace(b"\n", b"\r\n"), PING),
        *(b'{"error": "x"}\n', b"event: error\n", b"error: x\n", b"data: \xff\n\n", b"<p>\n"),
        *(b"\n", b"\r", b"\0", b"data: ", b"{\n", b"}\n", b"x", b": ", b'data: {"a": \n\n', WHOLE),
        *(line("e"), LAST, line("f").rstrip(b"\n"), line("\ud83d"), line("\ude00")),
    ]
)


@pytest.mark.timeout(600)  # of a night's many examples
@settings(max_examples=settings().max_examples // 4)  # each makes an event loop, twice
@given(
    pieces=st.lists(PIECES, max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    is_lost=st.booleans(),
    is_openai=st.booleans(),
)
def test_whatever_comes_is_a_text_or_a_typed_error_and_the_same_however_it_is_cut(
    pieces: list[bytes], cuts: list[int], is_lost: bool, is_openai: bool
) -> None:
    data = b"".join(pieces)
    end: list[Step] = [LOST] if is_lost else []
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    cut_up = [data[a:b] for a, b in pairwise(places) if a < b]

    async def outcome(steps: Sequence[Step]) -> tuple[str, object]:
        text, error = "", None
        async with httpx.AsyncClient(transport=Transport(200, {}, steps)) as client:
            backend = (
                OpenAIBackend("m", base_url="http://127.0.0.1:1")
                if is_openai
                else OllamaBackend("m")
            )
            backend._client = client
            try:
                async with backend.open(REQUEST) as stream:
                    async for delta in stream:
                        text += delta.text
            except BackendError as raised:
                error = raised
        text.encode()
        return text, type(error)

    whole = run_virtual(outcome, [data, *end] if data else end)
    assert run_virtual(outcome, [*cut_up, *end]) == whole
