"""JSON that came from outside: nothing about it is taken for granted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

__all__ = ["count_in", "fields_of", "list_of", "parse_object"]


def parse_object(text: str) -> dict[str, object] | None:
    """The JSON object that a text stands for; ``None`` when it is anything else."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def fields_of(value: object) -> Mapping[str, object]:
    """The fields of an object inside; none where there is no object, or something else."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def list_of(value: object) -> Sequence[object]:
    """The items of an array inside; none where there is no array, or something else."""
    return cast("list[object]", value) if isinstance(value, list) else ()


def count_in(fields: Mapping[str, object], name: str) -> int:
    """A count among the fields; 0 where there is none."""
    value = fields.get(name)
    return value if isinstance(value, int) else 0
