"""A backend and a requirement that fail at a chosen point, and are what they wrap otherwise."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from mellea_sc.core.backend import (
    Backend,
    BackendWrapper,
    Delta,
    Format,
    GenerationRequest,
    ModelOptions,
)
from mellea_sc.core.base import Context, Role, Span
from mellea_sc.core.errors import BackendError
from mellea_sc.core.requirement import PartialValidationResult, Requirement, ValidationResult

if TYPE_CHECKING:
    from typing import Self

__all__ = ["FailingBackend", "FailingRequirement", "InjectedError"]


class InjectedError(BackendError):
    """An error that a test has put in; nothing is wrong."""


@attrs.define(eq=False)
class _Points:
    """The points at which something could fail, counted from 1; at one of them it does."""

    at: int | None
    error: Exception
    passed: int = 0
    failed_at: str | None = None

    def pass_or_fail(self, what: str) -> None:
        self.passed += 1
        if self.passed == self.at:
            self.failed_at = what
            raise self.error


class FailingBackend(BackendWrapper):
    """Another backend, which fails at one point.

    The points of a request are its opening, each of its deltas, and its end behind the last of them.
    They are counted from 1 over all requests, as they come.

    Args:
        backend: The one that is asked.
        at: The point at which the error is raised; ``None``: at none of them.
        error: What is raised; an :class:`InjectedError` if not given.
    """

    def __init__(
        self, backend: Backend, *, at: int | None = None, error: Exception | None = None
    ) -> None:
        super().__init__(backend)
        # one for a wrapper and its connected copies: they count together
        self._points = _Points(at, InjectedError("put in by the test") if error is None else error)

    @property
    def points(self) -> int:
        """How many points there were so far."""
        return self._points.passed

    @property
    def failed_at(self) -> str | None:
        """Where the error was raised, in words; ``None``: nowhere yet."""
        return self._points.failed_at

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        """Open a generation; see :meth:`Backend.open`."""
        self._points.pass_or_fail("opening a request")
        async with (
            self.inner.open(request) as deltas,
            aclosing(self._deltas(deltas)) as failing,
        ):
            yield failing

    async def _deltas(self, deltas: AsyncIterator[Delta]) -> AsyncGenerator[Delta]:
        number = 0
        async for delta in deltas:
            number += 1
            self._points.pass_or_fail(f"before delta {number} of a request")
            yield delta
        self._points.pass_or_fail(f"behind the last of {number} deltas of a request")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r}, at={self._points.at})"


class FailingRequirement(Requirement):
    """Another requirement, one of whose calls raises an error.

    The calls of ``stream_validate`` and ``validate`` are counted from 1, over the wrapper and all of
    its copies.

    Args:
        requirement: The one that judges.
        at: The call that raises the error, instead of judging; ``None``: none of them.
        error: What is raised; an :class:`InjectedError` if not given.
    """

    def __init__(
        self, requirement: Requirement, *, at: int | None = None, error: Exception | None = None
    ) -> None:
        super().__init__(
            requirement.description,
            check_only=requirement.check_only,
            chunking=requirement.chunking,
            fail_open=requirement.fail_open,
            timeout=requirement.timeout,
            on_fail=requirement.on_fail,
            blocking=requirement.blocking,
            window=requirement.window,
            every=requirement.every,
        )
        self.role: Role = requirement.role
        self.requirement: Requirement = requirement
        """The one that judges."""
        self._points = _Points(at, InjectedError("put in by the test") if error is None else error)

    @property
    def points(self) -> int:
        """How many calls there were so far."""
        return self._points.passed

    @property
    def failed_at(self) -> str | None:
        """Which call has raised the error, in words; ``None``: none yet."""
        return self._points.failed_at

    def __copy__(self) -> Self:
        """A wrapper of a copy; the calls are counted together."""
        new = super().__copy__()
        new.requirement = copy.copy(self.requirement)
        new.chunking = new.requirement.chunking
        return new

    def parts(self) -> list[Span]:
        """As the requirement says."""
        return list(self.requirement.parts())

    def format_for_llm(self) -> str:
        """As the requirement says."""
        return self.requirement.format_for_llm()

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        """As the requirement judges, or the error."""
        self._points.pass_or_fail(f"in stream_validate of {self.requirement!r}")
        return await self.requirement.stream_validate(chunk, backend=backend, ctx=ctx)

    async def validate(
        self,
        backend: Backend,
        ctx: Context,
        *,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
    ) -> ValidationResult:
        """As the requirement judges, or the error."""
        self._points.pass_or_fail(f"in validate of {self.requirement!r}")
        return await self.requirement.validate(
            backend, ctx, format=format, model_options=model_options
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.requirement!r}, at={self._points.at})"
