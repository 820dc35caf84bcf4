"""A blocking program interrupted by Ctrl-C at every point at which it could be, once at each."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Final, cast

from mellea_sc.testing._loops.steps import watch_steps_elsewhere
from mellea_sc.testing._loops.tasks import TaskView
from mellea_sc.testing.leaks import assert_no_leaks_of_threads

if TYPE_CHECKING:
    import asyncio

__all__ = ["interrupt_everywhere"]

_SENT_AGAIN: Final = 0.05  # seconds; a signal just before a wait begins does not end that wait
_SENT_AT_MOST: Final = 100  # times
_ANSWERED_WITHIN: Final = (
    0.1  # seconds; a thread that cleans up without its event loop does not answer
)


def interrupt_everywhere(
    program: Callable[[], object],
    *,
    after_each: Callable[[], None] | None = None,
    max_points: int | None = None,
) -> int:
    """Run a blocking program again and again, with a Ctrl-C at its first step, its second, … its last.

    A blocking call waits for tasks of an event loop in another thread. The steps are those of all such
    tasks, from the first one of the loop's thread to the last one before that thread ends. First the
    program runs to its end, so that they can be counted. Then, at one step of each run, the event loop
    is held, the waiting thread is sent a real ``SIGINT``, and the loop goes on when that thread has
    raised ``KeyboardInterrupt`` and has told the loop so.

    Every run must leave no task, thread, memory stream, file descriptor or child process behind, and
    must not lose the interrupt: the program raises it as itself, or has dealt with it and returns it.

    It is for the main thread, which is the one that gets signals, without an event loop in it, and for
    POSIX systems.

    Args:
        program: What is run; it makes all that it needs anew.
        after_each: Checks what must hold after each run, the first and the interrupted ones.
        max_points: At most so many runs are interrupted, at steps spread evenly.

    Returns:
        How many runs were interrupted.

    Raises:
        AssertionError: the program has ended and the interrupt was lost.
        Exception: what the program or ``after_each`` has raised, with a note that says at which step
            the program was interrupted.
        Leaked: something was left behind; with the same note.
        ValueError: this is not the main thread.
    """
    total = _Run(None).of(program, after_each).steps
    points: Sequence[int] = range(1, total + 1)
    if max_points is not None and total > max_points:
        points = [1 + index * total // max_points for index in range(max_points)]
    return sum(_Run(point).of(program, after_each).sent for point in points)


class _Run:
    """One run of a program, with at most one Ctrl-C."""

    def __init__(self, point: int | None) -> None:
        self.steps = 0
        self.sent = False
        self._point = point
        self._interrupt = KeyboardInterrupt()
        self._raised = threading.Event()
        self._surplus = 0
        self._caller = threading.get_ident()

    def of(self, program: Callable[[], object], after_each: Callable[[], None] | None) -> _Run:
        try:
            with watch_steps_elsewhere(self._after_step) as tasks:

                def running() -> list[TaskView]:
                    left = [task for task in tuple(tasks) if not task.done()]
                    return [TaskView(task, task.get_name(), task.get_coro()) for task in left]

                with assert_no_leaks_of_threads(running), self._handling():
                    self._judge(program)
            if after_each is not None:
                after_each()
        except BaseException as error:
            if self.sent:
                error.add_note(f"the program was interrupted at its step {self._point}")
            raise
        return self

    def _judge(self, program: Callable[[], object]) -> None:
        try:
            returned = program()
        except KeyboardInterrupt as error:
            if error is not self._interrupt:
                raise
        else:
            if self.sent and returned is not self._interrupt:
                raise AssertionError(
                    "the interrupt was lost: the program neither raised it nor returned it"
                )

    @contextmanager
    def _handling(self) -> Generator[None]:
        before = signal.getsignal(signal.SIGINT)

        def handle(number: int, frame: FrameType | None) -> None:
            if self.sent and not self._raised.is_set():
                self._raised.set()
                raise self._interrupt
            if self._surplus:
                self._surplus -= 1
            elif callable(before):
                before(number, frame)

        signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _after_step(self, loop: asyncio.AbstractEventLoop) -> None:
        self.steps += 1
        if self.steps != self._point:
            return
        told = threading.Event()
        call_soon_threadsafe = cast("Callable[..., object]", loop.call_soon_threadsafe)

        def telling(*args: object, **options: object) -> object:
            try:
                return call_soon_threadsafe(*args, **options)
            finally:
                told.set()

        vars(loop)["call_soon_threadsafe"] = telling
        self.sent = True
        signal.pthread_kill(self._caller, signal.SIGINT)
        for _ in range(_SENT_AT_MOST):
            if self._raised.wait(_SENT_AGAIN):
                told.wait(_ANSWERED_WITHIN)
                break
            self._surplus += 1
            signal.pthread_kill(self._caller, signal.SIGINT)
        del vars(loop)["call_soon_threadsafe"]
