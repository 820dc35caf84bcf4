"""Errors that nobody has been told of yet.

Each generation and each run has an :class:`OwnError`. What becomes of the error that it fails with::

    it is raised to somebody                         that is all
    the thunk or the run was cancelled by its user   logged: nobody will ask for it
    the session is left                              raised, in one group
      … which has ``on_error="log"``                 logged; and before that, when the thunk or run is forgotten
"""

from __future__ import annotations

import inspect
import logging
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Literal, TypeAlias

from mellea_sc.core.errors import BudgetExceeded
from mellea_sc.runtime.failures import leaves_of

__all__ = ["OnError", "OwnError", "Unobserved", "log_unobserved"]

log: Final = logging.getLogger("mellea_sc")

OnError: TypeAlias = Literal["hold", "cancel", "log"]


class Unobserved:
    """The errors of one nursery that nobody has been told of.

    Args:
        name: The nursery's, for people.
        on_error: ``"log"``: they are not kept here, and logged when nobody can be told of them any more.
    """

    def __init__(self, name: str, on_error: OnError) -> None:
        self.name: str = name
        self.keeps: bool = on_error != "log"
        """Whether errors are kept to be raised at the end; otherwise what nobody was told of is logged."""
        # in order; with "log" only those whose generations or runs somebody still has
        self._pending: dict[OwnError, None] | weakref.WeakKeyDictionary[OwnError, None] = (
            {} if self.keeps else weakref.WeakKeyDictionary()
        )

    def add(self, error: OwnError) -> None:
        """Somebody has to be told of it."""
        self._pending[error] = None

    def discard(self, error: OwnError) -> None:
        """Somebody was told of it."""
        self._pending.pop(error, None)

    def take(self) -> list[Exception]:
        """What nobody was told of, once: to be raised. With ``on_error="log"`` it is logged instead."""
        pending = list(self._pending)
        if not self.keeps:
            for one in pending:
                one.dismiss()
            return []
        self._pending, self.keeps = weakref.WeakKeyDictionary(), False  # what comes now is logged
        return [one.to_raise() for one in pending]


class OwnError:
    """The error of one generation or run, if it fails, and whether somebody has been told of it.

    Args:
        unobserved: Where it is kept until somebody is told of it.
        starts_here: Whether the program starts it now, so that a log can say which line does.
    """

    __slots__ = (
        "__weakref__",
        "_context",
        "_is_dismissed",
        "_started_at",
        "_traceback",
        "_unobserved",
        "error",
        "is_pending",
    )

    def __init__(self, unobserved: Unobserved, *, starts_here: bool = False) -> None:
        self.error: Exception | None = None
        self.is_pending: bool = False
        """Whether it has failed, and somebody has to be told of that yet."""
        self._unobserved = unobserved
        self._started_at = _line_that_calls() if starts_here and not unobserved.keeps else ""
        self._is_dismissed = False
        self._traceback: TracebackType | None = None
        self._context: BaseException | None = None

    def fail(self, error: Exception) -> None:
        """It has failed. Nobody has to be told of a limit that an enclosing block raises an error for."""
        assert self.error is None
        self.error, self._traceback, self._context = error, error.__traceback__, error.__context__
        if all(
            isinstance(one, BudgetExceeded) and one.raised_elsewhere for one in leaves_of(error)
        ):
            return
        if self._is_dismissed:
            self._log()
        else:
            self.is_pending = True
            self._unobserved.add(self)

    def to_raise(self) -> Exception:
        """The error, to be raised: the same each time, and as it was the first time. Somebody is told of it."""
        assert self.error is not None
        self.mark_raised()
        self.error.__context__ = self._context
        return self.error.with_traceback(self._traceback)

    def mark_raised(self) -> None:
        """Somebody has been told of it, if there is an error."""
        if self.is_pending:
            self.is_pending = False
            self._unobserved.discard(self)

    def dismiss(self) -> None:
        """Nobody will ask for it: it is logged, now or when it comes, unless somebody was told of it."""
        self._is_dismissed = True
        if self.is_pending:
            self.mark_raised()
            self._log()

    def _log(self) -> None:
        assert self.error is not None
        started = f" (started at {self._started_at})" if self._started_at else ""
        log_unobserved(f"{self._unobserved.name}{started}", [self.error])

    def __del__(self) -> None:
        if self.is_pending and not self._unobserved.keeps:
            self._log()


def log_unobserved(name: str, errors: Iterable[BaseException]) -> None:
    """Say in the log what cannot be raised any more."""
    for error in errors:
        log.error("an error in %s that nobody observed", name, exc_info=error)


def _line_that_calls() -> str:
    frame = inspect.currentframe()
    assert frame is not None
    while frame.f_globals.get("__name__", "").partition(".")[0] == "mellea_sc" and frame.f_back:
        frame = frame.f_back
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"
