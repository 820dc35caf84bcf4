"""Decides, from the attempts that have ended, what to ask next or which attempt to keep. No tasks, no I/O.

A plan only decides. ``engine/runner.py`` carries the decisions out: it runs attempts in its own tasks, validates each
while it is generated, asks the plan whenever one has ended, and stops those that a choice has made useless. So the
same plan serves ``instruct`` and checked streams.

At the end are the actions of further attempts: with feedback on a rejected answer, or to continue a text that is good
so far.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Final

import attrs

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import CBlock, Component, Context, Role, Span, Thunk, text_of
from mellea_sc.core.generation_info import GenerationInfo
from mellea_sc.core.prompt import GO_ON, describe
from mellea_sc.core.requirement import (
    PartialValidationResult,
    Requirement,
    ValidationResult,
    is_rejected,
    reasons_in,
)
from mellea_sc.runtime.checks.attempt import AttemptEnd
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.stdlib.components.chat import Message
from mellea_sc.stdlib.components.instruction import Instruction, listed
from mellea_sc.stdlib.context import ChatContext

__all__ = [
    "Ask",
    "AttemptResult",
    "Choice",
    "Once",
    "Plan",
    "WithFeedback",
    "continuation_of",
    "does_not_fit",
]


FITS_FORMAT: Final = Requirement("The answer fits the format that was asked for.", check_only=True)
"""The requirement that every answer has to meet if a format was given."""


@attrs.frozen(kw_only=True)
class Ask:
    """A request of the plan for another attempt.

    Args:
        action: The action.
        context: The conversation before it.
        reason: Why there is another attempt; ``None`` for the first ones.
        keep: The number of chunks of attempt ``of`` that are kept: the answer begins with them.
        of: The number of the attempt whose chunks are kept.
        chain: The number of the series of attempts that it belongs to, if several run in parallel.
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


def does_not_fit(misfit: str) -> tuple[Requirement, ValidationResult]:
    """The verdict on an answer that does not fit its format."""
    return FITS_FORMAT, ValidationResult(False, reason=misfit)


@attrs.frozen
class Choice:
    """The final decision: the number of the attempt to keep, and whether it is good."""

    number: int
    success: bool


class Plan(abc.ABC):
    """Decides what to ask. It has no state: each call gets all that it needs to know."""

    concurrent: bool = False
    """Whether it may ask for an attempt while another one is running."""
    goes_on: bool = False
    """Whether its attempts may continue from chunks of earlier ones."""
    weighs: bool = False
    """Whether :meth:`weigh` is to be called for completed attempts."""
    asks_anew: bool = True
    """Whether an attempt may replace text that an earlier one has shown."""

    def begin(self, action: Component | Span, context: Context) -> Sequence[Ask]:
        """The first attempts; by default one. A concurrent plan may return several."""
        return [Ask(action=action, context=context)]

    @abc.abstractmethod
    def after(self, past: Sequence[AttemptResult], running: int) -> Sequence[Ask] | Choice:
        """Decide what to ask next, or which attempt to keep; called when an attempt has ended.

        Args:
            past: The attempts that have ended, in the order of their ends; the last one has just ended. One
                exception: if the last running attempt has failed by a backend error, it is not among them. Then only
                a choice of a good attempt is accepted; otherwise the error is raised.
            running: The number of attempts that are still running. If it is 0, the plan must ask for an attempt or
                make a choice.
        """

    async def weigh(self, result: AttemptResult, backend: Backend) -> float | None:
        """The score of a completed attempt; called only if the plan ``weighs``.

        Args:
            result: The attempt.
            backend: A backend that is bound to a scope of the attempt.
        """
        return None


class Once(Plan):
    """One attempt, which is kept in any case."""

    asks_anew = False

    def after(self, past: Sequence[AttemptResult], running: int) -> Choice:
        """Keep the only attempt."""
        return Choice(past[-1].number, past[-1].valid)


_FAILED: Final = "an earlier answer failed by this: {}"
"""Stands in the list of requirements, before the task. After the task, small models comment on it instead."""


class _WrappedAction(Component):
    """An action that wraps another one and changes how it is asked."""

    def __init__(self, action: Component | Span) -> None:
        self.action = action
        self.role: Role = action.role if isinstance(action, Component) else "user"

    def parts(self) -> Sequence[Span]:
        """The action."""
        return [self.action]

    def summary(self) -> str:
        """A short description of the action."""
        return describe(self.action)

    def format_for_llm(self) -> str:
        """The text of the action."""
        return text_of(self.action)

    def assistant_prefix(self) -> str | None:
        """The prefix of the action's answer."""
        return self.action.assistant_prefix() if isinstance(self.action, Component) else None

    def for_copies(self) -> Component:
        """Without the action."""
        return Message(self.role, CBlock(self.format_for_llm()))

    def parse(self, text: str) -> object:
        """Parse the answer as the action does."""
        return self.action.parse(text) if isinstance(self.action, Component) else text


class WithFeedback(_WrappedAction):
    """An action with the reasons why an earlier answer was rejected.

    Args:
        action: The action; if it has feedback already, that is replaced.
        reasons: The reasons, one line each.
    """

    def __init__(self, action: Component | Span, reasons: Sequence[str]) -> None:
        super().__init__(action.action if isinstance(action, WithFeedback) else action)
        self.reasons: Sequence[str] = reasons

    def format_for_llm(self) -> str:
        """The text of the action, with the reasons in its list of requirements."""
        lines = [_FAILED.format(reason) for reason in self.reasons]
        action = self.action
        if (
            isinstance(action, Instruction)
            and type(action).format_for_llm is Instruction.format_for_llm
        ):
            return action.format_for_llm(lines)
        return f"{listed(lines)}\n\n{super().format_for_llm()}"


class Continuation(_WrappedAction):
    """An action whose answer has begun; the model continues it.

    Args:
        action: The action.
        beginning: The answer so far.
    """

    def __init__(self, action: Component | Span, beginning: str) -> None:
        super().__init__(action)
        self._beginning = beginning

    def assistant_prefix(self) -> str:
        """The answer so far, with the action's own prefix."""
        return self._beginning


def continuation_of(
    action: Component | Span, ctx: Context, beginning: Thunk, *, prefills: bool
) -> tuple[Component | Span, Context]:
    """The action and the conversation that ask for the rest of an answer.

    Args:
        action: The original action.
        ctx: The conversation before it.
        beginning: The answer so far, computed.
        prefills: Whether the server continues the assistant's last message; otherwise the model is asked in words.
    """
    if prefills:
        return Continuation(action, beginning.value), ctx
    # A new context of a kind that remembers: one that forgets would not show the text to continue.
    said: Context = ChatContext()
    for item in [*ctx.view_for_generation(), action, beginning]:
        said = said.add(item)
    return Message("user", GO_ON), said
