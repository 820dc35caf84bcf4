"""A nursery that nobody enters: the event loop hosts it, or another nursery, as those of a bare session and its clones."""

from __future__ import annotations

import anyio

from mellea_sc.runtime.failures import leaves_of, raise_unchanged
from mellea_sc.runtime.loops.current import pass_on_interrupt, spawn_root, tell_if_never_started
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.unobserved import OwnError, log_unobserved

__all__ = ["AdoptedNursery"]


class AdoptedNursery:
    """A nursery that the running event loop hosts, or another nursery: joined and ended with it.

    The loop cancels it. A nursery that is left normally joins it, and takes over what nobody has observed.

    Args:
        nursery: A nursery that nobody has entered.
        host: The nursery that hosts it.
    """

    def __init__(self, nursery: Nursery, host: Nursery | None = None) -> None:
        self.nursery = nursery
        self.name: str = f"mellea_sc root of {nursery.name}"
        self._host = host
        self._is_closed = False
        self._entered = anyio.Event()
        self._leave = anyio.Event()
        self._left = anyio.Event()
        self._outcome: BaseException | None = None
        if host is not None:
            host.admit(self)
        else:
            spawn_root(tell_if_never_started(self.run, self.has_left), self.name)

    @property
    def has_ended(self) -> bool:
        """Whether its tasks are gone."""
        return self._left.is_set()

    async def ready(self) -> Nursery:
        """The nursery, as soon as tasks can be started in it."""
        if not self._entered.is_set():
            await self._entered.wait()
        return self.nursery

    async def run(self) -> None:
        """What the task of the host does."""
        try:
            async with self.nursery:
                self._entered.set()
                await self._leave.wait()
        except (BaseExceptionGroup, KeyboardInterrupt) as raised:
            errors = leaves_of(raised)
            failures = [error for error in errors if not isinstance(error, KeyboardInterrupt)]
            if failures and self._host is not None and not self._is_closed:
                held = [error for error in failures if isinstance(error, Exception)]
                if len(held) < len(failures):
                    raise
                for error in held:
                    OwnError(self._host.unobserved).fail(error)
                if self.nursery.on_error == "cancel":
                    self._host.cancel()
            elif failures:
                what = f"errors in {self.nursery.name} that nobody observed"
                self._outcome = BaseExceptionGroup(what, failures)
                if not self._leave.is_set():
                    log_unobserved(self.nursery.name, failures)
            if len(failures) < len(errors):
                pass_on_interrupt()
        finally:
            self.has_left()

    def has_left(self) -> None:
        """Its tasks are gone."""
        self._entered.set()
        self._left.set()
        if self._host is not None:
            self._host.dismiss(self)

    def leave(self) -> None:
        """Join its tasks and end it, without waiting for that."""
        self._leave.set()

    async def aclose(self) -> None:
        """Join its tasks and end it.

        Raises:
            ExceptionGroup: of the errors that nobody observed.

        Cancellation: the tasks are cancelled, and their cleanup is waited for; errors go before, as in
        a task group.
        """
        self._is_closed = True
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
