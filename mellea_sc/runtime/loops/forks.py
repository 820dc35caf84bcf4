"""Resets inherited state in a forked child: the parent's other threads and its event loops do not exist there."""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """An object with a lock, threads or event loops, which a forked child must not use."""

    def forked(self) -> None:
        """Called in a forked child: drop the parent's threads and loops, and replace its locks, which may be held."""
        ...


# Weak, because registering must not keep sessions alive; os.register_at_fork has no way to unregister.
_forkables: Final[WeakSet[Forkable]] = WeakSet()


def tell_of_forks(one: Forkable) -> None:
    """Register an object: its :meth:`Forkable.forked` is called in forked children, as long as it is alive."""
    _forkables.add(one)


def _forked() -> None:
    for one in list(_forkables):
        one.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
