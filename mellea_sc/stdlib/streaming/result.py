"""The user's handle of a streaming run: the released chunks, the events, and how it ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from operator import attrgetter
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.lowlevel
import attrs

from mellea_sc.core.errors import PreconditionFailed, ThunkNotComputed
from mellea_sc.core.generation_info import GenerationInfo, ToolCall
from mellea_sc.core.picture import table_of, text_of_answer
from mellea_sc.core.question import check_lookahead
from mellea_sc.core.requirement import (
    PartialValidationResult,
    Requirement,
    ValidationResult,
    label_of,
)
from mellea_sc.core.trace import Cause, Trace
from mellea_sc.runtime.checks.attempt import Attempt
from mellea_sc.runtime.failures import raises_briefly
from mellea_sc.runtime.generation.pump import read_meaning
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.stdlib.sampling.results import AttemptResult, cause_of_error, named, trace_of
from mellea_sc.stdlib.streaming.events import ReleasedChunk, StreamEvent
from mellea_sc.stdlib.streaming.run import StreamRun

TEXT: Final[Callable[[ReleasedChunk], str]] = attrgetter("text")
"""Empty for white space at the end of a text, which is no chunk."""


class StreamChunkingResult:
    """The handle of a streaming run, made by ``stream_with_chunking`` and ``m.stream``.

    :meth:`astream` reads the released text, :meth:`events` the events; a program may read either, both or neither, in
    any order. Used as ``async with result:``, the run ends with the block. The attributes are final when
    :meth:`acomplete` has returned.
    """

    def __init__(self, run: StreamRun) -> None:
        self._run = run

    @property
    def requirements(self) -> Sequence[Requirement]:
        """The requirements as given, those of the strategy first; all lists of verdicts are in this order."""
        return self._run.question.requirements

    @property
    def completed(self) -> bool:
        """Whether the text came to its natural end: no failed check while it streamed, no error, no cancellation.
        With ``hold_back`` the text must also have been accepted, because otherwise it was not shown.
        """
        return self._run.completed

    @property
    def final_validations(self) -> list[ValidationResult]:
        """After a natural end: one verdict per requirement on the whole text, in their order."""
        attempt = self._final_attempt
        return [] if attempt is None else list(attempt.validations)

    @property
    def streaming_failures(self) -> list[tuple[Requirement, PartialValidationResult]]:
        """The requirements that stopped the text while it streamed, in order, with their verdicts; or the failed
        preconditions. The requirements are the copies that validated the text.
        """
        attempt = self._final_attempt
        return list(self._run.unmet) if attempt is None else attempt.failures

    @property
    def recorded_failures(self) -> list[tuple[Requirement, PartialValidationResult]]:
        """The fails that did not stop the text (``on_fail`` is ``"filter"``, ``"fix"`` or ``"noop"``), as they came."""
        attempt = self._final_attempt
        return [] if attempt is None else attempt.noted

    @property
    def error(self) -> Exception | None:
        """The error that ended the run. Reading it does not count as having observed it."""
        return self._run.own_error.error

    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled from outside: by :meth:`cancel`, its block, its session or a limit."""
        return self._run.cancelled

    @property
    def has_ended(self) -> bool:
        """Whether the run has ended, in whichever way."""
        return self._run.ended.is_set()

    @property
    def attempts(self) -> Sequence[AttemptResult]:
        """Every attempt that has ended, in the order of their ends."""
        return self._run.runner.results

    @property
    def generation(self) -> GenerationInfo:
        """Model, finish reason, usage and times, as far as they are known. The usage and the total time
        are sums over all attempts.
        """
        attempt, attempts = self._run.attempt, self._run.runner.attempts
        if attempt is None:
            return GenerationInfo()
        known = attempt.record.info()
        if self._shown_attempt is None:
            known = attrs.evolve(known, reasoning="", tool_calls=())
        return known.summed_over([one.record.info() for one in attempts])

    @property
    def finish_reason(self) -> str | None:
        """The server's finish reason: ``"stop"``, ``"length"``, ``"content_filter"``, …; ``None`` if there is none
        (yet), for example after a failed check. See :attr:`GenerationInfo.is_broken_off`.
        """
        return self.generation.finish_reason

    @property
    def reasoning(self) -> str:
        """The reasoning of the attempt that is shown, as far as it has come. No requirement validates it."""
        attempt = self._shown_attempt
        return "" if attempt is None else attempt.record.reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of the model, as far as they have come."""
        attempt = self._shown_attempt
        return () if attempt is None else attempt.record.tool_calls

    @property
    def trace(self) -> Trace:
        """The trace of the run so far: its attempts and judges, what ended each of them, and the tokens
        generated, released, wasted, and saved by stopping early. Its ``str`` is for people.
        """
        run = self._run
        accepted = run.chosen.number if run.chosen is not None and run.completed else None
        cause: Cause | None = None
        for unmet, verdict in run.unmet:
            cause = Cause(kind="precondition", who=named(unmet), reason=verdict.reason)
        if not self.has_ended:
            outcome = "running"
        elif self.error is not None and not isinstance(self.error, PreconditionFailed):
            outcome, cause = "failed", cause_of_error(self.error, None)
        elif run.cancelled:
            outcome, cause = "cancelled", Cause(kind="cancel", reason=run.cancel_reason)
        elif accepted is None:
            outcome = "rejected"
        else:
            outcome = "accepted" if all(self.final_validations) else "completed, not valid"
        return trace_of(
            run.question.action,
            outcome,
            run.runner.attempts,
            run.runner.asks,
            accepted=accepted,
            released=run.characters_shown(),
            cause=cause,
            judges=run.input_judges,
        )

    @property
    def full_text(self) -> str:
        """The released text: a prefix of the generated one, and after a natural end all of it.

        It is the edited text: without the filtered spans, and with the replacements of fixed ones.
        """
        return self._run.released_text()

    @property
    def released(self) -> int:
        """The number of released chunks of the attempt that is shown."""
        view = self._run.view
        return 0 if view is None else view.chunks_released

    def astream(self) -> AsyncIterator[str]:
        """The released chunks, in order, as they are released.

        If another attempt may replace released text (a strategy that retries, without ``hold_back``), the chunks
        come only when no other attempt can follow; :meth:`events` has them at once.

        There is one reader: a second iteration raises :class:`~mellea_sc.StreamConsumed` at its first step. The
        iteration ends when the run ends, also after a failed check; see :attr:`completed`.

        Raises:
            WrongEventLoop: at a step: the run goes on in another event loop.
            Exception: the error that ended the run, as itself, after the chunks that were released
                before it; raised here or by :meth:`acomplete`, once.

        Cancellation: only the waiting ends. Nothing is lost.
        """
        return self._run.readers.chunks(TEXT)

    def atext(self) -> AsyncIterator[str]:
        """The released text exactly, white space included, piece by piece as it is released.

        Joined, the pieces are :attr:`full_text`. Use this to forward the text, so that Markdown and code keep their
        line breaks. Each piece is a chunk with the white space before it. Otherwise the same as :meth:`astream`, with
        which it shares the one reader: iterate one of the two.

        Raises:
            Exception: as :meth:`astream`.

        Cancellation: only the waiting ends. Nothing is lost.
        """
        return self._run.readers.chunks(_whole_text_of)

    def events(self, *, lookahead: int | None = None) -> AsyncIterator[StreamEvent]:
        """The events, in order; the last one is always a ``CompletedEvent``.

        There is one reader: a second iteration raises :class:`~mellea_sc.StreamConsumed` at its first step.
        An error comes as an ``ErrorEvent`` and is raised by :meth:`astream` or :meth:`acomplete`.

        Args:
            lookahead: The number of released chunks that may wait unread, unless the stream was given its own
                ``lookahead``; ``None``: any number.

        Raises:
            InvalidOption: ``lookahead`` is less than 1.
            WrongEventLoop: at a step: the run goes on in another event loop.

        Cancellation: only the waiting ends. Nothing is lost.
        """
        check_lookahead(lookahead)
        return self._run.readers.events(lookahead)

    @raises_briefly
    async def acomplete(self) -> None:
        """Wait for the end of the run; a ``lookahead`` does not slow it down any more.

        Raises:
            WrongEventLoop: the run goes on in another event loop.
            Exception: the error that ended the run, as itself, unless :meth:`astream` has raised it.

        Cancellation: only the waiting ends; the run goes on.
        """
        run = self._run
        run.check_loop()
        if not run.ended.is_set():
            run.stop_throttling()
        await self.wait_finished()
        if (error := run.error_to_raise()) is not None:
            raise error

    async def wait_finished(self) -> None:
        """Wait for the end of the run without raising its error; the error stays unobserved.

        Raises:
            WrongEventLoop: the run goes on in another event loop.

        Cancellation: only the waiting ends; the run goes on.
        """
        if self._run.ended.is_set():  # perhaps in another event loop
            await anyio.lowlevel.checkpoint()
        else:
            self._run.check_loop()
            await self._run.ended.wait()

    @property
    def as_thunk(self) -> ModelOutputThunk:
        """The released text as a computed thunk, with reasoning, tool calls and, for ``format=``, the parsed value.

        Raises:
            ThunkNotComputed: the run has not ended.
        """
        if not self.has_ended:
            raise ThunkNotComputed("the run has not ended: `await result.acomplete()` first")
        question, answer = self._run.question, self._run.answer
        thunk = ModelOutputThunk.computed(self.full_text, generation=self.generation)
        if answer is not None:
            thunk.parsed_repr, thunk.format_error = answer.parsed_repr, answer.format_error
        elif question.format is not None:
            read_meaning(thunk, thunk.value, question.action, question.format)
        return thunk

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the run: the connection is closed, every validator is cancelled.

        It also declares that nobody will ask for its error: an error that nobody has observed is logged.

        Raises:
            WrongEventLoop: the run goes on in another event loop.
        """
        self._run.cancel(reason)
        self._run.dismiss()

    @property
    def _final_attempt(self) -> Attempt | None:
        """The attempt with which the run has ended; ``None`` before that, or if a precondition has failed."""
        return self._run.attempt if self.has_ended and not self._run.unmet else None

    @property
    def _shown_attempt(self) -> Attempt | None:
        """The attempt that is shown; ``None`` while none may be shown."""
        view = self._run.view
        return self._run.attempt if view is not None and view.is_shown else None

    async def __aenter__(self) -> Self:
        return self

    @raises_briefly
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Cancel the run if it has not ended, and wait for its cleanup.

        Raises:
            Exception: the error that ended the run, if nobody has observed it and the block raised none.
        """
        run = self._run
        run.cancel("its block was left")
        if exc is not None:
            run.dismiss()
        with anyio.CancelScope(shield=True):
            await run.ended.wait()
        if exc is None and (error := run.error_to_raise()) is not None:
            raise error

    @property
    def state(self) -> str:
        """How it stands, in words."""
        if not self.has_ended:
            return "running"
        if self.completed:
            return "completed"
        if self.error is not None:
            return "ended by an error"
        return "cancelled" if self.cancelled else "stopped by a failed check"

    def __repr__(self) -> str:
        return f"<StreamChunkingResult {self.state}, {self.released} chunks released>"

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
        said = text_of_answer(self.full_text, f"{self.state}{error}{self.generation.summary()}")
        return said + table_of(verdicts) + self.trace.to_svg()


def _whole_text_of(chunk: ReleasedChunk) -> str:
    return chunk.before + chunk.text


class Streamer(StreamChunkingResult):
    """A checked stream under Mellea's names: iterate it for its chunks, inside its block."""

    def __aiter__(self) -> AsyncIterator[str]:
        return self.astream()

    async def aclose(self) -> None:
        """Cancel the stream if it has not ended, and wait for its cleanup.

        Raises:
            Exception: the error that ended it, if nobody has observed it.

        Cancellation: the cleanup is waited for.
        """
        await self.__aexit__(None, None, None)

    @property
    def completed_normally(self) -> bool:
        """Whether the text came to its natural end."""
        return self.completed

    @property
    def failed_early(self) -> bool:
        """Whether a check stopped it."""
        return bool(self.streaming_failures)

    @property
    def failure_reason(self) -> str | None:
        """The reason of the first check that stopped it, or else that requirement's description."""
        for requirement, verdict in self.streaming_failures:
            return verdict.reason or label_of(requirement)
        return None

    @property
    def mot(self) -> ModelOutputThunk | None:
        """After a natural end: the text as a computed thunk."""
        return self.as_thunk if self.completed else None
