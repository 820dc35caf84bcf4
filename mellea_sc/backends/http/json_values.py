"""JSON that came from outside: nothing about it is taken for granted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, cast

from mellea_sc.core.usage import Usage

__all__ = [
    "count_in",
    "fields_of",
    "list_of",
    "parse_object",
    "text_in",
    "usage_in",
    "value_or_text",
]


_BLANK: Final = " \t\n\r"
_decode: Final = json.JSONDecoder().raw_decode


def parse_object(text: str) -> dict[str, object] | None:
    """The JSON object that a text stands for; ``None`` when it is anything else.

    An array of one object is that object: Google's errors are.
    """
    text = text.strip(_BLANK)
    try:
        # Not json.loads: what it does around the decoder takes as long as the decoder, for a short text.
        value, end = cast("tuple[object, int]", _decode(text))
    except (ValueError, RecursionError):
        return None
    if end != len(text):
        return None
    if isinstance(value, list) and len(items := list_of(cast("object", value))) == 1:
        value = items[0]
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def value_or_text(text: str) -> object:
    """The JSON value that a text stands for; the text itself where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def fields_of(value: object) -> Mapping[str, object]:
    """The fields of an object inside; none where there is no object, or something else."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def list_of(value: object) -> Sequence[object]:
    """The items of an array inside; none where there is no array, or something else."""
    return cast("list[object]", value) if isinstance(value, list) else ()


def text_in(content: object) -> str | None:
    """The text of a content: a string, or a list of parts (Mistral's), of which those with text count.

    ``None`` when it is anything else.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return None
    texts: list[str] = []
    for part in list_of(cast("object", content)):
        text = part if isinstance(part, str) else fields_of(part).get("text")
        texts += [text] if isinstance(text, str) else []
    return "".join(texts)


def usage_in(fields: Mapping[str, object], prompt: str, completion: str) -> Usage | None:
    """The tokens used, if the server says how many the answer has. A number below 0 says nothing."""
    said = _count(fields.get(completion))
    return None if said is None else Usage(_count(fields.get(prompt)) or 0, said)


def count_in(fields: Mapping[str, object], name: str) -> int:
    """A count among the fields; 0 where there is none."""
    return _count(fields.get(name)) or 0


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return cast("int", value) if is_count else None
