"""Answers with a given prefix: joins the prefix and the text that the model adds to it.

A model continues a prefix in one of two ways. A server that *prefills* lets the model continue the last message, if
that is the assistant's. Any other model is *asked* in words to continue. It then answers with a new message, which
may repeat the prefix (an *echo*), and has no white space at its beginning to separate it from the prefix.
"""

from __future__ import annotations


class EchoFilter:
    """Removes the prefix from an answer that repeats it.

    Text is held back only as long as it may be an echo. White space may stand before the echo.

    Args:
        given: The prefix.
    """

    __slots__ = ("_given", "_held", "_matched", "found")

    def __init__(self, given: str) -> None:
        self._given = given.strip()
        self._matched = 0
        self._held: list[str] = []
        self.found: bool | None = None if self._given else False
        """Whether the answer repeats the prefix; ``None``: not known yet."""

    def feed(self, text: str) -> str:
        """Take text of the answer, and return the part of it that continues the prefix."""
        if self.found is not None or not text:
            return text
        self._held.append(text)
        said = text if self._matched else text.lstrip()
        expected = self._given[self._matched : self._matched + len(said)]
        if not said.startswith(expected):
            self.found = False
            return "".join(self._held)
        self._matched += len(expected)
        if self._matched < len(self._given):
            return ""
        self.found = True
        return said[len(expected) :]

    def end(self) -> str:
        """Return the text that was held back; the answer has ended."""
        return "".join(self._held) if self.found is None else ""


class AnswerPrefix:
    """Puts the prefix of an answer before the text that the model adds.

    Args:
        shown: The text to put there; empty if the reader has it already.
        given: The prefix that the model was given.
        asked: Whether the model was asked in words to continue; otherwise its server prefills.
    """

    __slots__ = ("_asked", "_echo", "_shown", "_shown_yet")

    def __init__(self, shown: str, given: str, *, asked: bool) -> None:
        self._shown = shown
        self._shown_yet = not shown
        self._asked = asked
        # If the server prefills, its backend has removed an echo already: it remembers which servers repeat.
        self._echo = EchoFilter(given if asked else "")

    def feed(self, text: str) -> str:
        """Take text of the model, and return text of the answer."""
        text = self._echo.feed(text)
        if self._shown_yet or not text:
            return text
        # The prefix is put out together with the first text, because the text decides what stands between them.
        if self._shown[-1].isspace():
            text = text.lstrip()
            if not text:
                return ""
        elif self._asked and not self._echo.found and _run_together(self._shown, text):
            text = f" {text}"
        self._shown_yet = True
        return self._shown + text

    def end(self) -> str:
        """Return what is still missing of the answer; the model has finished."""
        rest = self._echo.end()
        if self._shown_yet:
            return rest
        self._shown_yet = True
        return self._shown + rest


def _run_together(before: str, after: str) -> bool:
    """Whether a space is missing between two texts; never in scripts without spaces."""
    # from U+2E80 on: Chinese, Japanese, Korean
    last, first = before[-1], after[0]
    is_spaced = last < "\u2e80" and first < "\u2e80"
    return is_spaced and first.isalnum() and (last.isalnum() or last in ",.;:!?")
