"""The user's handle of a generation: a text that can be awaited, read while it is generated, or cancelled.

The work is done by the thunk's *producer*, a :class:`~.generation.Generation`. The thunk drops it as soon as
the text is complete and no reader needs the rest of it, so a computed thunk is small and free of the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel
import attrs

from mellea_sc.core.base import Thunk
from mellea_sc.core.errors import ThunkNotComputed
from mellea_sc.core.generation_info import NOTHING_KNOWN, GenerationInfo, ToolCall
from mellea_sc.core.picture import text_of_answer
from mellea_sc.core.sampling import SamplingResult
from mellea_sc.runtime.failures import shorten
from mellea_sc.runtime.generation.generation import Generation
from mellea_sc.runtime.loops.notebook import is_interrupt


class ModelOutputThunk(Thunk):
    """A text that is being generated; awaiting it gives the text.

    Sessions and bound backends make thunks that are already generating. Any number of tasks may await a thunk;
    one at a time may read it with :meth:`astream` or ``async for``. Cancelling a task that awaits it does not
    cancel the generation: :meth:`cancel` does, and so does leaving ``async with thunk:`` early.

    Args:
        value: The text, if it is known.
        name: For people.
        generation: What is known about the generation.
    """

    __slots__ = (
        "__weakref__",
        "_generation",
        "_value",
        "format_error",
        "name",
        "parsed_repr",
        "producer",
        "sampling",
    )

    sampling: SamplingResult | None
    """All attempts, where a sampling strategy made the text."""
    parsed_repr: object
    """The parsed text: an instance of the class given as ``format=``, or ``None`` if the text does not fit it;
    without a class, the component's ``parse`` of the text, or the text."""
    format_error: str | None
    """Why the text does not fit ``format=``; ``None`` if it does, or is not complete yet."""
    producer: Generation | None
    """The producer; ``None`` when it is not needed any more. Not for users."""

    def __init__(
        self,
        value: str | None = None,
        *,
        name: str = "a generation",
        generation: GenerationInfo | None = None,
    ) -> None:
        self.name: str = name
        self.sampling = None
        self.parsed_repr = value
        self.format_error = None
        self.producer = None
        self._generation = generation
        self._value: str | None = value

    @classmethod
    def computed(cls, text: str, *, generation: GenerationInfo | None = None) -> ModelOutputThunk:
        """A thunk whose text is known."""
        return cls(value=text, generation=generation)

    # --- what a user asks ------------------------------------------------------------------

    def is_computed(self) -> bool:
        """Whether the whole text has been generated and, if it is streamed, handed out.

        So a loop that calls :meth:`astream` until this is true misses nothing.
        """
        producer = self.producer
        return self._value is not None and (producer is None or not producer.is_to_be_read)

    @property
    def value(self) -> str:
        """The text. That of a streamed thunk can be read when it is complete, whatever its reader has read of it.

        Raises:
            ThunkNotComputed: it is not complete yet, or never will be.
        """
        if self._value is None:
            raise ThunkNotComputed(
                f"{self!r} has no value to read: `await` it first (or read it with astream())"
            )
        return self._value

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return f"<ModelOutputThunk {self.state}: {self.name}>"

    def _repr_html_(self) -> str:
        """For notebooks: the answer as far as it may be shown; never waits."""
        is_held = self.producer is not None and self.producer.is_held
        text = "" if is_held else self.text_so_far
        error = "" if self.error is None else f": {type(self.error).__name__}: {self.error}"
        return text_of_answer(text, f"{self.name}: {self.state}{error}{self.generation.summary()}")

    def __copy__(self) -> ModelOutputThunk:
        """A thunk with the same text that is independent of the session.

        Raises:
            ThunkNotComputed: the text is not complete yet.
        """
        new = _computed_again(*self._kept())
        new.sampling = self.sampling
        return new

    def __reduce__(self) -> tuple[object, ...]:
        """Deep copies and pickles omit ``sampling``: its requirements may hold what cannot be copied.

        Raises:
            ThunkNotComputed: the text is not complete yet.
        """
        return _computed_again, self._kept()

    def _kept(self) -> tuple[str, str, GenerationInfo, object, str | None]:
        return self.value, self.name, self.generation, self.parsed_repr, self.format_error

    @property
    def state(self) -> str:
        """``"generating"``, ``"computed"``, ``"failed"`` or ``"cancelled"``."""
        if self._value is not None:
            return "computed"
        return "generating" if self.producer is None else self.producer.state

    @property
    def text_so_far(self) -> str:
        """The text generated so far; also after a failure or a cancellation."""
        if self._value is not None:
            return self._value
        return "" if self.producer is None else self.producer.text

    @property
    def generation(self) -> GenerationInfo:
        """What is known about the generation so far."""
        if self._generation is not None:
            return self._generation
        return NOTHING_KNOWN if self.producer is None else self.producer.record.info()

    @generation.setter
    def generation(self, known: GenerationInfo) -> None:
        self._generation = known

    @property
    def reasoning(self) -> str:
        """The reasoning before the answer, as far as it has come. It is no part of the text."""
        if self._generation is None and self.producer is not None:
            return self.producer.record.reasoning
        return self.generation.reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of the model, as far as they have come. The library does not execute them."""
        if self._generation is None and self.producer is not None:
            return self.producer.record.tool_calls
        return self.generation.tool_calls

    @property
    def error(self) -> Exception | None:
        """The failure, or the limit that has stopped it. Reading this does not count as observing the error."""
        return None if self.producer is None else self.producer.error

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.state == "cancelled"

    # --- waiting, reading, cancelling -----------------------------------------------------------

    async def avalue(self) -> str:
        """Wait for the whole text and return it; ``await thunk`` is the same.

        Raises:
            GenerationCancelled: it was cancelled; the error has the text so far.
            WrongEventLoop: it is being generated in another event loop.
            Exception: why the generation failed, the same each time.

        Cancellation: only the waiting ends; the generation goes on and no text is lost.
        """
        producer = self.producer
        try:
            if producer is not None and producer.state == "generating":
                producer.check_awaitable()
                if producer.streamed:
                    producer.stop_throttling()
                try:
                    await producer.wait_finished()
                except anyio.get_cancelled_exc_class() as cancelled:
                    self._cancel_if_interrupted(cancelled)
                    raise
            else:
                producer = None  # nothing to wait for
            if producer is None or self._value is None:
                # Nothing was awaited yet, and every public async function is a checkpoint; or the generation was
                # cancelled. If the caller was cancelled together with it, this raises the caller's cancellation,
                # which must not be turned into an error.
                await anyio.lowlevel.checkpoint()
            if self.producer is not None:
                if self._value is None:
                    raise self.producer.to_raise()
                self.mark_awaited()
        except Exception as error:
            shorten(error)
            raise
        assert self._value is not None
        return self._value

    def mark_awaited(self) -> None:
        """Note that somebody has awaited the value: the text need not be kept for a reader any more."""
        if (producer := self.producer) is not None:
            producer.mark_awaited()
            if self._value is not None and not producer.is_to_be_read:
                self.producer = None

    async def wait_finished(self) -> None:
        """Wait until the generation has ended, in whichever way; raises none of its errors.

        Raises:
            WrongEventLoop: it is being generated in another event loop.

        Cancellation: only the waiting ends.
        """
        if self.producer is not None:
            self.producer.check_awaitable()
            await self.producer.wait_finished()

    async def astream(self) -> str:
        """Wait for new text and return it: all that has come since the last call.

        The last such call returns the rest, which may be empty, and leaves the thunk computed; on a
        computed thunk this returns the whole text. Without ``ModelOption.STREAM`` the whole text
        comes at the end.

        Raises:
            anyio.BusyResourceError: another task is reading it.
            GenerationCancelled: it was cancelled; raised after all text before that was returned.
            WrongEventLoop: it is being generated in another event loop.
            Exception: the error with which the generation failed, after all text before it was returned.

        Cancellation: nothing is lost; the next call returns what this one would have.
        """
        producer = self.producer
        if producer is not None:
            producer.check_awaitable()
            producer.check_no_reader()
        if producer is None or self.is_computed():
            await anyio.lowlevel.checkpoint()
            return self.value
        try:
            text = await producer.next_text()
        except anyio.get_cancelled_exc_class() as cancelled:
            self._cancel_if_interrupted(cancelled)
            raise
        except Exception as error:
            shorten(error)
            raise
        if producer.state == "computed":
            self.producer = None
        return text

    def __aiter__(self) -> AsyncIterator[str]:
        """The deltas, as they come, without empty ones; on a computed thunk its whole text, once."""
        return _Deltas(self)

    def _cancel_if_interrupted(self, cancelled: BaseException) -> None:
        """Cancel the generation if the caller is a notebook's cell that was interrupted.

        Elsewhere, cancelling a waiter leaves the generation running. But a person who interrupts a cell means the
        generation, and has no other way to stop it.
        """
        if is_interrupt(cancelled):
            self.cancel("the cell that waited for it was interrupted")

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the generation and close its connection; without effect when it has finished.

        It also declares that nobody will ask for its error: an error that nobody has observed is logged.

        Raises:
            WrongEventLoop: it is being generated in another event loop.
        """
        if self.producer is not None:
            self.producer.stop(reason)
            self.producer.own_error.dismiss()

    async def __aenter__(self) -> Self:
        if self.producer is not None:
            self.producer.check_awaitable()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Cancel the generation if it is still running, and wait for its cleanup."""
        if self.producer is not None and (self.state == "generating" or exc is not None):
            await self._stop(self.producer, "its block was left")  # noqa: ASYNC102 - it shields itself

    async def aclose(self) -> None:
        """Cancel the generation if it is still running, and wait for its cleanup, as leaving the block does.

        Raises:
            WrongEventLoop: it is being generated in another event loop.

        Cancellation: the cleanup is waited for all the same; its time is bounded.
        """
        if self.producer is not None and self.state == "generating":
            await self._stop(self.producer, "it was closed")

    async def _stop(self, producer: Generation, reason: str) -> None:
        producer.check_awaitable()
        self.cancel(reason)
        # shielded, so that no task of the block outlives it; the cleanup itself is bounded in time
        with anyio.CancelScope(shield=True):
            await producer.wait_finished()

    # --- for the producer -----------------------------------------------------------------------

    def take_value(self) -> None:
        """Take the complete text from the producer, and drop the producer unless a reader still needs it."""
        producer = self.producer
        assert producer is not None
        self._value = producer.text
        if self._generation is None:
            self._generation = producer.record.info()
        if not producer.streamed or not producer.is_to_be_read:
            self.producer = None


def _computed_again(
    text: str,
    name: str,
    generation: GenerationInfo,
    parsed_repr: object,
    format_error: str | None = None,
) -> ModelOutputThunk:
    thunk = ModelOutputThunk.computed(text, generation=generation)
    thunk.name = name
    thunk.parsed_repr = parsed_repr
    thunk.format_error = format_error
    return thunk


@attrs.define(eq=False, repr=False)
class _Deltas:
    """The iteration of one reader. A plain object: leaving its loop early leaves nothing to clean up."""

    _thunk: ModelOutputThunk
    _done: bool = attrs.field(default=False, init=False)

    def __aiter__(self) -> _Deltas:
        return self

    async def __anext__(self) -> str:
        while not self._done:
            try:
                text = await self._thunk.astream()
            except Exception as error:
                shorten(error)
                raise
            self._done = self._thunk.is_computed()
            if text:
                return text
        raise StopAsyncIteration
