"""What the loopback model server is told to do, and what it saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

import anyio
import attrs

from mellea_sc.backends.http.json_values import (
    fields_of,
    list_of,
)
from mellea_sc.backends.http.splitting import parse_object
from mellea_sc.core.backend import ChatMessage, ToolCall, Usage

__all__ = ["Answer", "Ended", "RecordedRequest"]

Ended: TypeAlias = Literal["complete", "client_closed", "cut", "server_closed"]
"""How an exchange ended: the answer was given as scripted; the client went away before; the script
cut the connection; the server was closed while it was still answering."""


def _texts(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _calls(value: Iterable[ToolCall]) -> tuple[ToolCall, ...]:
    return tuple(value)


@attrs.frozen
class Answer:
    """One answer of the server, well-behaved unless told otherwise.

    Times are in seconds. Where a position is given as a number of deltas, that many are sent before
    it happens; a position behind the last delta is behind all of them.

    Args:
        deltas: The texts of the answer, in order; one text is one delta.
        delay: Time before each delta but the first.
        first_delay: Time between the headers and the first delta.
        slow_headers: Time before the headers.
        reasoning: What the model thinks before it answers, in pieces; no positions count them.
        tool_calls: The calls that it wants to have made, after all of its text.
        finish_reason: Why the model stopped.
        usage: The tokens that the server tells of; by default it tells nothing.
        status: The status code; anything but 200 is an error answer.
        retry_after: The header of that name: seconds, or a date as text.
        headers: Further headers.
        content_type: Instead of the one that the protocol wants.
        body: Sent as it is instead of deltas or of the protocol's error object.
        error: The words of an error answer, or of the error object inside the stream.
        error_after: Position of an error object inside the stream, which ends there.
        malformed_after: Position of a line that is not whole; the stream goes on after it.
        huge_line: Bytes of one line that is sent after the deltas.
        stall_after: Position where nothing comes any more, while the connection stays open.
        cut_after: Position where the connection is closed, in the middle of the response.
        reset: The connection is cut by a reset (RST) where it would be by a plain close.
        half_close: After the deltas, the server ends its side in the middle of the response and
            keeps the connection until the client closes it.
        omit_end: The response ends after the deltas, without what the protocol wants at its end.
    """

    deltas: tuple[str, ...] = attrs.field(default=("Hello", ", ", "world", "."), converter=_texts)
    delay: float = attrs.field(default=0.0, kw_only=True)
    first_delay: float = attrs.field(default=0.0, kw_only=True)
    slow_headers: float = attrs.field(default=0.0, kw_only=True)
    reasoning: tuple[str, ...] = attrs.field(default=(), kw_only=True, converter=_texts)
    tool_calls: tuple[ToolCall, ...] = attrs.field(default=(), kw_only=True, converter=_calls)
    finish_reason: str = attrs.field(default="stop", kw_only=True)
    usage: Usage | None = attrs.field(default=None, kw_only=True)
    status: int = attrs.field(default=200, kw_only=True)
    retry_after: float | str | None = attrs.field(default=None, kw_only=True)
    headers: Mapping[str, str] = attrs.field(default=MappingProxyType({}), kw_only=True)
    content_type: str | None = attrs.field(default=None, kw_only=True)
    body: bytes | None = attrs.field(default=None, kw_only=True)
    error: str | None = attrs.field(default=None, kw_only=True)
    error_after: int | None = attrs.field(default=None, kw_only=True)
    malformed_after: int | None = attrs.field(default=None, kw_only=True)
    huge_line: int | None = attrs.field(default=None, kw_only=True)
    stall_after: int | None = attrs.field(default=None, kw_only=True)
    cut_after: int | None = attrs.field(default=None, kw_only=True)
    reset: bool = attrs.field(default=False, kw_only=True)
    half_close: bool = attrs.field(default=False, kw_only=True)
    omit_end: bool = attrs.field(default=False, kw_only=True)


@attrs.define(eq=False)
class RecordedRequest:
    """A request that the server received, and what became of it.

    Args:
        method: The HTTP method.
        path: The path, without a query.
        headers: The headers, names in lower case.
        body: The body as it came.
        connection: On which connection it came, counted from 0.
        received_at: When it had come, on the clock of the server's event loop.
    """

    method: str
    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)  # a key is among them
    body: bytes = attrs.field(repr=False)
    connection: int
    received_at: float
    deltas_sent: int = attrs.field(default=0, init=False)
    """How many deltas were given to the socket so far, those being written included."""
    ended: Ended | None = attrs.field(default=None, init=False)
    """How the exchange ended; ``None`` while it goes on."""
    closed_at: float | None = attrs.field(default=None, init=False)
    """When it ended, on the clock of the server's event loop."""
    _closed: anyio.Event = attrs.field(factory=anyio.Event, init=False, repr=False)

    @property
    def json(self) -> Mapping[str, object]:
        """The body as a JSON object; empty when it is none."""
        return parse_object(self.body.decode(errors="replace")) or {}

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """The conversation that the model was asked to go on with."""
        found: list[ChatMessage] = []
        for message in list_of(self.json.get("messages")):
            fields = fields_of(message)
            role, content = fields.get("role"), fields.get("content")
            if role in ("system", "user", "assistant", "tool") and isinstance(content, str):
                found.append(ChatMessage(role, content))
        return tuple(found)

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        return self.messages[-1].content if self.messages else ""

    async def wait_closed(self) -> None:
        """Wait until the exchange has ended; then :attr:`ended` says how."""
        await self._closed.wait()

    def end(self, how: Ended) -> None:
        """Record the end; for the server. The first one counts."""
        if self.ended is None:
            self.ended = how
            self.closed_at = anyio.current_time()
            self._closed.set()
