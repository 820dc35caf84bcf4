"""What becomes of an error between where it was raised and who is told of it.

An error comes out of task groups, and through many frames of ours. Who is told of it gets it as it was
raised: no group around it where it is alone, none of our groups and cancellations in its context, and of our
frames only the one in which it was raised, if any (``MELLEA_SC_TRACEBACKS=full`` keeps all of them).

Some exceptions are no errors to Python: the end of an iteration, the closing of a generator, a cancellation. Where
somebody else's code raises one, it would end a loop, a block or a run as if all were well. It becomes the
cause of an error that says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import wraps
from types import TracebackType
from typing import Final, NoReturn, ParamSpec, TypeVar, cast

import anyio
import anyio.abc

from mellea_sc.core.errors import MelleaError, RunError
from mellea_sc.runtime.loops.current import (
    checkpoint_before_error,
    errors_collected_by,
    is_stray_cancellation,
    running_task,
)

__all__ = [
    "failure_of",
    "leaves_of",
    "raise_if_stray",
    "raise_unchanged",
    "raises_briefly",
    "short_traceback",
    "shortened",
    "sole_error",
    "stray_cancellation_as",
    "task_group",
    "tidied",
]

P = ParamSpec("P")
T = TypeVar("T")

_OURS: Final = "mellea_sc"
_LOOPS: Final = ("anyio", "asyncio", "concurrent", "contextlib", "outcome", "trio", "uvloop")
_CLIENTS: Final = (
    "aiohappyeyeballs",
    "aiohttp",
    "h11",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "ssl",
)
_BETWEEN: Final = frozenset([*_LOOPS, *_CLIENTS])
"""Who stands between two frames of ours, or below them."""


def leaves_of(error: BaseException) -> list[BaseException]:
    """The exceptions of a group of groups, each once, without the runtime's cancellations."""
    leaves: dict[int, BaseException] = {}
    stack = [error]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            inner = cast("BaseExceptionGroup[BaseException]", error)
            stack.extend(reversed(inner.exceptions))
        elif not isinstance(error, anyio.get_cancelled_exc_class()):
            leaves[id(error)] = error
    return list(leaves.values())


def _without_cancellations(error: BaseException) -> Exception | None:
    """An error, or of a group what is no cancellation, where all of that are errors.

    trio puts the cancellation of those beside it into the group of an error; anyio under asyncio does not.
    """
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        rest: object = group.split(anyio.get_cancelled_exc_class())[1]
        return rest if isinstance(rest, Exception) else None
    return error if isinstance(error, Exception) else None


def sole_error() -> AbstractContextManager[None]:
    """Around a task group: an error that is the only one is raised as itself, several as their group.

    What a task has raised is left as it is, also if that is a group.
    """
    return _SOLE_ERROR


class _SoleError:
    __slots__ = ()

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if isinstance(exc, BaseExceptionGroup):
            _raise_if_sole(cast("BaseExceptionGroup[BaseException]", exc))


_SOLE_ERROR: Final = _SoleError()


def _raise_if_sole(group: BaseExceptionGroup[BaseException]) -> None:
    errors = [error for error in group.exceptions if leaves_of(error)]
    if len(errors) == 1:
        raise_unchanged(errors[0])


def task_group() -> AbstractAsyncContextManager[anyio.abc.TaskGroup]:
    """A task group: an error that is the only one is raised as itself, several as their group.

    What a task has raised is left as it is, also if that is a group.

    Cancellation: errors go before it, whenever it comes.
    """
    return _TaskGroup()


class _TaskGroup:
    __slots__ = ("_tasks",)

    async def __aenter__(self) -> anyio.abc.TaskGroup:
        self._tasks = anyio.create_task_group()
        return await self._tasks.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        errors = errors_collected_by(self._tasks)
        try:
            return bool(await self._tasks.__aexit__(exc_type, exc, tb))  # noqa: ASYNC102 - it joins
        except BaseExceptionGroup as group:
            _raise_if_sole(group)
            raise
        except anyio.get_cancelled_exc_class():  # noqa: ASYNC103 - errors go before it
            if not errors:
                raise
        # asyncio's own cancellation, as at the loop's end, is stopped by no shield: when it comes while the group
        # takes its last step, anyio raises it instead of the errors
        await checkpoint_before_error()  # noqa: ASYNC102 - one step
        cancelled = BaseExceptionGroup("errors in a task group that was cancelled", errors)
        _raise_if_sole(cancelled)
        raise cancelled


def raise_unchanged(error: BaseException) -> NoReturn:
    """Raise an error with the context that it has: what is being handled here is none of its story."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error, context  # the traceback has this frame


def stray_cancellation_as(
    what: str, kind: type[MelleaError] = RunError
) -> AbstractContextManager[None]:
    """Around somebody else's code: a cancellation that nobody has asked for is raised as an error.

    Under asyncio the exception of a cancelled future can come out of any code that awaits one, under trio
    one that somebody has kept. Let through, it would look as if the task itself had been cancelled, and its
    task group would end without a word.

    Args:
        what: Whose code it is, for the error.
        kind: The error's.
    """
    return _StrayCancellation(what, kind)


class _StrayCancellation:
    __slots__ = ("_kind", "_what")

    def __init__(self, what: str, kind: type[MelleaError]) -> None:
        self._what = what
        self._kind = kind

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if exc is not None and isinstance(exc, anyio.get_cancelled_exc_class()):
            raise_if_stray(self._what, self._kind)


def raise_if_stray(what: str, kind: type[MelleaError]) -> None:
    """While a cancellation is handled: raise an error in its place if nobody has asked for it.

    Where one block a request is too much, this does in an ``except`` what :func:`stray_cancellation_as` does.
    """
    if is_stray_cancellation():
        raise kind(_stray(what)) from None


def _stray(what: str) -> str:
    return f"{what} raised a cancellation that nobody asked for"


def failure_of(error: BaseException, what: str, task: object) -> Exception | None:
    """What a generation or a run has failed with; ``None``: it goes on to the loop.

    Args:
        error: What came out of it.
        what: What it is, for people.
        task: The task that it runs in. One that is closed from outside is not failing.
    """
    if isinstance(error, Exception):
        if isinstance(error, StopAsyncIteration | StopIteration):
            return tidied(_caused_by(error, what))
        return tidied(error)
    if isinstance(error, anyio.get_cancelled_exc_class()):
        if is_stray_cancellation():
            return RunError(_stray(what))
        return None
    if (failure := _without_cancellations(error)) is not None:
        return tidied(failure)
    leaves = leaves_of(error)
    if task is running_task() and all(isinstance(one, Exception | GeneratorExit) for one in leaves):
        return tidied(_caused_by(error, what))
    return None


def _caused_by(error: BaseException, what: str) -> RunError:
    cause = error
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        cause = group.split(anyio.get_cancelled_exc_class())[1] or group
    failure = RunError(f"{what} raised {cause!r}, which is no error to Python")
    failure.__cause__ = cause
    return failure


def tidied(error: Exception) -> Exception:
    """The error, without what is ours in its tracebacks and contexts."""
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        one = chain.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = short_traceback(one.__traceback__)
        while one.__context__ is not None and _is_left_over(one.__context__, one):
            one.__context__ = one.__context__.__context__
        chain += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            chain += cast("BaseExceptionGroup[BaseException]", one).exceptions
    return error


def _is_left_over(context: BaseException, error: BaseException) -> bool:
    """Whether the context tells how the error came here, and not how it came about."""
    if error.__suppress_context__ and context is not error.__cause__:
        return True
    leaves = leaves_of(context)
    return not leaves or any(leaf is error for leaf in leaves)


def short_traceback(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of ours, and of those between them, but for the last."""
    if traceback is None or os.environ.get("MELLEA_SC_TRACEBACKS") == "full":
        return traceback
    kept: list[TracebackType] = []
    called_by_us = True
    while traceback.tb_next is not None:
        package = str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if package == _OURS:
            called_by_us = True
        elif package not in _BETWEEN or not called_by_us:
            called_by_us = False
            kept.append(traceback)
        traceback = traceback.tb_next
    short = TracebackType(None, traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno)
    for one in reversed(kept):
        short = TracebackType(short, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return short


def shortened() -> AbstractContextManager[None]:
    """Around what a user calls: an error leaves it with a short traceback, in which this frame is none either."""
    return _SHORTENED


class _Shortened:
    __slots__ = ()

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if isinstance(exc, Exception | BaseExceptionGroup):
            exc.__traceback__ = short_traceback(exc.__traceback__)


_SHORTENED: Final = _Shortened()


def raises_briefly(
    function: Callable[P, Coroutine[object, object, T]],
) -> Callable[P, Coroutine[object, object, T]]:
    """An async function that users call, all of it :func:`shortened`."""

    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with _SHORTENED:
            return await function(*args, **kwargs)

    return call
