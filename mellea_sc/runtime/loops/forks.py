"""What a forked child process must not believe in: other threads and event loops stay in the parent."""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet

__all__ = ["Forkable", "tell_of_forks"]


class Forkable(Protocol):
    """Something that other threads or event loops may be in the middle of."""

    def forked(self) -> None:
        """This is a forked child: forget the parent's threads and loops, and the locks that they held."""
        ...


_told: Final[WeakSet[Forkable]] = WeakSet()


def tell_of_forks(one: Forkable) -> None:
    """Have its :meth:`Forkable.forked` called, as long as it lives, at the beginning of a forked child."""
    _told.add(one)


def _forked() -> None:
    for one in list(_told):
        one.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
