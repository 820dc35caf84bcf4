r"""Scanners for regular expressions: they decide what may be shown of an incomplete text.

A position is decided as soon as it is certain whether a match begins there. For ``\bgas\b``::

    When a volcano ga        "When a volcano " passes at once: whatever follows, no match begins there
    When a volcano gav       "gav" passes too
    When a volcano gas e     "gas" fails; the rest passes

If no number of characters is enough (``key=\S+`` has no maximum length), a position is decided by the ``window`` of
characters that begins there, as if the text ended after them. The same is done for the few expressions that do not
support incomplete texts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import attrs

from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.stdlib.requirements.expressions.expression import Allowance, Expression
from mellea_sc.stdlib.requirements.scanned import Piece, PieceList, Scanner

LONGEST: Final = 1 << 16
"""The maximum length up to which a match that is longer than its window is followed."""
STEP: Final = 1 << 12
"""The maximum of characters per search, so that its time is bounded."""
AGAIN: Final = 16
"""Undecided text is searched again only when a 16th of it is new, so that the work per character does not grow."""
STEPS: Final = 64
"""The maximum of characters that are matched for each new one, if the whole text has to match."""


@attrs.frozen
class _Next:
    """The next decision about a text.

    Args:
        begin: The position before which no match begins.
        end: The end of the match that begins there; ``None``: the text from there on is undecided.
        filled: Whether the match reaches the end of its window, and may be longer.
    """

    begin: int
    end: int | None = None
    filled: bool = False


@attrs.frozen
class _Followed:
    """A match that has filled its window, and is searched again up to ``reach``."""

    began: int
    reach: int


class MatchScanner(Scanner):
    """Cuts a text into the matches of an expression, which fail, and the text between them, each once it is decided.

    A match that fills its window may be longer. It is then searched again from its beginning in a window of twice the
    size, and so on. Its first piece is returned at once; the later ones fail too, with an empty replacement.

    ``_known`` is the end of the text, from ``_behind`` characters before the first undecided position, which is at
    ``_judged``. New text is collected in ``_waiting`` until there is enough to decide more.

    Args:
        expression: The expression.
        window: The number of characters that are enough to decide a position.
        verdict: The verdict on a match.
    """

    def __init__(
        self, expression: Expression, window: int, verdict: PartialValidationResult
    ) -> None:
        size = expression.size
        self._expression = expression
        self._search = None if expression.open is None else expression.open.search
        self._window = window
        # If the window decides, a search ends with the window of its first position. Otherwise the result would
        # depend on how much of the text happens to have arrived.
        self._window_decides = size.seen > window
        self._step = window if self._window_decides else max(window, STEP)
        self._behind = int(min(size.behind, window)) + 1
        self._verdict = verdict
        self._rest = attrs.evolve(verdict, replacement="")
        self._allowance = Allowance.of(0)
        self._known = ""
        self._judged = 0
        self._waiting: list[str] = []
        self._length = 0
        self._enough = 0
        self._followed: _Followed | None = None

    def fresh(self) -> MatchScanner:
        """A new scanner with the same settings."""
        return MatchScanner(self._expression, self._window, self._verdict)

    @property
    def is_idle(self) -> bool:
        """Whether all text is decided, and no match is being followed."""
        return self._followed is None and self._judged == self._length

    def feed(self, delta: str) -> Sequence[Piece]:
        """The pieces that are decided by this delta, in bounded time."""
        if self.passes(delta):
            return (Piece.of(delta),)
        self._allowance = Allowance.of(len(delta))
        self._waiting.append(delta)
        self._length += len(delta)
        return self._judge(ended=False) if self._length >= self._enough else ()

    def flush(self) -> Sequence[Piece]:
        """The rest of the pieces; the text has ended, so windows are decided although they are not full."""
        return self._judge(ended=True)

    def passes(self, delta: str) -> bool:
        """Take a delta if nothing is held back and no match may begin in it."""
        if self._search is None or not (
            self.is_idle and 0 < len(delta) <= self._expression.untimed
        ):
            return False
        at = len(self._known)
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
        if self._search is None or self._followed is not None or self._length > len(known):
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
        pieces = PieceList()
        pieces.add(self._known[self._judged :])
        self._keep(self._known, len(self._known))
        return pieces

    def _judge(self, *, ended: bool) -> Sequence[Piece]:
        text = "".join((self._known, *self._waiting))
        size = len(text)
        pieces = PieceList()
        at = passed = self._judged
        while at < size:
            if self._followed is not None:
                if self._followed.reach > size and not ended:
                    break
                end = self._end_of(text, self._followed)
                pieces.add(text[at:end], self._rest)
                at = passed = max(at, end)
                continue
            found = self._next(text, at, ended=ended)
            at = found.begin
            if found.end is None:
                break
            pieces.add(text[passed:at])
            passed = max(found.end, at + 1)
            pieces.add(text[at:passed], self._verdict)
            if found.filled:
                self._followed = _Followed(at, at + 2 * self._window)
            at = passed
        pieces.add(text[passed:at])
        self._keep(text, at)
        return pieces

    def _end_of(self, text: str, match: _Followed) -> int:
        """The end of a match that is followed, as if the text ended at its ``reach``; follows it further if needed."""
        end = self._expression.match(
            text, match.began, min(match.reach, len(text)), self._allowance
        )
        length = match.reach - match.began
        goes_on = end is not None and end >= match.reach and length < LONGEST
        self._followed = _Followed(match.began, match.began + 2 * length) if goes_on else None
        return end or 0

    def _keep(self, text: str, at: int) -> None:
        match = self._followed
        forgotten = max(0, (at if match is None else match.began) - self._behind)
        self._known = text[forgotten:]
        self._judged = at - forgotten
        self._waiting = []
        self._length = len(self._known)
        if match is not None:
            self._followed = _Followed(match.began - forgotten, match.reach - forgotten)
            self._enough = self._followed.reach
        elif at < len(text):
            # Enough of the held text must be new, or there must be enough to decide.
            again = len(text) + max(1, (len(text) - at) // AGAIN)
            self._enough = min(at + self._window, again) - forgotten
        else:
            self._enough = 0

    def _next(self, text: str, at: int, *, ended: bool) -> _Next:
        """The next match, or the position where one may have begun."""
        if self._search is None:
            return self._next_by_window(text, at, ended=ended)
        size = len(text)
        while at < size:
            stop = min(size, at + self._step)
            if ended and stop == size:
                match = self._expression.search(text, at, stop, self._allowance)
                if match is None or match[0] == size:
                    break
                return _Next(*match)
            spot = self._expression.spot(text, at, stop, self._allowance)
            if spot is None:
                at = stop
                continue
            if spot.end is None and spot.begin > at and stop < size:
                at = spot.begin  # a search that begins there may look further
                continue
            at = spot.begin
            if spot.end is not None:
                return _Next(at, spot.end)
            if stop - at < self._window:
                return _Next(at)
            end = self._expression.match(text, at, stop, self._allowance)
            if end is not None:
                return _Next(at, end, filled=self._window_decides and end == stop)
            at += 1
        return _Next(size)

    def _next_by_window(self, text: str, at: int, *, ended: bool) -> _Next:
        """The next match, or the first position whose window is not complete."""
        size = len(text)
        while at < size:
            stop = at + self._window
            if stop > size and not ended:
                break
            end = self._expression.match(text, at, min(stop, size), Allowance.of(0))
            if end is not None:
                return _Next(at, end, filled=self._window_decides and end == stop)
            at += 1
        return _Next(at)


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
        self._fail = PartialValidationResult("fail", reason=reason, cuts_off=True)
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

        def cannot_match(length: int) -> bool:
            return not self._expression.may_match_wholly(text[:length], allowance)

        longest = bisect_left(range(end), True, lo=first + 1, key=cannot_match) - 1
        pieces = PieceList()
        pieces.add(text[first:longest])
        pieces.add(text[longest:], self._fail)
        return pieces
