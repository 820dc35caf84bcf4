"""Cuts the bytes of a response into the texts of its protocol: lines of JSON, or the data of server-sent events.

Without I/O, bounded, and independent of where the reads were cut.

The rules for events are WHATWG's (https://html.spec.whatwg.org/multipage/server-sent-events.html), for the fields that
matter here: a blank line ends an event; the lines of ``data`` are joined by line feeds; one space after the colon is
not part of the value; a line that begins with a colon is a comment; ``id`` and ``retry`` are ignored. Servers break
these rules, and a browser would then drop data. Here it is not dropped:

- JSON without a field name before it (an error, or a whole answer) is treated like an event's data.
- An ``error`` field, and the data of an ``error`` event, are an error, whatever lines are between the two.
- Two objects in two consecutive lines of ``data`` are two events: joined, they would not be JSON.
- A line of an unknown field that contains an object is given unchanged, and is then refused: it may be a delta with
  an extra byte before ``data``. Other such lines are skipped, but their beginning is kept for error messages.
- An event without its blank line at the response's end counts; whether it is complete is decided by its JSON.

Signs of life are dropped, in the forms in which gateways send them: comments, also as data (``data: : PROCESSING``),
empty data, and the data of a ``ping``, unless it is an object.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, cast

import attrs

from mellea_sc.backends.http.json_values import Json
from mellea_sc.core.errors import BackendProtocolError

MAX_LINE: Final = 8 * 1024 * 1024
"""The maximum size of a line, of an event, and of a JSON value over several lines, in bytes."""
_KEPT: Final = 1000
"""Bytes of skipped lines that are kept for error messages."""
_PASSED_OVER: Final = 64 * 1024
"""Bytes that may be skipped before the first event; a response with more is not a stream of events."""

_BOM: Final = b"\xef\xbb\xbf"
_PINGS: Final = (b"ping", b"heartbeat", b"keepalive", b"keep-alive")
"""Types of events that only show that the server is alive."""
_USUAL: Final = ("data: {", "data: [")
"""The beginnings of an event with JSON or with the end mark."""


@attrs.define(eq=False)
class Splitter(abc.ABC):
    """Cuts a response into the texts of its protocol.

    ``feed`` takes the bytes of one read, and returns the texts that are complete with them. The caller must consume
    all of them before the next ``feed``. An error is raised only after all complete texts.

    Lines end with LF, CRLF or CR. A CR ends its line at once, although a LF may follow: a complete line never waits
    for more bytes. A byte order mark at the beginning of the response is dropped.

    A JSON value that is pretty-printed over several lines, usually an error, is one text. It begins with a line that
    is only an opening bracket, and ends with a line that begins with the closing bracket.

    Args:
        limit: The maximum size in bytes of a line, of an event, and of a JSON value over several lines.
    """

    _limit: int = MAX_LINE
    _line: list[bytes] = attrs.field(factory=list[bytes], init=False)
    """The parts of the incomplete line, of ``_line_size`` bytes."""
    _line_size: int = attrs.field(default=0, init=False)
    _after_cr: bool = attrs.field(default=False, init=False)
    _has_begun: bool = attrs.field(default=False, init=False)
    """Whether the first line has been read, so that no byte order mark can come."""
    _value: list[bytes] = attrs.field(factory=list[bytes], init=False)
    """The lines of the incomplete JSON value, of ``_value_size`` bytes."""
    _value_size: int = attrs.field(default=0, init=False)
    _is_between: bool = attrs.field(default=True, init=False)
    """Whether nothing is held back, so that complete texts can be returned as they are."""

    @property
    def unread(self) -> str:
        """The beginning of the skipped text that is not part of the protocol."""
        return ""

    @abc.abstractmethod
    def feed(self, data: bytes) -> Iterable[str]:
        """The texts that these bytes complete.

        Raises:
            BackendProtocolError: one is too long.
        """

    @abc.abstractmethod
    def close(self) -> Sequence[str]:
        """The incomplete text at the end of the response, if there is one."""

    def _cut(self, data: bytes) -> list[bytes]:
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
            if self._line:
                lines[0] = b"".join([*self._line, lines[0]])
                self._line.clear()
                self._line_size = 0
            if not self._has_begun:
                self._has_begun = True
                lines[0] = lines[0].removeprefix(_BOM)
        if tail:
            self._line.append(tail)
            self._line_size += len(tail)
        return lines

    def _check(self, what: str, size: int) -> None:
        if size > self._limit:
            raise BackendProtocolError(
                f"the server sent a {what} longer than {self._limit:,} bytes; is this the address of a model server?"
            )

    def _add_to_value(self, line: bytes) -> bytes:
        """Add a line to the JSON value; returns the value if it is complete, else empty bytes."""
        self._value.append(line)
        self._value_size += len(line)
        self._check("JSON value", self._value_size)
        is_whole = line.startswith(b"}" if self._value[0].startswith(b"{") else b"]")
        return self._end_value() if is_whole else b""

    def _end_value(self) -> bytes:
        """Return the lines of the JSON value so far, and forget them."""
        value = b"\n".join(self._value)
        self._value.clear()
        self._value_size = 0
        return value


@attrs.define(eq=False)
class LineSplitter(Splitter):
    """Cuts a response into lines of UTF-8, each a JSON value; skips blank lines."""

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
                self._has_begun = True
                return lines
        return self._read(data)

    def _read(self, data: bytes) -> Iterator[str]:
        self._is_between = False
        for line in self._cut(data):
            self._check("line", len(line))
            if self._value or (len(line) < 9 and _begins_value(line)):
                if value := self._add_to_value(line):
                    yield _decoded(value)
            elif line and not line.isspace():
                yield _decoded(line)
        self._check("line", self._line_size)
        self._is_between = not (self._value or self._line or self._after_cr)

    def close(self) -> Sequence[str]:
        """The incomplete last line, if there is one."""
        rest = b"".join(self._line)
        self._line.clear()
        if not self._has_begun:
            rest = rest.removeprefix(_BOM)
        if self._value:
            rest = self._add_to_value(rest) or self._end_value()
        return [_decoded(rest)] if rest.strip() else []


@attrs.define(eq=False)
class EventSplitter(Splitter):
    """Cuts a response into the data of server-sent events; skips events without data, and comments."""

    _data: list[bytes] = attrs.field(factory=list[bytes], init=False)
    """The lines of the data of the incomplete event, of ``_data_size`` bytes."""
    _data_size: int = attrs.field(default=0, init=False)
    _is_error: bool = attrs.field(default=False, init=False)
    _is_ping: bool = attrs.field(default=False, init=False)
    _has_events: bool = attrs.field(default=False, init=False)
    _unread: bytes = attrs.field(default=b"", init=False)
    _passed_over: int = attrs.field(default=0, init=False)

    @property
    def unread(self) -> str:
        """The beginning of the skipped text that is not part of the protocol."""
        return self._unread.decode(errors="replace")

    def feed(self, data: bytes) -> Iterable[str]:
        """The data of the events that these bytes complete."""
        # The fast path for nearly every read: complete events with one line of JSON. All else goes through _read().
        if (
            self._is_between
            and data.endswith(b"\n\n")
            and b"\r" not in data
            and len(data) <= self._limit
        ):
            try:
                text = data[:-2].decode()
            except UnicodeDecodeError:
                return self._read(data)
            if "\n" not in text:
                values = [text[6:]] if text.startswith(_USUAL) else []
            else:
                events = text.split("\n\n")
                values = [event[6:] for event in events if event.startswith(_USUAL)]
                if len(values) < len(events) or text.count("\n") > 2 * len(events) - 2:
                    values = []
            if values:
                self._has_begun = self._has_events = True
                return values
        return self._read(data)

    def _read(self, data: bytes) -> Iterator[str]:
        self._is_between = False
        held, value = self._data, self._value
        for line in self._cut(data):
            if line.startswith(b"data:") and not value:
                if event := self._add(line[6:] if line.startswith(b" ", 5) else line[5:]):
                    yield event
            elif line or value:
                yield from self._other(line)
            elif held and (event := self._event()):
                yield event
        self._check("line", self._line_size)
        held_back = held or value or self._line or self._after_cr
        self._is_between = not (held_back or self._is_error or self._is_ping)

    def close(self) -> Sequence[str]:
        """The data of an event without its end, if there is one."""
        found = list(self.feed(b"\n"))  # ends a line without its end
        if self._value:
            found.append(_decoded(self._end_value()))
        if self._data and (event := self._event()):
            found.append(event)
        return found

    def _add(self, value: bytes) -> str:
        """Add a line of data; returns the event before it, if that had no end of its own, else an empty string."""
        held = self._data
        before = ""
        if held and held[-1].endswith(b"}") and value.startswith((b"{", b"[DONE]")):
            before = self._event()
        held.append(value)
        self._data_size += len(value)
        self._check("event", self._data_size)
        return before

    def _event(self) -> str:
        held = self._data
        text = _decoded(held[0] if len(held) == 1 else b"\n".join(held))
        held.clear()
        self._data_size = 0
        self._has_events = True
        is_error, self._is_error = self._is_error, False
        is_ping, self._is_ping = self._is_ping, False
        if is_error:
            return _as_error(text)
        is_nothing = text == '""' or text.startswith(":")
        is_sign = is_nothing or (is_ping and not text.startswith(("{", "[")))
        return "" if is_sign else text

    def _other(self, line: bytes) -> Iterator[str]:
        """Process a line that is not a usual line of data."""
        self._check("line", len(line))
        line = line.lstrip(b"\0")  # padding of some servers
        if self._value:
            if line.startswith(b"data:"):  # the server has cut the value off, and goes on
                yield _decoded(self._end_value())
                yield from self._field(line)
            elif value := self._add_to_value(line):
                yield _decoded(value)
        elif _begins_value(line):
            self._add_to_value(line)
        elif line.startswith((b"{", b"[")):
            self._has_events = True
            yield _decoded(line)
        elif line and not line.startswith(b":"):
            yield from self._field(line)

    def _field(self, line: bytes) -> Iterator[str]:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name.strip():
            case b"data":
                if event := self._add(value):
                    yield event
            case b"event":
                kind = value.strip().lower()
                self._is_error, self._is_ping = kind == b"error", kind in _PINGS
            case b"error":
                yield _as_error(_decoded(value))
            case b"id" | b"retry":
                pass
            case _:
                yield from self._unknown(line)

    def _unknown(self, line: bytes) -> Iterator[str]:
        if len(self._unread) < _KEPT:
            self._unread += line[:_KEPT] + b"\n"
        self._passed_over += len(line)
        is_page = line.lstrip().startswith(b"<") or self._passed_over > _PASSED_OVER
        if b"{" in line:
            yield _decoded(line)
        elif is_page and not self._has_events:
            self._has_events = True
            yield self.unread


def _begins_value(line: bytes) -> bool:
    """Whether a line is the first of a JSON value over several lines."""
    return line.rstrip() in (b"{", b"[", b"[{")


def _decoded(text: bytes) -> str:
    """Decode UTF-8; for other bytes, a text that every protocol refuses."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return f"not UTF-8: {text.decode(errors='replace')}"


def _as_error(words: str) -> str:
    """The text of an error event or field as an object that a backend recognises as an error."""
    said = parse_object(words)
    if said is None:
        return json.dumps({"error": words.strip() or "without a word"})
    return words if said.get("error") else f'{{"error": {words}}}'


_BLANK: Final = " \t\n\r"
# Not json.loads: for a short text its overhead takes as long as decoding.
_decode: Final = cast("Callable[[str], tuple[Json, int]]", json.JSONDecoder().raw_decode)


def parse_object(text: str) -> dict[str, Json] | None:
    """Parse a JSON object; ``None`` if the text is anything else.

    An array with one object counts as that object, because Google sends errors so.
    """
    text = text.strip(_BLANK)
    try:
        value, end = _decode(text)
    except (ValueError, RecursionError):
        return None
    if end != len(text):
        return None
    if isinstance(value, dict):
        return value
    one = value[0] if isinstance(value, list) and len(value) == 1 else None
    return one if isinstance(one, dict) else None
