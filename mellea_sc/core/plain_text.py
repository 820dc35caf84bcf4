"""Makes text from outside safe to print."""

from __future__ import annotations

import re
from typing import Final

# C0 but for tabs and line breaks, DEL and C1: escape sequences above all, which can write the clipboard.
# Then the characters that change the direction of what follows them.
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_HALF: Final = re.compile("[\ud800-\udfff]")


def harmless(text: str) -> str:
    """The text without control characters of terminals and without characters that cannot be encoded."""
    return _HALF.sub("\ufffd", _CONTROL.sub("", text))


def quoted(text: str) -> str:
    """The text in quotes and on one line, otherwise unchanged: ``repr`` would double backslashes."""
    quote = '"' if "'" in text and '"' not in text else "'"
    return f"{quote}{' '.join(harmless(text).splitlines())}{quote}"


def shortened(text: str, most: int) -> str:
    """The text, cut off where it has more than so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
