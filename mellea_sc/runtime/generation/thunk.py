"""What a user holds of a generation: a text that can be awaited, read while it comes, and cancelled.

A thunk is a handle. The work is its *producer*, a :class:`~.generation.Generation`, which it lets go of as soon as
the text is there and nobody has to be handed the rest of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel

from mellea_sc.core.base import Thunk
from mellea_sc.core.errors import ThunkNotComputed
from mellea_sc.core.generation_info import NOTHING_KNOWN, GenerationInfo
from mellea_sc.core.picture import text_of_answer
from mellea_sc.core.sampling import SamplingResult
from mellea_sc.core.tool_calls import ToolCall
from mellea_sc.runtime.failures import short_traceback, shortened
from mellea_sc.runtime.generation.generation import Generation
from mellea_sc.runtime.loops.notebook import is_interrupt
from mellea_sc.runtime.nursery import Nursery

__all__ = ["ModelOutputThunk"]


class ModelOutputThunk(Thunk):
    """A text that is being generated; awaiting it gives the text.

    Made by sessions and bound backends, already generating. Any number of tasks may await it; one
    at a time may read it with :meth:`astream` or ``async for``. Cancelling who waits does not cancel
    the generation: :meth:`cancel` does, and so does leaving ``async with thunk:`` early.

    Args:
        nursery: Where it is generated; ``None`` for a text that is there.
        value: The text, if it is there.
        name: For people.
        streamed: Whether its deltas are handed out.
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
    """What the text means: an instance of the class given as ``format=``, or ``None`` where the text does not
    fit it; else a component's own reading, or the text."""
    format_error: str | None
    """Why the text does not fit ``format=``; ``None`` where it does, or has not been read yet."""
    producer: Generation | None
    """The work behind it; ``None`` when it is not needed any more. Not for users."""

    def __init__(
        self,
        nursery: Nursery | None = None,
        *,
        value: str | None = None,
        name: str = "a generation",
        streamed: bool = False,
        generation: GenerationInfo | None = None,
    ) -> None:
        self.name: str = name
        self.sampling = None
        self.parsed_repr = value
        self.format_error = None
        self.producer = None if nursery is None else Generation(nursery, name, streamed=streamed)
        self._generation = generation
        self._value: str | None = value

    @classmethod
    def computed(cls, text: str, *, generation: GenerationInfo | None = None) -> ModelOutputThunk:
        """A thunk whose text is there."""
        return cls(value=text, generation=generation)

    # --- what a user asks ------------------------------------------------------------------

    def is_computed(self) -> bool:
        """Whether the whole text is there and, when it is being streamed, has been handed out.

        So a loop that reads :meth:`astream` until this is true misses nothing.
        """
        producer = self.producer
        return self._value is not None and (producer is None or not producer.is_to_be_read)

    @property
    def value(self) -> str:
        """The text.

        Raises:
            ThunkNotComputed: it is not there yet, or never will be.
        """
        producer = self.producer
        if self._value is None or not (
            producer is None or producer.is_drained or not producer.is_to_be_read
        ):
            raise ThunkNotComputed(
                f"{self!r} has no value to read: `await` it first (or read it with astream())"
            )
        return self._value

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return f"<ModelOutputThunk {self.state}: {self.name}>"

    def _repr_html_(self) -> str:
        """For notebooks: the answer as far as it may be shown, and never a wait."""
        is_held = self.producer is not None and self.producer.is_held
        text = "" if is_held else self.text_so_far
        error = "" if self.error is None else f": {type(self.error).__name__}: {self.error}"
        return text_of_answer(text, f"{self.name}: {self.state}{error}{self.generation.told()}")

    def __copy__(self) -> ModelOutputThunk:
        """The same text, free of the session.

        Raises:
            ThunkNotComputed: it is not there yet.
        """
        new = _computed_again(*self._kept())
        new.sampling = self.sampling
        return new

    def __reduce__(self) -> tuple[object, ...]:
        """Deep copies and pickles have all but ``sampling``, whose requirements are bound to where they ran.

        Raises:
            ThunkNotComputed: the text is not there yet.
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
        """The text generated so far, whatever became of the generation."""
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
        """What the model thinks before it answers, as far as it has come. It is no part of the text."""
        if self._generation is None and self.producer is not None:
            return self.producer.record.reasoning
        return self.generation.reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that the model wants to have made, as far as they have come. Nobody makes them by itself."""
        if self._generation is None and self.producer is not None:
            return self.producer.record.tool_calls
        return self.generation.tool_calls

    @property
    def error(self) -> Exception | None:
        """Why it failed, or which limit has cut it. Reading it does not count as having observed the error."""
        return None if self.producer is None else self.producer.own_error.error

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
        with shortened():
            if producer is not None and producer.state == "generating":
                producer.check_loop()
                producer.stop_throttling()
                try:
                    await producer.wait_finished()
                except anyio.get_cancelled_exc_class() as cancelled:
                    self._cancel_if_interrupted(cancelled)
                    raise
            else:
                producer = None
            if producer is None or self._value is None:
                # Whoever is cancelled together with the generation is cancelled, and sees no failure.
                await anyio.lowlevel.checkpoint()
            if self.producer is not None:
                if self._value is None:
                    raise self.producer.to_raise()
                self.mark_awaited()
            assert self._value is not None
            return self._value

    def mark_awaited(self) -> None:
        """Somebody has waited for the text: it need not be read any more."""
        if (producer := self.producer) is not None:
            producer.mark_awaited()
            if self._value is not None and not producer.is_to_be_read:
                self.producer = None

    async def wait_finished(self) -> None:
        """Wait until the generation has ended, in whichever way, and its task is done with it.

        Raises:
            WrongEventLoop: it is being generated in another event loop.

        Cancellation: only the waiting ends.
        """
        if self.producer is not None:
            self.producer.check_loop()
            await self.producer.wait_finished()

    async def astream(self) -> str:
        """The text that is new since the last call, as soon as there is some.

        The last such call returns the rest, which may be empty, and leaves the thunk computed; on a
        computed thunk it returns the whole text. Without ``ModelOption.STREAM`` all of the text
        comes at the end.

        Raises:
            anyio.BusyResourceError: another task is reading it.
            GenerationCancelled: it was cancelled, and the text before that has been returned.
            WrongEventLoop: it is being generated in another event loop.
            Exception: why the generation failed, after the text before that.

        Cancellation: nothing is lost; the next call returns what this one would have.
        """
        producer = self.producer
        if producer is not None:
            producer.check_loop()
            producer.check_no_reader()
        if producer is None or self.is_computed():
            await anyio.lowlevel.checkpoint()
            return self.value
        try:
            with shortened():
                text = await producer.next_text()
        except anyio.get_cancelled_exc_class() as cancelled:
            self._cancel_if_interrupted(cancelled)
            raise
        if producer.state == "computed":
            self.producer = None
        return text

    def __aiter__(self) -> AsyncIterator[str]:
        """The deltas, as they come, without empty ones; on a computed thunk its whole text, once."""
        return _Deltas(self)

    def _cancel_if_interrupted(self, cancelled: BaseException) -> None:
        """Cancel the generation if who waits for it is a notebook's cell that was interrupted."""
        if is_interrupt(cancelled):
            self.cancel("the cell that waited for it was interrupted")

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the generation and close its connection; without effect when it has finished.

        It also says that nobody will ask for an error of it: one that nobody has seen is logged.

        Raises:
            WrongEventLoop: it is being generated in another event loop.
        """
        if self.producer is not None:
            self.producer.stop(reason)
            self.producer.own_error.dismiss()

    async def __aenter__(self) -> Self:
        if self.producer is not None:
            self.producer.check_loop()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Cancel the generation if it is still running, and wait for its cleanup."""
        if self.producer is not None and (self.state == "generating" or exc is not None):
            self.cancel("its block was left")
            with anyio.CancelScope(shield=True):
                await self.producer.wait_finished()

    # --- for whoever makes it -------------------------------------------------------------------

    def take_value(self) -> None:
        """The producer has all of the text; it is only needed on if that is still to be read."""
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


class _Deltas:
    """The iteration of one reader. A plain object: leaving its loop early leaves nothing to clean up."""

    __slots__ = ("_done", "_thunk")

    def __init__(self, thunk: ModelOutputThunk) -> None:
        self._thunk = thunk
        self._done = False

    def __aiter__(self) -> _Deltas:
        return self

    async def __anext__(self) -> str:
        while not self._done:
            try:
                text = await self._thunk.astream()
            except Exception as error:  # as shortened() does, at no cost for a delta
                error.__traceback__ = short_traceback(error.__traceback__)
                raise
            self._done = self._thunk.is_computed()
            if text:
                return text
        raise StopAsyncIteration
