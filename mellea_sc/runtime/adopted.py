"""A nursery that nobody enters: the event loop hosts it, as sessions are that are used without ``async with``."""

from __future__ import annotations

import anyio

from mellea_sc.runtime.failures import leaves_of, raise_unchanged
from mellea_sc.runtime.loops.current import pass_on_interrupt, spawn_root, tell_if_never_started
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.unobserved import log_unobserved

__all__ = ["AdoptedNursery"]


class AdoptedNursery:
    """A nursery that the running event loop hosts: cancelled and joined when the loop ends.

    Args:
        nursery: A nursery that nobody has entered.
    """

    def __init__(self, nursery: Nursery) -> None:
        self.nursery = nursery
        self._entered = anyio.Event()
        self._leave = anyio.Event()
        self._left = anyio.Event()
        self._outcome: BaseException | None = None
        spawn_root(
            tell_if_never_started(self._root, self._has_left), f"mellea_sc root of {nursery.name}"
        )

    @property
    def has_ended(self) -> bool:
        """Whether its tasks are gone."""
        return self._left.is_set()

    async def ready(self) -> Nursery:
        """The nursery, as soon as tasks can be started in it."""
        if not self._entered.is_set():
            await self._entered.wait()
        return self.nursery

    async def _root(self) -> None:
        try:
            async with self.nursery:
                self._entered.set()
                await self._leave.wait()
        except (BaseExceptionGroup, KeyboardInterrupt) as raised:
            errors = leaves_of(raised)
            failures = [error for error in errors if not isinstance(error, KeyboardInterrupt)]
            if failures:
                what = f"errors in {self.nursery.name} that nobody observed"
                self._outcome = BaseExceptionGroup(what, failures)
                if not self._leave.is_set():
                    log_unobserved(self.nursery.name, failures)
            if len(failures) < len(errors):
                pass_on_interrupt()
        finally:
            self._has_left()

    def _has_left(self) -> None:
        self._entered.set()
        self._left.set()

    async def aclose(self) -> None:
        """Join its tasks and end it.

        Raises:
            ExceptionGroup: of the errors that nobody observed.

        Cancellation: the tasks are cancelled, and their cleanup is waited for; errors go before, as in
        a task group.
        """
        self._leave.set()
        try:
            await self._left.wait()
        except BaseException:
            self.nursery.cancel("closing the session was cancelled")
            with anyio.CancelScope(shield=True):
                await self._left.wait()
            self._raise_outcome()
            raise
        self._raise_outcome()

    def _raise_outcome(self) -> None:
        if self._outcome is not None:
            outcome, self._outcome = self._outcome, None
            raise_unchanged(outcome)
