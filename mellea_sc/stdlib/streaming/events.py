"""The events of a streaming run.

Their order, where ``*`` is any number and ``?`` at most one::

    natural end:  (QuickCheck Chunk)*  StreamingDone  FullValidation?  Completed
    a fail:       (QuickCheck Chunk)*  QuickCheck(passed=False)  Completed(success=False)
    an error:     …  Error  Completed(success=False)
    a cancel:     …  Completed(success=False)

Without requirements there is no QuickCheck and no FullValidation. Indices and positions count from
zero, attempts from one.

A model's reasoning comes as Reasoning events: any number of them, before the StreamingDone of their attempt and
never between a QuickCheck and its Chunk. Reasoning is not validated, so it may come long before the text. With
preconditions, or if the text is held until its attempt is accepted, reasoning is held too.

With preconditions an InputCheck comes before the first QuickCheck or Chunk. Each span that a requirement has
filtered or fixed has an Edit, before the QuickCheck of the chunk that contains or follows it. With a strategy there
are several attempts::

    (an attempt, ending with QuickCheck(passed=False) or FullValidation(passed=False))
    Retract?  Retry  (the next attempt)  …  Completed

Chunks that the next attempt keeps are not released again: its indices continue after them. Released chunks that it
does not keep are retracted before it begins.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import attrs

from mellea_sc.core.requirement import PartialValidationResult, ValidationResult


@attrs.frozen
class StreamEvent:
    """Something that happened in a streaming run.

    Args:
        timestamp: The time in seconds since the epoch.
    """

    timestamp: float = attrs.field(factory=time.time, kw_only=True)


@attrs.frozen
class ChunkEvent(StreamEvent):
    """A chunk was released: every requirement has passed the text up to its end.

    Args:
        text: The chunk. Empty only in a last event for white space at the end of the text.
        chunk_index: Its index among the chunks.
        attempt: The attempt it belongs to.
        before: The text between the previous chunk and this one. ``before`` and ``text`` of all chunks, joined, are
            the released text.
    """

    text: str
    chunk_index: int
    attempt: int
    before: str = attrs.field(default="", kw_only=True)


@attrs.frozen
class ReasoningEvent(StreamEvent):
    """New reasoning of the model: it is no part of the answer, and no requirement validates it.

    Args:
        text: The new text.
        attempt: The attempt it belongs to.
    """

    text: str
    attempt: int


@attrs.frozen
class EditEvent(StreamEvent):
    """A requirement has left something out or replaced it (``on_fail="filter"`` or ``"fix"``).

    Args:
        chunk_index: The index of the chunk that contains or follows the edited span.
        attempt: The attempt it belongs to.
        requirement: The index of the requirement.
        result: Its verdict, with the reason and, if there is one, the replacement.
    """

    chunk_index: int
    attempt: int
    requirement: int
    result: PartialValidationResult


@attrs.frozen
class QuickCheckEvent(StreamEvent):
    """All requirements have validated a chunk, or one of them has failed it.

    Args:
        chunk_index: The index of the chunk. For a fail, the chunk in which the failing piece begins. Earlier chunks
            that were still being validated are never released, and have no event.
        attempt: The attempt it belongs to.
        passed: Whether no requirement that stops the attempt has failed.
        results: One verdict per requirement, in their order; ``"unknown"`` for those that had not reached the chunk
            when another one failed.
    """

    chunk_index: int
    attempt: int
    passed: bool
    results: Sequence[PartialValidationResult]


@attrs.frozen
class InputCheckEvent(StreamEvent):
    """The preconditions have been checked. Nothing is released before this event.

    Args:
        passed: Whether all of them are met; otherwise the run ends here.
        results: One verdict per precondition, in their order.
    """

    passed: bool
    results: Sequence[ValidationResult]


@attrs.frozen
class StreamingDoneEvent(StreamEvent):
    """The model has finished, and all of its text was released.

    Args:
        attempt: The attempt.
        full_text: The whole text.
    """

    attempt: int
    full_text: str


@attrs.frozen
class FullValidationEvent(StreamEvent):
    """All requirements have validated the whole text.

    Args:
        attempt: The attempt.
        passed: Whether all have passed.
        results: One verdict per requirement, in their order.
    """

    attempt: int
    passed: bool
    results: Sequence[ValidationResult]


@attrs.frozen
class RetryEvent(StreamEvent):
    """A new attempt begins.

    Args:
        attempt: Its number.
        reason: Why the previous attempt was given up.
    """

    attempt: int
    reason: str


@attrs.frozen
class RetractEvent(StreamEvent):
    """Released chunks are retracted: the next attempt replaces them.

    Args:
        chunk_index: The index of the first retracted chunk; all later ones are retracted too.
        attempt: The attempt they belong to.
    """

    chunk_index: int
    attempt: int


@attrs.frozen
class ErrorEvent(StreamEvent):
    """The run has ended with an error. The error itself is raised by reading the text or by ``acomplete()``.

    Args:
        exception_type: The name of its class.
        detail: Its message.
    """

    exception_type: str
    detail: str


@attrs.frozen
class CompletedEvent(StreamEvent):
    """The run has ended: always the last event, exactly once.

    Args:
        success: Whether the text was streamed to its natural end. (The result of the final validation is in the
            ``FullValidationEvent``.)
        full_text: The released text.
        attempts_used: The number of attempts.
    """

    success: bool
    full_text: str
    attempts_used: int


@attrs.define
class ReleasedChunk:
    """A released chunk, from which its events are made when somebody reads them: most programs read only the text.

    A value; not frozen, only because one may be made for each token.

    Args:
        text: The chunk. Empty for white space at the end of the text.
        before: The text between the previous chunk and this one.
        chunk_index: Its index among the chunks.
        attempt: The attempt it belongs to.
        results: One verdict per requirement; ``None`` without requirements.
    """

    text: str
    before: str
    chunk_index: int
    attempt: int
    results: Sequence[PartialValidationResult] | None
    timestamp: float = attrs.field(factory=time.time, init=False)

    def events(self) -> Iterator[StreamEvent]:
        """The events that it stands for."""
        at, index, attempt = self.timestamp, self.chunk_index, self.attempt
        if self.results is not None:
            yield QuickCheckEvent(index, attempt, True, self.results, timestamp=at)
        yield ChunkEvent(self.text, index, attempt, before=self.before, timestamp=at)
