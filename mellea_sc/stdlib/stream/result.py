"""What a user sees of a streaming run: the released chunks, the events, and how it ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from operator import attrgetter
from types import TracebackType
from typing import Final, Protocol, Self

import anyio
import anyio.lowlevel

from mellea_sc.core.errors import ThunkNotComputed
from mellea_sc.core.generation_info import GenerationInfo
from mellea_sc.core.picture import table_of, text_of_answer
from mellea_sc.core.requirement import (
    PartialValidationResult,
    Requirement,
    ValidationResult,
    label_of,
)
from mellea_sc.core.tool_calls import ToolCall
from mellea_sc.core.trace import Trace
from mellea_sc.runtime.checks.ledger import Chunk
from mellea_sc.runtime.failures import raises_briefly
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.loops.current import check_loop, current_loop
from mellea_sc.stdlib.sampling.plan import AttemptResult
from mellea_sc.stdlib.stream.events import StreamEvent
from mellea_sc.stdlib.stream.view import Gate

__all__ = ["StreamChunkingResult"]

TEXT: Final[Callable[[Chunk], str]] = attrgetter("text")
"""Empty for white space at the end of a text, which is no chunk."""


class Inside(Protocol):
    """The run behind a result."""

    @property
    def attempts(self) -> Sequence[AttemptResult]:
        """The attempts that have ended."""
        ...

    def generation(self) -> GenerationInfo:
        """What is known about the generation."""
        ...

    def reasoning(self) -> str:
        """What the model thinks."""
        ...

    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that it wants to have made."""
        ...

    def thunk(self) -> ModelOutputThunk:
        """What was released, computed."""
        ...

    def trace(self) -> Trace:
        """The story so far."""
        ...

    def released_text(self) -> str:
        """What was released."""
        ...

    def was_observed(self) -> None:
        """Somebody has been told of the error."""
        ...

    def dismiss(self) -> None:
        """Nobody will ask for an error."""
        ...


class StreamChunkingResult:
    """A streaming run as its user sees it: made by ``stream_with_chunking`` and ``m.stream``.

    The released text can be read with :meth:`astream`, what happens with :meth:`events`; either, both
    or neither, in any order. ``async with`` it, and the run ends with the block. The attributes below are final when :meth:`acomplete` has returned.
    """

    requirements: Sequence[Requirement]
    """What must hold, as it was given (a strategy's own first): the order of verdicts everywhere."""
    completed: bool
    """Whether the text came to its natural end: no check failed while it streamed, no error, no cancel.
    With ``hold_back`` also that it was accepted; otherwise it was not shown."""
    final_validations: list[ValidationResult]
    """After a natural end: one verdict per requirement on the whole text, in their order."""
    streaming_failures: list[tuple[Requirement, PartialValidationResult]]
    """What stopped the text while it streamed: the requirements that failed (the copies that judged it),
    in order, or the preconditions."""
    recorded_failures: list[tuple[Requirement, PartialValidationResult]]
    """The fails that did not stop it (``on_fail`` of ``"filter"``, ``"fix"`` or ``"noop"``), as they came."""
    error: Exception | None
    """The error that ended the run. Reading it does not count as having observed it."""
    cancelled: bool
    """Whether the run was cancelled from outside: by :meth:`cancel`, its block, its session or a limit."""

    def __init__(self, run: Inside, gate: Gate, requirements: Sequence[Requirement]) -> None:
        self.requirements = requirements
        self.completed = False
        self.cancelled = False
        self.final_validations = []
        self.streaming_failures = []
        self.recorded_failures = []
        self.error = None
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self.ended: anyio.Event = anyio.Event()
        self.error_was_raised: bool = False
        self.cancel_reason: str | None = None
        self._loop = current_loop()
        self._run = run
        self._gate = gate

    @property
    def attempts(self) -> Sequence[AttemptResult]:
        """Every attempt that has ended, in the order of their ends."""
        return self._run.attempts

    @property
    def generation(self) -> GenerationInfo:
        """Model, finish reason, usage and times, as far as they are known: the usage and the total time
        are those of all attempts.
        """
        return self._run.generation()

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, in the server's word: ``"stop"``, ``"length"``, ``"content_filter"``, …; ``None`` where it
        has not said so (yet), as after a failed check. See :attr:`GenerationInfo.is_broken_off`.
        """
        return self.generation.finish_reason

    @property
    def reasoning(self) -> str:
        """What the model thinks before it answers, as far as it has come: of the attempt that is shown. No
        requirement judges it.
        """
        return self._run.reasoning()

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that the model wants to have made, as far as they have come."""
        return self._run.tool_calls()

    @property
    def trace(self) -> Trace:
        """The story of the run so far: its attempts and judges, what ended each of them, and the tokens
        generated, released, wasted, and saved by stopping early. Its ``str`` is for people.
        """
        return self._run.trace()

    @property
    def full_text(self) -> str:
        """The released text: a prefix of the generated one, and after a natural end all of it.

        What was filtered is not in it, and what was fixed stands in it as it was shown.
        """
        return self._run.released_text()

    @property
    def released(self) -> int:
        """How many chunks have been released, of the attempt that is shown."""
        return 0 if self._gate.showing is None else self._gate.showing.chunks_released

    def astream(self) -> AsyncIterator[str]:
        """The released chunks, in order, as they are released.

        Where another attempt may replace text that was released (a strategy that asks anew, without
        ``hold_back``), they come when no other attempt can follow; :meth:`events` has them at once.

        One reader: a second iteration raises :class:`~mellea_sc.StreamConsumed` at its first step.
        Ends when the run ends; after a failed check that is early, see :attr:`completed`.

        Raises:
            WrongEventLoop: at a step: the run goes on in another event loop.
            Exception: the error that ended the run, as itself, after the chunks that were released
                before it; raised here or by :meth:`acomplete`, once.

        Cancellation: only the waiting ends. Nothing is lost.
        """
        return self._gate.chunks.reader(TEXT)

    def atext(self) -> AsyncIterator[str]:
        """The released text exactly, white space included, piece by piece as it is released.

        Joined, the pieces are :attr:`full_text`: what a program forwards to a reader, so that Markdown and
        code stay what they are. Each chunk comes with what stands before it. Otherwise as
        :meth:`astream`, with which it shares its one reader: iterate one of the two.

        Raises:
            Exception: as :meth:`astream`.

        Cancellation: only the waiting ends. Nothing is lost.
        """
        return self._gate.chunks.reader(_whole_text_of)

    def events(self) -> AsyncIterator[StreamEvent]:
        """What happens, in order; the last event is always a ``CompletedEvent``.

        One reader: a second iteration raises :class:`~mellea_sc.StreamConsumed` at its first step.
        An error comes as an ``ErrorEvent`` and is raised by :meth:`astream` or :meth:`acomplete`.

        Raises:
            WrongEventLoop: at a step: the run goes on in another event loop.

        Cancellation: only the waiting ends. Nothing is lost.
        """
        return self._gate.events.reader()

    def bound_lookahead(self, chunks: int) -> None:
        """Let at most so many released chunks wait unread, where the stream was not given a ``lookahead``."""
        if self._gate.lookahead is None:
            self._gate.lookahead = chunks

    @raises_briefly
    async def acomplete(self) -> None:
        """Wait for the end of the run; a ``lookahead`` does not hold it up any more.

        Raises:
            WrongEventLoop: the run goes on in another event loop.
            Exception: the error that ended the run, as itself, unless :meth:`astream` has raised it.

        Cancellation: only the waiting ends; the run goes on.
        """
        if self.ended.is_set():  # perhaps in another event loop
            await anyio.lowlevel.checkpoint()
        else:
            check_loop(self._loop, repr(self))
            self._gate.open()
            await self.ended.wait()
        if (error := self.error_to_raise()) is not None:
            raise error

    @property
    def as_thunk(self) -> ModelOutputThunk:
        """The released text as a computed thunk, with the reasoning, the calls and, for ``format=``, what it means.

        Raises:
            ThunkNotComputed: the run has not ended.
        """
        if not self.ended.is_set():
            raise ThunkNotComputed("the run has not ended: `await result.acomplete()` first")
        return self._run.thunk()

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the run: the connection is closed, every validator is cancelled.

        It also says that nobody will ask for an error of it: one that nobody has seen is logged.

        Raises:
            WrongEventLoop: the run goes on in another event loop.
        """
        self.stop(reason)
        self._run.dismiss()

    def stop(self, reason: str | None) -> None:
        """Cancel the run, for somebody who will ask for its error; without effect when it has ended.

        Raises:
            WrongEventLoop: the run goes on in another event loop.
        """
        if not self.ended.is_set():
            check_loop(self._loop, repr(self))
            self.cancel_reason = reason
            self.scope.cancel(reason)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Cancel the run if it has not ended, and wait for its cleanup.

        Raises:
            Exception: the error that ended the run, if nobody has seen it and the block raised none.
        """
        if exc is not None:
            self.cancel("its block was left")
        elif not self.ended.is_set():
            self.stop("its block was left")
        with anyio.CancelScope(shield=True):
            await self.ended.wait()
        if exc is None and (error := self.error_to_raise()) is not None:
            raise error

    def error_to_raise(self) -> Exception | None:
        """The error that ended the run, if there is one and it has not been raised before."""
        if self.error is None or self.error_was_raised:
            return None
        self.error_was_raised = True
        self._run.was_observed()
        return self.error

    @property
    def _state(self) -> str:
        if not self.ended.is_set():
            return "running"
        if self.completed:
            return "completed"
        if self.error is not None:
            return "ended by an error"
        return "cancelled" if self.cancelled else "stopped by a failed check"

    def __repr__(self) -> str:
        return f"<StreamChunkingResult {self._state}, {self.released} chunks released>"

    def _repr_html_(self) -> str:
        """For notebooks: what was released, the verdicts, and what ran when."""
        verdicts = [
            (label_of(one), verdict.success, verdict.reason)
            for one, verdict in self.streaming_failures
        ]
        if not verdicts and self.attempts:
            verdicts = [
                (label_of(one), "pass" if verdict else "fail", verdict.reason)
                for one, verdict in self.attempts[-1].validations
            ]
        error = "" if self.error is None else f": {type(self.error).__name__}: {self.error}"
        said = text_of_answer(self.full_text, f"{self._state}{error}{self.generation.told()}")
        return said + table_of(verdicts) + self.trace.to_svg()


def _whole_text_of(chunk: Chunk) -> str:
    return chunk.before + chunk.text
