"""Faults at every byte of a good answer: no hang, no wrong value, no untyped error, nothing left open.

A value is right when it is the text that was sent, or what a slow reading by the rules makes of the bytes that were
really sent; and an answer whose reason to stop was sent whole is a value, however its connection ends.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Sequence
from typing import Final

import anyio
import attrs
import h11
import pytest
from wire_server import DONE, STOP, USAGE, Step, chunked, line, raw_server, sized, word

from mellea_sc.backends.ollama import OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.backend import Backend, ChatMessage, GenerationRequest, ModelOption
from mellea_sc.core.errors import BackendError, BackendTimeout
from mellea_sc.testing.leaks import assert_no_leaks

pytestmark = pytest.mark.anyio

NIGHTLY: Final = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
REQUESTS: Final = 5000 if NIGHTLY else 280

TEXT: Final = 'Hello, wörld \U0001f600 "quoted"\n and more.'
WORDS: Final = ("Hello, ", "wörld ", "\U0001f600 ", '"quoted"\n', " and more.")
EVENTS: Final = (*map(word, WORDS), STOP, USAGE, DONE)
LINES: Final = (*map(line, WORDS), line(done=True, done_reason="stop", eval_count=5))


@attrs.frozen
class Good:
    """A good answer: its bytes, where it is whole, and which backend it is for."""

    name: str
    data: bytes
    closes: bool = False

    @property
    def whole_at(self) -> int:
        """How many of the bytes must have come for a value."""
        last = b'"finish_reason": "stop"}]}' if self.is_openai else b'"eval_count": 5}'
        return self.data.index(last) + len(last)

    @property
    def is_openai(self) -> bool:
        return self.name.startswith("openai")

    def backend(self, url: str) -> Backend:
        return (
            OpenAIBackend("m", base_url=url) if self.is_openai else OllamaBackend("m", base_url=url)
        )


def until_closed(body: bytes, kind: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode() + body


def unescaped(event: bytes) -> bytes:
    said = json.loads(event.removeprefix(b"data: "))
    return b"data: " + json.dumps(said, ensure_ascii=False).encode() + b"\n\n"


NDJSON: Final = "application/x-ndjson"
ANSWERS: Final = (
    Good("openai, a chunk each", chunked(*EVENTS)),
    Good("openai, sized", sized(b"".join(EVENTS))),
    Good("openai, closed", until_closed(b"".join(EVENTS), "text/event-stream"), closes=True),
    Good("openai, CRLF", chunked(*(e.replace(b"\n", b"\r\n") for e in EVENTS))),
    Good("openai, UTF-8", chunked(*(unescaped(e) for e in EVENTS[:-1]), DONE)),
    Good("ollama, a chunk each", chunked(*LINES, kind=NDJSON)),
    Good("ollama, sized", sized(b"".join(LINES), kind=NDJSON)),
    Good("ollama, closed", until_closed(b"".join(LINES), NDJSON), closes=True),
)

# --- faults: what becomes of the bytes from a place on ----------------------------------------


def cut(good: Good, at: int, rng: random.Random) -> list[Step]:
    return [good.data[:at], "close"]


def reset(good: Good, at: int, rng: random.Random) -> list[Step]:
    return [good.data[:at], 0.01, "reset"]


def stall(good: Good, at: int, rng: random.Random) -> list[Step]:
    return [good.data[:at], "hold"]


def delay(good: Good, at: int, rng: random.Random) -> list[Step]:
    return [good.data[:at], rng.choice([0.0, 0.001, 0.02]), good.data[at:]]


def in_bytes(good: Good, at: int, rng: random.Random) -> list[Step]:
    return [
        good.data[:at],
        *(bytes([byte]) for byte in good.data[at : at + 40]),
        good.data[at + 40 :],
    ]


def junk(good: Good, at: int, rng: random.Random) -> list[Step]:
    byte = rng.choice([b"\0", b"\xff", b"\x80", b"x", b"\n", b"\r", b" ", b"{", b'"', b":", b"0"])
    return [good.data[:at] + byte + good.data[at:]]


def change(good: Good, at: int, rng: random.Random) -> list[Step]:
    changed = bytes([good.data[at] ^ 1 << rng.randrange(8)]) if at < len(good.data) else b""
    return [good.data[:at] + changed + good.data[at + 1 :]]


def drop(good: Good, at: int, rng: random.Random) -> list[Step]:
    return [good.data[:at] + good.data[at + rng.choice([1, 1, 2, 30]) :]]


def double(good: Good, at: int, rng: random.Random) -> list[Step]:
    size = rng.choice([1, 2, 8, 50, 200])
    return [good.data[:at] + good.data[at : at + size] * 2 + good.data[at + size :]]


def more(good: Good, at: int, rng: random.Random) -> list[Step]:
    return [good.data + rng.choice([b"\r\n", b"0\r\n\r\n", b"junk", good.data[: at + 1]])]


FAULTS: Final = (cut, reset, stall, delay, in_bytes, junk, change, drop, double, more)
HARMLESS: Final = (delay, in_bytes, more)
Fault = Callable[[Good, int, random.Random], list[Step]]


# --- what a value may be ----------------------------------------------------------------------


def body_of(sent: bytes) -> bytes:
    """The body of the first response in these bytes, as far as it can be read."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
    http.send(h11.EndOfMessage())
    http.receive_data(sent)
    http.receive_data(b"")
    body = bytearray()
    try:
        while True:
            told = http.next_event()
            if isinstance(told, h11.Data):
                body += told.data
            elif told in (h11.NEED_DATA, h11.PAUSED) or isinstance(told, h11.EndOfMessage):
                break
    except h11.RemoteProtocolError:
        pass
    return bytes(body)


def lenient_body_of(sent: bytes) -> bytes:
    """The same, where a line feed alone ends the lines around chunks, as it does for aiohttp."""
    head, _, rest = sent.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return b""
    body = b""
    while size := re.match(rb"\r?\n?([0-9a-fA-F]+)[^\n]*\n", rest):
        start, length = size.end(), int(size[1], 16)
        body += rest[start : start + length]
        rest = rest[start + length :]
    return body


def texts_of(good: Good, body: bytes) -> list[str]:
    """The texts that this body may be said to be: by the letter, or with what followed their end."""
    found: list[str] = []
    text = ""
    try:
        for part in parts_of(good, body):
            if part == "[DONE]":
                found.append(text)
                break
            said = json.loads(part)
            if good.is_openai:
                choice = (said.get("choices") or [{}])[0]
                text += (choice.get("delta") or {}).get("content") or ""
                ends = bool(choice.get("finish_reason"))
            else:
                text += (said.get("message") or {}).get("content") or ""
                ends = said["done"]
            if ends:
                found.append(text)
    except (ValueError, TypeError, AttributeError, KeyError, LookupError):
        pass
    # A half of a character is none.
    return [
        each.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        for each in ([*found, text] if found else [])
    ]


def parts_of(good: Good, body: bytes) -> list[str]:
    written = re.split(r"\r\n|\r|\n", body.decode(errors="surrogateescape"))
    if not good.is_openai:
        return [part for part in written if part.strip()]
    parts: list[str] = []
    held: list[str] = []
    for each in [*written, ""]:
        if each.startswith("data:"):
            held.append(each[5:].removeprefix(" "))
        elif "{" in each and not each.startswith((":", "event:", "id:", "retry:")):
            parts.append("a spoilt delta")
        elif not each and held:
            parts.append("\n".join(held))
            held = []
    return parts


# --- the test ---------------------------------------------------------------------------------


@attrs.frozen
class Trial:
    """One fault at one place of one answer."""

    good: Good
    fault: Fault
    at: int
    steps: Sequence[Step] = attrs.field(repr=False)

    @property
    def sent(self) -> bytes:
        return b"".join(step for step in self.steps if isinstance(step, bytes))

    def judge(self, came: str | BackendError, own: str) -> None:
        told = f"{self.good.name}, {self.fault.__name__} at {self.at}: {came!r}"
        if self.fault is more and own == "fast":  # aiohttp may refuse all that came in one read
            assert came == TEXT or isinstance(came, BackendError), told
        elif self.fault in HARMLESS:
            assert came == TEXT, told
        elif self.fault in (cut, reset, stall):
            missing = self.good.whole_at - len(self.sent)
            if missing > 0:
                assert isinstance(came, BackendError), told
            elif self.fault is not stall or missing <= -4:  # the end of the line has come, too
                assert came == TEXT, told
        elif isinstance(came, str):
            right = [TEXT, *texts_of(self.good, body_of(self.sent))]
            if own == "fast":
                right += texts_of(self.good, lenient_body_of(self.sent))
            assert came in right, told


def trials(seed: int) -> list[Trial]:
    """Every fault, at places that are spread over the bytes of every answer."""
    rng = random.Random(seed)
    made: list[Trial] = []
    while len(made) < REQUESTS:
        for good in ANSWERS:
            for fault in FAULTS:
                at = rng.randrange(len(good.data))
                steps = fault(good, at, rng)
                made.append(Trial(good, fault, at, [*steps, "close"] if good.closes else steps))
    rng.shuffle(made)
    return made[:REQUESTS]


async def ask(backend: Backend, seconds: float = 20) -> str | BackendError:
    options = {ModelOption.STREAM_TIMEOUT: seconds / 4}
    request = GenerationRequest((ChatMessage("user", "hi"),), options)
    try:
        with anyio.fail_after(seconds):
            async with backend.open(request) as deltas:
                return "".join([delta.text async for delta in deltas])
    except BackendError as error:
        return error
    except TimeoutError:
        return BackendTimeout("as a session would say")


async def try_all(mine: Sequence[Trial], good: Good, own: str) -> None:
    """Try one after the other, with a good request behind each."""
    as_it_is: Sequence[Step] = [good.data, "close"] if good.closes else [good.data]
    steps = as_it_is
    with raw_server(lambda _: steps) as server:
        async with good.backend(server.url).connected() as backend:
            for trial in mine:
                steps = trial.steps
                may_stall = trial.fault not in (cut, reset, *HARMLESS)  # a length too long, …
                came = await ask(backend, 1 if may_stall else 20)
                assert may_stall or not isinstance(came, BackendTimeout), f"{trial} hung"
                trial.judge(came, own)
                steps = as_it_is
                assert await ask(backend) == TEXT, f"after {trial}"


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_fault_at_any_byte_is_the_right_value_or_a_typed_error(own: str) -> None:
    seed = random.randrange(2**32) if NIGHTLY else 20
    async with assert_no_leaks(), anyio.create_task_group() as tasks:
        for good in ANSWERS:
            of_it = [trial for trial in trials(seed) if trial.good is good]
            for first in range(3):
                tasks.start_soon(try_all, of_it[first::3], good, own)
