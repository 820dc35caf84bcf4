"""Turns a conversation of spans into messages for a model. Pure text work."""

from __future__ import annotations

from operator import is_
from typing import Final, cast

import attrs

from mellea_sc.core.answer_prefix import AnswerPrefix
from mellea_sc.core.backend import ChatMessage
from mellea_sc.core.base import Component, Context, Span, Thunk, role_of, text_of
from mellea_sc.core.model_options import ModelOption, ModelOptions

__all__ = ["GO_ON", "answer_prefix_of", "messages_for", "not_yet_read"]

GO_ON: Final = "Continue your answer."
"""With a longer sentence, small models begin again instead of continuing; measured in benchmarks/PROMPTING.md."""


def messages_for(
    action: Span, ctx: Context, options: ModelOptions, *, prefills: bool = True
) -> tuple[ChatMessage, ...]:
    """The messages that ask for an answer to ``action``; every thunk in them is computed.

    First the system prompt of the options, then the items that the context shows, then the action. If the action
    has an ``assistant_prefix``, that follows as a message of the assistant, and, unless the server ``prefills``, a
    message that asks the model to continue it.
    """
    messages: list[ChatMessage] = []
    system = options.get(ModelOption.SYSTEM_PROMPT)
    if system is not None:
        messages.append(ChatMessage("system", str(system)))
    messages.extend(_read(ctx))
    messages.append(
        ChatMessage("user" if isinstance(action, Thunk) else role_of(action), text_of(action))
    )
    if isinstance(action, Component) and (beginning := action.assistant_prefix()):
        # Tokenizers join a space to the word after it: a prefix that ends with one makes models answer worse.
        messages.append(ChatMessage("assistant", beginning.rstrip()))
        if not prefills:
            messages.append(ChatMessage("user", GO_ON))
    return tuple(messages)


def answer_prefix_of(action: Span, *, prefills: bool) -> AnswerPrefix | None:
    """The prefix of the answer to an action, if it has one."""
    if isinstance(action, Component) and (beginning := action.assistant_prefix()):
        return AnswerPrefix(beginning, beginning, asked=not prefills)
    return None


def not_yet_read(ctx: Context) -> list[Span]:
    """The items of a context that no request has contained yet; thunks among them may not be computed."""
    shown = ctx.view_for_generation()
    return shown[len(_known_of(ctx, shown).items) :]


@attrs.frozen
class _Read:
    """A cache: the items that a conversation shows, and their messages.

    Earlier items do not change. Rendering all of them for each turn would make a long conversation quadratic, so
    a turn takes over the messages of the turn before.
    """

    items: tuple[Span, ...] = ()
    messages: tuple[ChatMessage, ...] = ()


_NOTHING_READ: Final = _Read()


def _read(ctx: Context) -> tuple[ChatMessage, ...]:
    """The items that a context shows, as messages."""
    shown = ctx.view_for_generation()
    known = _known_of(ctx, shown)
    new = shown[len(known.items) :]
    if new:
        messages = (ChatMessage(role_of(item), text_of(item)) for item in new)
        known = _Read(tuple(shown), (*known.messages, *messages))
    ctx.reading = known
    return known.messages


def _known_of(ctx: Context, shown: list[Span]) -> _Read:
    """The cached messages of the first items that a context shows."""
    node = ctx
    while node.reading is None:
        if node.previous_node is None:
            return _NOTHING_READ
        node = node.previous_node
    known = cast("_Read", node.reading)
    if node is not ctx:
        node.reading = None  # one copy for a conversation: its newest turn has it
        ctx.reading = known
    is_beginning = len(known.items) <= len(shown) and all(map(is_, known.items, shown))
    return known if is_beginning else _NOTHING_READ
