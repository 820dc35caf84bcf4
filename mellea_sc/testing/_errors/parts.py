"""What is put into a random program: errors, a backend and requirements that raise them."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final, cast

import anyio
import anyio.lowlevel

from mellea_sc.core.backend import Backend, Delta, Format, GenerationRequest, ModelOptions
from mellea_sc.core.base import Context
from mellea_sc.core.errors import BackendError, MelleaError
from mellea_sc.core.requirement import PartialValidationResult, Requirement, ValidationResult
from mellea_sc.runtime.loops.current import is_being_cancelled
from mellea_sc.testing._errors.values import Answering, ErrorKind, Judging

if TYPE_CHECKING:
    from typing import Self

__all__ = ["PutInBackend", "PutInErrors", "PutInRequirement"]

UNASKED: Final = "a cancellation that nobody asked for"


class PutInError(ValueError):
    """An error that was put in; nothing is wrong."""


class PutInBackendError(BackendError):
    """A backend's error that was put in; nothing is wrong."""


class PutInErrors:
    """What was raised, and what the program was told of."""

    def __init__(self) -> None:
        self.raised: list[BaseException] = []
        self.told: list[BaseException] = []
        self.cancellations: int = 0

    async def put_in(self, kind: ErrorKind, where: str) -> None:
        """Raise an error."""
        if kind == "cancellation":
            await self._cancel()
        else:
            self.put_in_at_once(kind, where)

    async def _cancel(self) -> None:
        """Raise a cancellation that nobody has asked for."""
        kept: BaseException | None = None
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.lowlevel.checkpoint()
            except anyio.get_cancelled_exc_class() as error:
                kept = error
                raise
        assert kept is not None
        if is_being_cancelled():  # then nobody could tell it from the other one
            await anyio.lowlevel.checkpoint()
        self.cancellations += 1
        # under asyncio one of a cancelled future, under trio one that somebody has kept
        raise kept if type(kept).__module__.startswith("trio") else type(kept)()

    def put_in_at_once(self, kind: ErrorKind, where: str) -> None:
        """The same, without awaiting."""
        kinds: dict[ErrorKind, type[BaseException]] = {
            "plain": PutInError,
            "backend": PutInBackendError,
            "end of iteration": StopAsyncIteration,
            "stop iteration": StopIteration,
            "closing": GeneratorExit,
        }
        error = kinds[kind](f"number {len(self.raised)}, {where}")
        self.raised.append(error)
        raise error

    @contextmanager
    def log_kept(self) -> Generator[None]:
        """Around a run: what is logged is told."""
        handler = _Handler(self.told)
        log = logging.getLogger("mellea_sc")
        before = log.propagate
        log.addHandler(handler)
        log.propagate = False
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.propagate = before

    def lost(self) -> list[str]:
        """What was raised and not told, and what was told and should not be."""
        told: dict[int, BaseException] = {}
        left: list[BaseException | None] = list(self.told)
        while left:
            one = left.pop()
            if one is not None and id(one) not in told:
                told[id(one)] = one
                left.append(one.__cause__)
                if not one.__suppress_context__:
                    left.append(one.__context__)
                if isinstance(one, BaseExceptionGroup):
                    left += cast("BaseExceptionGroup[BaseException]", one).exceptions
        notes = "\n".join(note for one in told.values() for note in getattr(one, "__notes__", ()))
        lost = [
            repr(error)
            for error in self.raised
            if id(error) not in told and str(error) not in notes
        ]
        unasked = sum(UNASKED in str(one) for one in told.values() if isinstance(one, MelleaError))
        unasked += notes.count(UNASKED)
        if unasked < self.cancellations:
            lost.append(f"{self.cancellations - unasked} of {self.cancellations} cancellations")
        lost += [f"unexpected: {one!r}" for one in told.values() if not self._is_expected(one)]
        return lost

    def _is_expected(self, error: BaseException) -> bool:
        """Whether a program may be told of it: it is one of those that were put in, or of the library's own."""
        if isinstance(error, MelleaError | BaseExceptionGroup | anyio.BusyResourceError):
            return True
        causes = (error, error.__cause__, error.__context__)
        return any(one is raised for one in causes for raised in self.raised)


class _Handler(logging.Handler):
    def __init__(self, told: list[BaseException]) -> None:
        super().__init__()
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._told.append(record.exc_info[1])


class PutInBackend(Backend):
    """A backend that gives answers in turn, and raises what they say.

    Args:
        errors: Who is told of what is raised.
        answers: Used in turn, again and again.
        connecting: What the first opening of connections raises.
        disconnecting: What closing them raises.
    """

    provider = "put in"
    model_id = "put in"
    prefills = True

    def __init__(
        self,
        errors: PutInErrors,
        answers: Sequence[Answering],
        connecting: ErrorKind | None,
        disconnecting: ErrorKind | None,
    ) -> None:
        self._errors = errors
        self._answers = answers
        self._asked = 0
        self._connecting: ErrorKind | None = connecting
        self._disconnecting: ErrorKind | None = disconnecting

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Self]:
        """A block with the backend itself."""
        connecting: ErrorKind | None = self._connecting
        self._connecting = None
        if connecting is not None:
            await self._errors.put_in(connecting, "connecting")
        yield self
        if self._disconnecting is not None:
            await self._errors.put_in(self._disconnecting, "disconnecting")

    def open(self, request: GenerationRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """The next answer."""
        self._asked += 1
        answer = self._answers[(self._asked - 1) % len(self._answers)]
        return _Opened(self._errors, answer, f"request {self._asked}")


class _Opened(AbstractAsyncContextManager[AsyncIterator[Delta]]):
    """An answer. No generator: of one, some exceptions cannot come out."""

    def __init__(self, errors: PutInErrors, answer: Answering, name: str) -> None:
        self._errors = errors
        self._answer = answer
        self._name = name
        self._at = 0
        self._failed = False
        self._ended = False

    async def __aenter__(self) -> Self:
        if self._answer.error is not None and self._answer.at < 0:
            await self._errors.put_in(self._answer.error, f"opening {self._name}")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._answer.untidy is not None and exc is not None and not self._failed:
            self._errors.put_in_at_once(self._answer.untidy, f"closing {self._name}")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        while not self._ended:
            at, deltas = self._at, self._answer.deltas
            self._at += 1
            error = self._answer.error
            if error is not None and error != "end of iteration" and at == self._answer.at:
                self._failed = True
                await self._errors.put_in(error, f"before delta {at} of {self._name}")
            if at >= len(deltas):
                self._ended = True
                return Delta(finish_reason="stop")
            step = deltas[at]
            if isinstance(step, str):
                return Delta(step)
            await anyio.sleep(step)
        raise StopAsyncIteration


class PutInRequirement(Requirement):
    """A requirement that judges, and raises, as it is told.

    Args:
        errors: Who is told of what is raised.
        judging: What it does.
        name: For the errors.
    """

    def __init__(self, errors: PutInErrors, judging: Judging, name: str) -> None:
        super().__init__(
            name, fail_open=judging.fail_open, blocking=judging.blocking, check_only=True
        )
        self._errors = errors
        self._judging = judging
        self._calls = 0

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        """Judge a piece."""
        judging, call = self._judging, self._calls
        self._calls += 1
        await self._work(backend, ctx, call)
        return PartialValidationResult("fail" if call == judging.fails_at else "unknown")

    async def validate(
        self,
        backend: Backend,
        ctx: Context,
        *,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
    ) -> ValidationResult:
        """Judge a whole text."""
        await self._work(backend, ctx, -1)
        return ValidationResult(self._judging.passes)

    async def _work(self, backend: Backend, ctx: Context, call: int) -> None:
        judging = self._judging
        try:
            if judging.asks and call <= 0:
                thunk, _ = await backend.generate_from_context("judge", ctx)
                if judging.passes:  # otherwise it is left to itself
                    await thunk.avalue()
            if judging.delay is not None:
                await anyio.sleep(judging.delay)
        except anyio.get_cancelled_exc_class():
            if judging.untidy is not None:
                self._errors.put_in_at_once(judging.untidy, f"{self.description} is cancelled")
            raise
        if judging.error is not None and judging.at == call:
            await self._errors.put_in(judging.error, f"call {call} of {self.description}")
