"""How long an answer may be."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.requirement import PartialValidationResult, Requirement, ValidationResult
from mellea_sc.stdlib.chunking import ChunkingName, resolve_chunking
from mellea_sc.stdlib.requirements.making import simple_validate

__all__ = ["MaxSentences", "MaxWords"]


class _AtMost(Requirement):
    """Counts the chunks of a chunking of its own, whatever the run is cut into."""

    unit: ClassVar[ChunkingName]

    def __init__(self, limit: int, *, check_only: bool = False) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InvalidOption(
                f"{type(self).__name__} takes a whole number of at least 1, not {limit!r}"
            )
        super().__init__(
            f"at most {_counted(limit, self.unit)}",
            simple_validate(partial(_judge, limit, self.unit)),
            check_only=check_only,
            chunking=self.unit,
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
            return PartialValidationResult(
                "fail", reason=f"more than {_counted(self.limit, self.unit)}"
            )
        return PartialValidationResult("unknown")


class MaxSentences(_AtMost):
    """At most so many sentences, counted as ``chunking="sentence"`` cuts them.

    The sentence that is one too many stops the stream and is never shown.

    Args:
        limit: How many there may be; at least 1.
        check_only: The limit stays out of the prompt.

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

    Raises:
        InvalidOption: the limit is not such a number.
    """

    unit: ClassVar[ChunkingName] = "word"


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _judge(limit: int, unit: ChunkingName, text: str) -> ValidationResult:
    strategy = resolve_chunking(unit)
    count = len(strategy.feed(text)) + len(strategy.flush())
    if count <= limit:
        return ValidationResult(True)
    return ValidationResult(False, reason=f"{_counted(count, unit)}, and at most {limit} may be")
