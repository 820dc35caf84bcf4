"""From the bytes of a response to lines: pure, bounded, indifferent to where reads were cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from mellea_sc.core.errors import BackendProtocolError

__all__ = ["MAX_LINE", "LineCutter", "LineSplitter", "Pretty", "Splitter", "decoded", "too_long"]

MAX_LINE: Final = 8 * 1024 * 1024
"""Bytes that a line, and an event, may have."""

_BOM: Final = b"\xef\xbb\xbf"


class Splitter(Protocol):
    """Cuts a response into the texts that its protocol speaks in.

    It works in batches: ``feed`` takes what one read brought and gives what it completes, which is
    to be taken to its end before the next ``feed``; an error comes after all that was whole.
    """

    @property
    def unread(self) -> str:
        """The beginning of what was passed over although it is no part of the protocol."""
        ...

    def feed(self, data: bytes) -> Iterable[str]:
        """The texts that these bytes complete.

        Raises:
            BackendProtocolError: one is too long.
        """
        ...

    def close(self) -> Sequence[str]:
        """What the response, which has ended, left incomplete: at most one text."""
        ...


class LineCutter:
    """Lines, ended by LF, CRLF or CR; a byte order mark at the beginning is dropped.

    A CR ends its line at once, without a look at what follows: a line on the wire never waits for
    the next one.

    Args:
        limit: Bytes that a line may have; whoever takes the lines has to look.
    """

    __slots__ = ("_after_cr", "_held", "_limit", "_size", "_started")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._started = False

    def cut(self, data: bytes) -> list[bytes]:
        """The lines that these bytes complete, without their ends."""
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return []
        lines = data.splitlines()
        if data.endswith((b"\n", b"\r")):
            self._after_cr = data.endswith(b"\r")
            tail = b""
        else:
            tail = lines.pop()
        if lines:
            if self._held:
                lines[0] = b"".join([*self._held, lines[0]])
                self._held.clear()
                self._size = 0
            if not self._started:
                self._started = True
                lines[0] = lines[0].removeprefix(_BOM)
        if tail:
            self._held.append(tail)
            self._size += len(tail)
        return lines

    def begin(self) -> None:
        """Take note that the beginning of the stream was read without this: no byte order mark can come."""
        self._started = True

    @property
    def is_amid(self) -> bool:
        """Whether a line was begun and not ended, or a LF may still belong to the end of the last one."""
        return bool(self._held) or self._after_cr

    def check(self) -> None:
        """Refuse a line that has grown too long without an end.

        Raises:
            BackendProtocolError: it has.
        """
        if self._size > self._limit:
            raise too_long("line", self._limit)

    def rest(self) -> bytes:
        """The line that was begun and not ended."""
        line = b"".join(self._held)
        self._held.clear()
        self._size = 0
        return line if self._started else line.removeprefix(_BOM)


class Pretty:
    """A JSON value that is written over several lines, as for people: an error mostly.

    Such a value begins with a line that has nothing but a bracket, and ends with one that begins with its
    counterpart.

    Args:
        limit: Bytes that it may have.

    Attributes:
        lines: What there is of it.
    """

    __slots__ = ("_limit", "_size", "lines")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self.lines: list[bytes] = []

    def begins(self, line: bytes) -> bool:
        """Whether this line is the first of such a value."""
        return line.rstrip() in (b"{", b"[", b"[{")

    def take(self, line: bytes) -> bytes:
        """Add a line; gives the value when it is whole, else nothing.

        Raises:
            BackendProtocolError: it is longer than the limit.
        """
        self.lines.append(line)
        self._size += len(line)
        if self._size > self._limit:
            raise too_long("JSON value", self._limit)
        is_whole = line.startswith(b"}" if self.lines[0].startswith(b"{") else b"]")
        return self.rest() if is_whole else b""

    def rest(self) -> bytes:
        """What there is of it; it is then forgotten."""
        value = b"\n".join(self.lines)
        self.lines.clear()
        self._size = 0
        return value


class LineSplitter:
    """The lines of UTF-8 that are not blank, each a JSON value; one written over several lines is one text.

    Args:
        limit: Bytes that a line may have.
    """

    __slots__ = ("_is_between", "_limit", "_lines", "_pretty")

    unread = ""  # every line is read

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._lines = LineCutter(limit)
        self._pretty = Pretty(limit)
        self._is_between = True  # nothing is held back

    def feed(self, data: bytes) -> Iterable[str]:
        """The lines that these bytes complete."""
        # What nearly every read is: whole lines of one object. Anything else goes the way of the rules.
        if (
            self._is_between
            and data.endswith(b"\n")
            and b"\r" not in data
            and len(data) <= self._limit
        ):
            try:
                lines = data.decode()[:-1].split("\n")
            except UnicodeDecodeError:
                return self._read(data)
            if all(line.startswith('{"') for line in lines):
                self._lines.begin()
                return lines
        return self._read(data)

    def _read(self, data: bytes) -> Iterator[str]:
        self._is_between = False
        for line in self._lines.cut(data):
            if len(line) > self._limit:
                raise too_long("line", self._limit)
            if self._pretty.lines or (len(line) < 9 and self._pretty.begins(line)):
                if value := self._pretty.take(line):
                    yield decoded(value)
            elif line and not line.isspace():
                yield decoded(line)
        self._lines.check()
        self._is_between = not (self._pretty.lines or self._lines.is_amid)

    def close(self) -> Sequence[str]:
        """The line that was begun and not ended, if there is one."""
        rest = self._lines.rest()
        if self._pretty.lines:
            rest = self._pretty.take(rest) or self._pretty.rest()
        return [decoded(rest)] if rest.strip() else []


def decoded(text: bytes) -> str:
    """The text that these bytes are; for bytes that are not UTF-8, words that are no part of any protocol."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return f"not UTF-8: {text.decode(errors='replace')}"


def too_long(what: str, limit: int) -> BackendProtocolError:
    """The error for something that is longer than the limit."""
    return BackendProtocolError(
        f"the server sent a {what} longer than {limit:,} bytes; is this the address of a model server?"
    )
