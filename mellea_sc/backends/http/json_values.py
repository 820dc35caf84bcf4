"""Reads the fields of JSON from servers, without any assumption about their shape."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, cast

from mellea_sc.core.generation_info import ToolCallDelta, Usage

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


def value_or_text(text: str) -> object:
    """Parse a JSON value; the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def fields_of(value: object) -> Mapping[str, object]:
    """The fields of a nested object; empty if the value is something else."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def list_of(value: object) -> Sequence[object]:
    """The items of a nested array; empty if the value is something else."""
    return cast("list[object]", value) if isinstance(value, list) else ()


def text_in(content: object) -> str | None:
    """The text of a message's content: a string, or the text parts of a list (Mistral), without reasoning.

    ``None`` if it is anything else.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return None
    texts: list[str] = []
    for part in list_of(cast("object", content)):
        fields = fields_of(part)
        kind = fields.get("type")
        if kind in _THOUGHT:
            continue
        said = part if isinstance(part, str) else fields.get("text") or fields.get("refusal")
        text = fields_of(said).get("value", said)
        if isinstance(text, str):
            texts.append(text)
        elif kind in _TEXT and said:
            return None
    return "".join(texts)


_TEXT: Final = ("text", "output_text", "refusal")
_THOUGHT: Final = ("thinking", "reasoning")
"""Types of the parts of a message's content."""


def reasoning_in(fields: Mapping[str, object]) -> str:
    """The reasoning in a message or a delta: in a separate field, by any of its names, or among the parts of the
    content (Mistral's ``thinking``, Databricks' ``reasoning``).
    """
    for name in ("reasoning_content", "reasoning", "thinking", "reasoning_text"):
        if text := text_in(fields.get(name)):
            return text
    thoughts = [
        part.get(str(part["type"])) or part.get("text") or part.get("summary")
        for part in map(fields_of, list_of(fields.get("content")))
        if part.get("type") in _THOUGHT
    ]
    if not thoughts:  # MiniMax has only these; OpenRouter has them beside "reasoning"
        details = map(fields_of, list_of(fields.get("reasoning_details")))
        thoughts = [part.get("text") or part.get("summary") for part in details]
    return "".join(text_in(thought) or "" for thought in thoughts)


def calls_in(fields: Mapping[str, object], *, counted: bool = True) -> tuple[ToolCallDelta, ...]:
    """The pieces of tool calls in a message or a delta.

    Args:
        fields: The fields of the message or delta.
        counted: Whether the server's indices are reliable.
    """
    found = fields.get("tool_calls")
    pieces = [*map(fields_of, list_of(found)), fields_of(found)]
    old = fields_of(fields.get("function_call"))  # the old form, without "tools"
    if old and not any(pieces):
        pieces = [{"index": 0, "function": old}]
    return tuple(_call_in(piece, counted=counted) for piece in pieces if piece)


def _call_in(piece: Mapping[str, object], *, counted: bool) -> ToolCallDelta:
    called = fields_of(piece.get("function") or piece.get("custom"))
    said, name, index = piece.get("id"), called.get("name"), piece.get("index")
    arguments = called.get("arguments", called.get("input"))
    if not isinstance(arguments, str):  # some servers send the object itself instead of its JSON
        arguments = "" if arguments is None else json.dumps(arguments, ensure_ascii=False)
    return ToolCallDelta(
        said if isinstance(said, str) else "",
        name if isinstance(name, str) else "",
        arguments,
        _count(index) if counted else None,
    )


def usage_in(fields: Mapping[str, object], prompt: str, completion: str) -> Usage | None:
    """The usage, if the server reports the tokens of the answer. Negative numbers are ignored."""
    said = _count(fields.get(completion))
    return None if said is None else Usage(count_in(fields, prompt), said)


def count_in(fields: Mapping[str, object], name: str) -> int:
    """A number of tokens in a field; 0 if there is none."""
    return _count(fields.get(name)) or 0


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return cast("int", value) if is_count else None
