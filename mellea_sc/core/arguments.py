"""Arguments that take several things."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from mellea_sc.core.errors import InvalidOption

__all__ = ["several"]

T = TypeVar("T")


def several(name: str, given: Iterable[T] | None) -> list[T]:
    """What an argument was given; a ``str`` is no list of its letters.

    Raises:
        InvalidOption: it is a ``str``, or nothing that can be iterated; the message shows the list to write.
    """
    if given is None:
        return []
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidOption(f"{name} takes a list: {name}=[{given!r}]")
    return list(given)
