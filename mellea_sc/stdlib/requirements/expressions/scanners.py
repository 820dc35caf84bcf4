r"""Scanners for regular expressions: they decide what may be shown of an incomplete text.

A position is decided as soon as it is certain whether a match begins there. For ``\bgas\b``::

    When a volcano ga        "When a volcano " passes at once: whatever follows, no match begins there
    When a volcano gav       "gav" passes too
    When a volcano gas e     "gas" fails; the rest passes

If no number of characters is enough (``key=\S+`` has no maximum length), a position is decided by the ``window`` of
characters that begins there, as if the text ended after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.stdlib.requirements.expressions.expression import Allowance, Expression
from mellea_sc.stdlib.requirements.pieces import Found, Next, Piece, Scanner, SpanScanner

__all__ = ["FullMatchScanner", "MatchScanner"]

STEP: Final = 1 << 12
"""The maximum of characters per search, so that its time is bounded."""
AGAIN: Final = 16
"""Undecided text is searched again only when a 16th of it is new, so that the work per character does not grow."""
STEPS: Final = 64
"""The maximum of characters that are matched for each new one, if the whole text has to match."""


class MatchScanner(SpanScanner):
    """Cuts a text into the matches of an expression, which fail, and the text between them.

    Args:
        expression: The expression, which must support incomplete texts.
        window: The number of characters that are enough to decide a position.
        verdict: The verdict on a match.
    """

    def __init__(
        self, expression: Expression, window: int, verdict: PartialValidationResult
    ) -> None:
        size = expression.size
        self._expression = expression
        self._verdict = verdict
        # If the window decides, a search ends with the window of its first position. Otherwise the result would
        # depend on how much of the text happens to have arrived.
        self._window_decides = size.seen > window
        self._step = window if self._window_decides else max(window, STEP)
        assert expression.open is not None
        self._search = expression.open.search
        self._allowance = Allowance.of(0)
        super().__init__(window, behind=int(min(size.behind, window)) + 1)

    def fresh(self) -> MatchScanner:
        """A new scanner with the same settings."""
        return MatchScanner(self._expression, self._window, self._verdict)

    def feed(self, delta: str) -> Sequence[Piece]:
        """The pieces that are decided by this delta, in bounded time."""
        if self.passes(delta):
            return (Piece.of(delta),)
        self._allowance = Allowance.of(len(delta))
        return super().feed(delta)

    def passes(self, delta: str) -> bool:
        """Take a delta if nothing is held back and no match may begin in it."""
        at = len(self._known)
        if not (self.is_idle and 0 < len(delta) <= self._expression.untimed):
            return False
        text = self._known + delta
        size = len(text)
        if size - at > self._step:
            return False
        match = self._search(text, at)  # without a timeout: the text is short
        if match is not None and match.start() < size:
            return False
        self._known = text[-self._behind :]
        self._judged = self._length = len(self._known)
        return True

    def lets_go(self, ends: Sequence[str]) -> bool:
        """Whether no match begins in the held text, whichever of ``ends`` comes next."""
        known, judged = self._known, self._judged
        if self._open is not None or self._length > len(known):
            return False
        if len(known) - judged >= min(self._step, self._expression.untimed, self._window):
            return False
        for end in ends:
            match = self._search(known + end, judged)
            if match is not None and match.start() < len(known) + len(end):
                return False
        return True

    def let_go(self) -> Sequence[Piece]:
        """Release the held text as passed."""
        held = self._known[self._judged :]
        self._keep(self._known, len(self._known))
        return (Piece.of(held),) if held else ()

    def next_in(self, text: str, at: int, *, ended: bool) -> Next:
        """The next match, or the position where one may have begun."""
        size = len(text)
        while at < size:
            stop = min(size, at + self._step)
            if ended and stop == size:
                match = self._expression.search(text, at, stop, self._allowance)
                if match is None or match[0] == size:
                    break
                return Next(match[0], Found(match[1], self._verdict))
            spot = self._expression.spot(text, at, stop, self._allowance)
            if spot is None:
                at = stop
                continue
            if spot.end is None and spot.begin > at and stop < size:
                at = spot.begin  # a search that begins there may look further
                continue
            at = spot.begin
            if spot.end is not None:
                return Next(at, Found(spot.end, self._verdict))
            if stop - at < self._window:
                return Next(at)
            end = self._expression.match(text, at, stop, self._allowance)
            if end is not None:
                filled = self._window_decides and end == stop
                return Next(at, Found(end, self._verdict), filled=filled)
            at += 1
        return Next(size)

    def end_of(self, text: str, began: int, stop: int) -> int:
        """The end of the match, as if the text ended at ``stop``."""
        return self._expression.match(text, began, min(stop, len(text)), self._allowance) or 0

    def look_again_at(self, text: str, held: int) -> int:
        """The length at which enough of the held text is new, or there is enough to decide."""
        return min(held + self._window, len(text) + max(1, (len(text) - held) // AGAIN))


class FullMatchScanner(Scanner):
    """Passes a text as long as some continuation of it can match as a whole.

    The time of a match grows with the text. So the text is matched only when a 64th of it is new. If it cannot match
    any more, the first character that rules a match out is found by bisection.

    Args:
        expression: The expression that the whole text has to match; it must support incomplete texts.
        reason: The reason of a fail.
    """

    def __init__(self, expression: Expression, reason: str) -> None:
        self._expression = expression
        self._fail = PartialValidationResult("fail", reason=reason)
        self._parts: list[str] = []
        self._length = 0
        self._passed = 0
        self._failed = False

    def fresh(self) -> FullMatchScanner:
        """A new scanner with the same settings."""
        return FullMatchScanner(self._expression, self._fail.reason or "")

    def feed(self, delta: str) -> Sequence[Piece]:
        """The text that can still match, and the text that cannot."""
        if self._failed:
            return (Piece.of(delta, self._fail),) if delta else ()
        self._parts.append(delta)
        self._length += len(delta)
        new = self._length - self._passed
        return self._look() if new * STEPS >= self._length else ()

    def flush(self) -> Sequence[Piece]:
        """The rest, in the same way."""
        return () if self._failed else self._look()

    def _look(self) -> Sequence[Piece]:
        text = "".join(self._parts)
        self._parts = [text]
        first, end = self._passed, len(text)
        self._passed = end
        if first == end:
            return ()
        allowance = Allowance.of(end)
        if self._expression.may_match_wholly(text, allowance):
            return (Piece.of(text[first:]),)
        self._failed = True
        self._parts = []
        low, high = first, end  # the text up to low can match, the text up to high cannot
        while high - low > 1:
            middle = (low + high) // 2
            can_match = self._expression.may_match_wholly(text[:middle], allowance)
            low, high = (middle, high) if can_match else (low, middle)
        bad = Piece.of(text[low:], self._fail)
        return (Piece.of(text[first:low]), bad) if low > first else (bad,)
