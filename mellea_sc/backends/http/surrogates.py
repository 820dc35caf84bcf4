r"""Characters that a server has cut in two.

JSON writes a character beyond U+FFFF as two escapes, ``\ud83d\ude00``, and some servers put them into two
deltas (RFC 8259, section 8.2, lets them). A half is no text: it cannot be encoded, and no pattern finds
the character.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["joined"]

_HALF: Final = re.compile("[\ud800-\udfff]")
_FIRST: Final = ("\ud800", "\udbff")


def joined(text: str) -> tuple[str, str]:
    """A text whose halves are joined, and the first half at its end, which waits for the second, if there is one.

    A half without its other is U+FFFD.
    """
    if not _HALF.search(text):
        return text, ""
    first = text[-1] if _FIRST[0] <= text[-1] <= _FIRST[1] else ""
    whole = text[: len(text) - len(first)]
    return whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), first
