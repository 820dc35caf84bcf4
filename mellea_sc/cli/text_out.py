"""Standard output, for the released text alone."""

from __future__ import annotations

import sys
from typing import TextIO

from mellea_sc.cli.lines import WordWrap, width_of
from mellea_sc.core.plain_text import harmless

__all__ = ["TextOut"]


class TextOut:
    """Standard output: as the model wrote it, or on a terminal without what a terminal would obey, broken
    between words.
    """

    def __init__(self) -> None:
        self._file: TextIO = sys.stdout
        self.is_terminal: bool = self._file.isatty()
        self._wrap = WordWrap(width_of(self._file) or 80)
        self._shown = 0
        self._last = ""
        if callable(reconfigure := getattr(self._file, "reconfigure", None)):
            reconfigure(errors="replace")  # a model can say what the file's encoding cannot

    def show(self, text: str) -> None:
        """Write what is new in a text that grows."""
        if new := text[self._shown :]:
            self._shown = len(text)
            self._last = new[-1]
            self._write(self._wrap.feed(harmless(new)) if self.is_terminal else new)

    def end(self) -> None:
        """End the last line, where there is text."""
        if self.is_terminal:
            self._write(self._wrap.end())
        if self._last not in ("", "\n"):
            self._write("\n")

    def _write(self, text: str) -> None:
        if text:
            self._file.write(text)
            self._file.flush()
