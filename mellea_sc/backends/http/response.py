"""The response to one request: its bytes as they arrive, and a close that no peer can hold up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import anyio
import httpx

from mellea_sc.backends.http.failures import Failures
from mellea_sc.backends.http.translation import ERRORS, translated
from mellea_sc.core.errors import MelleaError

__all__ = ["CLOSE_TIMEOUT", "Response"]

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that closing a response may take."""
LINGER: Final = 0.1
"""Seconds to wait, after the last delta, for the response's end: its connection can then be used again."""
BODY_TIMEOUT: Final = 5.0
"""Seconds to wait for the body of an error."""
BODY_LIMIT: Final = 64 * 1024
"""Bytes of the body of an error that are read."""


class Response:
    """The response to one request: its bytes as they arrive, and a close that no peer can hold up.

    Args:
        response: The client's, with its body unread.
        failures: Makes the errors.
    """

    __slots__ = ("_chunks", "_failures", "_response", "is_finished")

    def __init__(self, response: httpx.Response, failures: Failures) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._response = response
        # Not through the client's decoders: a generator that fails in between would leave those
        # inside it to the garbage collector.
        self._chunks = aiter(response.stream)
        self._failures = failures
        self.is_finished = False
        """Set when the protocol has said all: what still comes, or fails, is of no interest."""

    async def check(self, media_types: tuple[str, ...]) -> None:
        """Make sure that it is a success, and a stream of one of these types.

        Raises:
            BackendError: it is not.
        """
        headers: Mapping[str, str] = self._response.headers
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if not self._response.is_success:
            status = self._response.status_code
            raise self._failures.status(status, headers, await self._beginning())
        if self._is_compressed:
            raise self._failures.not_http("it compresses what was asked for uncompressed")
        if media_type not in media_types:
            raise self._failures.not_a_stream(media_type, media_types[0], await self._beginning())

    async def read(self) -> bytes:
        """The next bytes as soon as there are any; empty at the end.

        Raises:
            BackendError: the connection was lost, or what came is not HTTP.
        """
        try:
            return await anext(self._chunks, b"")
        except ERRORS as error:
            if self.is_finished:
                return b""
            raise translated(error, self._failures) from error

    @property
    def _is_compressed(self) -> bool:
        encoding: str = self._response.headers.get("content-encoding", "identity")
        return encoding.strip().lower() not in ("identity", "")

    async def _beginning(self) -> str:
        """The beginning of the body, or what of it arrives within a bounded time."""
        if self._is_compressed:
            return ""
        data = bytearray()
        with anyio.move_on_after(BODY_TIMEOUT):
            try:
                while len(data) < BODY_LIMIT and (more := await self.read()):
                    data += more
            except MelleaError:
                pass  # what was read is what there is to say
        return data[:BODY_LIMIT].decode(errors="replace")

    async def aclose(self) -> None:
        """Close the response; its connection goes back to the pool if the body was read to its end.

        Cancellation: shielded, and bounded in time.
        """
        try:
            if self.is_finished:
                with anyio.move_on_after(LINGER):
                    while await self.read():
                        pass
        finally:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                try:
                    await self._response.aclose()
                    # The client reads through a chain of generators, and closing does not reach
                    # those inside. They must not be left to the garbage collector: one more read,
                    # which the closed connection refuses, ends them all.
                    while await anext(self._chunks, b""):
                        pass
                except ERRORS:
                    pass
