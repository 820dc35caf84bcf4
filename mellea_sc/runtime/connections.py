"""A backend's connections in one session: opened by the first request, shared by all, closed last.

::

    first request ──> opened() ──┐ waits                  task of the nursery's hosts: run()
    others        ──> opened() ──┴── settled <──────────── async with backend.connected()
    the nursery is left ──> close() ──> close_requested ──> … is left, shielded and bounded in time
"""

from __future__ import annotations

from typing import Final

import anyio

from mellea_sc.core.backend import Backend
from mellea_sc.core.errors import BackendError, SessionClosed
from mellea_sc.runtime.failures import failure_of, stray_cancellation_as
from mellea_sc.runtime.loops.current import running_task
from mellea_sc.runtime.unobserved import OwnError, Unobserved

CLEANUP_TIMEOUT: Final = 5.0
"""Seconds that closing connections may take when a nursery is left."""


class Connections:
    """One attempt to open a backend's connections, and what comes of it.

    Args:
        backend: The backend.
        unobserved: Takes an error of theirs until somebody has been told of it.
        owner: Whose they are, for people.
    """

    def __init__(self, backend: Backend, unobserved: Unobserved, owner: str) -> None:
        self._unconnected = backend
        self._owner = owner
        self._own_error = OwnError(unobserved)
        self._settled = anyio.Event()
        self._close_requested = anyio.Event()
        # Shielded: when the session is cancelled, tasks still close their responses on these connections.
        self._scope = anyio.CancelScope(shield=True)
        self.backend: Backend | None = None
        """The backend with its connections, once they are open."""

    @property
    def have_failed(self) -> bool:
        """Whether they could not be opened, so that the next request has to try again."""
        is_over = self._settled.is_set() and not self._close_requested.is_set()
        return is_over and self.backend is None

    async def opened(self) -> Backend:
        """Wait until they are open; the backend with them.

        Raises:
            Exception: as the backend raised it on opening.

        Cancellation: only the waiting ends.
        """
        if self.backend is None:
            await self._settled.wait()
        if self.backend is None:
            raise self._own_error.to_raise()
        return self.backend

    async def run(self) -> None:
        """Open them, and keep them open until :meth:`close`."""
        backend, task = self._unconnected, running_task()
        name = f"{backend.provider} ({backend.model_id})"
        try:
            with self._scope, stray_cancellation_as(name, BackendError):
                async with backend.connected() as self.backend:
                    self._settled.set()
                    await self._close_requested.wait()
        except BaseException as raised:  # noqa: ASYNC103 - what failure_of() does not know is raised
            if (error := failure_of(raised, name, task)) is None:
                raise
            self._own_error.fail(error)
        finally:
            if self.backend is None and self._own_error.error is None:
                closed = SessionClosed(f"{self._owner} has ended: its connections were not opened")
                self._own_error.fail(closed)
                # For those who wait for the connections. If nobody waits, it is no error of the session's.
                self._own_error.mark_raised()
            self._settled.set()

    def close(self) -> None:
        """Have them closed in good order, within :data:`CLEANUP_TIMEOUT`; an attempt to open them is given up."""
        self._close_requested.set()
        if self._settled.is_set():
            self._scope.deadline = anyio.current_time() + CLEANUP_TIMEOUT
        else:
            self._scope.cancel()
