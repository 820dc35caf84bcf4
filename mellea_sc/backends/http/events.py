"""Parses server-sent events, as servers of models really send them: from bytes to the events' data.

The rules are WHATWG's (https://html.spec.whatwg.org/multipage/server-sent-events.html), for the fields that matter
here: a blank line ends an event; the lines of ``data`` are joined by line feeds; one space after the colon is not
part of the value; a line that begins with a colon is a comment; ``id`` and ``retry`` are ignored. Servers break these
rules, and a browser would then drop data. Here it is not dropped:

- JSON without a field name before it (an error, or a whole answer) is treated like an event's data.
- An ``error`` field, and the data of an ``error`` event, are an error, whatever lines are between the two.
- Two objects in two consecutive lines of ``data`` are two events: joined, they would not be JSON.
- A line of an unknown field that contains an object is given unchanged, and is then refused: it may be a delta with
  an extra byte before ``data``. Other such lines are skipped, but their beginning is kept for error messages.
- An event without its blank line at the response's end counts; whether it is complete is decided by its JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from mellea_sc.backends.http.json_values import parse_object
from mellea_sc.backends.http.lines import MAX_LINE, LineCutter, Pretty, decoded, too_long

__all__ = ["EventSplitter"]

_KEPT: Final = 1000
"""Bytes of skipped lines that are kept for error messages."""
_PASSED_OVER: Final = 64 * 1024
"""Bytes that may be skipped before the first event; a response with more is not a stream of events."""


_USUAL: Final = ("data: {", "data: [")
"""The beginnings of an event with JSON or with the end mark."""


class EventSplitter:
    """Cuts a response into the data of server-sent events; skips events without data, and comments.

    Args:
        limit: The maximum size of a line, and of an event's data, in bytes.
    """

    __slots__ = (
        "_data",
        "_is_between",
        "_is_error",
        "_limit",
        "_lines",
        "_passed_over",
        "_pretty",
        "_size",
        "_started",
        "_unread",
    )

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._lines = LineCutter(limit)
        self._pretty = Pretty(limit)
        self._data: list[bytes] = []
        self._size = 0
        self._is_error = False
        self._started = False
        self._is_between = True  # nothing is held back
        self._unread = b""
        self._passed_over = 0

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
                if not self._started:
                    self._started = True
                    self._lines.begin()
                return values
        return self._read(data)

    def _read(self, data: bytes) -> Iterator[str]:
        self._is_between = False
        held, pretty = self._data, self._pretty.lines
        for line in self._lines.cut(data):
            if line.startswith(b"data:") and not pretty:
                if event := self._add(line[6:] if line.startswith(b" ", 5) else line[5:]):
                    yield event
            elif line or pretty:
                yield from self._other(line)
            elif held and (event := self._event()):
                yield event
        self._lines.check()
        self._is_between = not (held or pretty or self._is_error or self._lines.is_amid)

    def close(self) -> Sequence[str]:
        """The data of an event without its end, if there is one."""
        found = list(self.feed(b"\n"))  # ends a line without its end
        if self._pretty.lines:
            found.append(decoded(self._pretty.rest()))
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
        self._size += len(value)
        if self._size > self._limit:
            raise too_long("event", self._limit)
        return before

    def _event(self) -> str:
        held = self._data
        text = decoded(held[0] if len(held) == 1 else b"\n".join(held))
        held.clear()
        self._size = 0
        self._started = True
        if self._is_error:
            self._is_error = False
            return _as_error(text)
        return text

    def _other(self, line: bytes) -> Iterator[str]:
        """Process a line that is not a usual line of data."""
        if len(line) > self._limit:
            raise too_long("line", self._limit)
        line = line.lstrip(b"\0")  # padding of some servers
        if self._pretty.lines:
            if line.startswith(b"data:"):  # the server has cut the value off, and goes on
                yield decoded(self._pretty.rest())
                yield from self._field(line)
            elif value := self._pretty.take(line):
                yield decoded(value)
        elif self._pretty.begins(line):
            self._pretty.take(line)
        elif line.startswith((b"{", b"[")):
            self._started = True
            yield decoded(line)
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
                self._is_error = value.strip().lower() == b"error"
            case b"error":
                yield _as_error(decoded(value))
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
            yield decoded(line)
        elif is_page and not self._started:
            self._started = True
            yield self.unread


def _as_error(words: str) -> str:
    """The text of an error event or field as an object that a backend recognises as an error."""
    said = parse_object(words)
    if said is None:
        return json.dumps({"error": words.strip() or "without a word"})
    return words if said.get("error") else f'{{"error": {words}}}'
