"""Arguments that take a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from mellea_sc.core.errors import InvalidOption

__all__ = ["several"]

T = TypeVar("T")


def several(name: str, given: Iterable[T] | None) -> list[T]:
    """The items of an argument as a list.

    Raises:
        InvalidOption: the argument cannot be iterated, or is a ``str``, which would be taken for a list of its
            letters. The message shows the list to write.
    """
    if given is None:
        return []
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidOption(f"{name} takes a list: {name}=[{given!r}]")
    return list(given)
