"""How far a delta, a fail and a call go through the library: its distinct functions and modules, over loopback.

The numbers say how much somebody has to read to follow one of them from end to end, on asyncio, over our own
connections. They are there so that a change touches them on purpose: lower them where a way became shorter.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Sequence
from pathlib import Path
from types import FrameType

import pytest

import mellea_sc
from mellea_sc import PartialValidationResult, Requirement, ValidationResult, start_session
from mellea_sc.backends import OpenAIBackend
from mellea_sc.testing.server import Answer, ModelServer

OURS = Path(mellea_sc.__file__).parent
INLINED = {"<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>"}
"""Functions to some versions of Python only."""
FROM, DELTAS = 100, 200
"""After so many deltas everything is in a steady state; and so many are looked at."""
DELTA, FAIL, CALL = (28, 12), (60, 21), [(90, 23), (173, 34)]
"""Functions and modules; of a call without a requirement, and with one."""
WORDS = ["end. " if i % 12 == 0 else "word " for i in range(1, 600)]


class Way:
    """The functions of the library that were called, and how often."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()

    def size(self, *, least: int = 1) -> tuple[int, int]:
        """How many functions were called at least so often, and of how many modules they are."""
        functions = [function for function, calls in self.calls.items() if calls >= least]
        return len(functions), len({module for module, _ in functions})

    def start(self) -> None:
        sys.setprofile(self._take)

    def stop(self) -> None:
        sys.setprofile(None)

    def _take(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_name not in INLINED:
            module = Path(code.co_filename)
            if module.is_relative_to(OURS) and not module.is_relative_to(OURS / "testing"):
                self.calls[code.co_filename, code.co_qualname] += 1


pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With our own connections, whether or not aiohttp is installed."""
    monkeypatch.setattr("mellea_sc.backends.http.client.has_aiohttp", lambda: False)
    return str(request.param)


@pytest.fixture
async def backend() -> AsyncGenerator[OpenAIBackend]:
    async with ModelServer(lambda _: Answer(WORDS, delay=0.0005)) as server:
        yield OpenAIBackend("test-model", base_url=server.openai_url)


@pytest.fixture
def way() -> Generator[Way]:
    way = Way()
    yield way
    way.stop()


class Judging(Requirement):
    """Passes everything; with a way, fails one chunk and begins to look there."""

    fails_at: int | None = None
    way: Way | None = None
    seen = 0

    async def stream_validate(self, chunk, *, backend, ctx):
        self.seen += 1
        if self.seen == self.fails_at:
            assert self.way is not None
            self.way.start()
            return PartialValidationResult("fail", reason="enough")
        return PartialValidationResult("unknown")

    async def validate(self, backend, ctx, *, format=None, model_options=None):
        return ValidationResult(True)


async def test_a_delta_of_a_checked_stream(backend: OpenAIBackend, way: Way) -> None:
    async with (
        start_session(backend=backend) as m,
        m.stream("?", requirements=[Judging("fine")], chunking="word") as result,
    ):
        read = 0
        async for _ in result.astream():
            read += 1
            if read == FROM:
                way.start()
            elif read == FROM + DELTAS:
                way.stop()
    # what happens now and then is not part of every delta's way
    found = way.size(least=DELTAS // 2)
    assert found == DELTA


async def test_a_fail_until_its_reader_knows(backend: OpenAIBackend, way: Way) -> None:
    judging = Judging("fine")
    judging.fails_at, judging.way = 50, way
    async with (
        start_session(backend=backend) as m,
        m.stream("?", requirements=[judging], chunking="word") as result,
    ):
        async for _ in result.astream():
            pass
        way.stop()
    assert not result.completed
    found = way.size()
    assert found == FAIL


@pytest.mark.parametrize("requirements", [0, 1])
async def test_a_call(requirements: int, backend: OpenAIBackend, way: Way) -> None:
    def judges() -> Sequence[Requirement]:
        return [Judging("fine")] * requirements

    async with start_session(backend=backend) as m:
        await (await m.ainstruct("?", requirements=judges()))
        way.start()
        await (await m.ainstruct("?", requirements=judges()))
        way.stop()
    found = way.size()
    assert found == CALL[requirements]
