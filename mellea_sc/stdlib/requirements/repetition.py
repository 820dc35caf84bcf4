"""Loops: a model that says the same again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import OnFail, PartialValidationResult, ValidationResult
from mellea_sc.stdlib.requirements.making import simple_validate
from mellea_sc.stdlib.requirements.scanned import UNKNOWN, Piece, ScannedRequirement, Scanner

__all__ = ["NoRepetition"]

MOST: Final = 1 << 14
"""Characters of a loop that may have to be remembered."""


class NoRepetition(ScannedRequirement):
    """No loops: nothing is said ``times`` times in a row, over at least ``at_least`` characters.

    What is looked for is a sequence of up to ``longest`` characters, whatever they are, with a letter or
    digit among them (a line of dashes is no loop), that follows itself exactly. The character with
    which it is too much stops the stream: what was said before it has been shown.

    Args:
        times: How often in a row something may not be said; at least 2.
        at_least: A shorter loop is none. Equal rows of a table or of JSON, refrains, zeros and laughter
            are meant so, and seldom go on for 500 characters; a loop of a model goes on to the limit.
        longest: The longest sequence that is looked for. So much, ``times`` times, is remembered.
        check_only: Leave the description out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`. With ``"filter"`` or ``"fix"`` the loop is
            left out from there to its end.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: an argument is not such a number, or a loop would be longer than 16384 characters.
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
        for name, value, least in (("times", times, 2), ("at_least", at_least, 1)):
            _check(name, value, least)
        _check("longest", longest, 1)
        if max(times * longest, at_least) > MOST:
            raise InvalidOption(f"a loop may have at most {MOST} characters")
        scanner = _LoopScanner(times, at_least, longest)
        super().__init__(
            "nothing is said again and again",
            simple_validate(scanner.judge),
            scanner,
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.times = times
        self.at_least = at_least
        self.longest = longest


class _LoopScanner(Scanner):
    """Fails each character that ends a loop.

    A loop of a sequence of ``n`` characters is ``size(n)`` characters long, so its last ``size(n) - n``
    stand there a second time, ``n`` characters earlier. The least of these is what is searched for at
    each character, as far back as a sequence has a letter or digit in it: where it does not stand
    there, there is no loop.
    """

    def __init__(self, times: int, at_least: int, longest: int) -> None:
        self._times = times
        self._at_least = at_least
        self._longest = longest
        self._again = min(self._size(length) - length for length in range(1, longest + 1))
        self._kept = self._size(longest)
        self._known = ""
        self._since = 0  # characters since the last letter or digit, and itself
        reason = f"the same is said {times} times in a row"
        self._fail = PartialValidationResult("fail", reason=reason, replacement="")

    def fresh(self) -> _LoopScanner:
        """A new scanner with the same settings."""
        return _LoopScanner(self._times, self._at_least, self._longest)

    def judge(self, text: str) -> ValidationResult:
        """Whether a whole text is free of loops."""
        if all(piece.verdict is UNKNOWN for piece in self.pieces_of(text)):
            return ValidationResult(True)
        return ValidationResult(False, reason=self._fail.reason)

    def feed(self, delta: str) -> Sequence[Piece]:
        """The delta, divided into what ends a loop and what does not."""
        text = self._known + delta
        first = start = len(self._known)
        pieces: list[Piece] = []
        verdict = UNKNOWN
        for at in range(first, len(text)):
            self._since = 1 if text[at].isalnum() else self._since + 1
            said = self._fail if self._is_loop(text, at + 1) else UNKNOWN
            if said is not verdict:
                if at > start:
                    pieces.append(Piece.of(text[start:at], verdict))
                start, verdict = at, said
        if len(text) > start:
            pieces.append(Piece.of(text[start:], verdict))
        self._known = text[-self._kept :]
        return pieces

    def flush(self) -> Sequence[Piece]:
        """Nothing: no character is held back."""
        return ()

    def _size(self, length: int) -> int:
        return max(self._times * length, self._at_least)

    def _is_loop(self, text: str, end: int) -> bool:
        begins = end - self._again
        if begins < 1:
            return False
        again = text[begins:end]
        earliest = max(0, begins - self._longest)
        found = text.rfind(again, earliest, end - self._since)
        while found >= 0:
            length = begins - found
            size = self._size(length)
            if size <= end and text.startswith(text[end - size + length : end], end - size):
                return True
            found = text.rfind(again, earliest, found + self._again - 1)
        return False


def _check(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidOption(f"{name} must be a whole number of at least {least}, not {value!r}")
