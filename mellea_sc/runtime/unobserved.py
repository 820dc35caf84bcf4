"""Errors that no caller has observed yet: "no error is lost".

Each generation and each run has an :class:`OwnError`. If it fails, one of these happens to the error::

    a caller awaits or reads it                        raised there: it is observed
    the user calls cancel() on the thunk or the run    logged: nobody will ask for it
    the session is left                                raised, in one group with the others
    the session has ``on_error="log"``                 logged, when the thunk or run is garbage collected, or
                                                       at the latest when the session is left
"""

from __future__ import annotations

import inspect
import logging
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Literal, TypeAlias

import attrs

from mellea_sc.core.errors import BudgetExceeded
from mellea_sc.runtime.failures import LOOPS, leaf_errors, package_of, set_unchecked

log: Final = logging.getLogger("mellea_sc")

OnError: TypeAlias = Literal["hold", "cancel", "log"]


class Unobserved:
    """The errors of one nursery that nobody has observed.

    Args:
        name: The nursery's name, for people.
        on_error: ``"log"``: they are held weakly, and logged when nobody can observe them any more.
    """

    def __init__(self, name: str, on_error: OnError) -> None:
        self.name: str = name
        self.keeps: bool = on_error != "log"
        """Whether errors are kept to be raised at the end; otherwise they are logged."""
        # A dict, because it has an order. With "log" the references are weak: a server's session lives for long,
        # and must not keep every failed thunk. When the thunk goes, OwnError.__del__ logs its error.
        self._pending: dict[OwnError, None] | weakref.WeakKeyDictionary[OwnError, None] = (
            {} if self.keeps else weakref.WeakKeyDictionary()
        )

    def add(self, error: OwnError) -> None:
        """Remember an error that nobody has observed."""
        self._pending[error] = None

    def discard(self, error: OwnError) -> None:
        """Forget an error: somebody has observed it."""
        self._pending.pop(error, None)

    def take(self) -> list[Exception]:
        """Remove and return the errors that nobody has observed; with ``on_error="log"`` they are logged instead."""
        pending = list(self._pending)
        if not self.keeps:
            for one in pending:
                one.dismiss()
            return []
        # The session ends: nobody will raise what comes after this, so from now on errors are logged.
        self._pending, self.keeps = weakref.WeakKeyDictionary(), False
        return [one.to_raise() for one in pending]


@attrs.define(eq=False, repr=False)
class OwnError:
    """The error of one generation or run, if it fails, and whether somebody has observed it.

    Args:
        unobserved: Where it is remembered until somebody observes it.
        work: What the calling line of the program starts, so that the log can say which work has failed.
    """

    _unobserved: Unobserved
    _work: str | None = attrs.field(default=None, kw_only=True, alias="work")
    error: Exception | None = attrs.field(default=None, init=False)
    is_pending: bool = attrs.field(default=False, init=False)
    """Whether it has failed and nobody has observed that yet."""
    _started: str = attrs.field(default="", init=False)
    _is_dismissed: bool = attrs.field(default=False, init=False)
    _traceback: TracebackType | None = attrs.field(default=None, init=False)
    _context: BaseException | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if self._work is not None and not self._unobserved.keeps:
            self._started = _started(self._work)

    def fail(self, error: Exception) -> None:
        """Record the failure. It counts as observed if an enclosing block with limits raises an error for it."""
        assert self.error is None
        self.error, self._traceback, self._context = error, error.__traceback__, error.__context__
        if all(
            isinstance(one, BudgetExceeded) and one.raised_elsewhere for one in leaf_errors(error)
        ):
            return
        if self._is_dismissed:
            self._log()
        else:
            self.is_pending = True
            self._unobserved.add(self)

    def to_raise(self) -> Exception:
        """The error, for the caller to raise; it is then observed. It is the same error each time."""
        assert self.error is not None
        self.mark_raised()
        # Each raise adds frames to the traceback and may set the context. Without this, the tenth waiter would
        # see the tracebacks of nine others.
        set_unchecked(self.error, "__context__", self._context)
        return self.error.with_traceback(self._traceback)

    def mark_raised(self) -> None:
        """Mark the error, if there is one, as observed."""
        if self.is_pending:
            self.is_pending = False
            self._unobserved.discard(self)

    def dismiss(self) -> None:
        """Say that nobody will ask for the error: it is logged now, or when it comes, unless it was observed."""
        self._is_dismissed = True
        if self.is_pending:
            self.mark_raised()
            self._log()

    def _log(self) -> None:
        assert self.error is not None
        log_unobserved(f"{self._unobserved.name}{self._started}", [self.error])

    def __del__(self) -> None:
        # Nobody holds the thunk or run any more, so nobody can observe its error.
        if self.is_pending and not self._unobserved.keeps:
            self._log()


def log_unobserved(name: str, errors: Iterable[BaseException]) -> None:
    """Log errors that cannot be raised any more."""
    for error in errors:
        log.error("an error in %s that nobody observed", name, exc_info=error)


def _started(work: str) -> str:
    frame = inspect.currentframe()
    assert frame is not None
    while (package := package_of(frame)) == "mellea_sc" and frame.f_back:
        frame = frame.f_back
    if package in LOOPS:
        # asyncio.gather(m.ainstruct("…"), …): the line has made a coroutine, and a task has started the work
        return f" ({work!r}, started in a task of its own)"
    code = frame.f_code
    return f" ({work!r}, started at {code.co_filename}:{frame.f_lineno} in {code.co_qualname})"
