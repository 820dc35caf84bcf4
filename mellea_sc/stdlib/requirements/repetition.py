"""Loops: a model that repeats the same text again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.question import check_count
from mellea_sc.core.requirement import OnFail, PartialValidationResult
from mellea_sc.stdlib.requirements.scanned import (
    UNKNOWN,
    Piece,
    PieceList,
    ScannedRequirement,
    Scanner,
)

MOST: Final = 1 << 14
"""The maximum length of a loop, which has to be kept in memory."""


class NoRepetition(ScannedRequirement):
    """No loops: no text is repeated ``times`` times in a row, over at least ``at_least`` characters.

    A loop is a sequence of up to ``longest`` characters that follows itself exactly. It must contain a letter or
    digit, so a line of dashes is no loop. The character that completes a loop stops the stream; the text before it
    has been shown.

    Args:
        times: The number of repetitions that makes a loop; at least 2.
        at_least: The minimum length of a loop. Equal rows of a table or of JSON, refrains, zeros and laughter
            are intended, and are seldom longer than 500 characters; a model that loops goes on to its limit.
        longest: The maximum length of the repeated sequence. ``times`` times as many characters are kept in memory.
        check_only: Leave the description out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`. With ``"filter"`` or ``"fix"`` the rest of the
            loop is left out.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: an argument is not a whole number or too small, or a loop would be longer than 16384
            characters.
    """

    def __init__(
        self,
        times: int = 4,
        *,
        at_least: int = 500,
        longest: int = 300,
        check_only: bool = False,
        on_fail: OnFail | None = None,
        blocking: bool = True,
    ) -> None:
        check_count("times", times, 2)
        check_count("at_least", at_least, 1)
        check_count("longest", longest, 1)
        if max(times * longest, at_least) > MOST:
            raise InvalidOption(f"a loop may have at most {MOST} characters")
        super().__init__(
            "nothing is said again and again",
            _LoopScanner(times, at_least, longest),
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.times = times
        self.at_least = at_least
        self.longest = longest


class _LoopScanner(Scanner):
    """Fails each character that completes a loop.

    A loop of a sequence of ``n`` characters is ``size(n)`` characters long. So its last ``size(n) - n`` characters
    also occur ``n`` characters earlier. At each character, the shortest of these suffixes is searched for in the text
    before it, up to ``longest`` characters back and far enough that the sequence has a letter or digit. If it is not
    found, there is no loop.
    """

    def __init__(self, times: int, at_least: int, longest: int) -> None:
        self._times = times
        self._at_least = at_least
        self._longest = longest
        self._again = min(self._size(length) - length for length in range(1, longest + 1))
        self._kept = self._size(longest)
        self._known = ""
        self._since = 0  # the number of characters from the last letter or digit on
        reason = f"the same is said {times} times in a row"
        self._fail = PartialValidationResult("fail", reason=reason, replacement="")

    def fresh(self) -> _LoopScanner:
        """A new scanner with the same settings."""
        return _LoopScanner(self._times, self._at_least, self._longest)

    def feed(self, delta: str) -> Sequence[Piece]:
        """The delta, divided into characters that complete a loop and others."""
        text = self._known + delta
        first = start = len(self._known)
        pieces = PieceList()
        verdict = UNKNOWN
        for at in range(first, len(text)):
            self._since = 1 if text[at].isalnum() else self._since + 1
            here = self._fail if self._is_loop(text, at + 1) else UNKNOWN
            if here is not verdict:
                pieces.add(text[start:at], verdict)
                start, verdict = at, here
        pieces.add(text[start:], verdict)
        self._known = text[-self._kept :]
        return pieces

    def _size(self, length: int) -> int:
        return max(self._times * length, self._at_least)

    def _is_loop(self, text: str, end: int) -> bool:
        begins = end - self._again
        if begins < 1:
            return False
        again = text[begins:end]
        earliest = max(0, begins - self._longest)
        # Not less than 0, which would count from the end: the last letter or digit may be forgotten already.
        found = text.rfind(again, earliest, max(0, end - self._since))
        while found >= 0:
            length = begins - found
            size = self._size(length)
            if size <= end and text.startswith(text[end - size + length : end], end - size):
                return True
            found = text.rfind(again, earliest, found + self._again - 1)
        return False
