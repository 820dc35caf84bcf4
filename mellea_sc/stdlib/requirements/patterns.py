"""What must and what must not stand in an answer: regular expressions, judged while the text comes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol, cast

from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import OnFail, PartialValidationResult, ValidationResult
from mellea_sc.stdlib.requirements.making import simple_validate
from mellea_sc.stdlib.requirements.watching import (
    Found,
    Piece,
    Watch,
    Watched,
    WindowWatch,
    import_extra,
)

__all__ = ["MustMatch", "MustNotMatch"]

DEFAULT_WINDOW: Final = 64
STEPS: Final = 64
"""How many characters are looked at for each new one, at most, where a whole text has to match."""
_SPECIAL: Final = frozenset("\\.^$*+?{}[]|()")


class MustNotMatch(Watched):
    r"""Nothing in the answer matches a regular expression; no part of a match is ever shown.

    While the text streams, each position of it is judged by the ``window`` characters that begin
    there, as if the text ended after them (and look-behinds see as many before it). The text is
    released that much later than it comes, so:

    - of a match that fits in the window, with what its look-aheads, ``\b`` and ``$`` have to see after
      it, not a character is released, whatever the chunking and wherever the deltas were cut;
    - of a longer one, not a character is released if what lies in the window matches by itself
      (``key=\S+``), and the rest of it fails too (as long as it has at most 65536 characters);
      otherwise (``BEGIN.*END`` over several lines) it is found at the end, when :meth:`validate`
      searches the whole text.

    Args:
        pattern: The expression, searched for anywhere in the text; flags as ``(?i)`` or compiled in.
        description: What must not be there, in words, for the prompt. Without it the prompt says
            nothing of this requirement: a model that is told a forbidden word tends to use it.
        window: How many characters a match may need; by default 64, and the length of a pattern
            that is plain text, which is then held back no longer than it must be.
        replacement: What stands in the place of a match with ``on_fail="fix"``.
        check_only: The description stays out of the prompt; by default where there is none.
        on_fail: What follows a match, see :class:`Requirement`.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: the pattern is not a regular expression, or the window not a positive number.
    """

    def __init__(
        self,
        pattern: str | re.Pattern[str],
        description: str | None = None,
        *,
        window: int | None = None,
        replacement: str = "[…]",
        check_only: bool | None = None,
        on_fail: OnFail | None = None,
        blocking: bool = True,
    ) -> None:
        compiled = _compiled(pattern)
        special = _is_special(compiled)
        if window is None:
            window = DEFAULT_WINDOW if special else max(1, len(compiled.pattern))
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise InvalidOption(f"window must be a whole number of at least 1, not {window!r}")
        # What matched is not quoted: whoever reads the reason may be who must not read the match.
        reason = f"there is a match of {compiled.pattern!r}"
        verdict = PartialValidationResult("fail", reason=reason, replacement=replacement)
        super().__init__(
            f"no match of {compiled.pattern!r}" if description is None else description,
            simple_validate(partial(_has_no_match, compiled, reason)),
            WindowWatch(partial(_find, compiled, verdict), window, grows=special),
            check_only=description is None if check_only is None else check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.pattern = compiled
        self.reach = window


class MustMatch(Watched):
    r"""A regular expression matches: somewhere in the answer, or with ``full`` the whole of it.

    A text in which nothing matches so far may go on to match: then only the end decides. The whole
    text, though, cannot match any more as soon as no continuation of it could: that stops the stream.
    Text is judged, and released, in steps that grow with it, to one 64th of its length, so that the
    work per character does not grow.

    Args:
        pattern: The expression; flags as ``(?i)`` or compiled in.
        description: What has to be there, in words, for the prompt; by default the pattern.
        full: The whole answer has to match.
        check_only: The description stays out of the prompt.
        on_fail: What follows a fail, see :class:`Requirement`. After one, every piece fails.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: the pattern is not a regular expression.
        MissingExtra: ``full`` needs the package ``regex``, of the extra with that name.
    """

    def __init__(
        self,
        pattern: str | re.Pattern[str],
        description: str | None = None,
        *,
        full: bool = False,
        check_only: bool = False,
        on_fail: OnFail | None = None,
        blocking: bool = True,
    ) -> None:
        compiled = _compiled(pattern)
        which = "the whole text" if full else "a part of the text"
        super().__init__(
            f"{which} matches {compiled.pattern!r}" if description is None else description,
            simple_validate(partial(_matches, compiled, full)),
            _FullWatch(compiled) if full else None,
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.pattern = compiled
        self.full = full


class _PartialPattern(Protocol):
    """What is used of a pattern of the package ``regex``."""

    def fullmatch(self, string: str, *, partial: bool) -> object | None: ...


class _FullWatch(Watch):
    """Passes a text as long as a continuation of it can match wholly.

    A look at the text takes time in its length. So it is looked at when a 64th of it is new; where the
    first character is that leaves no continuation, is searched for by halves.
    """

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self._partial = _partial(pattern)
        self._parts: list[str] = []
        self._length = 0
        self._passed = 0
        self._failed = False
        reason = f"whatever follows, the whole text cannot match {pattern.pattern!r} any more"
        self._fail = PartialValidationResult("fail", reason=reason)

    def fresh(self) -> _FullWatch:
        """A watch like this one that has seen no text."""
        return _FullWatch(self._pattern)

    def feed(self, delta: str) -> Sequence[Piece]:
        """What can still match, and what cannot."""
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
        if self._can_match(text):
            return (Piece.of(text[first:]),)
        self._failed = True
        self._parts = []
        low, high = first, end  # what ends at low can match, what ends at high cannot
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._can_match(text[:middle]) else (low, middle)
        bad = Piece.of(text[low:], self._fail)
        return (Piece.of(text[first:low]), bad) if low > first else (bad,)

    def _can_match(self, text: str) -> bool:
        return self._partial.fullmatch(text, partial=True) is not None


def _partial(pattern: re.Pattern[str]) -> _PartialPattern:
    regex = import_extra("regex", "regex", "MustMatch(…, full=True)")
    flags = 0
    for name in ("A", "I", "M", "S", "X"):  # the numbers of some differ between the two packages
        if pattern.flags & getattr(re, name):
            flags |= getattr(regex, name)
    try:
        return cast("_PartialPattern", regex.compile(pattern.pattern, flags))
    except regex.error as error:
        raise InvalidOption(f"{pattern.pattern!r} cannot be matched in part: {error}") from error


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        raise InvalidOption(f"{pattern!r} is not a regular expression: {error}") from error
    if not isinstance(compiled.pattern, str):
        raise InvalidOption(f"{pattern!r} is an expression for bytes, and answers are text")
    return compiled


def _is_special(pattern: re.Pattern[str]) -> bool:
    return bool(pattern.flags & re.VERBOSE) or not _SPECIAL.isdisjoint(pattern.pattern)


def _find(
    pattern: re.Pattern[str], verdict: PartialValidationResult, text: str, at: int, end: int
) -> Found | None:
    match = pattern.match(text, at, end)
    return None if match is None else Found(match.end(), verdict)


def _has_no_match(pattern: re.Pattern[str], reason: str, text: str) -> ValidationResult:
    if pattern.search(text) is None:
        return ValidationResult(True)
    return ValidationResult(False, reason=reason)


def _matches(pattern: re.Pattern[str], full: bool, text: str) -> ValidationResult:
    if (pattern.fullmatch(text) if full else pattern.search(text)) is not None:
        return ValidationResult(True)
    what = "the whole text does not match" if full else "there is no match of"
    return ValidationResult(False, reason=f"{what} {pattern.pattern!r}")
