"""What to ask next: attempts in, what to ask or what to keep out. No tasks, no I/O.

A plan decides and does nothing. ``engine/runner.py`` does: it asks, in tasks of its own, judges every attempt
while it is generated, tells the plan of each that has ended, and stops those that a choice has made
useless. So the same plan serves ``instruct`` and checked streams.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Final

import attrs

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Component, Context, Span
from mellea_sc.core.errors import InvalidOption, PreconditionFailed
from mellea_sc.core.generation_info import GenerationInfo
from mellea_sc.core.requirement import PartialValidationResult, Requirement, ValidationResult
from mellea_sc.runtime.checks.attempt import AttemptEnd
from mellea_sc.runtime.generation.thunk import ModelOutputThunk

__all__ = [
    "Ask",
    "AttemptResult",
    "Choice",
    "Once",
    "Plan",
    "check_count",
    "does_not_fit",
    "is_rejected",
    "raise_if_unmet",
    "reasons_in",
]


FITS_FORMAT: Final = Requirement("The answer fits the format that was asked for.", check_only=True)
"""What every answer has to meet where a format was given."""


@attrs.frozen(kw_only=True)
class Ask:
    """What to ask next.

    Args:
        action: The action.
        context: The conversation before it.
        reason: Why there is another attempt; ``None`` for those at the beginning.
        keep: So many chunks of the attempt ``of`` are good: the answer begins with them.
        of: The attempt whose chunks are kept.
        chain: Which of several parallel series of attempts it belongs to.
    """

    action: Component | Span
    context: Context
    reason: str | None = None
    keep: int = 0
    of: int = 0
    chain: int = 0


@attrs.frozen(kw_only=True)
class AttemptResult:
    """An attempt that has ended.

    Args:
        number: From 1, in the order of their beginnings.
        ask: What was asked.
        end: ``"completed"``: with the model's last token; ``"failed"``: a check failed while it ran;
            ``"stopped"``: it was not needed any more; ``"error"``; ``"cancelled"``.
        text: The text as far as it may be shown: all of it if it was completed.
        generated: All the text that the model gave, and what was kept of an earlier attempt.
        failures: The requirements that stopped it, with their verdicts, in the order of the requirements.
        validations: The requirements with their verdicts on the whole text, if it was completed.
        failed_at: The index of the chunk that failed.
        released: How many of its chunks a reader has been shown.
        generation: Model, usage, times.
        misfit: Why it does not fit the format that was asked for, if it was completed and does not.
        score: What the strategy found it to be worth.
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

    @property
    def completed(self) -> bool:
        """Whether the model came to its end, and no check failed until then."""
        return self.end == "completed"

    @property
    def rejected(self) -> Sequence[tuple[Requirement, ValidationResult]]:
        """Every requirement that it does not meet, with the verdict, as far as that is known."""
        if not self.completed:
            return [
                (requirement, ValidationResult(False, reason=verdict.reason, score=verdict.score))
                for requirement, verdict in self.failures
            ]
        return [
            (requirement, verdict)
            for requirement, verdict in self.verdicts
            if is_rejected(requirement, verdict)
        ]

    @property
    def valid(self) -> bool:
        """Whether it was completed and meets every requirement that is not only recorded."""
        return self.completed and not self.rejected

    @property
    def reasons(self) -> list[str]:
        """Why it was rejected, one line for each requirement that it does not meet."""
        return reasons_in(self.rejected)

    @property
    def reason(self) -> str:
        """All of these in one line."""
        return "; ".join(self.reasons)

    @property
    def verdicts(self) -> Sequence[tuple[Requirement, ValidationResult]]:
        """The requirements with the verdicts that there are: all of them if it was completed.

        One that was completed and does not fit its format has a verdict on that, too.
        """
        if not self.completed:
            return self.rejected
        if self.misfit is None:
            return self.validations
        return [*self.validations, does_not_fit(self.misfit)]

    def thunk(self) -> ModelOutputThunk:
        """The text as far as it may be shown, as a computed thunk."""
        return ModelOutputThunk.computed(self.text, generation=self.generation)

    @property
    def context(self) -> Context:
        """The conversation that ends with all that the model said."""
        said = ModelOutputThunk.computed(self.generated, generation=self.generation)
        return self.ask.context.add(self.ask.action).add(said)


def does_not_fit(misfit: str) -> tuple[Requirement, ValidationResult]:
    """The verdict on an answer that does not fit its format."""
    return FITS_FORMAT, ValidationResult(False, reason=misfit)


def reasons_in(verdicts: Sequence[tuple[Requirement, ValidationResult]]) -> list[str]:
    """Why an answer was rejected, one line for each requirement that it does not meet."""
    return [
        verdict.reason or requirement.format_for_llm() or repr(requirement)
        for requirement, verdict in verdicts
        if is_rejected(requirement, verdict)
    ]


def raise_if_unmet(verdicts: Sequence[tuple[Requirement, ValidationResult]]) -> None:
    """Raise unless what is asked meets the preconditions.

    Raises:
        PreconditionFailed: it does not.
    """
    if reasons := reasons_in(verdicts):
        raise PreconditionFailed(
            f"the input does not meet a precondition: {'; '.join(reasons)}", reasons=reasons
        )


def is_rejected(requirement: Requirement, verdict: ValidationResult) -> bool:
    """Whether a verdict counts against an answer: one that is only recorded does not."""
    return not verdict and requirement.on_fail != "noop"


@attrs.frozen
class Choice:
    """The end: which attempt is kept, by its number, and whether it is good."""

    number: int
    success: bool


class Plan(abc.ABC):
    """Decides, and keeps no state: all it needs to know is handed to it each time."""

    concurrent: bool = False
    """Whether it ever asks for an attempt while another one is running."""
    goes_on: bool = False
    """Whether its attempts may go on from chunks of earlier ones."""
    weighs: bool = False
    """Whether it wants to know what completed attempts are worth."""
    asks_anew: bool = True
    """Whether an attempt may take the place of text that an earlier one has shown."""

    def begin(self, action: Component | Span, context: Context) -> Sequence[Ask]:
        """What to ask first, by default one attempt; several at once if it is concurrent."""
        return [Ask(action=action, context=context)]

    @abc.abstractmethod
    def after(self, past: Sequence[AttemptResult], running: int) -> Sequence[Ask] | Choice:
        """An attempt has ended: what to ask, or which attempt is kept.

        Args:
            past: All that have ended, in the order of their ends; the last one is the news. Where the
                last of several to end has failed by its backend, there is no news: then a good choice
                counts, and anything else raises the error.
            running: How many are still running. Without any, nothing to ask means nothing to come:
                then there has to be a choice.
        """

    async def weigh(self, result: AttemptResult, backend: Backend) -> float | None:
        """What a completed attempt is worth; asked of a plan that weighs.

        Args:
            result: The attempt.
            backend: Bound to a scope of the attempt's.
        """
        return None


class Once(Plan):
    """One attempt, whatever becomes of it."""

    asks_anew = False

    def after(self, past: Sequence[AttemptResult], running: int) -> Choice:
        """The one."""
        return Choice(past[-1].number, past[-1].valid)


def check_count(name: str, value: object) -> None:
    """Check an argument that says how many.

    Raises:
        InvalidOption: it is not a whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidOption(f"{name} must be at least 1, not {value!r}")
