"""How long an answer may be."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Final

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import (
    OnFail,
    PartialValidationResult,
    Requirement,
    ValidationResult,
)
from mellea_sc.stdlib.chunking import ChunkingName, resolve_chunking
from mellea_sc.stdlib.requirements.making import simple_validate
from mellea_sc.stdlib.requirements.watching import Piece, Watch, Watched

__all__ = ["MaxCharacters", "MaxSentences", "MaxWords"]


TRAILING_SPACE: Final = 64
"""White space at the end that is not counted: a model may end with some, and may also never end."""


class _AtMost(Requirement):
    """Counts the chunks of a chunking of its own, whatever the run is cut into."""

    unit: ClassVar[ChunkingName]

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
            f"at most {_counted(limit, self.unit)}",
            simple_validate(partial(_judge, limit, self.unit)),
            check_only=check_only,
            chunking=self.unit,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.limit = limit
        self._count = 0

    async def stream_validate(
        self,
        chunk: str,
        *,
        backend: Backend,
        ctx: Context,
    ) -> PartialValidationResult:
        """Count one more; ``"fail"`` as soon as there are too many."""
        self._count += 1
        if self._count > self.limit:
            return _too_long(self.limit, self.unit)
        return PartialValidationResult("unknown")


class MaxSentences(_AtMost):
    """At most so many sentences, counted as ``chunking="sentence"`` cuts them.

    The sentence that is one too many stops the stream and is never shown.

    Args:
        limit: How many there may be; at least 1.
        check_only: The limit stays out of the prompt.
        on_fail: What follows a fail, see :class:`Requirement`; ``"filter"`` and ``"fix"`` leave out
            every sentence that is too many.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: the limit is not such a number.
    """

    unit: ClassVar[ChunkingName] = "sentence"


class MaxWords(_AtMost):
    """At most so many words, which are what stands between white space.

    The word that is one too many stops the stream; neither it nor the chunk that it belongs to is
    ever shown.

    Args:
        limit: How many there may be; at least 1.
        check_only: The limit stays out of the prompt.
        on_fail: What follows a fail, see :class:`Requirement`; ``"filter"`` and ``"fix"`` leave out
            every word that is too many.
        blocking: Whether text waits for the verdict.

    Raises:
        InvalidOption: the limit is not such a number.
    """

    unit: ClassVar[ChunkingName] = "word"


class MaxCharacters(Watched):
    """At most so many characters, not counting up to 64 of white space at the end of the text.

    White space after so many characters waits; the first other character stops the stream. What is shown
    then depends on the text alone, not on how the model cut it into deltas.

    Args:
        limit: How many there may be; at least 1.
        check_only: The limit stays out of the prompt.
        on_fail: What follows a fail, see :class:`Requirement`; ``"filter"`` and ``"fix"`` cut the text
            at the limit.
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
            _LengthWatch(limit),
            check_only=check_only,
            on_fail=on_fail,
            blocking=blocking,
        )
        self.limit = limit


class _LengthWatch(Watch):
    """Passes so many characters; white space after them waits for what follows it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._space: list[str] = []
        self._room = TRAILING_SPACE
        self._is_over = False

    def fresh(self) -> _LengthWatch:
        """A watch like this one that has seen no text."""
        return _LengthWatch(self._limit)

    def feed(self, delta: str) -> Sequence[Piece]:
        """What fits, and what does not."""
        fits, more = delta[: self._left], delta[self._left :]
        self._left -= len(fits)
        pieces = [Piece.of(fits)] if fits else []
        if more:
            self._space.append(more)
            self._room -= len(more)
            self._is_over = self._is_over or self._room < 0 or not more.isspace()
            if self._is_over:
                fail = _too_long(self._limit, "character")
                pieces.append(Piece.of("".join(self._space), fail))
                self._space = []
        return pieces

    def flush(self) -> Sequence[Piece]:
        """The white space at the end."""
        return [Piece.of("".join(self._space))] if self._space else []


def _check_limit(kind: type[Requirement], limit: object) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidOption(f"{kind.__name__} takes a whole number of at least 1, not {limit!r}")


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _too_long(limit: int, unit: str) -> PartialValidationResult:
    return PartialValidationResult(
        "fail", reason=f"more than {_counted(limit, unit)}", replacement=""
    )


def _judge(limit: int, unit: ChunkingName, text: str) -> ValidationResult:
    strategy = resolve_chunking(unit)
    count = len(strategy.feed(text)) + len(strategy.flush())
    return _verdict(count, limit, unit)


def _judge_characters(limit: int, text: str) -> ValidationResult:
    count = max(len(text.rstrip()), len(text) - TRAILING_SPACE)
    return _verdict(count, limit, "character")


def _verdict(count: int, limit: int, unit: str) -> ValidationResult:
    if count <= limit:
        return ValidationResult(True)
    return ValidationResult(False, reason=f"{_counted(count, unit)}, and at most {limit} may be")
