"""Actions for further attempts: with feedback on a rejected answer, or to continue a text that is good so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mellea_sc.core.base import CBlock, Component, Context, Role, Span, Thunk, text_of
from mellea_sc.core.question import GO_ON, describe
from mellea_sc.stdlib.components.instruction import Instruction, listed
from mellea_sc.stdlib.components.message import Message
from mellea_sc.stdlib.context import ChatContext

__all__ = ["Continuation", "WithFeedback", "continuation_of"]

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
