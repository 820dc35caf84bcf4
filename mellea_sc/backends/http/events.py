"""From the bytes of a response to the data of server-sent events, as servers of models really send them.

The rules are WHATWG's (https://html.spec.whatwg.org/multipage/server-sent-events.html), for the fields that
matter here: a blank line ends an event; the lines of ``data`` are joined by line feeds; one blank after a
colon is no part of the value; a line that begins with a colon is a comment; ``id`` and ``retry`` are for who
connects again. Where servers break them, and a browser would drop what they say, it is not dropped:

- JSON without a field before it (an error, or a whole answer) is a text like an event's data.
- An ``error`` field, and the data of an ``error`` event, are an error, whatever is between the two lines.
- Two objects in two lines of ``data`` without a blank line between them are two events: joined, they would be no
  JSON.
- A line of an unknown field that holds an object is given as it is, and is then refused: it may be a delta
  with a byte too many before its ``data``. Other such lines are passed over, their beginning is kept.
- An event that the response's end leaves without its blank line counts; whether it is whole, its JSON says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from mellea_sc.backends.http.json_values import parse_object
from mellea_sc.backends.http.lines import MAX_LINE, LineCutter, Pretty, decoded, too_long

__all__ = ["EventSplitter"]

_KEPT: Final = 1000
"""Bytes that are kept of what was passed over."""
_PASSED_OVER: Final = 64 * 1024
"""Bytes that are passed over before the first event; more is no stream of events."""


_USUAL: Final = ("data: {", "data: [")
"""How an event begins that has JSON, or says that it is the last one."""


class EventSplitter:
    """The data of server-sent events; events without data, and comments, are passed over.

    Args:
        limit: Bytes that a line, and an event's data, may have.
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
        """The beginning of what was passed over although it is no part of the protocol."""
        return self._unread.decode(errors="replace")

    def feed(self, data: bytes) -> Iterable[str]:
        """The data of the events that these bytes complete."""
        # What nearly every read is: whole events of one line of JSON. Anything else goes the way of the rules.
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
        """The data of the event that was begun and not ended, if there is one."""
        found = list(self.feed(b"\n"))  # ends the line, if one was begun
        if self._pretty.lines:
            found.append(decoded(self._pretty.rest()))
        if self._data and (event := self._event()):
            found.append(event)
        return found

    def _add(self, value: bytes) -> str:
        """Add a line of data; gives the event before it when that had no end of its own, else nothing."""
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
        """What a line says that is not one of data in its usual form."""
        if len(line) > self._limit:
            raise too_long("line", self._limit)
        line = line.lstrip(b"\0")  # some server's padding
        if self._pretty.lines:
            if line.startswith(b"data:"):  # the value was cut off, and the stream goes on
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
    """What stands in an error's event or field, as the object that a backend takes for an error."""
    said = parse_object(words)
    if said is None:
        return json.dumps({"error": words.strip() or "without a word"})
    return words if said.get("error") else f'{{"error": {words}}}'
