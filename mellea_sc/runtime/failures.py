"""What happens to an error on its way from where it was raised to the caller.

On its way an error passes task groups and many frames of the library. The caller gets it as it was raised:
without a group around it if it is the only one, without the library's groups and cancellations in its
``__context__``, and with only one frame of the library in its traceback: the one that raised it, if any
(``MELLEA_SC_TRACEBACKS=full`` keeps all of them).

Some exceptions are signals to Python, not errors: the end of an iteration, the closing of a generator, a
cancellation. If user code raises one, it would silently end a loop, a block or a run. It becomes the cause of
a :class:`RunError` instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import wraps
from types import FrameType, TracebackType
from typing import Final, Literal, NoReturn, TypeVar, cast

import anyio
import anyio.abc

from mellea_sc.core.errors import DependencyFailed, MelleaError, RunError
from mellea_sc.runtime.loops.current import (
    checkpoint_before_error,
    is_being_cancelled,
    loop_services,
    running_task,
)

AsyncFunction = TypeVar("AsyncFunction", bound=Callable[..., Coroutine[object, object, object]])

_OURS: Final = "mellea_sc"
LOOPS: Final = ("anyio", "asyncio", "concurrent", "contextlib", "outcome", "trio", "uvloop")
"""Packages between a task's coroutine and the event loop."""
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
_BETWEEN: Final = frozenset([*LOOPS, *_CLIENTS])
"""Packages whose frames stand between two frames of the library, or below them."""


def leaf_errors(error: BaseException) -> list[BaseException]:
    """The exceptions inside of nested groups, each once, without cancellations; of a plain error, itself."""
    leaves: dict[int, BaseException] = {}
    stack = [error]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            inner = cast("BaseExceptionGroup[BaseException]", error)
            stack.extend(reversed(inner.exceptions))  # so that they are popped in their order
        elif not isinstance(error, anyio.get_cancelled_exc_class()):
            leaves[id(error)] = error
    return list(leaves.values())


def _without_cancellations(error: BaseException) -> Exception | None:
    """The error, or the group without its cancellations; ``None`` if what remains is not only ``Exception``.

    trio puts the cancellations of an error's sibling tasks into the same group; anyio under asyncio does not.
    """
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        rest: object = group.split(anyio.get_cancelled_exc_class())[1]
        return rest if isinstance(rest, Exception) else None
    return error if isinstance(error, Exception) else None


@contextmanager
def sole_error() -> Generator[None]:
    """A block around a task group: a single error is raised without the group, several are raised as the group.

    A group that a task itself has raised stays a group.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        _raise_if_sole(group)
        raise


def _raise_if_sole(group: BaseExceptionGroup[BaseException]) -> None:
    errors = [error for error in group.exceptions if leaf_errors(error)]
    if len(errors) == 1:
        raise_unchanged(errors[0])


class task_group:  # noqa: N801 - a block is named like a function, as in contextlib
    """A task group that raises a single error without a group around it, and several as a group.

    A group that a task itself has raised stays a group.

    Cancellation: if there are errors, they are raised instead of the cancellation, whenever it comes.
    """

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
        # taken before: if a cancellation comes out of __aexit__, this list is the only trace of the errors
        errors = loop_services().errors_collected_by(self._tasks)
        try:
            return bool(await self._tasks.__aexit__(exc_type, exc, tb))  # noqa: ASYNC102 - it joins
        except BaseExceptionGroup as group:
            _raise_if_sole(group)
            raise
        except anyio.get_cancelled_exc_class():  # noqa: ASYNC103 - errors go before it
            if not errors:
                raise
        # asyncio's native cancellation (``task.cancel()``, as at the loop's end) ignores shields. If it comes while
        # the group takes its last step, anyio raises it instead of the errors.
        await checkpoint_before_error()  # noqa: ASYNC102 - one step
        cancelled = BaseExceptionGroup("errors in a task group that was cancelled", errors)
        _raise_if_sole(cancelled)
        raise cancelled


def raise_unchanged(error: BaseException) -> NoReturn:
    """Raise an error with the ``__context__`` that it has, whatever exception is being handled here."""
    # Python sets the __context__ of whatever is raised inside of an except block, also when an error is only
    # raised again. So the old one is put back afterwards.
    context = error.__context__
    try:
        raise error
    finally:
        set_unchecked(error, "__context__", context)
        # the error's traceback refers to this frame: without this, frame and error would be a reference cycle
        del error, context


def set_unchecked(
    error: BaseException, name: Literal["__context__", "__traceback__", "__notes__"], value: object
) -> None:
    """Set an attribute of an error, also of one that refuses it, such as a frozen dataclass.

    Python itself sets these attributes in the same way.
    """
    object.__setattr__(error, name, value)


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an error, also to one that refuses to be changed."""
    set_unchecked(error, "__notes__", [*getattr(error, "__notes__", ()), note])


@contextmanager
def stray_cancellation_as(what: str, kind: type[MelleaError] = RunError) -> Generator[None]:
    """A block around user code: a *stray* cancellation, which nobody has requested, is raised as an error.

    Under asyncio, code that awaits a cancelled future raises one; under trio, code that raises a ``Cancelled`` again
    that it has kept. If it were let through, it would look as if the task itself had been cancelled, and the
    task group would swallow it.

    Args:
        what: Whose code it is, for the error.
        kind: The class of the error.
    """
    try:
        yield
    except anyio.get_cancelled_exc_class():
        raise_if_stray(what, kind)
        raise


def raise_if_stray(what: str, kind: type[MelleaError]) -> None:
    """In an ``except`` for a cancellation: raise an error in its place if nobody has requested it.

    The same as :func:`stray_cancellation_as`, without the cost of a block for each request.
    """
    if not is_being_cancelled():
        raise kind(_stray(what)) from None


def _stray(what: str) -> str:
    return f"{what} raised a cancellation that nobody asked for"


def failure_of(error: BaseException, what: str, task: object) -> Exception | None:
    """The error with which a generation or a run has failed; ``None``: raise ``error`` on, it is no failure.

    Args:
        error: What the work has raised.
        what: The name of the generation or run, for people.
        task: The task in which it runs.
    """
    if isinstance(error, Exception):
        if isinstance(error, StopAsyncIteration | StopIteration):
            return without_internals(_caused_by(error, what))
        return without_internals(error)
    if isinstance(error, anyio.get_cancelled_exc_class()):
        # a cancellation that somebody has requested must reach the scope that it belongs to
        if not is_being_cancelled():
            return RunError(_stray(what))
        return None
    if (failure := _without_cancellations(error)) is not None:
        return without_internals(failure)
    # What is left is KeyboardInterrupt, SystemExit or GeneratorExit. The first two end the program. A GeneratorExit
    # is an error if it was raised in the task, but not if the coroutine is being closed: that is done from outside
    # of any task, or in another one, when an unfinished task is garbage collected.
    leaves = leaf_errors(error)
    if not leaves and is_being_cancelled():
        return None  # a group of nothing but cancellations
    if task is running_task() and all(isinstance(one, Exception | GeneratorExit) for one in leaves):
        return without_internals(_caused_by(error, what))
    return None


def _caused_by(error: BaseException, what: str) -> RunError:
    cause = error
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        cause = group.split(anyio.get_cancelled_exc_class())[1] or group
    failure = RunError(f"{what} raised {cause!r}, which is no error to Python")
    failure.__cause__ = cause
    return failure


def without_internals(error: Exception) -> Exception:
    """The same error, with the library's frames and groups removed from its tracebacks and contexts."""
    # the whole chain: causes, contexts and members of groups are printed with the error
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        one = chain.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        shorten(one)
        while one.__context__ is not None and _is_left_over(one.__context__, one):
            set_unchecked(one, "__context__", one.__context__.__context__)
        if isinstance(one, DependencyFailed) and one is not error:
            continue  # it, and its cause, are errors of other thunks, which have come this way themselves
        chain += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            chain += cast("BaseExceptionGroup[BaseException]", one).exceptions
    return error


def _is_left_over(context: BaseException, error: BaseException) -> bool:
    """Whether a context shows only the way that the error took through the library, and not its origin."""
    if error.__suppress_context__ and context is not error.__cause__:
        return True
    leaves = leaf_errors(context)
    return not leaves or any(leaf is error for leaf in leaves)


def package_of(frame: FrameType) -> str:
    """The top package of the code that a frame runs."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def short_traceback(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback without the library's frames and those between them; the innermost frame always stays."""
    if traceback is None or os.environ.get("MELLEA_SC_TRACEBACKS") == "full":
        return traceback
    kept: list[TracebackType] = []
    # A frame of anyio or httpx is left out only if the library has called it: a user who calls httpx in a
    # validator wants to see those frames.
    called_by_us = True
    while traceback.tb_next is not None:
        package = package_of(traceback.tb_frame)
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


def shorten(error: BaseException) -> None:
    """Give an error the :func:`short_traceback` of its traceback."""
    set_unchecked(error, "__traceback__", short_traceback(error.__traceback__))


def raises_briefly(function: AsyncFunction) -> AsyncFunction:
    """A decorator for public async functions: their errors leave them with a :func:`short_traceback`.

    Its type is that of the function: pyright tells a coroutine of an ``async def`` from another one, and takes an
    ``__aexit__`` that returns another one for none of a context manager.
    """

    @wraps(function)
    async def call(*args: object, **kwargs: object) -> object:
        try:
            return await function(*args, **kwargs)
        except (Exception, BaseExceptionGroup) as error:
            shorten(error)
            raise

    return cast("AsyncFunction", call)
