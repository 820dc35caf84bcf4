"""Asking again, with what was wrong; and asking to go on from a text that is good so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mellea_sc.core.base import Component, Context, Role, Span, Thunk, text_of
from mellea_sc.core.prompt import GO_ON
from mellea_sc.stdlib.components.instruction import Instruction, listed
from mellea_sc.stdlib.components.message import Message
from mellea_sc.stdlib.context import ChatContext

__all__ = ["Continuation", "WithFeedback", "continuation_of"]

_FAILED: Final = "an earlier answer failed by this: {}"
"""In the list of requirements, before the task. Behind it, a small model talks about answers."""


class _WrappedAction(Component):
    """Another action, asked otherwise."""

    def __init__(self, action: Component | Span) -> None:
        self.action = action
        self.role: Role = action.role if isinstance(action, Component) else "user"

    def parts(self) -> Sequence[Span]:
        """The action."""
        return [self.action]

    def summary(self) -> str:
        """What the action says of itself."""
        match self.action:
            case str():
                return self.action
            case Component():
                return self.action.summary()
            case _:
                return repr(self.action)

    def format_for_llm(self) -> str:
        """As the action reads."""
        return text_of(self.action)

    def assistant_prefix(self) -> str | None:
        """What the action's answer has to begin with."""
        return self.action.assistant_prefix() if isinstance(self.action, Component) else None

    def parse(self, text: str) -> object:
        """As the action reads its answer."""
        return self.action.parse(text) if isinstance(self.action, Component) else text


class WithFeedback(_WrappedAction):
    """An action, and why an earlier answer to it was rejected.

    Args:
        action: What is asked; the feedback of an earlier round is replaced.
        reasons: Why, one line each.
    """

    def __init__(self, action: Component | Span, reasons: Sequence[str]) -> None:
        super().__init__(action.action if isinstance(action, WithFeedback) else action)
        self.reasons: Sequence[str] = reasons

    def format_for_llm(self) -> str:
        """The reasons among what must hold, which stands before what to do."""
        lines = [_FAILED.format(reason) for reason in self.reasons]
        action = self.action
        if (
            isinstance(action, Instruction)
            and type(action).format_for_llm is Instruction.format_for_llm
        ):
            return action.format_with(lines)
        return f"{listed(lines)}\n\n{super().format_for_llm()}"


class Continuation(_WrappedAction):
    """An action whose answer has begun: the model writes on from there.

    Args:
        action: What is asked.
        beginning: The answer so far.
    """

    def __init__(self, action: Component | Span, beginning: str) -> None:
        super().__init__(action)
        self._beginning = beginning

    def assistant_prefix(self) -> str:
        """All that the answer begins with, what the action wants it to begin with included."""
        return self._beginning


def continuation_of(
    action: Component | Span, ctx: Context, beginning: Thunk, *, prefills: bool
) -> tuple[Component | Span, Context]:
    """What to ask, in which conversation, for the rest of an answer.

    Args:
        action: What was asked.
        ctx: The conversation before it.
        beginning: The answer so far, computed.
        prefills: Whether the model writes on where the last message, the assistant's, ends; otherwise
            it is asked to.
    """
    if prefills:
        return Continuation(action, beginning.value), ctx
    # whatever kind of context it is: one that forgets would not show what is to be gone on with
    said: Context = ChatContext()
    for item in [*ctx.view_for_generation(), action, beginning]:
        said = said.add(item)
    return Message("user", GO_ON), said
