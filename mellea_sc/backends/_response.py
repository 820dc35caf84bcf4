"""A streamed response: its bytes as they arrive, and a close that no peer can hold up.

Imports nothing of httpx before there is a response of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import anyio

from mellea_sc.backends._failures import Failures
from mellea_sc.core.errors import MelleaError

if TYPE_CHECKING:
    import httpx

__all__ = ["Response", "transport_errors"]

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that closing a response may take."""
LINGER: Final = 0.1
"""Seconds to wait, after the last delta, for the end of the response: its connection can then be used again."""
BODY_TIMEOUT: Final = 5.0
"""Seconds to wait for the body of an error."""
BODY_LIMIT: Final = 64 * 1024
"""Bytes of the body of an error that are read."""


def transport_errors() -> tuple[type[Exception], ...]:
    """Everything that the HTTP client and the sockets below it are known to raise."""
    import httpx

    return (
        httpx.HTTPError,
        httpx.InvalidURL,
        httpx.StreamError,
        OSError,
        anyio.BrokenResourceError,
        anyio.ClosedResourceError,
    )


class Response:
    """The response to one request.

    Args:
        response: The client's, with its body unread.
        failures: Makes the errors.
    """

    __slots__ = ("_chunks", "_errors", "_failures", "_response", "is_finished")

    def __init__(self, response: httpx.Response, failures: Failures) -> None:
        self._response = response
        self._chunks = response.aiter_bytes()
        self._failures = failures
        self._errors = transport_errors()
        self.is_finished = False
        """Set when the protocol has said all: what still comes, or fails, is of no interest."""

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return self._response.status_code

    @property
    def is_success(self) -> bool:
        """Whether the status is one of the 2xx."""
        return self._response.is_success

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names in any case."""
        return self._response.headers

    async def read(self) -> bytes:
        """The next bytes as soon as there are any; empty at the end.

        Raises:
            BackendError: the connection was lost, or what came is not HTTP.
        """
        try:
            return await anext(self._chunks, b"")
        except self._errors as error:
            if self.is_finished:
                return b""
            raise self._failures.transport(error) from error

    async def beginning(self) -> str:
        """The beginning of the body, or what of it arrives within a bounded time."""
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
                except self._errors:
                    pass
