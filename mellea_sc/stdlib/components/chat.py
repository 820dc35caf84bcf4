"""Messages, and a conversation as messages: Mellea's module of this name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mellea_sc.core.base import (
    ROLES,
    SPANS,
    Component,
    Context,
    Role,
    Span,
    Thunk,
    checked_texts,
    no_span,
    role_of,
    text_of,
)
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.generation_info import ToolCall
from mellea_sc.stdlib.components._template import check_template, fill

__all__ = [
    "Message",
    "as_chat_history",
    "as_generic_chat_history",
]


class Message(Component):
    """A message with a role and a content.

    Args:
        role: ``"user"``, ``"assistant"``, ``"system"`` or ``"tool"``.
        content: The content; may be a thunk.
        user_variables: Named texts to fill in; with them a ``str`` content is a template.
        reasoning: The model's reasoning before the message. It is not sent in prompts.
        tool_calls: The model's tool calls.

    Raises:
        InvalidOption: an argument is not usable.
        PromptTemplateError: the template is not valid, or uses a variable that is not given.
    """

    def __init__(
        self,
        role: Role,
        content: Span,
        *,
        user_variables: Mapping[str, Span] | None = None,
        reasoning: str = "",
        tool_calls: Sequence[ToolCall] = (),
    ) -> None:
        if role not in ROLES:
            raise InvalidOption(f"role must be one of {', '.join(ROLES)}, not {role!r}")
        if not isinstance(content, SPANS):
            raise no_span("a message's content", content)
        self.role: Role = role
        self.reasoning = reasoning
        self.tool_calls: Sequence[ToolCall] = tool_calls
        self._content = content
        self._variables = (
            None if user_variables is None else checked_texts("user_variables", user_variables)
        )
        if user_variables is not None and isinstance(content, str):
            check_template(content, user_variables)

    @property
    def content(self) -> str:
        """The content, with the variables filled in."""
        if self._variables is not None and isinstance(self._content, str):
            return fill(self._content, self._variables)
        return text_of(self._content)

    def parts(self) -> Sequence[Span]:
        """The content and the variables."""
        return [self._content, *(self._variables or {}).values()]

    def summary(self) -> str:
        """The beginning of the content."""
        return self._content if isinstance(self._content, str) else f"a message of {self.role}"

    def format_for_llm(self) -> str:
        """The content."""
        return self.content

    def __str__(self) -> str:
        return self.content

    def __repr__(self) -> str:
        return f"Message({self.role!r}, {self._content!r})"


def as_chat_history(ctx: Context) -> list[Message]:
    """A conversation as messages, oldest first: its messages as they are, and its answers.

    Raises:
        TypeError: something else is in it: :func:`as_generic_chat_history` takes that too.
        ThunkNotComputed: an answer is not computed.
    """
    for item in ctx.as_list():
        if not isinstance(item, Message | Thunk):
            raise TypeError(
                f"a {type(item).__name__} is no message of a chat: as_generic_chat_history() takes everything"
            )
    return as_generic_chat_history(ctx)


def as_generic_chat_history(
    ctx: Context, formatter: Callable[[Span | object], str] | None = None
) -> list[Message]:
    """A conversation as messages, oldest first, whatever is in it.

    Args:
        ctx: The conversation.
        formatter: The text of what is neither a message nor a plain text: a component, or what an answer
            means (``parsed_repr``). By default as the model reads it.

    Raises:
        ThunkNotComputed: a thunk in it is not computed.
    """
    return [_message_of(item, formatter) for item in ctx.as_list()]


def _message_of(item: Span, formatter: Callable[[Span | object], str] | None) -> Message:
    if isinstance(item, Message):
        return item
    text = text_of(item)
    if formatter is not None:
        if isinstance(item, Component):
            text = formatter(item)
        elif isinstance(item, Thunk) and isinstance(item.parsed_repr, Message):
            text = item.parsed_repr.content
        elif isinstance(item, Thunk) and not isinstance(item.parsed_repr, str | None):
            text = formatter(item.parsed_repr)
    if isinstance(item, Thunk):
        return Message("assistant", text, reasoning=item.reasoning, tool_calls=item.tool_calls)
    return Message(role_of(item), text)
