r"""Characters that a server has cut in two.

JSON writes a character beyond U+FFFF as two escapes, ``\ud83d\ude00``, and some servers put them into two
deltas (RFC 8259, section 8.2, lets them). A half is no text: it cannot be encoded, and no pattern finds
the character.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["HalfCharacters"]

_HALF: Final = re.compile("[\ud800-\udfff]")
_FIRST: Final = ("\ud800", "\udbff")


class HalfCharacters:
    """Joins the halves in a text that comes in deltas; one without its other half is U+FFFD."""

    __slots__ = ("_first",)

    def __init__(self) -> None:
        self._first = ""

    def join(self, text: str) -> str:
        """The text so far; a first half at its end waits for the second."""
        if not self._first and (text.isascii() or not _HALF.search(text)):
            return text
        if not text:
            return ""
        text = self._first + text
        self._first = text[-1] if _FIRST[0] <= text[-1] <= _FIRST[1] else ""
        whole = text[: len(text) - len(self._first)]
        return whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def end(self) -> str:
        """What is left at the end of the text."""
        first, self._first = self._first, ""
        return "\ufffd" if first else ""
