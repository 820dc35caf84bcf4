"""Limits on the length of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import (
    OnFail,
    PartialValidationResult,
    Requirement,
    ValidationResult,
)
from mellea_sc.runtime.checks.cutter import Cutter
from mellea_sc.stdlib.chunking import resolve_chunking
from mellea_sc.stdlib.requirements.making import simple_validate
from mellea_sc.stdlib.requirements.scanned import Piece, ScannedRequirement, Scanner

if TYPE_CHECKING:
    import regex

__all__ = ["MaxCharacters", "MaxSentences", "MaxWords"]


TRAILING_SPACE: Final = 64
"""White space at the end that is not counted: a model may end with some, and may also never end."""

LONGEST_GRAPHEME: Final = 64
"""Characters that are never cut apart; Unicode's "stream-safe" text has at most 31 in one grapheme."""


class _AtMost(ScannedRequirement):
    """Counts the chunks of its own chunking, independently of the run's chunking."""

    unit: ClassVar[Literal["sentence", "word"]]

    def __init__(
        self,
        limit: int,
        *,
        check_only: bool = False,
        on_fail: OnFail | None = None,
        blocking: bool = True,
    ) -> None:
        _check_limit(type(self), limit)
        strategy = resolve_chunking(self.unit)
        super().__init__(
            f"at most {_counted(limit, self.unit)}",
            simple_validate(partial(_judge, limit, self.unit, strategy)),
            _CountScanner(limit, self.unit, strategy),
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.limit = limit


class MaxSentences(_AtMost):
    """At most so many sentences, counted as ``chunking="sentence"`` cuts them.

    The first character of the sentence that is one too many stops the stream and is never shown.

    Args:
        limit: The maximum number; at least 1.
        check_only: Leave the limit out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`; with ``"filter"`` and ``"fix"`` the text
            ends with the last sentence that may be, and the model is stopped.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: the limit is not such a number.
    """

    unit: ClassVar[Literal["sentence", "word"]] = "sentence"


class MaxWords(_AtMost):
    """At most so many words, counted as ``chunking="word"`` cuts them.

    That is what stands between white space; in languages that put none between words, it is what
    Unicode's word boundaries (UAX #29) say without a dictionary: each ideograph of Chinese, each syllable
    of Thai. The first character of the word that is one too many stops the stream; neither it nor the
    chunk that it belongs to is ever shown.

    Args:
        limit: The maximum number; at least 1.
        check_only: Leave the limit out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`; with ``"filter"`` and ``"fix"`` the text
            ends with the last word that may be, and the model is stopped.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: the limit is not such a number.
    """

    unit: ClassVar[Literal["sentence", "word"]] = "word"


class MaxCharacters(ScannedRequirement):
    """At most so many characters, not counting up to 64 of white space at the end of the text.

    White space after so many characters waits; the first other character stops the stream. What is shown
    then depends on the text alone, not on how the model cut it into deltas. Characters are Unicode's code
    points, as in ``len(text)``; but what a reader sees as one, a letter with its accents or an emoji of
    several, is shown whole or not at all.

    Args:
        limit: The maximum number; at least 1.
        check_only: Leave the limit out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`; with ``"filter"`` and ``"fix"`` the text
            ends at the limit, and the model is stopped.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: the limit is not such a number.
    """

    def __init__(
        self,
        limit: int,
        *,
        check_only: bool = False,
        on_fail: OnFail | None = None,
        blocking: bool = True,
    ) -> None:
        _check_limit(type(self), limit)
        super().__init__(
            f"at most {_counted(limit, 'character')}",
            simple_validate(partial(_judge_characters, limit)),
            _LengthScanner(limit),
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.limit = limit


class _CountScanner(Scanner):
    """Passes a number of chunks of a chunking; all text after them, except white space, fails.

    No text is held back: the first character of the chunk that is one too many fails.

    Args:
        limit: The number of chunks.
        unit: The name of a chunk.
        strategy: An unused chunking. It must finish a chunk with the first character that does not belong to it.
    """

    def __init__(self, limit: int, unit: str, strategy: ChunkingStrategy) -> None:
        self._limit = limit
        self._unit = unit
        self._strategy = strategy
        self._cutter = Cutter(strategy.fresh())
        self._count = 0
        self._length = 0
        self._is_over = False

    def fresh(self) -> _CountScanner:
        """A new scanner with the same settings."""
        return _CountScanner(self._limit, self._unit, self._strategy)

    def feed(self, delta: str) -> Sequence[Piece]:
        """What fits, and what does not."""
        if not delta:
            return ()
        begins = 0
        if not self._is_over:
            if self._count < self._limit:
                chunks = self._cutter.feed(delta)
                before = self._length
                self._count += len(chunks)
                self._length += len(delta)
                if self._count < self._limit:
                    return (Piece.of(delta),)
                begins = chunks[self._limit - 1 - self._count].end - before
            begins = len(delta) - len(delta[begins:].lstrip())
            if begins == len(delta):
                return (Piece.of(delta),)
            self._is_over = True
        more = Piece.of(delta[begins:], _too_long(self._limit, self._unit))
        return (Piece.of(delta[:begins]), more) if begins else (more,)

    def flush(self) -> Sequence[Piece]:
        """Nothing: no text is held back."""
        return ()


class _LengthScanner(Scanner):
    """Passes a number of characters; white space after them is held until the next character.

    A grapheme (what a reader sees as one character) may cross the limit, so near the limit the last grapheme is
    held back. ``_zone`` is the text from ``LONGEST_GRAPHEME`` before the limit on, of which ``_given`` has passed.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._length = 0
        self._begins = max(0, limit - LONGEST_GRAPHEME)
        self._half_flag = False
        self._zone = ""
        self._given = 0
        self._is_over = False

    def fresh(self) -> _LengthScanner:
        """A new scanner with the same settings."""
        return _LengthScanner(self._limit)

    def feed(self, delta: str) -> Sequence[Piece]:
        """What fits, and what does not."""
        if not delta:
            return ()
        if self._is_over:
            return (Piece.of(delta, _too_long(self._limit, "character")),)
        far = delta[: max(0, self._begins - self._length)]
        self._length += len(delta)
        if far:
            self._half_flag = _ends_in_half_flag(far, self._half_flag)
        if len(far) == len(delta):
            return (Piece.of(delta),)
        self._zone += delta[len(far) :]
        most = self._limit - self._begins
        fits = self._settled(most)
        shown = far + self._zone[self._given : fits]
        self._given = fits
        pieces = [Piece.of(shown)] if shown else []
        if len(self._zone) > most:
            more = self._zone[fits:]
            if not more.isspace() or len(self._zone) > most + TRAILING_SPACE:
                self._is_over = True
                pieces.append(Piece.of(more, _too_long(self._limit, "character")))
        return pieces

    def flush(self) -> Sequence[Piece]:
        """What was held back: nothing follows."""
        rest = self._zone[self._given :]
        return (Piece.of(rest),) if rest and not self._is_over else ()

    def _settled(self, most: int) -> int:
        """Up to where the zone fits, whatever follows: where the last grapheme up to the limit begins."""
        zone = self._zone[: most + 1]
        if zone.isascii() and "\r" not in zone:
            return len(zone) - 1
        before = _FLAG_LETTERS[0] if self._half_flag else ""
        last = 0
        for grapheme in _graphemes().finditer(before + zone):
            last = grapheme.start()
        return max(0, last - len(before))


_FLAG_LETTERS: Final = "".join(map(chr, range(0x1F1E6, 0x1F200)))


def _ends_in_half_flag(text: str, before: bool) -> bool:
    """Whether the first of the two letters of a flag is at the end; ``before``: and was before the text."""
    letters = len(text) - len(text.rstrip(_FLAG_LETTERS))
    return (letters + (before and letters == len(text))) % 2 == 1


@cache
def _graphemes() -> regex.Pattern[str]:
    """Extended grapheme clusters (UAX #29); loaded when a text is not plain ASCII."""
    import regex

    return regex.compile(r"\X")


def _check_limit(kind: type[Requirement], limit: object) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidOption(f"{kind.__name__} takes a whole number of at least 1, not {limit!r}")


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _too_long(limit: int, unit: str) -> PartialValidationResult:
    return PartialValidationResult(
        "fail", reason=f"more than {_counted(limit, unit)}", replacement="", cuts_off=True
    )


def _judge(limit: int, unit: str, strategy: ChunkingStrategy, text: str) -> ValidationResult:
    strategy = strategy.fresh()
    count = len(strategy.feed(text)) + len(strategy.flush())
    return _verdict(count, limit, unit)


def _judge_characters(limit: int, text: str) -> ValidationResult:
    count = max(len(text.rstrip()), len(text) - TRAILING_SPACE)
    return _verdict(count, limit, "character")


def _verdict(count: int, limit: int, unit: str) -> ValidationResult:
    if count <= limit:
        return ValidationResult(True)
    return ValidationResult(False, reason=f"{_counted(count, unit)}, and at most {limit} may be")
