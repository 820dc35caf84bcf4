r"""Sends one request, and reads the answer: from the bytes of the response to deltas, until it is complete.

A server sends the finish reason, then the usage, then the protocol's end mark. Some leave out the last, or the last
two, and keep the connection open. So an answer is complete at the end mark, and also some time after the finish
reason, whatever else comes or does not come.

Two kinds of servers send finish reasons that mean nothing: with every delta, or before the first one. So a finish
reason counts only after the first text, and only until more text comes. From then on only the end mark or the end
of the response completes the answer.

JSON writes a character beyond U+FFFF as two escapes, ``\ud83d\ude00``. Some servers send them in two deltas, which RFC
8259, section 8.2, allows; they are joined. A lone one is not valid text: it cannot be encoded, and no pattern would
find the character.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import anyio
import attrs

from mellea_sc.backends.http.client import (
    CLOSE_TIMEOUT,
    Link,
    RemoteProtocolError,
    Reply,
    client_errors,
    is_one_of,
    reason_of,
    translated,
)
from mellea_sc.backends.http.codings import Inflater, unreadable_coding, wants_inflating
from mellea_sc.backends.http.splitting import MAX_LINE, parse_object
from mellea_sc.core.answer_prefix import EchoFilter
from mellea_sc.core.backend import Delta
from mellea_sc.core.errors import (
    BackendProtocolError,
    InvalidOption,
    MelleaError,
    StreamInterrupted,
)
from mellea_sc.core.retries import untimed

if TYPE_CHECKING:
    from mellea_sc.backends.http.backend import HttpBackend

GRACE: Final = 2.0
"""Seconds to wait for the usage and the end mark after a finish reason."""
DOUBTFUL_GRACE: Final = 5.0
"""The same for a finish reason that came together with text: it may be one that comes with every delta."""
LINGER: Final = 0.1
"""Seconds to wait for the response's end after the end mark, so that the connection can be reused."""
LARGE: Final = 64 * 1024
"""A request of this size does not fit into a connection's buffers, so that it is sent in several steps."""
BODY_TIMEOUT: Final = 5.0
"""Seconds to wait for the body of an error."""
BODY_LIMIT: Final = 64 * 1024
"""The maximum of bytes that are read of an error's body."""


async def ask(link: Link, backend: HttpBackend, payload: Mapping[str, object] | None) -> Response:
    """Send a request and wait for the head of a response that can be read.

    Args:
        link: The connection settings.
        backend: The backend that asks.
        payload: The JSON object to post; ``None``: send a GET request.

    Returns:
        The response, which the caller must close.

    Raises:
        BackendError: no connection, an error status, or a body that cannot be read.
        InvalidOption: the payload cannot be sent as JSON.

    Cancellation: the connection is closed.
    """
    failures = backend.failures
    try:
        content = None if payload is None else json.dumps(payload, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOption(
            f"a model option or the schema cannot be sent as JSON: {error}"
        ) from None
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
    response, status = Response(reply, backend), reply.status
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


class Response:
    """The response to one request: its bytes or its deltas as they arrive, and a close that no peer can block.

    Args:
        reply: The transport's reply; its body has not been read.
        backend: The backend that has asked; it parses the protocol.

    Attributes:
        headers: By names in lower case.
        unreadable: The coding of a body that cannot be read; else ``None``.
    """

    __slots__ = (
        "_backend",
        "_echo",
        "_ending",
        "_half",
        "_half_of_reasoning",
        "_inflater",
        "_lost",
        "_receive",
        "_reply",
        "headers",
        "unreadable",
    )

    def __init__(self, reply: Reply, backend: HttpBackend) -> None:
        self._reply = reply
        self._backend = backend
        self._ending = Ending()
        self._echo: EchoFilter | None = None
        self._half = self._half_of_reasoning = ""
        self._lost: MelleaError | None = None
        self.headers: dict[str, str] = {}
        for raw_name, raw_value in reply.headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode(errors="replace")
            # Several headers with the same name are one list (RFC 9110, section 5.3).
            said = self.headers.get(name)
            self.headers[name] = value if said is None else f"{said}, {value}"
        coding = self.headers.get("content-encoding")
        self.unreadable: str | None = unreadable_coding(coding) if coding else None
        self._inflater = Inflater() if coding and wants_inflating(coding) else None
        self._receive: Callable[[], Awaitable[bytes]] = (
            reply.read if self._inflater is None else self._inflated
        )

    @property
    def _media_type(self) -> str:
        # It is not enforced: servers send good streams with any or none.
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def deltas(self, echo: EchoFilter | None, timeout: float) -> AsyncGenerator[Delta]:
        """The deltas of the answer, until it is complete.

        Args:
            echo: Removes a repeated prefix; ``None``: the answer has no prefix.
            timeout: The seconds after which the reader of the deltas gives up waiting for one.

        Raises:
            BackendError: the answer is malformed, reports an error, or has ended before it was complete.
        """
        backend, ending = self._backend, self._ending
        parse, splitter = backend.parse, backend.splitter()
        self._echo = echo
        refused: BackendProtocolError | None = None
        text, words, first, deadline = "", "", "", math.inf
        data: bytes | None = None
        while data != b"" and ending.grace != LINGER:
            try:
                # read() would cost one more frame and one more cancel scope for each delta
                data = await (self._receive() if deadline == math.inf else self.read(deadline))
            except client_errors() as error:
                data = self._lose(error)
            for text in splitter.feed(data) if data else splitter.close():
                try:
                    delta = parse(text)
                except BackendProtocolError as error:
                    if data and ending.grace is None:
                        raise await self._refusal(text, error) from None
                    refused, words = error, text  # cut off in the middle, or not part of the answer
                    continue
                if delta is None and not ending.has_begun:
                    raise backend.failures.interrupted("it ended without an answer")
                if delta is None or delta.finish_reason is not None or not ending.is_amid:
                    if delta is not None and (delta.text or delta.tool_calls):
                        if first and backend.repeats(first, text):
                            delta = Delta("", delta.finish_reason, delta.usage)
                        first = first or text
                    ending.take(delta)
                if delta is not None:
                    if refused is not None and (delta.text or delta.tool_calls):
                        raise refused  # it was a part of the answer
                    if echo or self._half or delta.reasoning or not delta.text.isascii():
                        self._mend(delta)
                    yield delta
                    if delta.finish_reason is not None and backend.ends_with_finish_reason:
                        ending.take(None)
                if ending.grace is None:
                    deadline = math.inf  # also if the answer has gone on after its finish reason
                    continue
                grace = min(ending.grace, timeout / 2)
                deadline = min(deadline, anyio.current_time() + grace)
                if ending.grace == LINGER:
                    break
        if not ending.is_whole or (self._lost is not None and ending.grace is None):
            raise self._unfinished(splitter.unread or words, text)
        if (echo or self._half or self._half_of_reasoning) and (rest := self._rest()):
            yield rest
        while ending.grace == LINGER and await self.read(deadline):
            pass

    def _mend(self, delta: Delta) -> None:
        """Join the halves of characters, and remove a repeated prefix."""
        delta.text, self._half = join_halves(self._half + delta.text)
        reasoning = self._half_of_reasoning + delta.reasoning
        delta.reasoning, self._half_of_reasoning = join_halves(reasoning)
        if self._echo is not None:
            delta.text = self._echo.feed(delta.text)

    def _rest(self) -> Delta | None:
        """What was held back, if anything was; the answer has ended."""
        rest = Delta("\ufffd" * len(self._half), reasoning="\ufffd" * len(self._half_of_reasoning))
        if self._echo is not None:
            rest.text = self._echo.feed(rest.text) + self._echo.end()
        return rest if rest.text or rest.reasoning else None

    async def _refusal(self, text: str, error: BackendProtocolError) -> BackendProtocolError:
        """The error for a text that is not part of an answer."""
        if self._ending.has_begun or self._media_type in self._backend.media_types:
            return error
        return self._not_a_stream(await self.beginning(text))

    def _not_a_stream(self, body: str) -> BackendProtocolError:
        wanted = self._backend.media_types[0]
        return self._backend.failures.not_a_stream(self._media_type, wanted, body)

    def _unfinished(self, words: str, last: str) -> MelleaError:
        """The error for a response that ended before its answer was complete.

        Args:
            words: An error text in it, if there is one.
            last: Its last text.
        """
        failures = self._backend.failures
        if words.lstrip().startswith(("{", "[", "data:")):
            words = ""  # half a delta
        if words and not self._ending.has_begun:
            if self._media_type in self._backend.media_types:
                return failures.malformed(words)
            return self._not_a_stream(words)
        if self._lost is not None:
            return self._lost
        if not words and not self._ending.has_begun:
            event = parse_object(last) or {}
            words = "" if event.get("choices") else last  # an error in the server's own form
        more = f", and with {words!r}" if words else ""
        return failures.interrupted(f"it ended before its last delta{more}")

    async def read(self, deadline: float = math.inf) -> bytes:
        """Wait for the next bytes; empty at the end, which may be early, or at a deadline, by the loop's clock."""
        try:
            with anyio.CancelScope(deadline=deadline):
                return await self._receive()
        except client_errors() as error:
            return self._lose(error)
        return b""

    def _lose(self, error: Exception) -> bytes:
        """End the response because the connection was lost, or the data was not HTTP."""
        self._lost = translated(error, self._backend.failures)
        self._lost.__cause__ = error
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
            BackendError: it has ended early, or is too long.
        """
        data = bytearray()
        while more := await self.read():
            data += more
            if len(data) > MAX_LINE:
                raise self._backend.failures.endless(MAX_LINE)
        if self._lost is not None:
            raise self._lost
        return data.decode(errors="replace")

    async def aclose(self) -> None:
        """Close the response; its connection is used again if the body was read to its end.

        Cancellation: shielded, and bounded in time.
        """
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await self._reply.aclose()


@attrs.define(eq=False)
class Ending:
    """Decides from the deltas when an answer is complete. Without I/O.

    Attributes:
        has_begun: There was text, a call or a finish reason.
        is_whole: There was a finish reason, and neither text nor a call after it: the response may end here.
        is_amid: There was text or a call, and no finish reason: a delta without a finish reason changes nothing.
        grace: Seconds to read on, after which the answer counts as complete; ``None``: it is not complete yet.
    """

    has_begun: bool = False
    is_whole: bool = False
    is_amid: bool = False
    grace: float | None = None
    _has_text: bool = False
    _is_doubtful: bool = False

    def take(self, delta: Delta | None) -> None:
        """Process the next delta; ``None``: the protocol's end mark."""
        if delta is None:
            self.is_whole, self.is_amid, self.grace = True, False, LINGER
            return
        if delta.text or delta.tool_calls:
            self.has_begun = self._has_text = True
            if self.is_whole:
                self._is_doubtful = True
                self.is_whole = False
                self.grace = None
        elif delta.reasoning:
            self.has_begun = True
        if delta.finish_reason is not None:
            self.has_begun = self.is_whole = True
            # The only meaningless reason that servers send before the first text is "stop".
            is_one = self._has_text or delta.finish_reason.lower() != "stop"
            if is_one and not self._is_doubtful:
                self.grace = DOUBTFUL_GRACE if delta.text else GRACE
        elif self.grace is not None and delta.usage is not None:
            self.grace = LINGER
        self.is_amid = self._has_text and not self.is_whole


_HALF: Final = re.compile("[\ud800-\udfff]")
_FIRST: Final = ("\ud800", "\udbff")


def join_halves(text: str) -> tuple[str, str]:
    """The text with its surrogate pairs joined, and the first half of a pair at its end, which must wait, if any.

    A half without its counterpart becomes U+FFFD.
    """
    if not _HALF.search(text):
        return text, ""
    first = text[-1] if _FIRST[0] <= text[-1] <= _FIRST[1] else ""
    whole = text[: len(text) - len(first)]
    return whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), first
