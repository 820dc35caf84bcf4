"""Breaks lines between words; a terminal alone would break them anywhere.

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

LEAST: Final = 12
"""The minimum of columns for the words of a hanging line, also on a narrow terminal."""

_BRANCHES: Final = re.compile("[│├└─ ]*")
# A wide character may stand at the end of a line, with the punctuation that goes with it, and with what makes another
# picture of it: a tone of skin, a selector, a joiner and the next character.
_WIDE: Final = "\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\U0001f300-\U0003fffd"
_CLOSING: Final = (
    "\u3001\u3002\uff0c\uff0e\uff1a\uff1b\uff01\uff1f\u300d\u300f\uff09\u3011\u3009\u300b\u2026"
)
_CHANGING: Final = "\u0300-\u036f\u20d0-\u20ff\ufe00-\ufe0f\U0001f3fb-\U0001f3ff"
_TOKENS: Final = re.compile(
    rf"\n|[^\S\n]+|[{_WIDE}](?:[{_CLOSING}{_CHANGING}]|\u200d[^\w\s\x00-\x7f]?)*|[^\s{_WIDE}]+"
)


def console_on(file: TextIO) -> Console:
    """A console with the width of its terminal; rich alone does not find the width of a dumb terminal, and takes
    ``COLUMNS=0`` for one.
    """
    console = Console(file=file)
    if console.width < 1:
        console.width, console.height = width_of(file) or 80, console.height
    if console.is_dumb_terminal and (columns := width_of(file)) is not None:
        console.width, console.height = columns, 25  # one without the other counts for nothing
    return console


def width_of(file: TextIO) -> int | None:
    """The columns of the terminal that a file is; ``None``: it is no terminal."""
    if not file.isatty():
        return None
    if (columns := os.environ.get("COLUMNS", "")).isdigit() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(file.fileno()).columns or None
    except (OSError, ValueError):
        return None


def hanging(console: Console, first: str, then: str, words: Text) -> Iterator[Text]:
    """Break words into lines that fit on a terminal, the first after ``first``, the others after ``then``.

    If the console is no terminal, they are one line.
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
    """A tree drawn with lines; long texts are broken and continue to the right of the branches."""
    for line in tree.splitlines():
        branches = _BRANCHES.match(line)
        first = branches[0] if branches else ""
        then = first.replace("├─", "│ ").replace("└─", "  ") + "  "
        for part in hanging(console, first, then, Text(line[len(first) :])):
            part.stylize("dim")
            yield part


class WordWrap:
    """Wraps a text that comes in pieces between words.

    A word is returned only when something follows it, because its length is not known before.

    Args:
        width: Columns of a line.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._column = 0
        self._gap = ""
        self._waiting = ""

    def feed(self, text: str) -> str:
        """Add text, and return what can be written now."""
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
        # no parts: a joiner or an accent alone has no width
        parts = chop_cells(token, self._width) or [token]
        before = 0 if gap == "\n" else self._column + cell_len(gap)
        self._column = cell_len(parts[-1]) + (before if len(parts) == 1 else 0)
        return gap + "\n".join(parts)
