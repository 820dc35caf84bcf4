"""Reads a server's description of an error: a text, or an object, possibly nested, in one of the usual shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from mellea_sc.backends.http.json_values import fields_of, list_of

__all__ = ["objects_in", "strings_in", "words_of"]

_INSIDE: Final = ("error", "message", "detail")
"""Fields of an error object that hold its message or another error object."""
_DEPTH: Final = 4
"""How many levels of nested objects are searched."""


def objects_in(error: object, depth: int = _DEPTH) -> Iterator[Mapping[str, object]]:
    """An error object and those nested in it, the outermost first; of a list (Google), its first item."""
    for one in list_of(error)[:1]:
        yield from objects_in(one, depth)
    fields = fields_of(error)
    if fields and depth:
        yield fields
        for key in _INSIDE:
            yield from objects_in(fields.get(key), depth - 1)


def strings_in(error: object, *keys: str) -> Iterator[str]:
    """The strings in fields of these names, of an error object and those nested in it."""
    for fields in objects_in(error):
        for key in keys:
            if isinstance(value := fields.get(key), str):
                yield value


def words_of(error: object) -> str:
    """The message in an error object: that of the innermost one."""
    for _ in range(_DEPTH):
        fields = fields_of(error)
        inside = [fields[key] for key in _INSIDE if fields.get(key)]
        if not inside:
            break
        error = inside[0]
    return json.dumps(error) if isinstance(error, dict) else str(error)
