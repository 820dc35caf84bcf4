"""One request and the response to it: its bytes as they arrive, and a close that no peer can hold up."""

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
"""Bytes of a request that are more than a connection takes at once."""
BODY_TIMEOUT: Final = 5.0
"""Seconds to wait for the body of an error."""
BODY_LIMIT: Final = 64 * 1024
"""Bytes of the body of an error that are read."""


class Response:
    """The response to one request: its bytes as they arrive, and a close that no peer can hold up.

    Args:
        reply: The transport's, with its body unread.
        failures: Makes the errors.

    Attributes:
        straight: The transport's own read, as long as the next bytes need nothing more; else ``None``. It spares
            each delta a step. What it raises, one of :func:`~mellea_sc.backends.http.translation.client_errors`, is
            for :meth:`end_by`.
        deadline: When reading ends, in the loop's time, once the protocol has said all.
        lost: Why the response has ended early, if it has: the connection was lost, or what came was not HTTP.
    """

    __slots__ = (
        "_failures",
        "_headers",
        "_inflater",
        "_plain_read",
        "_reply",
        "_unreadable",
        "deadline",
        "lost",
        "straight",
    )

    def __init__(self, reply: Reply, failures: Failures) -> None:
        self._reply = reply
        self._failures = failures
        self._headers: dict[str, str] = {}
        for raw_name, raw_value in reply.headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode(errors="replace")
            # Several of one name are one (RFC 9110, section 5.3).
            said = self._headers.get(name)
            self._headers[name] = value if said is None else f"{said}, {value}"
        coding = self._headers.get("content-encoding")
        self._unreadable = unreadable_coding(coding) if coding else None
        self._inflater = Inflater() if coding and wants_inflating(coding) else None
        self._plain_read = reply.read if self._inflater is None else None
        self.straight: Callable[[], Awaitable[bytes]] | None = self._plain_read
        self.deadline: float | None = None
        self.lost: MelleaError | None = None

    @property
    def media_type(self) -> str:
        """What its label says that it is. Servers send good streams with any label or none."""
        return self._headers.get("content-type", "").partition(";")[0].strip().lower()

    async def check(self) -> None:
        """Make sure that it is a success that can be read.

        Raises:
            BackendError: it is not.
        """
        if not HTTPStatus.OK <= self._reply.status < HTTPStatus.MULTIPLE_CHOICES:
            with untimed():  # what it says must not be lost in a time-out for deltas
                body = await self.beginning()
            raise self._failures.status(self._reply.status, self._headers, body)
        if self._unreadable:
            raise self._failures.not_http(
                f"it compresses ({self._unreadable}) what was asked for uncompressed"
            )

    def finish(self, grace: float) -> None:
        """The protocol has said all: reading on ends after so many seconds, and how it ends is of no interest."""
        deadline = anyio.current_time() + grace
        self.deadline = deadline if self.deadline is None else min(deadline, self.deadline)
        self.straight = None

    def go_on(self) -> None:
        """The protocol has not said all, or has gone on although it had."""
        self.deadline = None
        self.straight = self._plain_read

    def end_by(self, error: Exception) -> bytes:
        """End the response where reading it has failed; gives the bytes of the end: none."""
        self.lost = translated(error, self._failures)
        self.lost.__cause__ = error
        return b""

    async def read(self) -> bytes:
        """The next bytes as soon as there are any; empty at the end, which may be early: see :attr:`lost`."""
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
        """The beginning of the body, or what of it arrives within a bounded time.

        Args:
            read: What of it has been read.
        """
        if self._unreadable:
            return ""
        data = bytearray()
        with anyio.move_on_after(BODY_TIMEOUT):
            while len(data) < BODY_LIMIT and (more := await self.read()):
                data += more
        return read + data[:BODY_LIMIT].decode(errors="replace")

    async def whole(self) -> str:
        """All of the body, which is no stream.

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
        link: Where to.
        failures: Makes the errors.
        content: The JSON to be posted; ``None``: nothing, what is there is asked for.

    Returns:
        The response, to be closed.

    Raises:
        BackendError: no connection, an error status, or a body that cannot be read.

    Cancellation: the connection is closed.
    """
    try:
        response = Response(await link.transport.ask(link, content), failures)
    except client_errors() as error:
        if content and len(content) > LARGE and is_one_of(error, "WriteError"):
            # Not to be tried again: it would most likely end in the same way, after as many megabytes.
            raise failures.not_taken(reason_of(error), len(content)) from error
        failure = translated(error, failures)
        if isinstance(failure, StreamInterrupted):
            failure.retryable = True  # before its first byte
        raise failure from error
    try:
        await response.check()
    except BaseException:
        await response.aclose()
        raise
    return response
