"""What is left out of a running text, or stands in place of a piece of it. No tasks, no I/O.

Places are positions in the text as it was generated. Edits that overlap become one: all that any of
them covers is gone, and what stands there is the replacement of the one that begins first.
"""

from __future__ import annotations

from bisect import bisect_left

__all__ = ["Edits"]


class Edits:
    """The edits of one text, in its order.

    ``spans`` are their places, each with what stands there instead.
    """

    __slots__ = ("spans",)

    def __init__(self) -> None:
        self.spans: list[tuple[int, int, str]] = []

    def add(self, start: int, end: int, replacement: str) -> None:
        """Put a replacement, perhaps an empty one, in the place of ``[start, end)``."""
        spans = self.spans
        first = bisect_left(spans, start, key=lambda span: span[1])
        while first < len(spans) and spans[first][1] <= start:
            first += 1
        last = first
        while last < len(spans) and spans[last][0] < end:
            last += 1
        if overlapping := spans[first:last]:
            if overlapping[0][0] <= start:
                replacement = overlapping[0][2]
            start = min(start, overlapping[0][0])
            end = max(end, overlapping[-1][1])
        spans[first:last] = [(start, end, replacement)]

    def before(self, position: int) -> Edits:
        """The edits as far as they come before it, for a text that goes on otherwise.

        One that reaches over the position ends there: what stands in its place may have been shown.
        """
        kept = Edits()
        kept.spans = [
            (begin, min(end, position), replacement)
            for begin, end, replacement in self.spans
            if begin < position
        ]
        return kept

    def applied_to(self, text: str, start: int = 0) -> str:
        """A piece of the text with the edits made in it.

        What an edit that reaches over the piece's beginning puts in belongs to the piece before.
        Where something is left out between white space, only the white space before it stays.

        Args:
            text: The piece.
            start: Where in the text it begins.
        """
        if not self.spans:
            return text
        stop = start + len(text)
        parts: list[str] = []
        at = start
        for begin, end, replacement in self.spans:
            if end <= start or begin >= stop:
                continue
            parts.append(text[at - start : max(begin, at) - start])
            if begin >= start:
                parts.append(replacement)
            at = min(end, stop)
            if not replacement and (not (shown := "".join(parts)) or shown[-1].isspace()):
                while at < stop and text[at - start].isspace():
                    at += 1
        parts.append(text[at - start :])
        return "".join(parts)
