"""One generation: a cancel-scoped task that computes a text, for many waiters and one reader.

What flows through a thunk::

    work (in its task) --write(delta)--> parts --astream()--> the reader, at its pace
                                           └─ joined once --> value, for everybody who awaits

A thunk whose deltas are handed out keeps its producer at most :data:`MAX_UNREAD` deltas ahead of its
reader. It never waits for a reader that does not come: whoever awaits the value, needs the thunk for
a prompt, waits for a free request or leaves the session lets the producer go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

import anyio
import anyio.abc
import anyio.lowlevel

from mellea_sc.core.backend import Delta
from mellea_sc.core.base import Thunk
from mellea_sc.core.errors import (
    BudgetExceeded,
    GenerationCancelled,
    ThunkNotComputed,
)
from mellea_sc.core.generation_info import NOTHING_KNOWN, GenerationInfo
from mellea_sc.core.picture import text_of_answer
from mellea_sc.core.sampling import SamplingResult
from mellea_sc.core.tool_calls import ToolCall
from mellea_sc.runtime.budgets.scope import budget_scope
from mellea_sc.runtime.failures import failure_of, raise_unchanged
from mellea_sc.runtime.generation.parts import OtherParts
from mellea_sc.runtime.loops.current import after_first_steps, check_loop, running_task
from mellea_sc.runtime.loops.notebook import is_interrupt
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.pacing import Valve
from mellea_sc.runtime.unobserved import Held

__all__ = ["ModelOutputThunk", "Work"]

MAX_UNREAD: Final = 64
"""How many deltas a producer may be ahead of its reader."""


_State: TypeAlias = Literal["generating", "computed", "failed", "cancelled"]


class ModelOutputThunk(Thunk):
    """A text that is being generated; awaiting it gives the text.

    Made by sessions and bound backends, already generating. Any number of tasks may await it; one
    at a time may read it with :meth:`astream` or ``async for``. Cancelling who waits does not cancel
    the generation: :meth:`cancel` does, and so does leaving ``async with thunk:`` early.
    """

    __slots__ = (
        "__weakref__",
        "_awaited",
        "_context",
        "_dismissed",
        "_error",
        "_finished",
        "_handed_out",
        "_held",
        "_never_began",
        "_nursery",
        "_other",
        "_parts",
        "_read",
        "_reading",
        "_reason",
        "_scope",
        "_started_at",
        "_started_reading",
        "_state",
        "_streamed",
        "_traceback",
        "_unchecked",
        "_value",
        "_valve",
        "_wake",
        "_when_finished",
        "_withheld",
        "format_error",
        "generation",
        "name",
        "parsed_repr",
        "sampling",
    )

    generation: GenerationInfo
    """What is known about the generation so far."""
    sampling: SamplingResult | None
    """All attempts, where a sampling strategy made the text."""
    parsed_repr: object
    """What the text means: an instance of the class given as ``format=``, or ``None`` where the text does not
    fit it; else a component's own reading, or the text."""
    format_error: str | None
    """Why the text does not fit ``format=``; ``None`` where it does, or has not been read yet."""

    def __init__(
        self,
        nursery: Nursery | None,
        *,
        name: str = "a generation",
        streamed: bool = False,
        generation: GenerationInfo | None = None,
    ) -> None:
        self.name: str = name
        self.generation = generation or NOTHING_KNOWN
        self.sampling = None
        self.parsed_repr = None
        self.format_error = None
        self._nursery = nursery
        self._streamed = streamed
        self._state: _State = "generating"
        self._parts: list[str] = []
        self._other: OtherParts | None = None
        self._read = 0
        self._value: str | None = None
        self._error: Exception | None = None
        self._traceback: TracebackType | None = None
        self._context: BaseException | None = None
        self._held: Held | None = None
        self._dismissed = False
        self._started_at = ""
        self._reason: str | None = None
        self._awaited = False
        self._valve = Valve(self._is_full, for_reader=True) if streamed else None
        self._started_reading = False
        self._handed_out = False
        self._reading = False
        self._withheld = streamed
        self._unchecked = False
        self._wake: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None
        self._finished: anyio.Event | None = None
        self._when_finished: list[Callable[[ModelOutputThunk], None]] | None = None
        self._never_began: Callable[[], None] | None = None

    @classmethod
    def computed(cls, text: str, *, generation: GenerationInfo | None = None) -> ModelOutputThunk:
        """A thunk whose text is there."""
        thunk = cls(None, generation=generation)
        thunk._value = thunk.parsed_repr = text
        thunk._state = "computed"
        return thunk

    # --- what a user asks ------------------------------------------------------------------

    def is_computed(self) -> bool:
        """Whether the whole text is there and, when it is being streamed, has been handed out.

        So a loop that reads :meth:`astream` until this is true misses nothing.
        """
        if self._state != "computed":
            return False
        return (
            not self._streamed
            or self._handed_out
            or (self._is_drained_for_good and not self._started_reading)
        )

    @property
    def _is_drained_for_good(self) -> bool:
        """Whether the text was waited for without reading it, by somebody or by leaving the session."""
        return self._awaited or (self._nursery is not None and not self._nursery.is_open)

    @property
    def value(self) -> str:
        """The text.

        Raises:
            ThunkNotComputed: it is not there yet, or never will be.
        """
        if self._value is None or not (self._is_drained_for_good or self.is_computed()):
            raise ThunkNotComputed(
                f"{self!r} has no value to read: `await` it first (or read it with astream())"
            )
        return self._value

    def __str__(self) -> str:
        return self.value

    def __repr__(self) -> str:
        return f"<ModelOutputThunk {self._state}: {self.name}>"

    def _repr_html_(self) -> str:
        """For notebooks: the answer when it is there, and never a wait."""
        text = self._value or ""
        return text_of_answer(text, f"{self.name}: {self._state}{self.generation.told()}")

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
    def text_so_far(self) -> str:
        """The text generated so far, whatever became of the generation."""
        return "".join(self._parts) if self._value is None else self._value

    @property
    def has_text(self) -> bool:
        """Whether any text has come."""
        return bool(self._value or self._parts)

    @property
    def reasoning(self) -> str:
        """What the model thinks before it answers, as far as it has come. It is no part of the text."""
        return self.generation.reasoning if self._other is None else self._other.reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that the model wants to have made, as far as they have come. Nobody makes them by itself."""
        return self.generation.tool_calls if self._other is None else self._other.tool_calls

    @property
    def error(self) -> Exception | None:
        """Why it failed, or which limit has cut it. Reading it does not count as having observed the error."""
        return self._error

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state == "cancelled"

    @property
    def has_no_value(self) -> bool:
        """Whether it has failed or was cancelled."""
        return self._state in ("failed", "cancelled")

    async def avalue(self) -> str:
        """Wait for the whole text and return it; ``await thunk`` is the same.

        Raises:
            GenerationCancelled: it was cancelled; the error has the text so far.
            WrongEventLoop: it is being generated in another event loop.
            Exception: why the generation failed, the same each time.

        Cancellation: only the waiting ends; the generation goes on and no text is lost.
        """
        await self.wait_for_value()
        if self._value is None:
            raise self.failure()
        return self._value

    async def wait_for_value(self) -> None:
        """Like :meth:`avalue`, and says neither the value nor the failure.

        Cancellation: only the waiting ends.
        """
        has_to_wait = self._state == "generating"
        if has_to_wait:
            self.check_loop()
            self.stop_throttling()
            try:
                await self.wait_finished()
            except anyio.get_cancelled_exc_class() as cancelled:
                self._cancel_if_interrupted(cancelled)
                raise
        if not has_to_wait or self.has_no_value:
            # Whoever is cancelled together with the generation is cancelled, and sees no failure.
            await anyio.lowlevel.checkpoint()
        self.was_awaited()

    def _cancel_if_interrupted(self, cancelled: BaseException) -> None:
        """Cancel the generation if who waits for it is a notebook's cell that was interrupted."""
        if is_interrupt(cancelled):
            self.cancel("the cell that waited for it was interrupted")

    def was_awaited(self) -> None:
        """Somebody has waited for the text: it need not be read any more."""
        self._awaited = True

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
        self.check_loop()
        if self._reading:
            raise anyio.BusyResourceError("reading from")
        if self.is_computed():
            await anyio.lowlevel.checkpoint()
            return self.value
        self._started_reading = self._streamed
        if self._state == "generating" and (not self._streamed or self._read == len(self._parts)):
            self._reading = True
            try:
                while self._state == "generating" and (
                    not self._streamed or self._read == len(self._parts)
                ):
                    self._wake = anyio.Event()
                    await self._wake.wait()
            except anyio.get_cancelled_exc_class() as cancelled:
                self._cancel_if_interrupted(cancelled)
                raise
            finally:
                self._reading = False
                self._wake = None
            if self.has_no_value:
                await anyio.lowlevel.checkpoint()  # as in wait_for_value()
        return self._take()

    def _take(self) -> str:
        text = "" if self._unchecked else "".join(self._parts[self._read :])
        self._read = len(self._parts)
        if self._valve is not None:
            self._valve.look()
        if self._state == "computed":
            self._handed_out = True
        elif self.has_no_value and not text:
            raise self.failure()
        return text

    def __aiter__(self) -> AsyncIterator[str]:
        """The deltas, as they come, without empty ones; on a computed thunk its whole text, once."""
        return _Deltas(self)

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the generation and close its connection; without effect when it has finished.

        It also says that nobody will ask for an error of it: one that nobody has seen is logged.

        Raises:
            WrongEventLoop: it is being generated in another event loop.
        """
        self.stop(reason)
        self._dismissed = True
        if self._held is not None:
            self._held.let_go()

    def stop(self, reason: str | None) -> None:
        """Cancel the generation, for somebody who will ask for its error."""
        if self._state == "generating" and self._scope is not None:
            self.check_loop()
            self._reason = reason
            self._scope.cancel(reason)

    async def __aenter__(self) -> Self:
        self.check_loop()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Cancel the generation if it is still running, and wait for its cleanup."""
        if self._state == "generating" or exc is not None:
            self.cancel("its block was left")
            with anyio.CancelScope(shield=True):
                await self.wait_finished()

    # --- its task ----------------------------------------------------------------------------

    def start(
        self,
        work: Work,
        tasks: anyio.abc.TaskGroup,
        *,
        on_never_started: Callable[[], None] = lambda: None,
    ) -> None:
        """Have the work done in a task of the group's. Its writes are the text.

        Args:
            work: What the task does.
            tasks: A task group inside the nursery, or the nursery's own.
            on_never_started: Called if the work was dropped before it began.
        """
        assert self._nursery is not None
        self._nursery.check_usable()
        self._scope = anyio.CancelScope()
        self._never_began = on_never_started
        self._started_at = self._nursery.line_that_starts()
        tasks.start_soon(self._run, work, name=self.name)
        after_first_steps(self._check_begun)

    def _check_begun(self) -> None:
        if self._never_began is not None:
            self._finish()
            self._never_began()

    async def _run(self, work: Work) -> None:
        assert self._scope is not None
        assert self._nursery is not None
        self._never_began = None
        task = running_task()
        try:
            with self._scope, budget_scope():
                await work(self)
                self._value = "".join(self._parts)
                self._state = "computed"
        except BaseException as raised:  # noqa: ASYNC103 - what failure_of() does not know is raised
            if (error := failure_of(raised, repr(self.name), task)) is None:
                raise
            if self._fail(error):
                raise_unchanged(error)
        finally:
            self._finish()

    def _fail(self, error: Exception) -> bool:
        """Whether its session is to end with the error."""
        assert self._nursery is not None
        self._value = None
        self._error, self._traceback, self._context = error, error.__traceback__, error.__context__
        self._state = "cancelled" if isinstance(error, BudgetExceeded) else "failed"
        held = self._held = self._nursery.hold(error, self._started_at)
        if held is not None and self._dismissed:
            held.let_go()
            return False
        return held is not None and self._nursery.on_error == "cancel"

    def _finish(self) -> None:
        if self._state == "generating":
            self._state = "cancelled"
        for call in self._when_finished or ():
            call(self)
        self._when_finished = None
        if self._wake is not None:
            self._wake.set()

    def write(self, text: str) -> bool:
        """Add generated text; true when the producer should wait for :meth:`room`."""
        self._parts.append(text)
        if self._wake is not None and self._streamed:
            self._wake.set()
        if self._valve is None or self._valve.is_open:
            return False
        return len(self._parts) - self._read >= MAX_UNREAD

    def write_other(self, delta: Delta) -> None:
        """Add what a delta has besides its text."""
        if self._other is None:
            self._other = OtherParts()
        self._other.take(delta)

    def hold_output(self) -> None:
        """Hand no text out before :meth:`release_output`, or before all of it is there."""
        self._withheld, self._streamed = self._streamed, False
        self._unchecked = True

    def release_output(self) -> None:
        """Hand out what was withheld, and what comes."""
        self._streamed = self._withheld
        self._unchecked = False
        if self._wake is not None:
            self._wake.set()

    async def room(self) -> None:
        """Wait until the reader has caught up, or is not waited for any more."""
        assert self._nursery is not None
        assert self._valve is not None
        await self._valve.wait(self._nursery.valves)

    def _is_full(self) -> bool:
        return len(self._parts) - self._read >= MAX_UNREAD

    def stop_throttling(self) -> None:
        """Have the producer go on without waiting for the reader."""
        if self._valve is not None:
            self._valve.open_for_good()

    async def wait_finished(self) -> None:
        """Wait until the generation has ended, in whichever way, and its task is done with it.

        Cancellation: only the waiting ends.
        """
        if self._state == "generating":
            self.check_loop()
            if self._finished is None:
                self._finished = finished = anyio.Event()
                self.when_finished(lambda _: finished.set())
            await self._finished.wait()

    def when_finished(self, call: Callable[[ModelOutputThunk], None]) -> None:
        """Call a function, with this thunk, when the generation has ended; at once if it has."""
        if self._state != "generating":
            call(self)
        elif self._when_finished is None:
            self._when_finished = [call]
        else:
            self._when_finished.append(call)

    def never_mind(self, call: Callable[[ModelOutputThunk], None]) -> None:
        """Do not call a function any more that :meth:`when_finished` was given."""
        if self._when_finished is not None and call in self._when_finished:
            self._when_finished.remove(call)

    def check_loop(self) -> None:
        """Raise unless it can be waited for here.

        Raises:
            WrongEventLoop: it is being generated in another event loop.
        """
        if self._state == "generating" and self._nursery is not None:
            check_loop(self._nursery.loop, repr(self))

    def was_told(self) -> None:
        """Somebody has been told of its error."""
        if self._held is not None:
            self._held.observed()
            self._held = None

    def failure(self) -> Exception:
        """Why there is no value: to be raised, the same each time, and as it was the first time."""
        if self._error is not None:
            self.was_told()
            self._error.__context__ = self._context
            return self._error.with_traceback(self._traceback)
        reason = self._reason
        if reason is None and self._nursery is not None:
            reason = self._nursery.cancel_reason
        return GenerationCancelled(
            reason, partial_text=self.text_so_far, usage=self.generation.usage
        )


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
            text = await self._thunk.astream()
            self._done = self._thunk.is_computed()
            if text:
                return text
        raise StopAsyncIteration


Work: TypeAlias = Callable[[ModelOutputThunk], Awaitable[None]]
