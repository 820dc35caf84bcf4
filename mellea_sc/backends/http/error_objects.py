"""Reads a server's description of an error: a text, or an object, possibly nested, in one of the usual shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from mellea_sc.backends.http.json_values import fields_of, list_of, value_or_text

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


def words_of(error: object, depth: int = _DEPTH) -> str:
    """The message in an error object: those of the objects in it, joined if there are several.

    ``{"error": "Bad Request", "message": "too long"}`` has two, and so has OpenRouter's error with its provider's.
    """
    for one in list_of(error)[:1]:
        if _insides_of(one):  # Google's errors are lists of one
            error = one
    said: list[str] = []
    for inside in _insides_of(error) if depth else ():
        if isinstance(inside, str):
            words = inside
        elif said and not _insides_of(inside):
            continue  # not an error: the message of a chat, perhaps
        else:
            words = words_of(inside, depth - 1)
        if not any(words in other for other in said):
            said.append(words)
    if said:
        return ": ".join(said)
    return json.dumps(error) if isinstance(error, dict) else str(error)


def _insides_of(error: object) -> list[object]:
    """What an error object has in the fields for its message."""
    fields = fields_of(error)
    raw = fields_of(fields.get("metadata")).get("raw")
    values = [fields.get(key) for key in _INSIDE]
    values.append(
        value_or_text(raw) if isinstance(raw, str) else raw
    )  # of the provider, through OpenRouter
    return [value for value in values if value and isinstance(value, str | dict | list)]
