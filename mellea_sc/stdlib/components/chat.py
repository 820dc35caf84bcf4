"""Messages, and a conversation as messages: Mellea's module of this name."""

from __future__ import annotations

from collections.abc import Callable

from mellea_sc.core.base import Component, Context, Span, Thunk, role_of, text_of
from mellea_sc.stdlib.components.message import Message

__all__ = ["Message", "as_chat_history", "as_generic_chat_history"]


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
