"""When a program in virtual time has come to a standstill, and who may still end it."""

from __future__ import annotations

import threading
from typing import Final

from mellea_sc.testing._loops.tasks import all_tasks
from mellea_sc.testing._loops.threads import is_idle, pool_of

__all__ = ["NETWORK_REFUSED", "WORKER_PATIENCE", "Bystanders", "Deadlock", "standstill"]

WORKER_PATIENCE: Final = 1.0
"""Real seconds for which virtual time waits for a worker thread that is silent."""
THREAD_PATIENCE: Final = 30.0
"""Real seconds after which other threads are not expected any more to wake a loop that stands still."""

NETWORK_REFUSED: Final = (
    "there is no network and there are no child processes in virtual time, since nobody could say "
    "how long they take: use a ScriptedBackend, or run this program in real time"
)


class Deadlock(AssertionError):
    """Nothing can run, nothing is due, and nobody else could wake the program."""


def standstill() -> Deadlock:
    """The error that says where every task of the running loop waits."""
    tasks = "".join(f"\n  {task}" for task in all_tasks())
    return Deadlock(f"nothing can run and no deadline is due:{tasks}")


class Bystanders:
    """The threads that were there before a run and do not take part in it."""

    def __init__(self) -> None:
        self._known = {*threading.enumerate()}

    def newcomers(self) -> set[threading.Thread]:
        """The threads that were started since and run.

        Those of the pools of anyio and trio are not among them: what they do is known precisely.
        """
        return {
            thread
            for thread in threading.enumerate()
            if thread not in self._known
            and not is_idle(thread)
            and pool_of(thread) in (None, "executor")
        }

    def may_wake(self) -> set[threading.Thread]:
        """The threads that could still wake a run in which nothing happens."""
        # A run outside the main thread was probably started by it, which may call into the run.
        callers = {threading.main_thread()} - {threading.current_thread()}
        return self.newcomers() | callers
