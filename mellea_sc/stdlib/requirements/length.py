"""Limits on the length of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias

from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.question import check_count
from mellea_sc.core.requirement import OnFail, PartialValidationResult
from mellea_sc.runtime.checks.chunks import Cutter
from mellea_sc.stdlib.chunking import SentenceChunker, resolve_chunking
from mellea_sc.stdlib.requirements.scanned import Piece, PieceList, ScannedRequirement, Scanner

if TYPE_CHECKING:
    import regex

_Unit: TypeAlias = Literal["sentence", "word", "character"]

TRAILING_SPACE: Final = 64
"""White space at the end that is not counted. It is limited, because a model may go on with white space for ever."""

LONGEST_GRAPHEME: Final = 64
"""Characters that are never cut apart; Unicode's "stream-safe" text has at most 31 in one grapheme."""


class _AtMost(ScannedRequirement):
    """A maximum number of sentences, words or characters, counted independently of the run's chunking."""

    unit: ClassVar[_Unit]

    def __init__(
        self,
        limit: int,
        *,
        check_only: bool = False,
        on_fail: OnFail | None = None,
        blocking: bool = True,
    ) -> None:
        check_count("limit", limit)
        unit = self.unit
        super().__init__(
            f"at most {_counted(limit, unit)}",
            _LengthScanner(limit)
            if unit == "character"
            else _CountScanner(limit, unit, resolve_chunking(unit)),
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.limit = limit


class MaxSentences(_AtMost):
    """At most ``limit`` sentences, counted as ``chunking="sentence"`` cuts them.

    The first character of the next sentence stops the stream and is never shown.

    Args:
        limit: The maximum number; at least 1.
        check_only: Leave the limit out of the prompt.
        on_fail: What happens after a fail, see :class:`Requirement`; with ``"filter"`` and ``"fix"`` the text
            ends after the last allowed sentence, and the model is stopped.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: the limit is not a whole number of at least 1.
    """

    unit: ClassVar[_Unit] = "sentence"


class MaxWords(_AtMost):
    """At most ``limit`` words, counted as ``chunking="word"`` cuts them.

    A word is a run of characters without white space. In languages that put no spaces between words, Unicode's word
    boundaries (UAX #29) are used, without a dictionary: each Chinese ideograph is a word, and each Thai syllable. The
    first character of the next word stops the stream; neither it nor the chunk that it belongs to is ever shown.

    Its arguments are those of :class:`MaxSentences`.
    """

    unit: ClassVar[_Unit] = "word"


class MaxCharacters(_AtMost):
    """At most ``limit`` characters, not counting up to 64 characters of white space at the end of the text.

    White space after the limit is held back; the first other character stops the stream. So what is shown depends
    only on the text, not on where the deltas were cut. Characters are Unicode's code points, as in ``len(text)``.
    What a reader sees as one character, such as a letter with its accents or a composed emoji, is shown whole or not
    at all.

    Its arguments are those of :class:`MaxSentences`.
    """

    unit: ClassVar[_Unit] = "character"


class _CountScanner(Scanner):
    """Passes a number of chunks of a chunking; all text after them, except white space, fails.

    The first character of the first chunk over the limit fails. Only that character is held back, and only if it may
    still belong to the chunk before.

    Args:
        limit: The number of chunks.
        unit: The name of a chunk.
        strategy: An unused chunking. It must finish a chunk with the first character that does not belong to it,
            except for those that are ``undecided``.
    """

    def __init__(self, limit: int, unit: _Unit, strategy: ChunkingStrategy) -> None:
        self._limit = limit
        self._unit: _Unit = unit
        self._strategy = strategy
        self._chunker = strategy.fresh()
        self._cutter = Cutter(self._chunker)
        self._count = 0
        self._length = 0  # of the text before what is held back
        self._held = ""
        self._is_over = False

    def fresh(self) -> _CountScanner:
        """A new scanner with the same settings."""
        return _CountScanner(self._limit, self._unit, self._strategy)

    def feed(self, delta: str) -> Sequence[Piece]:
        """The text within the limit, and the text over it."""
        pieces = PieceList()
        text, fits = delta, 0
        if self._count < self._limit:
            chunks = self._cutter.feed(delta)
            text = self._held + delta
            before = self._length
            self._count += len(chunks)
            if self._count < self._limit:
                decided = len(text) - self._undecided()
                self._length += decided
                self._held = text[decided:]
                pieces.add(text[:decided])
                return pieces
            self._held = ""
            fits = chunks[self._limit - 1 - self._count].end - before
        if not self._is_over:
            fits = len(text) - len(text[fits:].lstrip())
            self._is_over = fits < len(text)
        pieces.add(text[:fits])
        pieces.add(text[fits:], _too_long(self._limit, self._unit))
        return pieces

    def flush(self) -> Sequence[Piece]:
        """The text that was held back: the text has ended, so no other chunk follows."""
        pieces = PieceList()
        pieces.add(self._held)
        return pieces

    def _undecided(self) -> int:
        if self._count + 1 < self._limit or not isinstance(self._chunker, SentenceChunker):
            return 0
        return self._chunker.undecided

    def fault_in(self, text: str) -> str | None:
        """The reason why a whole text fails, with the number of its chunks."""
        strategy = self._strategy.fresh()
        count = len(strategy.feed(text)) + len(strategy.flush())
        return _fault(count, self._limit, self._unit)


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
        """The text within the limit, and the text over it."""
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
        pieces = PieceList()
        pieces.add(far + self._zone[self._given : fits])
        self._given = fits
        if len(self._zone) > most:
            more = self._zone[fits:]
            if not more.isspace() or len(self._zone) > most + TRAILING_SPACE:
                self._is_over = True
                pieces.add(more, _too_long(self._limit, "character"))
        return pieces

    def flush(self) -> Sequence[Piece]:
        """The text that was held back."""
        pieces = PieceList()
        if not self._is_over:
            pieces.add(self._zone[self._given :])
        return pieces

    def fault_in(self, text: str) -> str | None:
        """The reason why a whole text fails, with the number of its characters."""
        count = max(len(text.rstrip()), len(text) - TRAILING_SPACE)
        return _fault(count, self._limit, "character")

    def _settled(self, most: int) -> int:
        """The length of the zone that passes, whatever follows: up to the last grapheme within the limit."""
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
    """Whether a text ends with the first of a flag's two letters.

    Args:
        text: The text.
        before: Whether the text before it does.
    """
    letters = len(text) - len(text.rstrip(_FLAG_LETTERS))
    return (letters + (before and letters == len(text))) % 2 == 1


@cache
def _graphemes() -> regex.Pattern[str]:
    """Extended grapheme clusters (UAX #29); loaded when a text is not plain ASCII."""
    import regex

    return regex.compile(r"\X")


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _too_long(limit: int, unit: str) -> PartialValidationResult:
    return PartialValidationResult(
        "fail", reason=f"more than {_counted(limit, unit)}", replacement="", cuts_off=True
    )


def _fault(count: int, limit: int, unit: str) -> str | None:
    return None if count <= limit else f"{_counted(count, unit)}, but at most {limit} are allowed"
