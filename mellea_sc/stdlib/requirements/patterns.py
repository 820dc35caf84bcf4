r"""What must not stand in an answer: regular expressions, judged while the text comes.

Whether a text that goes on matches is not known at its end: a match may have begun there, and ``cat``
is no match of ``\bcat\b`` when ``egory`` follows. So a position of the text is judged when the
``window`` of characters that begins there is known, and only then a lane passes it::

    text      │ judged: no match begins here │ window: still open │
    lane      │ passed, may be shown         │ held back          │
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Final

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import PartialValidationResult, Requirement, ValidationResult
from mellea_sc.stdlib.requirements.making import simple_validate

__all__ = ["MustNotMatch"]

DEFAULT_WINDOW: Final = 64
_SPECIAL: Final = frozenset("\\.^$*+?{}[]|()")


class MustNotMatch(Requirement):
    r"""Nothing in the answer matches a regular expression; no part of a match is ever shown.

    While the text streams, each position of it is judged by the ``window`` characters that begin
    there, as if the text ended after them (and look-behinds see as many before it). The text is
    released that much later than it comes, so:

    - of a match that fits in the window, with what its look-aheads, ``\b`` and ``$`` have to see after
      it, not a character is released, whatever the chunking and wherever the deltas were cut;
    - of a longer one, not a character is released if what lies in the window matches by itself
      (``key=\S+``); otherwise (``BEGIN.*END`` over several lines) it is found at the end, when
      :meth:`validate` searches the whole text.

    Args:
        pattern: The expression, searched for anywhere in the text; flags as ``(?i)`` or compiled in.
        description: What must not be there, in words, for the prompt. Without it the prompt says
            nothing of this requirement: a model that is told a forbidden word tends to use it.
        window: How many characters a match may need; by default 64, and the length of a pattern
            that is plain text, which is then held back no longer than it must be.

    Raises:
        InvalidOption: the pattern is not a regular expression, or the window not a positive number.
    """

    def __init__(
        self,
        pattern: str | re.Pattern[str],
        description: str | None = None,
        *,
        window: int | None = None,
    ) -> None:
        compiled = _compiled(pattern)
        if window is None:
            window = DEFAULT_WINDOW if _is_special(compiled) else max(1, len(compiled.pattern))
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise InvalidOption(f"window must be a whole number of at least 1, not {window!r}")
        super().__init__(
            f"no match of {compiled.pattern!r}" if description is None else description,
            simple_validate(partial(_judge, compiled)),
            check_only=description is None,
            chunking=_Watch(compiled, window),
        )
        self.pattern = compiled
        self.reach = window

    async def stream_validate(
        self,
        chunk: str,
        *,
        backend: Backend,
        ctx: Context,
    ) -> PartialValidationResult:
        """``"fail"`` for a piece that its own chunking has found to be a match.

        Called by hand with any other text, it judges that text alone.
        """
        found = chunk.is_match if isinstance(chunk, _Piece) else self.pattern.search(chunk)
        if found:
            return PartialValidationResult("fail", reason=_reason(self.pattern))
        return PartialValidationResult("unknown")


class _Piece(str):
    """A piece of the text that knows what the text around it has told."""

    __slots__ = ("is_match",)

    is_match: bool

    @classmethod
    def of(cls, text: str, *, is_match: bool) -> _Piece:
        piece = cls(text)
        piece.is_match = is_match
        return piece


class _Watch(ChunkingStrategy):
    """Cuts a text into matches and what lies between them, each as soon as it is certain.

    ``_known`` is the end of the text, from one window before the first position that has not been
    judged, which is at ``_judged``.
    """

    def __init__(self, pattern: re.Pattern[str], window: int) -> None:
        self._pattern = pattern
        self._window = window
        self._known = ""
        self._judged = 0

    def feed(self, delta: str) -> Sequence[str]:
        """The pieces whose windows this delta fills."""
        text = self._known + delta
        return self._judge_up_to(len(text) - self._window + 1, text)

    def flush(self) -> Sequence[str]:
        """The rest: the text has ended, and no window will be filled any more."""
        return self._judge_up_to(len(self._known), self._known)

    def _judge_up_to(self, end: int, text: str) -> Sequence[str]:
        match, window = self._pattern.match, self._window
        pieces: list[_Piece] = []
        at = start = self._judged
        while at < end:
            # The window is the end of all that the expression sees: then it does not matter how
            # much of the text happens to be known.
            found = match(text, at, at + window)
            if found is None:
                at += 1
                continue
            if at > start:
                pieces.append(_Piece.of(text[start:at], is_match=False))
            start = max(found.end(), at + 1)
            pieces.append(_Piece.of(text[at:start], is_match=True))
            at = start
        if at > start:
            pieces.append(_Piece.of(text[start:at], is_match=False))
        forgotten = max(0, at - window)
        self._known = text[forgotten:]
        self._judged = at - forgotten
        return pieces


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


def _reason(pattern: re.Pattern[str]) -> str:
    # What matched is not quoted: whoever reads the reason may be who must not read the match.
    return f"there is a match of {pattern.pattern!r}"


def _judge(pattern: re.Pattern[str], text: str) -> ValidationResult:
    if pattern.search(text) is None:
        return ValidationResult(True)
    return ValidationResult(False, reason=_reason(pattern))
