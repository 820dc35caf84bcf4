"""From an action and a context to the request: wait for thunks, build the messages, make a name."""

from __future__ import annotations

from mellea_sc.core.backend import Format, GenerationRequest, schema_of
from mellea_sc.core.base import CBlock, Component, Context, Span, pending_thunks
from mellea_sc.core.errors import DependencyFailed, WrongEventLoop
from mellea_sc.core.model_options import ModelOptions, merge_options
from mellea_sc.core.prompt import messages_for, not_yet_read
from mellea_sc.runtime.nursery import Nursery

__all__ = ["describe", "request_for", "settle"]


async def settle(*spans: Span) -> None:
    """Wait for the thunks inside the spans.

    Raises:
        DependencyFailed: one of them failed or was cancelled; the message names it.
        WrongEventLoop: one of them is being generated in another event loop.
    """
    for thunk in pending_thunks(*spans):
        try:
            await thunk.avalue()
        except WrongEventLoop:
            raise
        except Exception as error:
            raise DependencyFailed(
                f"the prompt needs {thunk!r}, and that failed: {error}"
            ) from error


async def request_for(
    nursery: Nursery,
    action: Component | Span,
    ctx: Context,
    format: Format | None,
    model_options: ModelOptions | None,
) -> GenerationRequest:
    """Wait for the thunks that the prompt needs, and build the request.

    Raises:
        DependencyFailed: one of them failed.
        InvalidOption: an option or the format is not usable.
    """
    await settle(action, *not_yet_read(ctx))
    options = merge_options(nursery.options, model_options)
    messages = messages_for(action, ctx, options, prefills=nursery.backend.prefills)
    return GenerationRequest(messages, options, schema_of(format))


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
    said = " ".join(said.split())
    return f"{said[:57]}…" if len(said) > 58 else said
