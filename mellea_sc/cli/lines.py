"""Lines for people, broken between words where a terminal would break them anywhere.

Imports rich; imported when something is shown.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import Final, TextIO

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text

__all__ = ["WordWrap", "console_on", "hanging", "say", "story", "width_of"]

LEAST: Final = 12
"""Columns that a hanging line keeps for its words, however narrow the terminal is."""

_BRANCHES: Final = re.compile("[│├└─ ]*")
# A wide character may stand at the end of a line, with the punctuation that goes with it.
_WIDE: Final = "\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\U0001f300-\U0003fffd"
_CLOSING: Final = (
    "\u3001\u3002\uff0c\uff0e\uff1a\uff1b\uff01\uff1f\u300d\u300f\uff09\u3011\u3009\u300b\u2026"
)
_TOKENS: Final = re.compile(rf"\n|[^\S\n]+|[{_WIDE}][{_CLOSING}]*|[^\s{_WIDE}]+")


def console_on(file: TextIO) -> Console:
    """A console that knows how wide its terminal is, a dumb one as well."""
    console = Console(file=file)
    if console.is_dumb_terminal and (columns := width_of(file)) is not None:
        console.width, console.height = columns, 25  # one without the other counts for nothing
    return console


def width_of(file: TextIO) -> int | None:
    """Columns of the terminal that a file is; ``None``: it is none."""
    if not file.isatty():
        return None
    if (columns := os.environ.get("COLUMNS", "")).isdigit() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(file.fileno()).columns or None
    except (OSError, ValueError):
        return None


def hanging(console: Console, first: str, then: str, words: Text) -> Iterator[Text]:
    """Words as lines that fit on a terminal, the first after ``first``, the others after ``then``.

    Where the console is no terminal they are one line: whoever reads it breaks it.
    """
    room = console.width - max(cell_len(first), cell_len(then))
    lines = [words] if not console.is_terminal else words.wrap(console, max(room, LEAST))
    for number, line in enumerate(lines):
        yield Text(then if number else first).append_text(line)


def say(words: str, style: str = "") -> None:
    """Write to standard error."""
    console = console_on(sys.stderr)
    for line in hanging(console, "", "", Text(words, style)):
        console.print(line, soft_wrap=True, highlight=False)


def story(console: Console, tree: str) -> Iterator[Text]:
    """A tree that is drawn with lines, with its words broken to the right of the branches."""
    for line in tree.splitlines():
        branches = _BRANCHES.match(line)
        first = branches[0] if branches else ""
        then = first.replace("├─", "│ ").replace("└─", "  ") + "  "
        for part in hanging(console, first, then, Text(line[len(first) :])):
            part.stylize("dim")
            yield part


class WordWrap:
    """A text that comes in pieces, with line breaks between words.

    A word is handed out when something follows it, for only then is it known how long it is.

    Args:
        width: Columns of a line.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._column = 0
        self._gap = ""
        self._waiting = ""

    def feed(self, text: str) -> str:
        """What can be written now that this has come."""
        tokens = _TOKENS.findall(self._waiting + text)
        self._waiting = tokens.pop() if tokens and tokens[-1] != "\n" else ""
        return "".join(map(self._placed, tokens))

    def end(self) -> str:
        """The last word."""
        waiting, self._waiting = self._waiting, ""
        return self._placed(waiting) if waiting.strip() else ""

    def _placed(self, token: str) -> str:
        if token == "\n":
            self._column, self._gap = 0, ""
            return token
        if token.isspace():
            self._gap = token.replace("\t", " ")  # of no width to rich
            return ""
        gap, self._gap = self._gap, ""
        if self._column + cell_len(gap + token) > self._width:
            gap, self._column = "\n" if self._column else "", 0
        parts = chop_cells(token, self._width)
        before = 0 if gap == "\n" else self._column + cell_len(gap)
        self._column = cell_len(parts[-1]) + (before if len(parts) == 1 else 0)
        return gap + "\n".join(parts)
