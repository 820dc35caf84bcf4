"""The producer of a thunk: a task that computes a text, and can be cancelled by itself.

The state changes once::

    generating ──the work has returned──────────────────────────────> computed
               ──it has raised──────────────────────────────────────> failed
               ──it was cancelled, or a limit was exceeded, or its
                 task was dropped before its first step─────────────> cancelled

The way of the text::

    work (in the task) ──write(delta)──> parts ──next_text()──> the reader, at its own pace
                                           └─ joined once ──> the thunk's value, for everybody who awaits it

The text may be *streamed*: handed out to one reader while it is generated. The state of the reader::

    none ──first next_text()──> reading ──has taken the last text──> done

Back-pressure: the producer is at most :data:`MAX_UNREAD` deltas ahead of the reader. It never waits for a reader
who does not come: the valve is opened as soon as anybody awaits the value, needs the thunk for a prompt, waits for
a free slot (``max_concurrency``), or leaves the session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import anyio
import anyio.abc
import anyio.lowlevel
import attrs

from mellea_sc.core.backend import Delta
from mellea_sc.core.errors import BackendTimeout, BudgetExceeded, GenerationCancelled
from mellea_sc.runtime.budgets.budget import open_budgets
from mellea_sc.runtime.budgets.limits import budget_scope
from mellea_sc.runtime.failures import failure_of, leaf_errors, raise_unchanged
from mellea_sc.runtime.generation.pump import AnswerRecord
from mellea_sc.runtime.loops.current import check_loop
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.runtime.pacing import Valve
from mellea_sc.runtime.unobserved import OwnError

if TYPE_CHECKING:
    from mellea_sc.runtime.generation.thunk import ModelOutputThunk

MAX_UNREAD: Final = 64
"""How many deltas a producer may be ahead of its reader."""

Work: TypeAlias = "Callable[[ModelOutputThunk, Generation], Awaitable[None]]"
"""The body of the task: writes the text to the generation, and the parsed value to the thunk."""

GenerationState: TypeAlias = Literal["generating", "computed", "failed", "cancelled"]


@attrs.define(eq=False, repr=False, weakref_slot=False)
class Generation:
    """One generation. It collects the text that its task writes; :meth:`start` starts the task.

    Args:
        nursery: The nursery in which it runs.
        name: For people.
        streamed: Whether text is handed out before the generation has ended.
    """

    _nursery: Nursery
    name: str
    streamed: bool = attrs.field(kw_only=True)
    state: GenerationState = attrs.field(default="generating", init=False)
    parts: list[str] = attrs.field(factory=list[str], init=False)
    record: AnswerRecord = attrs.field(factory=AnswerRecord, init=False)
    late: BackendTimeout | None = attrs.field(default=None, init=False)
    is_held: bool = attrs.field(default=False, init=False)
    """Whether text is withheld from the reader, because preconditions are still being checked; see also
    :meth:`release_output`."""
    ended_callbacks: list[Callable[[Generation], None]] | None = attrs.field(
        default=None, init=False
    )
    """See :meth:`add_ended_callback`; ``None``, and no empty list: there may be thousands of thunks."""
    _own_error: OwnError | None = attrs.field(default=None, init=False)
    _tasks: anyio.abc.TaskGroup | None = attrs.field(default=None, init=False)
    _task: anyio.TaskHandle[None] | None = attrs.field(default=None, init=False)
    _is_cancelled: bool = attrs.field(default=False, init=False)
    _reason: str | None = attrs.field(default=None, init=False)
    _ended: anyio.Event | None = attrs.field(default=None, init=False)
    _valve: Valve | None = attrs.field(default=None, init=False)
    _reader: Literal["none", "reading", "done"] = attrs.field(default="none", init=False)
    _taken: int = attrs.field(default=0, init=False)
    """How many of the parts the reader has taken."""
    _wake: anyio.Event | None = attrs.field(default=None, init=False)
    """There is one only while the reader waits."""
    _was_awaited: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        if self.streamed:
            self._valve = Valve(self._is_full, for_reader=True)
        if not self._nursery.unobserved.keeps:
            self._own_error = OwnError(self._nursery.unobserved, work=self.name)

    # --- its task ----------------------------------------------------------------------------

    def start(
        self,
        thunk: ModelOutputThunk,
        work: Work,
        tasks: anyio.abc.TaskGroup,
        on_never_started: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the task; the caller has checked that the nursery is usable.

        Args:
            thunk: The thunk that this is the producer of. Only the task refers to it. If the generation did, both
                would be a reference cycle, and the error of a forgotten thunk would be logged only when the garbage
                collector runs.
            work: The body of the task.
            tasks: A task group inside the nursery, or the nursery's own.
            on_never_started: Called if the task was dropped before its first step.
        """

        def dropped() -> None:
            self._end("cancelled")
            on_never_started()

        self._tasks = tasks
        self._task = self._nursery.loop_services.start_task(
            tasks, self._run(thunk, work), name=self.name, on_never_started=dropped
        )

    async def _run(self, thunk: ModelOutputThunk, work: Work) -> None:
        task = self._nursery.loop_services.current_task()
        state: GenerationState = "cancelled"
        try:
            working = work(thunk, self)
            # there may be thousands of thunks, and what it was made with is in the coroutine too
            del work
            if open_budgets.get():
                with budget_scope():
                    await working
            else:
                await working
            state = "computed"
            thunk.take_value()
        except BaseException as raised:  # noqa: ASYNC103 - what failure_of() does not know is raised
            error = failure_of(raised, repr(self.name), task)
            if error is None and self._is_cancelled and not leaf_errors(raised):
                # Its own cancellation ends here. The task's handle would keep it, and by its frames the thunk.
                error = self.late
            elif error is None:
                raise
            if error is not None:
                state = "cancelled" if isinstance(error, BudgetExceeded) else "failed"
                self.own_error.fail(error)
                if self.own_error.is_pending and self._nursery.on_error == "cancel":
                    # out of the task, so that its task group cancels the session
                    raise_unchanged(error)
        finally:
            self._end(state)

    def _end(self, state: GenerationState) -> None:
        self.state = state  # before all waiters are woken: they read it
        self._task = None
        for call in self.ended_callbacks or ():
            call(self)
        self.ended_callbacks = None
        if self._ended is not None:
            self._ended.set()
        if self._wake is not None:
            self._wake.set()

    # --- the sink of the pump --------------------------------------------------------------------

    def write(self, text: str) -> bool:
        """Add generated text; true if the producer should then wait for :meth:`room`."""
        # one call per delta: the valve's condition is written out here instead of asked
        self.parts.append(text)
        if self._wake is not None and self.streamed and not self.is_held:
            self._wake.set()
        if self._valve is None or self._valve.is_open:
            return False
        return len(self.parts) - self._taken >= MAX_UNREAD

    def write_other(self, delta: Delta) -> None:
        """Add the parts of a delta that are not text."""
        self.record.take(delta)

    async def room(self) -> None:
        """Wait until the reader has caught up, or the valve is opened."""
        assert self._valve is not None
        await self._valve.wait(self._nursery.valves)

    def _is_full(self) -> bool:
        return len(self.parts) - self._taken >= MAX_UNREAD

    @property
    def text(self) -> str:
        """The text generated so far; also after a failure or a cancellation."""
        return "".join(self.parts)

    def release_output(self) -> None:
        """Hand out the text that was held, and from now on all text."""
        self.is_held = False
        if self._wake is not None:
            self._wake.set()

    # --- the reader ------------------------------------------------------------------------------

    @property
    def is_to_be_read(self) -> bool:
        """Whether text must still be kept for a reader: one that has begun, or that may still come."""
        if not self.streamed or self._reader == "done":
            return False
        return self._reader == "reading" or not self.is_drained

    @property
    def is_drained(self) -> bool:
        """Whether no reader is expected: somebody has awaited the value, or the session has been left."""
        return self._was_awaited or not self._nursery.is_open

    async def next_text(self) -> str:
        """The text that is new since the last call, as soon as there is some; see ``ModelOutputThunk.astream``."""
        # While output is held the reader does not count as reading: it may never be allowed to read, and the
        # value must be readable without it.
        if self.streamed and not self.is_held:
            self._reader = "reading"
        if self._has_to_wait():
            try:
                # a loop, because release_output() and _end() wake it as well, and there may be no text then
                while self._has_to_wait():
                    self._wake = anyio.Event()
                    await self._wake.wait()
            finally:
                self._wake = None
            if self.state in ("failed", "cancelled"):
                # If the reader was cancelled together with the generation, this raises its own cancellation,
                # which must not be turned into an error.
                await anyio.lowlevel.checkpoint()
        # From here to the return nothing waits, so a cancelled reader loses no text.
        text = "" if self.is_held else "".join(self.parts[self._taken :])
        self._taken = len(self.parts)
        if self._valve is not None:
            self._valve.look()
        if self.state == "computed":
            self._reader = "done"
        elif self.state != "generating" and not text:
            # an error is raised only after all text before it was handed out
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
        """Have the producer never wait for the reader again."""
        if self._valve is not None:
            self._valve.open_for_good()

    # --- its end ---------------------------------------------------------------------------------

    async def wait_finished(self) -> None:
        """Wait until it has ended, in whichever way.

        Cancellation: only the waiting ends.
        """
        if self.state == "generating":
            # made late, as most generations end unwatched; one for all waiters
            if self._ended is None:
                self._ended = anyio.Event()
            await self._ended.wait()

    def add_ended_callback(self, call: Callable[[Generation], None]) -> None:
        """Call a function with this generation when it has ended; at once if it already has."""
        if self.state != "generating":
            call(self)
        elif self.ended_callbacks is None:
            self.ended_callbacks = [call]
        else:
            self.ended_callbacks.append(call)

    def remove_ended_callback(self, call: Callable[[Generation], None]) -> None:
        """Undo :meth:`add_ended_callback`; without effect if it was called already."""
        if self.ended_callbacks is not None and call in self.ended_callbacks:
            self.ended_callbacks.remove(call)

    def mark_awaited(self) -> None:
        """Note that somebody has awaited the value: the text need not be kept for a reader any more."""
        self._was_awaited = True

    def check_loop(self) -> None:
        """Raise unless it can be awaited in the running event loop; an ended one can be in every loop.

        Raises:
            WrongEventLoop: it is being generated in another event loop.
        """
        if self.state == "generating":
            check_loop(self._nursery.loop, repr(self.name))

    def stop(self, reason: str | None) -> None:
        """Cancel it; without effect when it has ended. Its error, if it fails meanwhile, stays unobserved."""
        if self.state == "generating":
            self.check_loop()
            self._reason = reason
            self.cancel()

    @property
    def cancel_called(self) -> bool:
        """Whether it is being cancelled, by itself or with all that runs in its task group or its nursery."""
        if self._is_cancelled or self._nursery.is_cancelled:
            return True
        return self._tasks is not None and self._tasks.cancel_scope.cancel_called

    def cancel(self, reason: str | None = None) -> None:
        """Cancel its task."""
        self._is_cancelled = True
        if self._task is not None:
            # Every task of a task group has a cancel scope. One more would be a tenth of what a thunk weighs.
            self._task.cancel()

    @property
    def own_error(self) -> OwnError:
        """Its error, if it fails, and whether somebody has observed that."""
        # made when it is needed: most generations do not fail
        if self._own_error is None:
            self._own_error = OwnError(self._nursery.unobserved)
        return self._own_error

    @property
    def error(self) -> Exception | None:
        """The error that it has failed with."""
        return None if self._own_error is None else self._own_error.error

    def to_raise(self) -> Exception:
        """The error to raise in place of the value; the same failure each time."""
        if self.error is not None:
            return self.own_error.to_raise()
        reason = self._reason if self._reason is not None else self._nursery.cancel_reason
        return GenerationCancelled(reason, partial_text=self.text, usage=self.record.usage)
