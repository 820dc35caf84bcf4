"""What is left out of a running text, or stands in place of a piece of it. No tasks, no I/O.

Places are positions in the text as it was generated. Edits that overlap become one: all that any of
them covers is gone, and what stands there is the replacement, if they have the same one; otherwise
nothing, for what one of them puts in another one may not want. So it does not matter which came first.
"""

from __future__ import annotations

from bisect import bisect_right

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
        first = last = self._first_after(start)
        while last < len(spans) and spans[last][0] < end:
            last += 1
        if overlapping := spans[first:last]:
            if any(other != replacement for _, _, other in overlapping):
                replacement = ""
            start = min(start, overlapping[0][0])
            end = max(end, overlapping[-1][1])
        spans[first:last] = [(start, end, replacement)]

    def _first_after(self, position: int) -> int:
        """The index of the first edit that ends after a position."""
        return bisect_right(self.spans, position, key=_end_of)

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
        for number in range(self._first_after(start), len(self.spans)):
            begin, end, replacement = self.spans[number]
            if begin >= stop:
                break
            parts.append(text[at - start : max(begin, at) - start])
            if begin >= start:
                parts.append(replacement)
            at = min(end, stop)
            if not replacement and (not (shown := "".join(parts)) or shown[-1].isspace()):
                while at < stop and text[at - start].isspace():
                    at += 1
        parts.append(text[at - start :])
        return "".join(parts)


def _end_of(span: tuple[int, int, str]) -> int:
    return span[1]
