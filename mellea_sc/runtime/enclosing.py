"""Code of the user's that would wait for itself.

A validator, a strategy or a tool runs in a task of its session, which ends only after it. If it waited for the end of
that task, or of the session, it would wait for ever; and as such a wait is often shielded, nothing could cancel it. So
the tasks in which such code runs are known to it, and whoever waits looks whether it is in one of them.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import attrs

from mellea_sc.core.errors import UsageError

if TYPE_CHECKING:
    from mellea_sc.runtime.nursery import Nursery


@attrs.define(eq=False)
class EnclosingTask:
    """A task in which code of the user's runs; it adds this to :data:`enclosing_tasks`.

    Args:
        nursery: The nursery that joins the task; ``None``: the event loop does, or the task has ended.
    """

    nursery: Nursery | None


enclosing_tasks: Final[ContextVar[tuple[EnclosingTask, ...]]] = ContextVar(
    "mellea_sc_enclosing_tasks", default=()
)
"""The tasks that cannot end before the caller returns, outermost first."""


def waits_for_itself(what: str, instead: str) -> UsageError:
    """The error for code that would wait for the end of a task that it runs in itself."""
    return UsageError(
        f"a validator, a strategy or a tool cannot wait for {what} that it is a part of: it would wait for itself. "
        f"{instead}"
    )
