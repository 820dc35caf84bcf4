"""Checks whether a response is an answer, and parses answers: ``format=``, a component's ``parse``."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

from mellea_sc.core.backend import CheckedSchema, Format, GenerationRequest
from mellea_sc.core.base import Component, Span
from mellea_sc.core.errors import EmptyAnswer, UnexpectedToolCalls
from mellea_sc.core.generation_info import GenerationInfo
from mellea_sc.core.tool_calls import asks_for_calls
from mellea_sc.core.usage import Usage

if TYPE_CHECKING:
    from mellea_sc.runtime.generation.thunk import ModelOutputThunk

log: Final = logging.getLogger("mellea_sc")

NOTHING_TO_SAY: Final = frozenset(
    {"stop", "eos", "eos_token", "end", "end_turn", "stop_sequence", "completed", "complete"}
)
"""The finish reasons of a model that has ended by itself. With one of them, and with a server that gives no reason, an
empty text is a valid answer: the model had nothing to say."""


def check_answered(known: GenerationInfo, request: GenerationRequest, *, has_text: bool) -> None:
    """Raise if a finished generation has given no answer.

    An empty text is an answer if the model ended by itself, without reasoning and without tool calls. Tool calls
    are an answer if the request has offered functions.

    Args:
        known: What is known besides the text.
        request: The request.
        has_text: Whether there is any text.

    Raises:
        EmptyAnswer: there is no text, because all tokens went into reasoning or the answer was cut off before it.
        UnexpectedToolCalls: the model calls functions, and the request has offered none.
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
    usage = known.usage or Usage()
    if not known.reasoning and not usage.reasoning_tokens:
        if known.finish_reason is None or known.finish_reason.lower() in NOTHING_TO_SAY:
            return
        went = "gave no text"
    else:
        tokens = usage.reasoning_tokens or usage.completion_tokens
        went = "gave no text: all that it generated is reasoning" + (
            f", {tokens} tokens of it" if tokens else ""
        )
    raise EmptyAnswer(
        f"{who} {went} (finish reason {known.finish_reason!r}){_advice(known)}",
        finish_reason=known.finish_reason,
        reasoning=known.reasoning,
        usage=known.usage,
    )


def _advice(known: GenerationInfo) -> str:
    if known.is_at_limit:
        return (
            ". It ran into its limit: raise ModelOption.MAX_NEW_TOKENS (or the context window), or have it "
            "think less"
        )
    return ". The error's reasoning has what it thought" if known.reasoning else ""


def read_meaning(
    thunk: ModelOutputThunk, text: str, action: Component | Span, format: Format | None
) -> None:
    """Set the ``parsed_repr`` of a thunk, and its ``format_error`` if the text does not fit the format.

    ``parsed_repr`` is the component's ``parse`` of the text, or the text; if the format is a class, an instance of
    it. It is ``None`` if the text does not fit the format, or if the format is a class and the answer is tool calls.
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


def misfit_of(text: str, format: Format) -> str | None:
    """Why a text does not fit its format; ``None``: it does."""
    return _read(text, format)[1]


def _read(text: str, format: Format) -> tuple[object, str | None]:
    """The value of a text in a format, and the reason why the text does not fit."""
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
    """The error's message on one line; pydantic's own message has links and the whole input in it."""
    if type(error).__module__.startswith("pydantic"):
        details = cast("Callable[[], Sequence[Mapping[str, object]]]", getattr(error, "errors"))  # noqa: B009 - pydantic, and so the error's type, is not imported here
        found = details()
        return "; ".join(f"{_place(one.get('loc'))}{one.get('msg')}" for one in found)
    return " ".join(str(error).split())


def _place(loc: object) -> str:
    return f"{'.'.join(map(str, cast('tuple[object, ...]', loc)))}: " if loc else ""


def warn_of_misfit(thunk: ModelOutputThunk) -> None:
    """Log that an answer does not fit its format."""
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
