"""Errors that nobody has observed yet.

An error belongs to the thunk or the run that failed with it. That one holds on to a :class:`Held` until
somebody is told of the error::

    it is raised to somebody                         observed
    the thunk or the run was cancelled by its user   logged: nobody will ask for it
    the session is left                              raised, in one group
      … which has ``on_error="log"``                 logged; and before that, when the thunk or run is forgotten
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

__all__ = ["Held", "OnError", "Unobserved", "log_unobserved"]

log: Final = logging.getLogger("mellea_sc")

OnError: TypeAlias = Literal["hold", "cancel", "log"]


class Unobserved:
    """The errors of one nursery that nobody has observed.

    Args:
        name: The nursery's, for people.
        on_error: ``"log"``: they are not kept here, and logged when nobody can observe them any more.
    """

    def __init__(self, name: str, on_error: OnError) -> None:
        self._name = name
        self._keeps = on_error != "log"
        # in order; with "log" only those that their owners keep
        self._kept: dict[Held, None] | weakref.WeakKeyDictionary[Held, None] = (
            {} if self._keeps else weakref.WeakKeyDictionary()
        )

    def hold(self, error: Exception, where: str = "") -> Held:
        """Remember an error until it is observed.

        Args:
            error: The error.
            where: Where in the program was started what has failed.
        """
        held = Held(self, error, where)
        self._kept[held] = None
        return held

    def where(self) -> str:
        """The line of the program that is calling, where that will be logged."""
        return "" if self._keeps else _line_that_calls()

    def take(self) -> list[Exception]:
        """What was not observed, once: to be raised. With ``on_error="log"`` it is logged instead."""
        left = list(self._kept)
        if not self._keeps:
            for held in left:
                held.let_go()
            return []
        self._kept, self._keeps = weakref.WeakKeyDictionary(), False  # what comes now is logged
        errors = [held.error for held in left if held.error is not None]
        for held in left:
            held.error = None
        return errors

    def forget(self, held: Held) -> None:
        """It was observed, or logged."""
        self._kept.pop(held, None)

    def log(self, error: Exception, where: str) -> None:
        """Say it in the log."""
        log_unobserved(f"{self._name}{f' (started at {where})' if where else ''}", [error])

    def is_logged_when_forgotten(self) -> bool:
        """Whether an error that nobody can observe any more is to be logged."""
        return not self._keeps


class Held:
    """An error that nobody has observed yet."""

    __slots__ = ("__weakref__", "_of", "_where", "error")

    def __init__(self, of: Unobserved, error: Exception, where: str) -> None:
        self.error: Exception | None = error
        self._of = of
        self._where = where

    def observed(self) -> None:
        """Somebody has been told of it."""
        self.error = None
        self._of.forget(self)

    def let_go(self) -> None:
        """Nobody will ask for it: say it in the log, if nobody was told of it."""
        error, self.error = self.error, None
        if error is not None:
            self._of.forget(self)
            self._of.log(error, self._where)

    def __del__(self) -> None:
        if self.error is not None and self._of.is_logged_when_forgotten():
            self._of.log(self.error, self._where)


def log_unobserved(name: str, errors: Iterable[BaseException]) -> None:
    """Say in the log what cannot be raised any more."""
    for error in errors:
        log.error("an error in %s that nobody observed", name, exc_info=error)


def _line_that_calls() -> str:
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__", "").partition(".")[0] == "mellea_sc" and frame.f_back:
        frame = frame.f_back
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
