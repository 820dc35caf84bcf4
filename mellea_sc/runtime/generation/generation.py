"""The work behind a thunk: a task in a cancel scope of its own that computes a text.

Its state makes one step, once::

    generating ──the work has returned──────────────────────────────> computed
               ──it has raised──────────────────────────────────────> failed
               ──it was cancelled, or a limit was exceeded, or its
                 task was dropped before its first step─────────────> cancelled

What flows through it::

    work (in its task) ──write(delta)──> parts ──next_text()──> the reader, at its pace
                                           └─ joined once ──> the thunk's value, for everybody who awaits

The text may be *streamed*: handed out while it comes, to one reader. Of that reader there is this to know::

    none ──first next_text()──> reading ──has taken the last text──> done

While there is a reader, or may be one, the producer is at most :data:`MAX_UNREAD` deltas ahead of it. It never
waits for a reader who does not come: whoever awaits the value, needs the thunk for a prompt, waits for a free
request or leaves the session opens the valve.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import anyio
import anyio.abc
import anyio.lowlevel

from mellea_sc.core.backend import Delta
from mellea_sc.core.errors import BackendTimeout, BudgetExceeded, GenerationCancelled
from mellea_sc.runtime.budgets.scope import budget_scope
from mellea_sc.runtime.failures import failure_of, raise_unchanged
from mellea_sc.runtime.generation.record import AnswerRecord
from mellea_sc.runtime.loops.current import after_first_steps, check_loop, running_task
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.pacing import Valve
from mellea_sc.runtime.unobserved import OwnError

if TYPE_CHECKING:
    from mellea_sc.runtime.generation.thunk import ModelOutputThunk

__all__ = ["MAX_UNREAD", "Generation", "GenerationState", "Work"]

MAX_UNREAD: Final = 64
"""How many deltas a producer may be ahead of its reader."""

Work: TypeAlias = "Callable[[ModelOutputThunk, Generation], Awaitable[None]]"
"""What the task does: writes the text to the generation, and what it means to the thunk."""

GenerationState: TypeAlias = Literal["generating", "computed", "failed", "cancelled"]


class Generation:
    """One generation. Whoever made it starts it; what is written to it is the text.

    Args:
        nursery: Has the connections.
        name: For people.
        streamed: Whether text is handed out before all of it is there.
    """

    __slots__ = (
        "__weakref__",
        "_ended",
        "_nursery",
        "_on_never_started",
        "_reader",
        "_reason",
        "_taken",
        "_valve",
        "_wake",
        "_was_awaited",
        "is_held",
        "late",
        "name",
        "on_ended",
        "own_error",
        "parts",
        "record",
        "scope",
        "state",
        "streamed",
    )

    def __init__(self, nursery: Nursery, name: str, *, streamed: bool) -> None:
        self.name: str = name
        self.streamed: bool = streamed
        self.state: GenerationState = "generating"
        self.parts: list[str] = []
        self.record: AnswerRecord = AnswerRecord()
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self.late: BackendTimeout | None = None
        self.own_error: OwnError = OwnError(nursery.unobserved, starts_here=True)
        self.is_held: bool = False
        """Whether nothing is handed out although it is there: what was asked is still being checked."""
        self.on_ended: list[Callable[[Generation], None]] | None = None
        """Called when it has ended; see :meth:`when_ended`."""
        self._nursery = nursery
        self._reason: str | None = None
        self._ended: anyio.Event | None = None
        self._on_never_started: Callable[[], None] | None = None
        self._valve = Valve(self._is_full, for_reader=True) if streamed else None
        self._reader: Literal["none", "reading", "done"] = "none"
        self._taken = 0  # so many of the parts
        self._wake: anyio.Event | None = None  # while the reader waits
        self._was_awaited = False

    # --- its task ----------------------------------------------------------------------------

    def start(
        self,
        thunk: ModelOutputThunk,
        work: Work,
        tasks: anyio.abc.TaskGroup,
        on_never_started: Callable[[], None] = lambda: None,
    ) -> None:
        """Have the work done in a task of the group's.

        Args:
            thunk: Whose producer this is. Only the task holds it: the generation must not, or a thunk that failed
                could not be forgotten before the garbage collector comes, and its error would be logged late.
            work: What the task does.
            tasks: A task group inside the nursery, or the nursery's own.
            on_never_started: Called if the work was dropped before it began.
        """
        self._nursery.check_usable()
        self._on_never_started = on_never_started
        tasks.start_soon(self._run, thunk, work, name=self.name)
        after_first_steps(self._check_started)

    def _check_started(self) -> None:
        if self._on_never_started is not None:
            self._end("cancelled")
            self._on_never_started()

    async def _run(self, thunk: ModelOutputThunk, work: Work) -> None:
        self._on_never_started = None
        task = running_task()
        state: GenerationState = "cancelled"
        try:
            with self.scope, budget_scope():
                await work(thunk, self)
                state = "computed"
            if self.late is not None and self.scope.cancelled_caught:
                raise self.late
            if state == "computed":
                thunk.take_value()
        except BaseException as raised:  # noqa: ASYNC103 - what failure_of() does not know is raised
            if (error := failure_of(raised, repr(self.name), task)) is None:
                raise
            state = "cancelled" if isinstance(error, BudgetExceeded) else "failed"
            self.own_error.fail(error)
            if self.own_error.is_pending and self._nursery.on_error == "cancel":
                raise_unchanged(error)
        finally:
            self._end(state)

    def _end(self, state: GenerationState) -> None:
        self.state = state
        for call in self.on_ended or ():
            call(self)
        self.on_ended = None
        if self._ended is not None:
            self._ended.set()
        if self._wake is not None:
            self._wake.set()

    # --- where its text goes (the pump's sink) -------------------------------------------------

    def write(self, text: str) -> bool:
        """Add generated text; true when the producer should wait for :meth:`room`."""
        self.parts.append(text)
        if self._wake is not None and self.streamed and not self.is_held:
            self._wake.set()
        if self._valve is None or self._valve.is_open:
            return False
        return len(self.parts) - self._taken >= MAX_UNREAD

    def write_other(self, delta: Delta) -> None:
        """Add what a delta has besides its text."""
        self.record.take(delta)

    async def room(self) -> None:
        """Wait until the reader has caught up, or is not waited for any more."""
        assert self._valve is not None
        await self._valve.wait(self._nursery.valves)

    def _is_full(self) -> bool:
        return len(self.parts) - self._taken >= MAX_UNREAD

    @property
    def has_text(self) -> bool:
        """Whether any text has come."""
        return bool(self.parts)

    @property
    def text(self) -> str:
        """The text generated so far, whatever became of the generation."""
        return "".join(self.parts)

    def hold_output(self) -> None:
        """Hand no text out before :meth:`release_output`."""
        self.is_held = True

    def release_output(self) -> None:
        """Hand out what was held, and what comes."""
        self.is_held = False
        if self._wake is not None:
            self._wake.set()

    # --- its one reader ------------------------------------------------------------------------

    @property
    def is_to_be_read(self) -> bool:
        """Whether a reader is still owed text: one who has begun, or may come."""
        if not self.streamed or self._reader == "done":
            return False
        return self._reader == "reading" or not self.is_drained

    @property
    def is_drained(self) -> bool:
        """Whether the text was waited for without reading it, by somebody or by leaving the session."""
        return self._was_awaited or not self._nursery.is_open

    async def next_text(self) -> str:
        """The text that is new since the last call, as soon as there is some; see ``ModelOutputThunk.astream``."""
        if self.streamed and not self.is_held:
            self._reader = "reading"
        if self._has_to_wait():
            try:
                while self._has_to_wait():
                    self._wake = anyio.Event()
                    await self._wake.wait()
            finally:
                self._wake = None
            if self.state in ("failed", "cancelled"):
                # Whoever is cancelled together with the generation is cancelled, and sees no failure.
                await anyio.lowlevel.checkpoint()
        text = "" if self.is_held else "".join(self.parts[self._taken :])
        self._taken = len(self.parts)
        if self._valve is not None:
            self._valve.look()
        if self.state == "computed":
            self._reader = "done"
        elif self.state != "generating" and not text:
            raise self.to_raise()
        return text

    def _has_to_wait(self) -> bool:
        if self.state != "generating":
            return False
        return not self.streamed or self.is_held or self._taken == len(self.parts)

    def check_no_reader(self) -> None:
        """Raise if somebody is waiting for the next text.

        Raises:
            anyio.BusyResourceError: somebody is.
        """
        if self._wake is not None:
            raise anyio.BusyResourceError("reading from")

    def stop_throttling(self) -> None:
        """Have the producer go on without waiting for the reader."""
        if self._valve is not None:
            self._valve.open_for_good()

    # --- who waits for its end -------------------------------------------------------------------

    async def wait_finished(self) -> None:
        """Wait until it has ended, in whichever way, and its task is done with it.

        Cancellation: only the waiting ends.
        """
        if self.state == "generating":
            if self._ended is None:  # one for all who wait: many may come and go
                self._ended = anyio.Event()
            await self._ended.wait()

    def when_ended(self, call: Callable[[Generation], None]) -> None:
        """Call a function, with this generation, when it has ended; at once if it has."""
        if self.state != "generating":
            call(self)
        elif self.on_ended is None:
            self.on_ended = [call]
        else:
            self.on_ended.append(call)

    def never_mind(self, call: Callable[[Generation], None]) -> None:
        """Do not call a function any more that :meth:`when_ended` was given."""
        if self.on_ended is not None and call in self.on_ended:
            self.on_ended.remove(call)

    def mark_awaited(self) -> None:
        """Somebody has waited for the text: it need not be read any more."""
        self._was_awaited = True

    def check_loop(self) -> None:
        """Raise unless it can be waited for here.

        Raises:
            WrongEventLoop: it is being generated in another event loop.
        """
        if self.state == "generating":
            check_loop(self._nursery.loop, repr(self.name))

    def stop(self, reason: str | None) -> None:
        """Cancel it, for somebody who will ask for its error; without effect when it has ended."""
        if self.state == "generating":
            self.check_loop()
            self._reason = reason
            self.scope.cancel(reason)

    def to_raise(self) -> Exception:
        """Why there is no value: to be raised, the same each time."""
        if self.own_error.error is not None:
            return self.own_error.to_raise()
        reason = self._reason if self._reason is not None else self._nursery.cancel_reason
        return GenerationCancelled(reason, partial_text=self.text, usage=self.record.usage)
