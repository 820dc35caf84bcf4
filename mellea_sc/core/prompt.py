"""From a conversation of spans to the messages that a model reads. Pure text work."""

from __future__ import annotations

from mellea_sc.core.backend import ChatMessage
from mellea_sc.core.base import Component, Context, Role, Span, Thunk, text_of
from mellea_sc.core.model_options import ModelOption, ModelOptions

__all__ = ["messages_for"]


def messages_for(action: Span, ctx: Context, options: ModelOptions) -> tuple[ChatMessage, ...]:
    """The conversation that asks for an answer to ``action``; every thunk in it is computed.

    The system prompt of the options comes first; then what the context shows; then the action, and
    last, where the action wants one, the beginning of the answer as a message of the assistant's.
    """
    messages: list[ChatMessage] = []
    system = options.get(ModelOption.SYSTEM_PROMPT)
    if system is not None:
        messages.append(ChatMessage("system", str(system)))
    messages.extend(ChatMessage(_role(item), text_of(item)) for item in ctx.view_for_generation())
    messages.append(
        ChatMessage("user" if isinstance(action, Thunk) else _role(action), text_of(action))
    )
    if isinstance(action, Component) and (beginning := action.assistant_prefix()):
        messages.append(ChatMessage("assistant", beginning))
    return tuple(messages)


def _role(item: Span) -> Role:
    match item:
        case Thunk():
            return "assistant"
        case Component():
            return item.role
        case _:
            return "user"
