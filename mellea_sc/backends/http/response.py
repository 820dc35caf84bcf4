"""The response to one request: its bytes as they arrive, and a close that no peer can hold up."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, Mapping
from typing import TYPE_CHECKING, Final, cast

import anyio

from mellea_sc.backends.http.codings import Inflater, unreadable_coding, wants_inflating
from mellea_sc.backends.http.ending import LINGER
from mellea_sc.backends.http.failures import Failures
from mellea_sc.backends.http.translation import client_errors, translated
from mellea_sc.core.errors import MelleaError
from mellea_sc.core.retries import untimed

if TYPE_CHECKING:
    import h11
    import httpx

__all__ = ["CLOSE_TIMEOUT", "Response"]

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that closing a response may take."""
BODY_TIMEOUT: Final = 5.0
"""Seconds to wait for the body of an error."""
BODY_LIMIT: Final = 64 * 1024
"""Bytes of the body of an error that are read."""


class Response:
    """The response to one request: its bytes as they arrive, and a close that no peer can hold up.

    Args:
        response: The client's, with its body unread.
        failures: Makes the errors.

    Attributes:
        lost: Why it has ended early, if it has: the connection was lost, or what came was not HTTP.
    """

    __slots__ = ("_chunks", "_deadline", "_failures", "_inflater", "_response", "lost")

    def __init__(self, response: httpx.Response, failures: Failures) -> None:
        self._response = response
        # Not through the client's decoders: a generator that fails in between would leave those
        # inside it to the garbage collector.
        self._chunks = aiter(cast("AsyncIterable[bytes]", response.stream))
        self._failures = failures
        self._deadline: float | None = None
        self.lost: MelleaError | None = None
        self._inflater = Inflater() if wants_inflating(self._coding) else None

    @property
    def media_type(self) -> str:
        """What its label says that it is."""
        headers: Mapping[str, str] = self._response.headers
        return headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def _coding(self) -> str:
        headers: Mapping[str, str] = self._response.headers
        return headers.get("content-encoding", "")

    async def check(self) -> None:
        """Make sure that it is a success that can be read.

        What its label says is not asked: servers send good streams with any label or none.

        Raises:
            BackendError: it is not.
        """
        if not self._response.is_success:
            status = self._response.status_code
            with untimed():  # what it says must not be lost in a time-out for deltas
                body = await self.beginning()
            raise self._failures.status(status, self._response.headers, body)
        if coding := unreadable_coding(self._coding):
            raise self._failures.not_http(
                f"it compresses ({coding}) what was asked for uncompressed"
            )

    @property
    def is_finished(self) -> bool:
        """Whether the protocol has said all: what still comes, or fails, is of no interest."""
        return self._deadline is not None

    def finish(self, grace: float) -> None:
        """The protocol has said all: reading on fails no more, and ends after so many seconds."""
        deadline = anyio.current_time() + grace
        self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)

    def go_on(self) -> None:
        """The protocol has gone on although it had said all."""
        self._deadline = None

    async def read(self) -> bytes:
        """The next bytes as soon as there are any; empty at the end, which may be early: see :attr:`lost`."""
        try:
            if self._deadline is not None:
                return await self._rest(self._deadline)
            if self._inflater is not None:
                return await self._inflated(self._inflater)
            return await anext(self._chunks, b"")
        except client_errors() as error:
            self.lost = translated(error, self._failures)
            self.lost.__cause__ = error
        except zlib.error as error:
            self.lost = self._failures.not_http(f"what it has compressed is broken: {error}")
        return b""

    async def _rest(self, deadline: float) -> bytes:
        with anyio.CancelScope(deadline=deadline):
            if self._inflater is not None:
                return await self._inflated(self._inflater)
            return await anext(self._chunks, b"")
        return b""

    async def _inflated(self, inflater: Inflater) -> bytes:
        while not (piece := inflater.give()):
            data = await anext(self._chunks, b"")
            if not data:
                return b""
            inflater.take(data)
        return piece

    async def beginning(self, read: str = "") -> str:
        """The beginning of the body, or what of it arrives within a bounded time.

        Args:
            read: What of it has been read.
        """
        if unreadable_coding(self._coding):
            return ""
        data = bytearray()
        with anyio.move_on_after(BODY_TIMEOUT):
            while len(data) < BODY_LIMIT and (more := await self.read()):
                data += more
        return read + data[:BODY_LIMIT].decode(errors="replace")

    async def aclose(self) -> None:
        """Close the response; its connection goes back to the pool if the body was read to its end.

        Cancellation: shielded, and bounded in time.
        """
        try:
            if self.is_finished:
                self.finish(LINGER)
                while await self.read():
                    pass
        finally:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                try:
                    _spoil_if_there_is_more(self._response)
                    await self._response.aclose()
                    # The client reads through a chain of generators, and closing does not reach
                    # those inside. They must not be left to the garbage collector: one more read,
                    # which the closed connection refuses, ends them all.
                    while await anext(self._chunks, b""):
                        pass
                except client_errors():
                    pass


def _spoil_if_there_is_more(response: httpx.Response) -> None:
    """Keep the client from using a connection again on which more came than the response.

    It would take the rest for the response to its next request, which then has an error or another's
    answer. There is no public way to ask; of a client that is made otherwise, nothing is found here.
    """
    part: object = response.stream
    for name in ("_stream", "_httpcore_stream", "_stream", "_connection", "_h11_state"):
        part = getattr(part, name, None)
    if part is not None:
        http = cast("h11.Connection", part)
        rest, _ = http.trailing_data
        if rest:
            http.send_failed()  # it is then closed instead
