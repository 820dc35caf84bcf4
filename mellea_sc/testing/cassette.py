"""Cassettes: a real backend's answers, recorded once to a readable file and replayed in tests.

::

    async with start_session(backend=Recording(OllamaBackend("granite4:micro"), "haiku.json")) as m: ...

    async with start_session(backend=Cassette("haiku.json")) as m: ...
"""

from __future__ import annotations

import difflib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from os import PathLike
from pathlib import Path

import anyio
import anyio.lowlevel

from mellea_sc.core.backend import Backend, BackendWrapper, Delta, GenerationRequest
from mellea_sc.testing._cassette.file import (
    Exchange,
    Head,
    TimedDelta,
    error_in,
    error_out,
    load,
    save,
)
from mellea_sc.testing._cassette.scrub import Scrub, described, scrubbed

__all__ = ["Cassette", "CassetteMismatch", "Recording"]


class CassetteMismatch(AssertionError):
    """A program asks for something else than was recorded, or reads further."""


def _unchanged(text: str) -> str:
    return text


class Recording(BackendWrapper):
    """Another backend, whose exchanges are written to a file as they end.

    An older file is overwritten by the first of them. Neither keys nor headers are part of a request,
    and the values of options whose names look like a secret's (``token``, ``api_key``, …) are left out;
    for all else there is ``scrub``.

    Args:
        backend: The one that is asked.
        path: The file.
        scrub: Takes what is secret or varies (names, dates) out of a text: of the prompts, the other
            options, the answers as a whole, and the errors. A cassette needs the same to compare.
    """

    def __init__(
        self, backend: Backend, path: str | PathLike[str], *, scrub: Scrub = _unchanged
    ) -> None:
        super().__init__(backend)
        self._path = Path(path)
        self._scrub = scrub
        self._exchanges: list[Exchange] = []  # one list for a wrapper and its connected copies

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        """Open a generation; see :meth:`Backend.open`."""
        exchange = Exchange(described(request, self._scrub), left=True)
        self._exchanges.append(exchange)
        started = anyio.current_time()
        try:
            async with AsyncExitStack() as stack:
                try:
                    deltas = await stack.enter_async_context(self.inner.open(request))
                except Exception as error:
                    _ended_by(exchange, error)
                    raise
                exchange.opened = anyio.current_time() - started
                yield await stack.enter_async_context(
                    aclosing(_recorded(deltas, exchange, started))
                )
        finally:
            exchange.ended = anyio.current_time() - started
            self._save()

    def _save(self) -> None:
        ended = [one for one in self._exchanges if one.ended is not None]
        model = self._scrub(self.model_id)
        head = Head(self.provider, model, self.prefills, self.judges)
        save(self._path, head, [scrubbed(one, self._scrub) for one in ended])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r}, {str(self._path)!r})"


async def _recorded(
    deltas: AsyncIterator[Delta], exchange: Exchange, started: float
) -> AsyncGenerator[Delta]:
    try:
        async for delta in deltas:
            exchange.deltas.append(TimedDelta(anyio.current_time() - started, delta))
            yield delta
    except Exception as error:
        _ended_by(exchange, error)
        raise
    exchange.left = False


def _ended_by(exchange: Exchange, error: Exception) -> None:
    exchange.left = False
    exchange.error = error_out(error)


class Cassette(Backend):
    """A backend that gives the answers of a file that a :class:`Recording` has written.

    A request gets the answer that was recorded for the same messages, options and schema, wherever
    it stands in the file; equal requests get theirs in the order in which they were recorded. An
    error is raised again where it was.

    Args:
        path: The file.
        delays: Deltas come at the times at which they were recorded, instead of at once.
        repeat: Answers may be used again when all that fit have been used.
        scrub: As given to the recording.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a cassette.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        delays: bool = False,
        repeat: bool = False,
        scrub: Scrub = _unchanged,
    ) -> None:
        self._path = Path(path)
        self._delays = delays
        self._repeat = repeat
        self._scrub = scrub
        head, self._exchanges = load(self._path)
        self.provider: str = head.provider
        self.model_id: str = head.model_id
        self.prefills: bool = head.prefills
        self.judges: bool = head.judges
        self._uses = [0] * len(self._exchanges)

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        """Open a generation; see :meth:`Backend.open`.

        Raises:
            CassetteMismatch: no recorded request is equal and unused; it says how the nearest differs.
        """
        started = anyio.current_time()
        await anyio.lowlevel.checkpoint()
        exchange = self._take(described(request, self._scrub))
        await self._wait_until(started, exchange.opened)
        if exchange.opened is None:
            await self._end(started, exchange)
        async with aclosing(self._replayed(started, exchange)) as deltas:
            yield deltas

    async def _replayed(self, started: float, exchange: Exchange) -> AsyncGenerator[Delta]:
        for timed in exchange.deltas:
            await self._wait_until(started, timed.at)
            yield timed.delta
        await self._end(started, exchange)

    async def _end(self, started: float, exchange: Exchange) -> None:
        await self._wait_until(started, exchange.ended)
        if exchange.error is not None:
            raise error_in(exchange.error)
        if exchange.left:
            raise CassetteMismatch(
                f"{self._path}: when exchange {self._number(exchange)} was recorded, its consumer left "
                "here, so nobody knows what comes next"
            )

    async def _wait_until(self, started: float, moment: float | None) -> None:
        if self._delays and moment is not None:
            await anyio.sleep_until(started + moment)

    def _take(self, asked: Mapping[str, object]) -> Exchange:
        fitting = [index for index, one in enumerate(self._exchanges) if dict(one.request) == asked]
        index = min(fitting, key=self._uses.__getitem__, default=None)
        if index is None or (self._uses[index] and not self._repeat):
            raise CassetteMismatch(self._difference(asked, len(fitting)))
        self._uses[index] += 1
        return self._exchanges[index]

    def _difference(self, asked: Mapping[str, object], recorded: int) -> str:
        if recorded:
            return (
                f"{self._path} has this request {recorded} times, and it is asked once more "
                f"(repeat=True uses an answer again): {_text(asked)}"
            )
        if not self._exchanges:
            return f"{self._path} has no exchanges, and this is asked: {_text(asked)}"
        wanted = _text(asked)
        matcher = difflib.SequenceMatcher(None, b=wanted, autojunk=False)

        def likeness(exchange: Exchange) -> float:
            matcher.set_seq1(_text(exchange.request))
            return matcher.quick_ratio()

        nearest = max(self._exchanges, key=likeness)
        number = self._number(nearest)
        diff = difflib.unified_diff(
            _text(nearest.request).splitlines(),
            wanted.splitlines(),
            f"exchange {number} of {self._path}",
            "asked for",
            lineterm="",
        )
        return f"{self._path} has no such request; the nearest is exchange {number}:\n" + "\n".join(
            diff
        )

    def _number(self, exchange: Exchange) -> int:
        return 1 + self._exchanges.index(exchange)

    def assert_exhausted(self) -> None:
        """Check that every recorded answer was asked for.

        Raises:
            AssertionError: naming those that were not.
        """
        unused = [str(number) for number, uses in enumerate(self._uses, 1) if not uses]
        if unused:
            raise AssertionError(f"{self._path}: nobody asked for exchange {', '.join(unused)}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r})"


def _text(request: Mapping[str, object]) -> str:
    return json.dumps(request, indent=2, ensure_ascii=False)
