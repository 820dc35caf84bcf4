"""From the bytes of a response to lines and events: pure, bounded, indifferent to where reads were cut.

Both readers work in batches: ``feed`` takes what one read brought and gives what it completes. Its
iterator is to be exhausted before the next ``feed``; an error comes after all that was whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from mellea_sc.core.errors import BackendProtocolError

__all__ = ["MAX_LINE", "EventSplitter", "LineSplitter", "Splitter"]

MAX_LINE: Final = 8 * 1024 * 1024
"""Bytes that a line, and an event, may have."""

_BOM: Final = b"\xef\xbb\xbf"


class Splitter(Protocol):
    """Cuts a response into the texts that its protocol speaks in."""

    def feed(self, data: bytes) -> Iterator[str]:
        """The texts that these bytes complete."""
        ...

    def close(self) -> Sequence[str]:
        """What the response, which has ended, left incomplete: at most one text."""
        ...


class LineSplitter:
    """Lines of UTF-8, ended by LF, CRLF or CR; a byte order mark at the beginning is dropped.

    A CR ends its line at once, without a look at what follows: a line on the wire never waits for
    the next one.

    Args:
        limit: Bytes that a line may have.
    """

    __slots__ = ("_after_cr", "_limit", "_parts", "_size", "_started")

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._started = False

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that these bytes complete, without their ends.

        Raises:
            BackendProtocolError: a line is longer than the limit, or not UTF-8.
        """
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return
        self._after_cr = data.endswith(b"\r")
        lines = data.splitlines()
        tail = b"" if data.endswith((b"\n", b"\r")) else lines.pop()
        for line in lines:
            if self._parts:
                self._hold(line)
                whole = b"".join(self._parts)
                self._parts.clear()
                self._size = 0
                yield self._text(whole)
            else:
                yield self._text(line)
        if tail:
            self._hold(tail)

    def close(self) -> Sequence[str]:
        """The line that was begun and not ended, if there is one."""
        line = b"".join(self._parts)
        self._parts.clear()
        return [line.decode(errors="replace")] if line else []

    def _hold(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            raise _too_long("line", self._limit)
        self._parts.append(part)

    def _text(self, line: bytes) -> str:
        if len(line) > self._limit:
            raise _too_long("line", self._limit)
        if not self._started:
            self._started = True
            line = line.removeprefix(_BOM)
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise BackendProtocolError(
                f"the server sent a line that is not UTF-8 ({error.reason})"
            ) from None


class EventSplitter:
    """The data of server-sent events; events without data, such as comments, are passed over.

    Args:
        limit: Bytes that a line, and characters that an event's data, may have.
    """

    __slots__ = ("_decoder", "_limit", "_lines", "_size")

    def __init__(self, limit: int = MAX_LINE) -> None:
        # Not in the package's public names, but its part without I/O: the public ones read a
        # response by themselves, without bounds.
        from httpx_sse._decoders import SSEDecoder

        self._limit = limit
        self._lines = LineSplitter(limit)
        self._decoder = SSEDecoder()
        self._size = 0

    def feed(self, data: bytes) -> Iterator[str]:
        """The data of the events that these bytes complete.

        Raises:
            BackendProtocolError: a line or an event is longer than the limit, or not UTF-8.
        """
        for line in self._lines.feed(data):
            if line.startswith("\0"):  # some server's padding
                line = line.lstrip("\0")
            if not line:
                self._size = 0
            elif line.startswith("data"):  # the only field that adds up over lines
                self._size += len(line)
                if self._size > self._limit:
                    raise _too_long("event", self._limit)
            elif line[0] == "{":  # an object that was sent as it is, mostly an error
                yield line
            elif line.startswith("error:"):
                yield _as_error(line.removeprefix("error:").strip())
            event = self._decoder.decode(line)
            if event is not None and event.data:
                yield _as_error(event.data) if event.event == "error" else event.data

    def close(self) -> Sequence[str]:
        """The data of the event that was begun and not ended, if there is one."""
        for line in self._lines.close():
            if line.startswith("{"):
                return [line]
            self._decoder.decode(line)
        event = self._decoder.decode("")
        return [event.data] if event is not None and event.data else []


def _as_error(words: str) -> str:
    """What stands in an error's event or field, as the object that a backend takes for an error."""
    return words if '"error"' in words else json.dumps({"error": words})


def _too_long(what: str, limit: int) -> BackendProtocolError:
    return BackendProtocolError(
        f"the server sent a {what} longer than {limit:,} bytes; is this the address of a model server?"
    )
