r"""Joins surrogate pairs that a server has split between two deltas.

JSON writes a character beyond U+FFFF as two escapes, ``\ud83d\ude00``. Some servers send them in two deltas, which RFC
8259, section 8.2, allows. A lone surrogate is not valid text: it cannot be encoded, and no pattern would find the
character.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["joined"]

_HALF: Final = re.compile("[\ud800-\udfff]")
_FIRST: Final = ("\ud800", "\udbff")


def joined(text: str) -> tuple[str, str]:
    """The text with its pairs joined, and the first half of a pair at its end, if there is one, which must wait.

    A half without its counterpart becomes U+FFFD.
    """
    if not _HALF.search(text):
        return text, ""
    first = text[-1] if _FIRST[0] <= text[-1] <= _FIRST[1] else ""
    whole = text[: len(text) - len(first)]
    return whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), first
