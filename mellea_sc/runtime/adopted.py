"""A nursery without an ``async with`` block: a task of the event loop's, or of another nursery, enters it.

A session that is used without a block has one of these in each event loop, and so has each of its clones.
"""

from __future__ import annotations

import anyio

from mellea_sc.runtime.failures import leaf_errors, raise_unchanged
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.unobserved import OwnError, log_unobserved


class AdoptedNursery:
    """A nursery that is hosted by the running event loop, or by another nursery.

    When the loop ends, it cancels the nursery. When the host is left normally, it joins the nursery and takes over
    the errors that nobody has observed.

    Args:
        nursery: The nursery, which has not been entered.
        host: The nursery in which it runs; ``None``: the event loop.
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
            nursery.loop_services.spawn_root(self.run, self.name, self.has_left)

    @property
    def has_ended(self) -> bool:
        """Whether all its tasks have ended."""
        return self._left.is_set()

    async def ready(self) -> Nursery:
        """Wait until tasks can be started in the nursery, and return it."""
        if not self._entered.is_set():
            await self._entered.wait()
        return self.nursery

    async def run(self) -> None:
        """The body of the host's task: enter the nursery, and leave it when asked to."""
        loop = self.nursery.loop_services
        try:
            async with self.nursery:
                self._entered.set()
                await self._leave.wait()
        except (BaseExceptionGroup, KeyboardInterrupt) as raised:
            errors = leaf_errors(raised)
            failures = [error for error in errors if not isinstance(error, KeyboardInterrupt)]
            if failures and self._host is not None and not self._is_closed:
                # Nobody will call aclose(), so the errors become the host's, which raises them at its end.
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
                    # The loop has ended it, and nothing may be raised here: an exception in a task of the
                    # loop's own would end the whole trio run. aclose() can still raise them if it is waiting.
                    exits = SystemExit | KeyboardInterrupt if loop.raises_exits else ()
                    untold = [error for error in failures if not isinstance(error, exits)]
                    log_unobserved(self.nursery.name, untold)
            if len(failures) < len(errors):  # Ctrl-C has hit this task instead of the main one
                loop.pass_on_interrupt()
        finally:
            self.has_left()

    def has_left(self) -> None:
        """All its tasks have ended, or its own task was dropped before its first step."""
        self._entered.set()  # nobody may wait for ever in ready(): the caller then finds it closed
        self._left.set()
        if self._host is not None:
            self._host.dismiss(self)

    def leave(self) -> None:
        """Have it join its tasks and end, without waiting for that."""
        self._leave.set()

    async def aclose(self) -> None:
        """Join its tasks and end it.

        Raises:
            ExceptionGroup: of the errors that nobody observed.

        Cancellation: the tasks are cancelled, and their cleanup is waited for. Errors are raised instead of the
        cancellation, as by a task group.
        """
        self._is_closed = True
        self._leave.set()
        try:
            await self._left.wait()
        except BaseException:
            self.nursery.cancel("closing the session was cancelled")
            with anyio.CancelScope(shield=True):  # no task may outlive aclose()
                await self._left.wait()
            self._raise_outcome()
            raise
        self._raise_outcome()

    def _raise_outcome(self) -> None:
        if self._outcome is not None:
            outcome, self._outcome = self._outcome, None  # raised once, however often it is closed
            raise_unchanged(outcome)
