"""Cuts the bytes of a response into lines: without I/O, bounded, and independent of where the reads were cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

import attrs

from mellea_sc.core.errors import BackendProtocolError

__all__ = ["MAX_LINE", "LineCutter", "LineSplitter", "Pretty", "Splitter", "decoded", "too_long"]

MAX_LINE: Final = 8 * 1024 * 1024
"""The maximum size of a line, and of an event, in bytes."""

_BOM: Final = b"\xef\xbb\xbf"


class Splitter(Protocol):
    """Cuts a response into the texts of its protocol: lines, or the data of events.

    ``feed`` takes the bytes of one read, and returns the texts that are complete with them. The caller must consume
    all of them before the next ``feed``. An error is raised only after all complete texts.
    """

    @property
    def unread(self) -> str:
        """The beginning of the skipped text that is not part of the protocol."""
        ...

    def feed(self, data: bytes) -> Iterable[str]:
        """The texts that these bytes complete.

        Raises:
            BackendProtocolError: one is too long.
        """
        ...

    def close(self) -> Sequence[str]:
        """The incomplete text at the end of the response, if there is one."""
        ...


@attrs.define(eq=False)
class LineCutter:
    """Cuts bytes into lines that end with LF, CRLF or CR; drops a byte order mark at the beginning.

    A CR ends its line at once, although a LF may follow: a complete line never waits for more bytes.

    Args:
        limit: The maximum size of a line; the caller has to call :meth:`check`.
    """

    _limit: int
    _held: list[bytes] = attrs.field(factory=list[bytes], init=False)
    _size: int = attrs.field(default=0, init=False)
    _after_cr: bool = attrs.field(default=False, init=False)
    _started: bool = attrs.field(default=False, init=False)

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
        """Note that the beginning of the stream was read elsewhere, so that no byte order mark can come."""
        self._started = True

    @property
    def is_amid(self) -> bool:
        """Whether a line is incomplete, or a LF may still belong to the end of the last one."""
        return bool(self._held) or self._after_cr

    def check(self) -> None:
        """Raise if an incomplete line is too long.

        Raises:
            BackendProtocolError: it has.
        """
        if self._size > self._limit:
            raise too_long("line", self._limit)

    def rest(self) -> bytes:
        """The incomplete line."""
        line = b"".join(self._held)
        self._held.clear()
        self._size = 0
        return line if self._started else line.removeprefix(_BOM)


@attrs.define(eq=False)
class Pretty:
    """A JSON value that is pretty-printed over several lines: usually an error.

    Such a value begins with a line that is only an opening bracket, and ends with a line that begins with the
    closing bracket.

    Args:
        limit: The maximum size in bytes.

    Attributes:
        lines: The lines so far.
    """

    _limit: int
    _size: int = attrs.field(default=0, init=False)
    lines: list[bytes] = attrs.field(factory=list[bytes], init=False)

    def begins(self, line: bytes) -> bool:
        """Whether this line is the first of such a value."""
        return line.rstrip() in (b"{", b"[", b"[{")

    def take(self, line: bytes) -> bytes:
        """Add a line; returns the value if it is complete, else empty bytes.

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
        """Return the lines so far, and forget them."""
        value = b"\n".join(self.lines)
        self.lines.clear()
        self._size = 0
        return value


class LineSplitter:
    """Cuts a response into lines of UTF-8, each a JSON value; skips blank lines, and joins a pretty-printed value.

    Args:
        limit: The maximum size of a line in bytes.
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
        # The fast path for nearly every read: complete lines with one object. All else goes through _read().
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
        """The incomplete last line, if there is one."""
        rest = self._lines.rest()
        if self._pretty.lines:
            rest = self._pretty.take(rest) or self._pretty.rest()
        return [decoded(rest)] if rest.strip() else []


def decoded(text: bytes) -> str:
    """Decode UTF-8; for other bytes, a text that every protocol refuses."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return f"not UTF-8: {text.decode(errors='replace')}"


def too_long(what: str, limit: int) -> BackendProtocolError:
    """The error for a line or a value that is longer than the limit."""
    return BackendProtocolError(
        f"the server sent a {what} longer than {limit:,} bytes; is this the address of a model server?"
    )
