"""Whether what a model has said is an answer, and what an answer means."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from mellea_sc.core.backend import CheckedSchema, Format, GenerationRequest
from mellea_sc.core.base import Component, Span
from mellea_sc.core.errors import EmptyAnswer, UnexpectedToolCalls
from mellea_sc.core.generation_info import GenerationInfo
from mellea_sc.core.tool_calls import asks_for_calls
from mellea_sc.runtime.generation.thunk import ModelOutputThunk

__all__ = ["check_said", "misfit_of", "read_meaning", "warn_of_misfit"]

log: Final = logging.getLogger("mellea_sc")

NOTHING_TO_SAY: Final = frozenset(
    {None, "stop", "eos", "eos_token", "end", "end_turn", "stop_sequence", "completed", "complete"}
)
"""Why a model ends that has come to its end, in the words of servers; ``None`` is a server that does not tell.
Then no text is what it has to say."""


def check_said(known: GenerationInfo, request: GenerationRequest, *, has_text: bool) -> None:
    """Raise where a model has come to its end and has given no answer.

    No text at all is an answer if the model ended by itself, without a thought and without a call. Calls are
    one if the request has offered functions.

    Args:
        known: All but the text.
        request: What was asked.
        has_text: Whether there is any.

    Raises:
        EmptyAnswer: there is no text, and it went elsewhere or was not begun.
        UnexpectedToolCalls: there are calls that nobody has offered.
    """
    who = f"{known.provider} ({known.model})"
    if known.tool_calls and not asks_for_calls(request.options):
        names = ", ".join(f"{call.name or 'one without a name'}()" for call in known.tool_calls)
        raise UnexpectedToolCalls(
            f"{who} wants tools to be called that nobody has offered: {names}. Offer them with "
            "model_options={'tools': […]}, and read the thunk's tool_calls",
            tool_calls=known.tool_calls,
            usage=known.usage,
        )
    if has_text or known.tool_calls:
        return
    if not known.reasoning and not _reasoning_tokens(known):
        if known.finish_reason in NOTHING_TO_SAY:
            return
        went = "gave no text"
    else:
        tokens = _reasoning_tokens(known) or _completion_tokens(known)
        went = "gave no text: all that it generated is reasoning" + (
            f", {tokens} tokens of it" if tokens else ""
        )
    raise EmptyAnswer(
        f"{who} {went} (finish reason {known.finish_reason!r}){_advice(known)}",
        finish_reason=known.finish_reason,
        reasoning=known.reasoning,
        usage=known.usage,
    )


def _reasoning_tokens(known: GenerationInfo) -> int:
    return known.usage.reasoning_tokens if known.usage else 0


def _completion_tokens(known: GenerationInfo) -> int:
    return known.usage.completion_tokens if known.usage else 0


def _advice(known: GenerationInfo) -> str:
    if known.is_broken_off and known.finish_reason != "content_filter":
        return (
            ". It ran into its limit: raise ModelOption.MAX_NEW_TOKENS (or the context window), or have it "
            "think less"
        )
    return ". The error's reasoning has what it thought" if known.reasoning else ""


def read_meaning(
    thunk: ModelOutputThunk, text: str, action: Component | Span, format: Format | None
) -> None:
    """Set what the text of a thunk means, and why it does not fit its format, if it does not.

    It means what the component reads in it, or itself; a format that is a class gives an instance instead.
    It means nothing, ``None``, where it does not fit its format, or where a class was asked for and the model wants
    functions to be called.
    """
    has_answer = bool(text) or not thunk.tool_calls
    if format is not None and has_answer:
        instance, thunk.format_error = _read(text, format)
    else:
        instance = None
    if isinstance(format, type) or thunk.format_error is not None:
        thunk.parsed_repr = instance
    else:
        thunk.parsed_repr = action.parse(text) if isinstance(action, Component) else text


def misfit_of(text: str, format: Format | None) -> str | None:
    """Why a text does not fit its format; ``None``: it does."""
    return None if format is None else _read(text, format)[1]


def _read(text: str, format: Format) -> tuple[object, str | None]:
    """The value that a text stands for in a format, and why it does not fit it."""
    try:
        if isinstance(format, CheckedSchema):
            return None, format.misfit_of(text)
        if isinstance(format, Mapping):
            json.loads(text)
            return None, None
        return format.model_validate_json(text), None
    except (ValueError, RecursionError) as error:
        wanted = "JSON" if isinstance(format, Mapping) else format.__name__
        return None, f"the answer is no {wanted}: {_words_of(error)}"


def _words_of(error: Exception) -> str:
    """What is wrong, on one line; pydantic's own words have links and the whole input in them."""
    if type(error).__module__.startswith("pydantic"):
        details = cast("Callable[[], Sequence[Mapping[str, object]]]", getattr(error, "errors"))  # noqa: B009 - it is not imported
        found = details()
        return "; ".join(f"{_place(one.get('loc'))}{one.get('msg')}" for one in found)
    return " ".join(str(error).split())


def _place(loc: object) -> str:
    return f"{'.'.join(map(str, cast('tuple[object, ...]', loc)))}: " if loc else ""


def warn_of_misfit(thunk: ModelOutputThunk) -> None:
    """Log that an answer does not fit its format, if it does not."""
    if thunk.format_error is None:
        return
    known = thunk.generation
    why = (
        f"; it was broken off (finish reason {known.finish_reason!r})"
        if known.is_broken_off
        else ""
    )
    log.warning(
        "asked for %r with a format: %s%s. The text is the value, and parsed_repr is None",
        thunk.name,
        thunk.format_error,
        why,
    )
