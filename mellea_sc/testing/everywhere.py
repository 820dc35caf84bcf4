"""A program interrupted at every point at which it could be, once at each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio

from mellea_sc.testing._steps import watch_steps
from mellea_sc.testing.leaks import assert_no_leaks

__all__ = ["cancel_everywhere"]


async def cancel_everywhere(
    program: Callable[[], Awaitable[object]],
    *,
    after_each: Callable[[], Awaitable[None]] | None = None,
    max_points: int | None = None,
) -> int:
    """Run a program again and again, cancelled at its first checkpoint, its second, … its last.

    First it runs to its end, so that its checkpoints, those of all tasks that it starts, can be
    counted. Every run is a task of its own and must leave nothing behind.

    Args:
        program: What is run; it makes all that it needs anew.
        after_each: Checks what must hold after each run, the first and the cancelled ones.
        max_points: At most so many runs are cancelled, at points spread evenly, for programs whose
            every checkpoint would take too long.

    Returns:
        How many runs were cancelled.

    Raises:
        Exception: what the program or ``after_each`` has raised, with a note that says at which
            checkpoint the program was cancelled.
        Leaked: something was left behind; with the same note.

    Cancellation: cancels the run that is going on, and no further one is begun.
    """
    total = await _run(program, after_each, cancel_at=None)
    points: Sequence[int] = range(1, total + 1)
    if max_points is not None and total > max_points:
        points = [1 + index * total // max_points for index in range(max_points)]
    for point in points:
        await _run(program, after_each, cancel_at=point)
    return len(points)


async def _run(
    program: Callable[[], Awaitable[object]],
    after_each: Callable[[], Awaitable[None]] | None,
    *,
    cancel_at: int | None,
) -> int:
    """Run it once; how many checkpoints there were until it was cancelled or had ended."""
    run = _Run(program, cancel_at)
    try:
        async with assert_no_leaks():
            await run.to_its_end()
        if after_each is not None:
            await after_each()
    except Exception as error:
        if cancel_at is not None:
            error.add_note(f"the program was cancelled at its checkpoint {cancel_at}")
        raise
    return run.steps


class _Run:
    def __init__(self, program: Callable[[], Awaitable[object]], cancel_at: int | None) -> None:
        self.steps = 0
        self._program = program
        self._cancel_at = cancel_at
        self._scope = anyio.CancelScope()
        self._error: Exception | None = None

    async def to_its_end(self) -> None:
        with watch_steps(self._after_step):
            async with anyio.create_task_group() as tg:
                tg.start_soon(self._main, name="the program")
        if self._error is not None:
            raise self._error

    async def _main(self) -> None:
        with self._scope:
            try:
                await self._program()
            except Exception as error:  # noqa: BLE001 # raised again, outside of the task group
                self._error = error

    def _after_step(self) -> None:
        self.steps += 1
        if self.steps == self._cancel_at:
            self._scope.cancel()
