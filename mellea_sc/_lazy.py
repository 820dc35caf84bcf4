"""Public names whose modules are imported when the names are first used: an import costs what is used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

__all__ = ["importing"]


def importing(package: str, rooms: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """A package's ``__getattr__``.

    Args:
        package: The package.
        rooms: The names that each module has.
    """
    room_of = {name: room for room, names in rooms.items() for name in names}

    def get(name: str) -> object:
        if (room := room_of.get(name)) is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(room), name)
        setattr(sys.modules[package], name, value)
        return value

    return get
