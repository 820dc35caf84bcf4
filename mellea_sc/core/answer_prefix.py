"""An answer whose beginning was given: what the model adds to it, joined to it, whatever the server repeats.

A model goes on from a beginning in one of two ways. A server that *prefills* lets it write on where the last
message, the assistant's, ends. Any other model is *asked* to continue, in words; what it then says is a message
of its own, without the white space that stood between, and perhaps with the beginning over again.
"""

from __future__ import annotations

__all__ = ["AnswerPrefix", "EchoFilter"]


class EchoFilter:
    """Takes the beginning out of an answer that repeats it.

    Text is held back only as long as it may be the beginning, which white space may stand before.

    Args:
        given: The beginning.
    """

    __slots__ = ("_given", "_held", "_matched", "found")

    def __init__(self, given: str) -> None:
        self._given = given.strip()
        self._matched = 0
        self._held: list[str] = []
        self.found: bool | None = None if self._given else False
        """Whether the answer repeats the beginning; ``None``: nobody knows yet."""

    @property
    def was_listening(self) -> bool:
        """Whether there is a beginning to be heard."""
        return bool(self._given)

    def feed(self, text: str) -> str:
        """Take text of the answer; gives what of it goes on from the beginning."""
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
        """The answer has ended; gives what was held back."""
        return "".join(self._held) if self.found is None else ""


class AnswerPrefix:
    """Puts the beginning of an answer before what the model adds to it.

    Args:
        shown: What is put there; empty where it is there already.
        given: What the model was given.
        asked: Whether the model was asked to go on, and not made to.
    """

    __slots__ = ("_asked", "_echo", "_shown", "_shown_yet")

    def __init__(self, shown: str, given: str, *, asked: bool) -> None:
        self._shown = shown
        self._shown_yet = not shown
        self._asked = asked
        # Where the server prefills, its backend knows whether it repeats anything.
        self._echo = EchoFilter(given if asked else "")

    def feed(self, text: str) -> str:
        """Take text of the model's; gives text of the answer."""
        text = self._echo.feed(text)
        if self._shown_yet or not text:
            return text
        if self._shown[-1].isspace():
            text = text.lstrip()
            if not text:
                return ""
        elif self._asked and not self._echo.found and _run_together(self._shown, text):
            text = f" {text}"
        self._shown_yet = True
        return self._shown + text

    def end(self) -> str:
        """The model has said all; gives what is still missing of the answer."""
        rest = self._echo.end()
        if self._shown_yet:
            return rest
        self._shown_yet = True
        return self._shown + rest


def _run_together(before: str, after: str) -> bool:
    """Whether two texts need a space between them, in the scripts that have spaces."""
    last, first = before[-1], after[0]
    is_spaced = last < "\u2e80" and first < "\u2e80"
    return is_spaced and first.isalnum() and (last.isalnum() or last in ",.;:!?")
