"""A program interrupted at every point at which it could be, once at each: cancelled, or by an error."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import anyio
import attrs

from mellea_sc.core.backend import Backend
from mellea_sc.core.errors import GenerationCancelled
from mellea_sc.core.requirement import Requirement
from mellea_sc.testing._loops.steps import watch_steps
from mellea_sc.testing.failing import FailingBackend, FailingRequirement, InjectedError
from mellea_sc.testing.leaks import assert_no_leaks

__all__ = ["cancel_everywhere", "fail_everywhere"]


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
            async with anyio.create_task_group() as tg:  # noqa: ASYNC112 - it is to be a task
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


async def fail_everywhere(
    program: Callable[[Backend, Sequence[Requirement]], Awaitable[object]],
    *,
    backend: Callable[[], Backend],
    requirements: Sequence[Requirement] = (),
    error: Callable[[], Exception] = lambda: InjectedError("put in by fail_everywhere"),
    after_each: Callable[[Exception | None], Awaitable[None]] | None = None,
) -> int:
    """Run a program again and again, with an error at the first point where one can come, the second, …

    The points are: the opening of each request to the backend, each of its deltas, its end behind the
    last of them, and each call of each requirement's validators. First the program runs without an
    error, so that they can be counted. Every run must leave nothing behind, and must not lose the
    error: the program raises it, alone, in a group or as another one's cause, or has dealt with it
    and returns it. Only the error of a requirement with ``fail_open`` may be lost.

    Args:
        program: What is run; it makes what it needs anew, with the backend and the requirements that
            it is given.
        backend: Makes the backend for a run.
        requirements: What the program is given copies of.
        error: Makes the error for a run; an :class:`InjectedError` if not given.
        after_each: Checks what must hold after each run; given the error of that run, ``None`` after
            the first.

    Returns:
        How many runs had an error put in.

    Raises:
        AssertionError: the program has ended and the error was lost; it says where it was put in.
        Exception: what the program or ``after_each`` has raised besides, with a note that says it.
        Leaked: something was left behind; with the same note.

    Cancellation: cancels the run that is going on, and no further one is begun.
    """
    first = _Injection.into(backend(), requirements)
    await first.run(program, after_each)
    runs = 0
    for target, counted in enumerate(first.places):
        for at in range(1, counted.points + 1):
            injection = _Injection.into(backend(), requirements, error(), target, at)
            await injection.run(program, after_each)
            runs += injection.failed is not None
    return runs


@attrs.frozen
class _Injection:
    """One run of a program, with at most one error."""

    backend: FailingBackend
    requirements: Sequence[FailingRequirement]
    error: Exception | None

    @classmethod
    def into(
        cls,
        backend: Backend,
        requirements: Sequence[Requirement],
        error: Exception | None = None,
        target: int | None = None,
        at: int | None = None,
    ) -> _Injection:
        """An error at one point of one of its places; without a target there is none."""
        ats = [at if index == target else None for index in range(1 + len(requirements))]
        return cls(
            FailingBackend(backend, at=ats[0], error=error),
            [
                FailingRequirement(copy.copy(requirement), at=one, error=error)
                for requirement, one in zip(requirements, ats[1:], strict=True)
            ],
            error,
        )

    @property
    def places(self) -> Sequence[FailingBackend | FailingRequirement]:
        return [self.backend, *self.requirements]

    @property
    def failed(self) -> FailingBackend | FailingRequirement | None:
        """Where the error was raised, if it was: the program may have taken another way."""
        return next((place for place in self.places if place.failed_at is not None), None)

    async def run(
        self,
        program: Callable[[Backend, Sequence[Requirement]], Awaitable[object]],
        after_each: Callable[[Exception | None], Awaitable[None]] | None,
    ) -> None:
        raised: Exception | None = None
        returned: object = None
        try:
            async with assert_no_leaks():
                try:
                    returned = await program(self.backend, self.requirements)
                except Exception as error:  # noqa: BLE001 # judged when nothing of it is left
                    raised = error
            self._judge(raised, returned)
            if after_each is not None:
                await after_each(self.error)
        except Exception as error:
            if (failed := self.failed) is not None:
                error.add_note(f"{self.error!r} was put in {failed.failed_at}")
            raise

    def _judge(self, raised: Exception | None, returned: object) -> None:
        failed, injected = self.failed, self.error
        if raised is not None:
            if failed is None or injected is None or not _is_only(raised, injected):
                raise raised
        elif failed is not None and injected is not None:
            if isinstance(failed, FailingRequirement) and failed.fail_open:
                return
            if not isinstance(returned, Exception) or not _carries(returned, injected):
                raise AssertionError(
                    f"an error was lost: the program neither raised {injected!r} nor returned it"
                )


def _is_only(raised: BaseException, injected: Exception) -> bool:
    """Whether what was raised is the error and what follows from it, and nothing else."""
    if raised is injected or not (group := _inside(raised)):
        return _carries(raised, injected)
    follows = all(
        isinstance(error, GenerationCancelled) or _is_only(error, injected) for error in group
    )
    return follows and _carries(raised, injected)


def _carries(error: BaseException | None, injected: Exception) -> bool:
    """Whether an error is the one, holds it in its group, or has it as its cause."""
    if error is None or error is injected:
        return error is injected
    if any(_carries(inner, injected) for inner in _inside(error)):
        return True
    return _carries(error.__cause__, injected)


def _inside(error: BaseException) -> Sequence[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return ()
    return cast("BaseExceptionGroup[BaseException]", error).exceptions
