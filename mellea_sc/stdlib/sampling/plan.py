"""Decides, from the attempts that have ended, what to ask next or which attempt to keep. No tasks, no I/O.

A plan only decides. ``runner.py`` carries the decisions out: it runs attempts in its own tasks, validates each
while it is generated, asks the plan whenever one has ended, and stops those that a choice has made useless. So the
same plan serves ``instruct`` and checked streams.

At the end are the actions of further attempts: with feedback on a rejected answer, or to continue a text that is good
so far.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import CBlock, Component, Context, Role, Span, Thunk, text_of
from mellea_sc.core.question import GO_ON, describe
from mellea_sc.stdlib.components.chat import Message
from mellea_sc.stdlib.components.instruction import Instruction, listed
from mellea_sc.stdlib.context import ChatContext

if TYPE_CHECKING:
    from mellea_sc.stdlib.sampling.results import AttemptResult


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
