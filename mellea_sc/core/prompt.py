"""From a conversation of spans to the messages that a model reads. Pure text work."""

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
"""More words than these make a small model begin anew, see benchmarks/PROMPTING.md."""


def messages_for(
    action: Span, ctx: Context, options: ModelOptions, *, prefills: bool = True
) -> tuple[ChatMessage, ...]:
    """The conversation that asks for an answer to ``action``; every thunk in it is computed.

    The system prompt of the options comes first; then what the context shows; then the action, and
    last, where the action wants one, the beginning of the answer as a message of the assistant's. A model
    that does not write on from there, by ``prefills``, is asked to.
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
        # White space at its end would mislead a tokenizer.
        messages.append(ChatMessage("assistant", beginning.rstrip()))
        if not prefills:
            messages.append(ChatMessage("user", GO_ON))
    return tuple(messages)


def answer_prefix_of(action: Span, *, prefills: bool) -> AnswerPrefix | None:
    """What the answer to an action has to begin with, where the action says so."""
    if isinstance(action, Component) and (beginning := action.assistant_prefix()):
        return AnswerPrefix(beginning, beginning, asked=not prefills)
    return None


def not_yet_read(ctx: Context) -> list[Span]:
    """The items that a context shows and that were in no request yet: thunks among them may have to be waited for."""
    shown = ctx.view_for_generation()
    return shown[len(_known_of(ctx, shown).items) :]


@attrs.frozen
class _Read:
    """What a conversation shows, and how it reads.

    What was said before does not change. Reading all of it again for each turn would make the work of a
    long conversation quadratic, so a turn takes over what the one before it has read.
    """

    items: tuple[Span, ...] = ()
    messages: tuple[ChatMessage, ...] = ()


_NOTHING_READ: Final = _Read()


def _read(ctx: Context) -> tuple[ChatMessage, ...]:
    """What a context shows, as messages."""
    shown = ctx.view_for_generation()
    known = _known_of(ctx, shown)
    new = shown[len(known.items) :]
    if new:
        messages = (ChatMessage(role_of(item), text_of(item)) for item in new)
        known = _Read(tuple(shown), (*known.messages, *messages))
    ctx._rendered = known
    return known.messages


def _known_of(ctx: Context, shown: list[Span]) -> _Read:
    """What is known of the beginning of the items that a context shows."""
    node = ctx
    while node._rendered is None:
        if node._previous is None:
            return _NOTHING_READ
        node = node._previous
    known = cast("_Read", node._rendered)
    if node is not ctx:
        node._rendered = None  # one copy for a conversation: its newest turn has it
        ctx._rendered = known
    is_beginning = len(known.items) <= len(shown) and all(map(is_, known.items, shown))
    return known if is_beginning else _NOTHING_READ
