"""trio's run loop in virtual time. Imports trio: nobody imports this before a trio run is wanted."""

from __future__ import annotations

import socket
import time
from math import inf
from typing import NoReturn

import trio
from trio._core import _run as trio_run
from trio.abc import Instrument, SocketFactory
from trio.testing import MockClock

from mellea_sc.testing._loops.deadlock import (
    NETWORK_REFUSED,
    THREAD_PATIENCE,
    WORKER_PATIENCE,
    Bystanders,
    standstill,
)

__all__ = ["is_running", "trio_options"]

_SLICE = 0.02  # real seconds between two looks at whether another thread has woken the run
_CERTAIN = 3  # idle rounds without a step after which nothing will come by itself


def trio_options(seed: int | None) -> dict[str, object]:
    """Options for one run, which trio's ``run`` takes as they are."""
    clock = MockClock(autojump_threshold=0)
    return {"clock": clock, "instruments": [_Conductor(clock, seed)]}


def is_running(options: dict[str, object]) -> bool:
    """Whether trio runs, and with these options."""
    return trio.lowlevel.in_trio_run() and trio.lowlevel.current_clock() is options["clock"]


class _Conductor(Instrument):
    """Makes the order of tasks repeatable, waits for worker threads, and ends a deadlock."""

    def __init__(self, clock: MockClock, seed: int | None) -> None:
        self._clock = clock
        self._seed = seed or 0
        self._stepped = True
        self._idle_rounds = 0
        self._idle_since = 0.0
        self._silent_workers = 0

    def before_run(self) -> None:
        self._bystanders = Bystanders()
        trio.socket.set_custom_socket_factory(_NoSockets())
        # trio has no public seed; its own tests of determinism set these two.
        self._before = (trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate())
        _set_deterministic(True)
        trio_run._r.seed(self._seed)

    def after_run(self) -> None:
        deterministic, state = self._before
        _set_deterministic(deterministic)
        trio_run._r.setstate(state)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # trio's signature
        self._stepped = True
        working = _busy_workers()
        self._silent_workers = min(self._silent_workers, working)
        self._wait_before_jumps(WORKER_PATIENCE if working > self._silent_workers else 0.0)

    def after_io_wait(self, timeout: float) -> None:
        if self._stepped:
            self._stepped = False
            self._idle_rounds = 0
            self._idle_since = time.monotonic() - timeout
            if timeout < WORKER_PATIENCE:
                return
        run = trio.lowlevel.current_statistics()
        if run.tasks_runnable:
            return
        if timeout >= WORKER_PATIENCE:
            self._silent_workers = _busy_workers()
        if _waits_for_a_file(run.io_statistics):
            _throw_into_main(RuntimeError(NETWORK_REFUSED))
            return
        if run.seconds_to_next_deadline < inf:
            return
        self._idle_rounds += 1
        if self._idle_rounds >= _CERTAIN:
            self._stand_still()

    def _stand_still(self) -> None:
        idle = time.monotonic() - self._idle_since
        if (_busy_workers() or self._bystanders.may_wake()) and idle < THREAD_PATIENCE:
            self._wait_before_jumps(_SLICE)
        else:
            self._idle_rounds = 0
            _throw_into_main(standstill())

    def _wait_before_jumps(self, real_seconds: float) -> None:
        if self._clock.autojump_threshold != real_seconds:
            self._clock.autojump_threshold = real_seconds


def _set_deterministic(value: bool) -> None:
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = value  # type: ignore[misc] # a constant for everybody else


def _busy_workers() -> int:
    return trio.to_thread.current_default_thread_limiter().borrowed_tokens


def _waits_for_a_file(io: object) -> bool:
    # trio itself always waits for the pipe that wakes it.
    return getattr(io, "tasks_waiting_read", 1) + getattr(io, "tasks_waiting_write", 0) > 1


def _throw_into_main(error: Exception) -> None:
    root = trio.lowlevel.current_root_task()
    if root is None:
        return

    def raise_error() -> NoReturn:
        raise error

    for task in root.child_nurseries[-1].child_tasks:
        # As trio does with a KeyboardInterrupt: raised where the main task waits.
        if task._abort_func is not None:
            task._attempt_abort(raise_error)


class _NoSockets(SocketFactory):
    def socket(
        self,
        family: int = socket.AF_INET,  # trio's signature
        type: int = socket.SOCK_STREAM,
        proto: int = 0,
    ) -> trio.socket.SocketType:
        raise RuntimeError(NETWORK_REFUSED)
