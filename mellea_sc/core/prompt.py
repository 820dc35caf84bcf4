"""From an action and a conversation to a request: wait for their thunks, make the messages, and a name for people.

It starts nothing: whoever needs a prompt waits, in its own task, for the thunks in it.
"""

from __future__ import annotations

from operator import is_
from typing import Final, cast

import attrs

from mellea_sc.core.answer_prefix import AnswerPrefix
from mellea_sc.core.backend import ChatMessage, Format, GenerationRequest, schema_of
from mellea_sc.core.base import (
    CBlock,
    Component,
    Context,
    Span,
    pending_thunks,
    role_of,
    text_of,
)
from mellea_sc.core.errors import DependencyFailed, WrongEventLoop
from mellea_sc.core.model_options import ModelOption, ModelOptions

GO_ON: Final = "Continue your answer."
"""With a longer sentence, small models begin again instead of continuing; measured in benchmarks/PROMPTING.md."""


def describe(action: Component | Span) -> str:
    """A short name for a generation: the beginning of the action's text."""
    match action:
        case str():
            said = action
        case CBlock():
            said = action.value
        case Component():
            said = action.summary()
        case _:
            said = repr(action)
    if (line := " ".join(said.split())) != said:
        said = line  # else the text itself, and no copy of it with each of thousands of thunks
    return f"{said[:57]}…" if len(said) > 58 else said


async def settle(action: Span, ctx: Context | None = None) -> None:
    """Wait for the thunks that a prompt needs: those of an action, and those that a conversation shows before it.

    Raises:
        DependencyFailed: one of them failed or was cancelled; the message names it.
        WrongEventLoop: one of them is being generated in another event loop.

    Cancellation: only the waiting ends.
    """
    spans = [action]
    if ctx is not None and (shown := ctx.view_for_generation()):
        # those before have been in a request already
        spans += shown[len(_known_of(ctx, shown).items) :]
    for thunk in pending_thunks(*spans):
        try:
            await thunk.avalue()
        except WrongEventLoop:
            raise
        except Exception as error:
            raise DependencyFailed(
                f"the prompt needs {thunk!r}, and that failed: {_first_cause(error)}"
            ) from error


def _first_cause(error: BaseException) -> BaseException:
    """What began a chain of failures: each message with all of those before it would be as long as the chain."""
    while isinstance(error, DependencyFailed) and error.__cause__ is not None:
        error = error.__cause__
    return error


async def request_for(
    action: Span, ctx: Context, options: ModelOptions, format: Format | None, *, prefills: bool
) -> tuple[GenerationRequest, AnswerPrefix | None]:
    """Wait for the thunks that a prompt needs, and make the request; the prefix of its answer, if it has one.

    Raises:
        DependencyFailed: one of them failed.
        InvalidOption: the format is not usable.

    Cancellation: only the waiting ends.
    """
    await settle(action, ctx)
    messages = messages_for(action, ctx, options, prefills=prefills)
    schema = None if format is None else schema_of(format)
    prefix = None
    if isinstance(action, Component) and (beginning := action.assistant_prefix()):
        prefix = AnswerPrefix(beginning, beginning, asked=not prefills)
    return GenerationRequest(messages, options, schema), prefix


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
    if shown := ctx.view_for_generation():
        known = _known_of(ctx, shown)
        if new := shown[len(known.items) :]:
            more = (ChatMessage(role_of(item), text_of(item)) for item in new)
            known = _Read(tuple(shown), (*known.messages, *more))
        ctx.reading = known
        messages.extend(known.messages)
    role = action.role if isinstance(action, Component) else "user"
    messages.append(ChatMessage(role, text_of(action)))
    if isinstance(action, Component) and (beginning := action.assistant_prefix()):
        # Tokenizers join a space to the word after it: a prefix that ends with one makes models answer worse.
        messages.append(ChatMessage("assistant", beginning.rstrip()))
        if not prefills:
            messages.append(ChatMessage("user", GO_ON))
    return tuple(messages)


@attrs.frozen
class _Read:
    """A cache: the items that a conversation shows, and their messages.

    Earlier items do not change. Rendering all of them for each turn would make a long conversation quadratic, so
    a turn takes over the messages of the turn before.
    """

    items: tuple[Span, ...] = ()
    messages: tuple[ChatMessage, ...] = ()


_NOTHING_READ: Final = _Read()


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
