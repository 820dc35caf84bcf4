"""One request and its response: the bytes as they arrive, and a close that no peer can block."""

from __future__ import annotations

import math
import zlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import anyio

from mellea_sc.backends.http.codings import Inflater, unreadable_coding, wants_inflating
from mellea_sc.backends.http.ending import LINGER
from mellea_sc.backends.http.failures import Failures
from mellea_sc.backends.http.link import CLOSE_TIMEOUT, Link, Reply
from mellea_sc.backends.http.translation import (
    RemoteProtocolError,
    client_errors,
    is_one_of,
    reason_of,
    translated,
)
from mellea_sc.core.errors import MelleaError, StreamInterrupted
from mellea_sc.core.retries import untimed

__all__ = ["Response", "ask"]

LARGE: Final = 64 * 1024
"""A request of this size does not fit into a connection's buffers, so that it is sent in several steps."""
BODY_TIMEOUT: Final = 5.0
"""Seconds to wait for the body of an error."""
BODY_LIMIT: Final = 64 * 1024
"""The maximum of bytes that are read of an error's body."""


class Response:
    """The response to one request: the bytes as they arrive, and a close that no peer can block.

    Args:
        reply: The transport's reply; its body has not been read.
        failures: Makes the errors.

    Attributes:
        straight: The transport's own ``read``, as long as nothing else has to be done with the bytes; else ``None``.
            It saves one call per delta. If it raises one of
            :func:`~mellea_sc.backends.http.translation.client_errors`, pass that to :meth:`end_by`.
        deadline: The time at which reading ends, by the loop's clock, after the protocol's end mark.
        headers: By names in lower case.
        unreadable: The coding of a body that cannot be read; else ``None``.
        lost: The error, if the response has ended early: the connection was lost, or the data was not HTTP.
    """

    __slots__ = (
        "_failures",
        "_inflater",
        "_plain_read",
        "_reply",
        "deadline",
        "headers",
        "lost",
        "straight",
        "unreadable",
    )

    def __init__(self, reply: Reply, failures: Failures) -> None:
        self._reply = reply
        self._failures = failures
        self.headers: dict[str, str] = {}
        for raw_name, raw_value in reply.headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode(errors="replace")
            # Several headers with the same name are one list (RFC 9110, section 5.3).
            said = self.headers.get(name)
            self.headers[name] = value if said is None else f"{said}, {value}"
        coding = self.headers.get("content-encoding")
        self.unreadable: str | None = unreadable_coding(coding) if coding else None
        self._inflater = Inflater() if coding and wants_inflating(coding) else None
        self._plain_read = reply.read if self._inflater is None else None
        self.straight: Callable[[], Awaitable[bytes]] | None = self._plain_read
        self.deadline: float | None = None
        self.lost: MelleaError | None = None

    @property
    def media_type(self) -> str:
        """The media type in its ``Content-Type``. It is not enforced: servers send good streams with any or none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def finish(self, grace: float) -> None:
        """Set the deadline after the protocol's end mark; from now on errors of the connection are ignored."""
        deadline = anyio.current_time() + grace
        self.deadline = deadline if self.deadline is None else min(deadline, self.deadline)
        self.straight = None

    def go_on(self) -> None:
        """Remove the deadline: the answer has gone on after what looked like its end."""
        self.deadline = None
        self.straight = self._plain_read

    def end_by(self, error: Exception) -> bytes:
        """End the response after reading has failed; returns empty bytes, which mean the end."""
        self.lost = translated(error, self._failures)
        self.lost.__cause__ = error
        return b""

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the end, which may be early, see :attr:`lost`."""
        try:
            with anyio.CancelScope(deadline=math.inf if self.deadline is None else self.deadline):
                return await (self._inflated() if self._plain_read is None else self._plain_read())
        except client_errors() as error:
            return self.end_by(error)
        return b""

    async def _inflated(self) -> bytes:
        assert self._inflater is not None
        try:
            while not (piece := self._inflater.give()):
                data = await self._reply.read()
                if not data:
                    return b""
                self._inflater.take(data)
        except zlib.error as error:
            what = f"what it has compressed is broken: {error}"
            raise RemoteProtocolError(what) from error
        return piece

    async def beginning(self, read: str = "") -> str:
        """The beginning of the body, as far as it arrives within a bounded time.

        Args:
            read: The part that has been read already.
        """
        if self.unreadable:
            return ""
        data = bytearray()
        with anyio.move_on_after(BODY_TIMEOUT):
            while len(data) < BODY_LIMIT and (more := await self.read()):
                data += more
        return read + data[:BODY_LIMIT].decode(errors="replace")

    async def whole(self) -> str:
        """The whole body of a response that is not a stream.

        Raises:
            BackendError: it has ended early.
        """
        data = bytearray()
        while more := await self.read():
            data += more
        if self.lost is not None:
            raise self.lost
        return data.decode(errors="replace")

    async def aclose(self) -> None:
        """Close the response; its connection is used again if the body was read to its end.

        Cancellation: shielded, and bounded in time.
        """
        try:
            if self.deadline is not None:
                self.finish(LINGER)
                while await self.read():
                    pass
        finally:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await self._reply.aclose()


async def ask(link: Link, failures: Failures, content: bytes | None) -> Response:
    """Send a request and wait for the head of a response that can be read.

    Args:
        link: The connection settings.
        failures: Makes the errors.
        content: The JSON to post; ``None``: send a GET request.

    Returns:
        The response, which the caller must close.

    Raises:
        BackendError: no connection, an error status, or a body that cannot be read.

    Cancellation: the connection is closed.
    """
    try:
        reply = await link.transport.ask(link, content)
    except client_errors() as error:
        if content and len(content) > LARGE and is_one_of(error, "WriteError"):
            # No retry: it would most likely fail in the same way, after sending as many megabytes.
            raise failures.not_taken(reason_of(error), len(content)) from error
        failure = translated(error, failures)
        if isinstance(failure, StreamInterrupted):
            failure.retryable = True  # the connection was lost before the first byte of an answer
        raise failure from error
    response, status = Response(reply, failures), reply.status
    try:
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            # the error's text must not be lost because the timeout of deltas ends this wait
            with untimed():
                body = await response.beginning()
            raise failures.status(status, response.headers, body)
        if response.unreadable:
            raise failures.not_http(
                f"it compresses ({response.unreadable}) what was asked for uncompressed"
            )
    except BaseException:
        await response.aclose()
        raise
    return response
