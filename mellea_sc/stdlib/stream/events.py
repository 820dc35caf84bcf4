"""What happens in a streaming run, as values; the names and fields are the mission's.

The order, where ``*`` is any number and ``?`` at most one::

    natural end:  (QuickCheck Chunk)*  StreamingDone  FullValidation?  Completed
    a fail:       (QuickCheck Chunk)*  QuickCheck(passed=False)  Completed(success=False)
    an error:     …  Error  Completed(success=False)
    a cancel:     …  Completed(success=False)

Without requirements there is no QuickCheck and no FullValidation. Indices and positions count from
zero, attempts from one.

What a model thinks before it answers comes as Reasoning: any number of them, before the StreamingDone of their
attempt and never between a QuickCheck and its Chunk. Nobody judges them, so they may come long before the text
that they lead to; with preconditions, or where the text waits for its attempt to be accepted, they wait too.

With preconditions an InputCheck stands before the first QuickCheck or Chunk.
What a requirement has filtered or fixed has an Edit, before the QuickCheck of the chunk that follows it or
has it inside. With a
strategy there are several attempts::

    (an attempt, ending with QuickCheck(passed=False) or FullValidation(passed=False))
    Retract?  Retry  (the next attempt)  …  Completed

Chunks that the next attempt keeps are not released again: its indices go on where they end. Those that
it does not keep, if there are any, are retracted before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs

from mellea_sc.core.requirement import PartialValidationResult, ValidationResult

__all__ = [
    "ChunkEvent",
    "CompletedEvent",
    "EditEvent",
    "ErrorEvent",
    "FullValidationEvent",
    "InputCheckEvent",
    "QuickCheckEvent",
    "ReasoningEvent",
    "RetractEvent",
    "RetryEvent",
    "StreamEvent",
    "StreamingDoneEvent",
]


@attrs.frozen
class StreamEvent:
    """Something that happened in a streaming run.

    Args:
        timestamp: When, in seconds since the epoch.
    """

    timestamp: float = attrs.field(factory=time.time, kw_only=True)


@attrs.frozen
class ChunkEvent(StreamEvent):
    """A chunk was released: every requirement has passed the text up to its end.

    Args:
        text: The chunk. Empty in the last event where white space ends the text: that has no other place.
        chunk_index: Its place among the chunks.
        attempt: The attempt it belongs to.
        before: What stands between the chunk before and this one: the ``before`` and ``text`` of all,
            joined, are the released text.
    """

    text: str
    chunk_index: int
    attempt: int
    before: str = attrs.field(default="", kw_only=True)


@attrs.frozen
class ReasoningEvent(StreamEvent):
    """The model thinks: text that is no part of the answer, and that no requirement judges.

    Args:
        text: What is new of it.
        attempt: The attempt it belongs to.
    """

    text: str
    attempt: int


@attrs.frozen
class EditEvent(StreamEvent):
    """A requirement has left something out or replaced it (``on_fail="filter"`` or ``"fix"``).

    Args:
        chunk_index: The chunk in which it was, or that follows it.
        attempt: The attempt it belongs to.
        requirement: Which requirement, by its place in the list.
        result: Its verdict: the reason and, where it has one, the replacement.
    """

    chunk_index: int
    attempt: int
    requirement: int
    result: PartialValidationResult


@attrs.frozen
class QuickCheckEvent(StreamEvent):
    """Every requirement has judged a chunk, or one of them has failed it.

    Args:
        chunk_index: The chunk. For a fail, that in which the failing piece begins: chunks before it
            that were still being judged were never released and have no event.
        attempt: The attempt it belongs to.
        passed: Whether no requirement failed that stops the attempt.
        results: One verdict per requirement, in their order; ``"unknown"`` from those that had not
            come so far when another one failed.
    """

    chunk_index: int
    attempt: int
    passed: bool
    results: Sequence[PartialValidationResult]


@attrs.frozen
class InputCheckEvent(StreamEvent):
    """The preconditions were checked; before that nothing is released.

    Args:
        passed: Whether the input meets all of them; otherwise the run ends here.
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
    """Every requirement has judged the whole text.

    Args:
        attempt: The attempt.
        passed: Whether all of them passed.
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
        reason: Why the one before it was given up.
    """

    attempt: int
    reason: str


@attrs.frozen
class RetractEvent(StreamEvent):
    """Chunks that were released do not count any more: the next attempt replaces them.

    Args:
        chunk_index: The first of them; all from there on are retracted.
        attempt: The attempt they belong to.
    """

    chunk_index: int
    attempt: int


@attrs.frozen
class ErrorEvent(StreamEvent):
    """The run has ended with an error, which is raised where the text is read or awaited.

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
        success: Whether the text was streamed to its natural end. (Whether it passed the final
            validation is in the ``FullValidationEvent``.)
        full_text: The released text.
        attempts_used: How many attempts there were.
    """

    success: bool
    full_text: str
    attempts_used: int
