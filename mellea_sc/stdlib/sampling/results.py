"""What became of the attempts of a call: their results, and its trace: what ended each, what that cost or saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.errors import GenerationCancelled
from mellea_sc.core.generation_info import GenerationInfo
from mellea_sc.core.plain_text import quoted
from mellea_sc.core.question import Question, describe
from mellea_sc.core.requirement import (
    PartialValidationResult,
    Requirement,
    ValidationResult,
    is_rejected,
    label_of,
    reasons_in,
)
from mellea_sc.core.trace import Cause, CauseKind, TokenCount, Trace
from mellea_sc.runtime.checks.attempt import Attempt, AttemptEnd
from mellea_sc.runtime.checks.editors import NO_EDITS
from mellea_sc.runtime.generation.pump import misfit_of
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.stdlib.sampling.plan import Ask

FITS_FORMAT: Final = Requirement("The answer fits the format that was asked for.", check_only=True)
"""The requirement that every answer has to meet if a format was given."""


@attrs.frozen(kw_only=True)
class AttemptResult:
    """An attempt that has ended.

    Args:
        number: Its number, counted from 1 in the order in which attempts begin.
        ask: The request for it.
        end: ``"completed"``: the model has finished; ``"failed"``: a check failed while it ran; ``"stopped"``: it
            was not needed any more; ``"error"``; ``"cancelled"``.
        text: The text as far as it may be shown; the whole text if it was completed.
        generated: The whole text of the model, with the text that was kept of an earlier attempt.
        failures: The requirements that stopped it, with their verdicts, in the order of the requirements.
        validations: The requirements with their verdicts on the whole text, if it was completed.
        failed_at: The index of the chunk that failed.
        released: The number of its chunks that a reader has been shown; 1 if that is white space alone.
        generation: Model, usage, times.
        misfit: Why it does not fit the requested format, if it was completed and does not fit.
        score: The score that the strategy gave it.
        begun: The number of attempts that had begun when it ended, those that have failed by an error included.
    """

    number: int
    ask: Ask
    end: AttemptEnd
    text: str
    generated: str
    failures: Sequence[tuple[Requirement, PartialValidationResult]] = ()
    validations: Sequence[tuple[Requirement, ValidationResult]] = ()
    failed_at: int = 0
    released: int = 0
    generation: GenerationInfo = attrs.field(factory=GenerationInfo)
    misfit: str | None = None
    score: float | None = None
    begun: int = 1

    @property
    def completed(self) -> bool:
        """Whether the model has finished, and no check failed until then."""
        return self.end == "completed"

    @property
    def rejected(self) -> Sequence[tuple[Requirement, ValidationResult]]:
        """The requirements that it is known not to meet, with their verdicts."""
        return [
            (requirement, verdict)
            for requirement, verdict in self.verdicts
            if self.end != "completed" or is_rejected(requirement, verdict)
        ]

    @property
    def valid(self) -> bool:
        """Whether it was completed and meets every requirement; those with ``on_fail="noop"`` do not count."""
        return self.end == "completed" and not any(is_rejected(*one) for one in self.verdicts)

    @property
    def reasons(self) -> list[str]:
        """Why it was rejected, one line for each requirement that it does not meet."""
        return reasons_in(self.rejected)

    @property
    def reason(self) -> str:
        """All reasons in one line."""
        return "; ".join(self.reasons)

    @property
    def verdicts(self) -> Sequence[tuple[Requirement, ValidationResult]]:
        """The requirements that have a verdict: those that stopped it, or all of them if it was completed.

        A completed attempt that does not fit its format has a verdict on that too.
        """
        if self.end != "completed":
            return [
                (requirement, ValidationResult(False, reason=verdict.reason, score=verdict.score))
                for requirement, verdict in self.failures
            ]
        if self.misfit is None:
            return self.validations
        return [*self.validations, does_not_fit(self.misfit)]

    def thunk(self) -> ModelOutputThunk:
        """The text as far as it may be shown, as a computed thunk."""
        return ModelOutputThunk.computed(self.text, generation=self.generation)

    @property
    def context(self) -> Context:
        """The conversation, ending with the whole text of the model."""
        said = ModelOutputThunk.computed(self.generated, generation=self.generation)
        return self.ask.context.add(self.ask.action).add(said)


def result_of(
    number: int,
    ask: Ask,
    attempt: Attempt,
    question: Question,
    begun: int,
    *,
    released: int = 0,
    score: float | None = None,
) -> AttemptResult:
    """The result of an attempt at a question."""
    requirements, failures = question.requirements, attempt.ledger.failures
    generation, text, format = attempt.record.info(), attempt.text, question.format
    is_answer = attempt.end == "completed" and (attempt.parts or not generation.tool_calls)
    if attempt.end in ("failed", "stopped"):
        generation = attrs.evolve(generation, finish_reason="aborted")
    return AttemptResult(
        number=number,
        ask=ask,
        end=attempt.end,
        text=text,
        generated=attempt.generated,
        failures=[(requirements[one.lane], one.verdict) for one in failures],
        validations=list(zip(requirements, attempt.validations, strict=False)),
        failed_at=min((one.chunk_index for one in failures), default=0),
        released=released,
        generation=generation,
        misfit=misfit_of(text, format) if is_answer and format is not None else None,
        score=score,
        begun=begun,
    )


def does_not_fit(misfit: str) -> tuple[Requirement, ValidationResult]:
    """The verdict on an answer that does not fit its format."""
    return FITS_FORMAT, ValidationResult(False, reason=misfit)


def trace_of(
    action: Component | Span,
    outcome: str,
    attempts: Sequence[Attempt],
    asks: Sequence[Ask],
    *,
    accepted: int | None,
    released: Mapping[int, int] | None = None,
    cause: Cause | None = None,
    judges: Sequence[tuple[ModelOutputThunk, float]] = (),
) -> Trace:
    """The trace of a call.

    Args:
        action: The action of the call.
        outcome: Its outcome.
        attempts: Its attempts.
        asks: The request for each attempt.
        accepted: The number of the accepted attempt.
        released: For each attempt's number, how many of its own characters a reader was shown.
        cause: The cause of its end, if that was not an attempt.
        judges: The generations of judges of the preconditions, and when each began.
    """
    now = max([one.ended_at for one in attempts], default=0.0)
    starts = [*(one.started_at for one in attempts[:1]), *(since for _, since in judges)]
    began = min(starts, default=now)
    useful = useful_characters(attempts, asks, accepted)
    children = [_judge(thunk, since, began, now) for thunk, since in judges] + [
        _attempt(
            number,
            attempt,
            began=began,
            now=now,
            useful=useful[number - 1],
            released=(released or {}).get(number, 0),
            is_accepted=number == accepted,
        )
        for number, attempt in enumerate(attempts, 1)
    ]
    first, *others = [child.tokens for child in children[len(judges) :]] or [TokenCount()]
    return Trace(
        what=describe(action),
        outcome=outcome,
        began=0.0,
        ended=now - began,
        cause=cause,
        # a sum has no limit, also where it is that of one attempt
        tokens=attrs.evolve(sum(others, first), limit=None),
        children=children,
    )


def useful_characters(
    attempts: Sequence[Attempt], asks: Sequence[Ask], accepted: int | None
) -> list[int]:
    """For each attempt, the number of characters that it generated itself and that are in the accepted text."""
    useful = [0] * len(attempts)
    number, end = accepted, None
    while number:
        attempt = attempts[number - 1]
        begun_with = attempt.kept_length
        if end is None and attempt.cut_off is None:
            until = len(attempt.generated)
        else:
            until = attempt.edits.source(len(attempt.edited) if end is None else end)
        useful[number - 1] = max(0, until - begun_with)
        end = begun_with if end is None else min(end, begun_with)
        number = asks[number - 1].of
    return useful


def _attempt(
    number: int,
    attempt: Attempt,
    *,
    began: float,
    now: float,
    useful: int,
    released: int,
    is_accepted: bool,
) -> Trace:
    own = max(0, len(attempt.generated) - attempt.kept_length)
    record = attempt.record
    usage = record.usage
    counted = usage is not None and usage.completion_tokens > 0
    # it looks at every delta: not where the server has counted, and all that came is text
    estimate = attempt.estimate if record.estimate or not counted else 0
    generated = usage.completion_tokens if usage is not None and counted else estimate
    said = usage.reasoning_tokens if usage is not None else 0
    share_of_reasoning = record.reasoning_estimate / max(1, estimate)
    share_of_other = record.estimate / max(1, estimate)
    reasoning = min(generated, said or round(generated * share_of_reasoning))
    text = generated - max(reasoning, round(generated * share_of_other))

    shown, of_use = (round(text * min(n, own) / max(1, own)) for n in (released, useful))
    is_of_use = is_accepted or useful > 0
    limit = attempt.token_limit
    stopped_early = attempt.end not in ("completed", "running") or attempt.cut_off is not None
    outcome = {"completed": "rejected", "running": "running"}.get(attempt.end, attempt.end)
    return Trace(
        what=f"attempt {number}",
        outcome="accepted" if is_accepted else outcome,
        began=attempt.started_at - began,
        ended=(attempt.ended_at or now) - began,
        cause=_cause(attempt, began, is_accepted=is_accepted),
        tokens=TokenCount(
            generated=generated,
            reasoning=reasoning,
            released=shown,
            wasted=text - of_use + (0 if is_of_use else generated - text),
            limit=limit,
            saved=max(0, limit - generated) if stopped_early and limit is not None else 0,
            estimated=not counted and generated > 0,
        ),
        edits=0 if attempt.edits is NO_EDITS else len(attempt.edited_spans),
        children=[_judge(thunk, began_at, began, now) for thunk, began_at in attempt.judges],
    )


def _judge(thunk: ModelOutputThunk, began_at: float, began: float, now: float) -> Trace:
    usage = thunk.generation.usage
    generated = usage.completion_tokens if usage else 0
    reasoning = usage.reasoning_tokens if usage else 0
    seconds = thunk.generation.total_time
    error = thunk.error
    outcome = "failed" if error else "stopped" if thunk.cancelled else "answered"
    return Trace(
        what=f"judge {quoted(thunk.name)}",
        outcome=outcome,
        began=began_at - began,
        ended=(now if seconds is None else began_at + seconds) - began,
        cause=cause_of_error(error, None) if error else None,
        tokens=TokenCount(generated=generated, reasoning=reasoning),
    )


def _cause(attempt: Attempt, began: float, *, is_accepted: bool) -> Cause | None:
    at = None if attempt.stopped_at is None else attempt.stopped_at - began
    if is_accepted:
        if attempt.cut_off is None:
            return None
        # a requirement has cut the text off, which stopped the model, and the text before that is good
        requirement, verdict = attempt.cut_off
        return Cause(kind="requirement", who=named(requirement), reason=verdict.reason, at=at)
    if attempt.error is not None:
        return cause_of_error(attempt.error, at)
    if attempt.stopped_by is not None:
        return Cause(kind="choice", reason=attempt.stopped_by, at=at)
    for failure in attempt.ledger.failures:
        return Cause(
            kind="requirement",
            who=named(attempt.requirements[failure.lane]),
            reason=failure.verdict.reason,
            chunk_index=failure.chunk_index,
            at=at,
        )
    for pair in zip(attempt.requirements, attempt.validations, strict=False):
        if reasons := reasons_in([pair]):
            return Cause(kind="requirement", who=named(pair[0]), reason=reasons[0])
    return None


def cause_of_error(error: Exception, at: float | None) -> Cause:
    """The cause that an error stands for."""
    who = type(error).__name__
    if isinstance(error, TimeoutError):
        return Cause(kind="timeout", who=who, reason=str(error), at=at)
    if isinstance(error, GenerationCancelled):
        kind: CauseKind = "cancel" if type(error) is GenerationCancelled else "limit"
        return Cause(kind=kind, who=who, reason=str(error), at=at)
    return Cause(kind="error", who=who, reason=str(error), at=at)


def named(requirement: Requirement) -> str:
    """A name of a requirement, for people: its description, or else its class."""
    return quoted(label_of(requirement))
