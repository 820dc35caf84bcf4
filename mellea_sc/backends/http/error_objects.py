"""What a server says of an error: an object, with others inside, in whichever of the usual shapes; or a text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from mellea_sc.backends.http.json_values import fields_of, list_of

__all__ = ["objects_in", "strings_in", "words_of"]

_INSIDE: Final = ("error", "message", "detail")
"""Where an error object has its words, or another error object."""
_DEPTH: Final = 4
"""Objects within one another that are looked into."""


def objects_in(error: object, depth: int = _DEPTH) -> Iterator[Mapping[str, object]]:
    """An error object and those inside, the outermost first; of a list (Google's), the first one."""
    for one in list_of(error)[:1]:
        yield from objects_in(one, depth)
    fields = fields_of(error)
    if fields and depth:
        yield fields
        for key in _INSIDE:
            yield from objects_in(fields.get(key), depth - 1)


def strings_in(error: object, *keys: str) -> Iterator[str]:
    """The strings that an error object, and those inside, have in fields of these names."""
    for fields in objects_in(error):
        for key in keys:
            if isinstance(value := fields.get(key), str):
                yield value


def words_of(error: object) -> str:
    """The words in an error object: those of the innermost one."""
    for _ in range(_DEPTH):
        fields = fields_of(error)
        inside = [fields[key] for key in _INSIDE if fields.get(key)]
        if not inside:
            break
        error = inside[0]
    return json.dumps(error) if isinstance(error, dict) else str(error)
