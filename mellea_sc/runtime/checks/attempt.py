"""One attempt at an answer: a generation that is judged while it runs, in one cancel scope.

::

    backend ──delta──> pump ──> Attempt.write ──> editors ──> Lanes ──> ledger ──release──> view
                                   (none, or those of          │                  │
                                    requirements that edit) validators            └──cancel──> the race's scope
                                                                                               (connection, editors,
                                                                                                lanes, their judges)

The phases of :meth:`Attempt.run`:

1. *the race*: the producer, the editors and the lanes, until the text has ended and is judged, or a
   lane fails, or something raises. A backend's error ends the text where it happened; what came before
   it is judged and released like any text, and then the error is the attempt's. Where an editor cuts
   the text off, the producer is stopped, and the text has come to its end;
2. after a natural end, *the final validation* of the whole text by every requirement.

There are two texts, which are one where nothing is edited: what was generated, and what is shown. Chunks,
verdicts and positions belong to the latter.

An attempt may begin with text that another one has left: :class:`ResumePoint`. That text goes through the
chunkings again, and not through validators that have judged it: each goes on with what it knew there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Literal, TypeAlias

import anyio
import anyio.abc
import anyio.lowlevel

from mellea_sc.core.answer_prefix import AnswerPrefix
from mellea_sc.core.backend import Backend, Delta
from mellea_sc.core.base import Context
from mellea_sc.core.errors import BackendTimeout
from mellea_sc.core.generation_info import GenerationInfo
from mellea_sc.core.model_options import ModelOption, merge_options
from mellea_sc.core.prompt import answer_prefix_of, request_for
from mellea_sc.core.question import Question
from mellea_sc.core.requirement import PartialValidationResult, Requirement, ValidationResult
from mellea_sc.core.tool_calls import ToolCall
from mellea_sc.core.usage import estimated_tokens
from mellea_sc.runtime.checks.checks import Checks
from mellea_sc.runtime.checks.editors import Editor, TextSink
from mellea_sc.runtime.checks.edits import Edits, Placed
from mellea_sc.runtime.checks.lane import ValidatorCalls
from mellea_sc.runtime.checks.lanes import Lanes, View
from mellea_sc.runtime.checks.ledger import Failure, Ledger
from mellea_sc.runtime.checks.memory import ResumePoint
from mellea_sc.runtime.checks.validation import validate_all
from mellea_sc.runtime.failures import (
    failure_of,
    raise_unchanged,
    stray_cancellation_as,
    task_group,
)
from mellea_sc.runtime.generation.bound import opened_scope
from mellea_sc.runtime.generation.pump import pump
from mellea_sc.runtime.generation.record import AnswerRecord
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.loops.current import clock, running_task, start_soon
from mellea_sc.runtime.nursery import Nursery, reraise_if_cancelled

__all__ = ["Attempt", "AttemptEnd"]

AttemptEnd: TypeAlias = Literal["running", "completed", "failed", "stopped", "error", "cancelled"]
"""How an attempt ended: with its last token, by a failed check, because it was not needed any more, …"""


class Attempt:
    """The tasks of one attempt. Its writes are the pump's.

    Args:
        question: What is asked.
        ctx: The conversation before that.
        checks: Who checks it.
        view: Where it is shown.
        asked: The conversation as validators see it, up to and with what the user asked.
        kept: What it begins with.
        remembers: Whether another attempt may go on from inside this one.
    """

    def __init__(
        self,
        question: Question,
        ctx: Context,
        checks: Checks,
        view: View,
        *,
        asked: Context,
        kept: ResumePoint | None = None,
        remembers: bool = False,
    ) -> None:
        self._question = question
        self._ctx = ctx
        self._asked = asked
        self.ledger: Ledger = checks.ledger
        self.edits: Edits = checks.edits
        self.record: AnswerRecord = AnswerRecord()
        self.validations: list[ValidationResult] = []
        self.end: AttemptEnd = "running"
        self.stopped_by: str | None = None
        self.stopped_at: float | None = None
        self.token_limit: int | None = None
        self.judges: list[tuple[ModelOutputThunk, float]] = []
        self.kept_length: int = 0 if kept is None else len(kept.text)
        self.started_at: float = 0.0
        self.ended_at: float = 0.0
        self._checks = checks
        self._view = view
        self._kept = kept
        self._begins = False
        self._errors: list[Exception] = []
        self._race = anyio.CancelScope()
        self.scope: anyio.CancelScope = anyio.CancelScope()
        """Around the generation alone, which may be stopped before the text that has come is judged."""
        self.late: BackendTimeout | None = None
        self._now: Callable[[], float] = clock()
        self._lanes = Lanes(
            checks.main,
            checks.lanes,
            checks.ledger,
            view,
            cancel=partial(self._end_race, "a check failed"),
            remembers=remembers,
        )
        self._parts: list[str] = [] if checks.editors else self._lanes.parts
        after: TextSink = self._lanes
        for editor in reversed(self._checks.editors):
            editor.connect(after, self._cut_off)
            after = editor
        self._head = after

    # --- what became of it ---------------------------------------------------------------------

    @property
    def requirements(self) -> list[Requirement]:
        """The copies that judge it, in order."""
        return self._checks.requirements

    @property
    def generation(self) -> GenerationInfo:
        """What is known about the generation so far."""
        return self.record.info()

    @property
    def generated(self) -> str:
        """All that was generated, judged or not, after what it began with."""
        return "".join(self._parts)

    @property
    def has_text(self) -> bool:
        """Whether there is any text, what it began with included."""
        return bool(self._parts)

    @property
    def reasoning(self) -> str:
        """What the model thinks, as far as it has come."""
        return self.record.reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that the model wants to have made, as far as they have come."""
        return self.record.tool_calls

    @property
    def edited(self) -> str:
        """What the editors have made of that so far, judged or not."""
        return "".join(self._lanes.parts)

    @property
    def text(self) -> str:
        """The text as far as it may be shown: all of it after a natural end."""
        text = self.edited
        return text if self.end == "completed" else text[: self.ledger.position]

    def source(self, position: int | None = None) -> int:
        """How much of what was generated the text up to a position was made of; ``None``: the whole text."""
        if position is None and self.cut_off is None:
            return len(self.generated)
        return self.edits.source(len(self.edited) if position is None else position)

    @property
    def failures(self) -> list[tuple[Requirement, PartialValidationResult]]:
        """The requirements that have stopped it, in order."""
        requirements = self.requirements
        return [(requirements[f.lane], f.verdict) for f in self.ledger.failures]

    @property
    def noted(self) -> list[tuple[Requirement, PartialValidationResult]]:
        """The fails that have not stopped it: those that were only recorded, as they came, and what
        was edited in the text that may be shown, in its order.
        """
        requirements = self.requirements
        noted: list[Failure | Placed] = [*self.ledger.noted, *self.edited_spans]
        return [(requirements[one.lane], one.verdict) for one in noted]

    @property
    def edited_spans(self) -> list[Placed]:
        """What was edited in the text that may be shown, in its order."""
        return self.edits.before(math.inf if self.end == "completed" else self.ledger.position)

    @property
    def cut_off(self) -> tuple[Requirement, PartialValidationResult] | None:
        """The requirement after whose verdict nothing more could be shown, if that stopped the model."""
        return self._checks.cut_off

    @property
    def estimate(self) -> int:
        """About how many tokens it has received: one a delta, or one for four characters of it."""
        kept = 0 if self._kept is None else len(self._kept.chunks) + 1
        return sum(map(estimated_tokens, self._parts[kept:])) + self.record.estimate

    @property
    def error(self) -> Exception | None:
        """What ended it, where that was an error."""
        if len(self._errors) > 1:
            return ExceptionGroup("a stream failed in more than one way", self._errors)
        return self._errors[0] if self._errors else None

    def kept(self, count: int) -> ResumePoint:
        """Its first chunks, for another attempt to go on from; of an attempt that remembers."""
        text, chunks = self.edited, self._lanes.chunks
        end = chunks[count - 1].end if count else 0
        rest = text[end:]
        after = (
            end + len(rest) - len(rest.lstrip()) if count == len(chunks) else chunks[count].start
        )
        return ResumePoint(
            text=text[:after],
            chunks=chunks[:count],
            edits=self.edits.before(after),
            noted=[failure for failure in self.ledger.noted if failure.end <= after],
            known=self._checks.checkpoints(),
            deltas=[end for end in self._delta_ends() if end <= after],
        )

    def _delta_ends(self) -> list[int]:
        """Where each delta ends in the text that is shown."""
        begun = 0 if self._kept is None else len(self._kept.text)
        before = [] if self._kept is None else list(self._kept.deltas)
        ends = [self.edits.place(end) for end in accumulate(map(len, self._parts)) if end > begun]
        return before + [int(end) for end in ends if end < math.inf]

    # --- its life ------------------------------------------------------------------------------

    async def run(self, nursery: Nursery, judges: Nursery) -> None:
        """Generate and judge.

        Args:
            nursery: Its backend generates.
            judges: Its backend serves the validators.

        Raises:
            Exception: the error that ended it; two at once as an ``ExceptionGroup``.

        Cancellation: the connection is closed and every validator cancelled, and they have ended. An
            error of the backend's that waited for them is raised instead.
        """
        self._valves = nursery.valves
        self._options = merge_options(nursery.options, self._question.model_options)
        limit = self._options.get(ModelOption.MAX_NEW_TOKENS)
        self.token_limit = limit if isinstance(limit, int) else None
        now, task = self._now, running_task()
        self.started_at = now()
        try:
            self._begin()
            with self._race:
                async with opened_scope(judges, started=self.judge_began) as judging:
                    async with task_group() as tasks:
                        self._start(tasks, judging, nursery)
                    is_whole = not self._errors and not self.ledger.failed
                    if is_whole and not self._begins:
                        self._lanes.finish()
                    await self._lanes.room(self._valves)
                    if is_whole:
                        await self._finish(judging)
        except BaseException as error:  # noqa: ASYNC103 - what failure_of() does not know is raised
            # errors go before a cancellation, as in a task group; some were waiting for the judges
            if (failure := failure_of(error, "an attempt", task)) is not None:
                self._errors.append(failure)
            elif not self._errors or not isinstance(error, anyio.get_cancelled_exc_class()):
                raise
        finally:
            self._lanes.close()
            for editor in self._checks.editors:
                editor.lane.close()
            self.ended_at = now()
            if self.end == "running":
                self.end = self._how_it_ended()
        if self.error is not None:
            raise_unchanged(self.error)

    def _how_it_ended(self) -> AttemptEnd:
        if self._errors:
            return "error"
        if self.ledger.failed:
            return "failed"
        return "stopped" if self._race.cancel_called else "cancelled"

    def stop(self, reason: str) -> None:
        """It is not needed any more: close its connection and cancel its validators."""
        if self.end == "running" and not self._race.cancel_called:
            self.stopped_by = reason
            self._end_race(reason)

    def _start(self, tasks: anyio.abc.TaskGroup, judging: Backend, nursery: Nursery) -> None:
        calls = ValidatorCalls(judging, self._asked, nursery.limit)
        for lane in self._checks.lanes:
            name = f"lane {lane.index}: {lane.requirement!r}"
            start_soon(tasks, lane.run(calls), name=name)
        for number, editor in enumerate(self._checks.editors):
            name = f"editor {number}: {editor.lane.requirement!r}"
            start_soon(tasks, editor.run(calls, self._valves), name=name)
        # A task of its own: with each delta, all coroutines are resumed that its task is in the middle of,
        # and in this task these are those of the run, the plan and the attempt.
        start_soon(tasks, self._produce(nursery), name="producer")

    def _begin(self) -> None:
        kept = self._kept
        self._checks.begin()
        if kept is None:
            return
        for piece in kept.pieces():
            if self._checks.editors:  # they have it already
                self._parts.append(piece)
            self._lanes.feed(piece)
        self._begins = kept.text[-1:].isspace()

    async def _finish(self, judging: Backend) -> None:
        if self._begins:  # nothing came after the white space at the end of what was kept
            self._lanes.parts[:] = [self.edited.rstrip()]
            self._parts[:] = [self.generated.rstrip()]
        text, requirements = self.edited, self.requirements
        self._view.generated(text)
        if requirements:
            answer = ModelOutputThunk.computed(text, generation=self.generation)
            self.validations = await validate_all(
                requirements,
                judging,
                self._asked.add(answer),
                timeout=self._checks.timeout,
                format=self._question.format,
            )
            self._view.validated(self.validations)
        self.end = "completed"

    async def _produce(self, nursery: Nursery) -> None:
        question, prefills = self._question, nursery.backend.prefills
        # asyncio lets a task begin that is cancelled already; and whoever has waited for the connections is first
        await anyio.lowlevel.checkpoint()
        try:
            with self.scope, stray_cancellation_as("a generation"):
                request = await request_for(
                    question.action, self._ctx, self._options, question.format, prefills=prefills
                )
                await pump(nursery, request, self, self._beginning(prefills))
            if self.late is not None and self.scope.cancelled_caught:
                raise self.late
        except Exception as error:  # noqa: BLE001 - it ends the text, and is raised after the text
            await reraise_if_cancelled(error)  # noqa: ASYNC120 - that is the point
            self._errors.append(error)
        try:
            self._head.end()
        except Exception as error:  # noqa: BLE001 - so does a chunking that cannot end
            self._errors.append(error)

    def _beginning(self, prefills: bool) -> AnswerPrefix | None:
        """What the text begins with before the model says anything, or has begun with already."""
        if self._kept is None:
            return answer_prefix_of(self._question.action, prefills=prefills)
        return None if prefills else AnswerPrefix("", self._kept.text, asked=True)

    def _cut_off(self, by: Editor) -> None:
        """Nothing more can be shown: stop the model, and whoever edits before that."""
        reason = "nothing more can be shown"
        if self.stopped_at is None:
            self.stopped_at = self._now()
        self.scope.cancel(reason)
        for editor in self._checks.editors:
            if editor is by:
                break
            editor.scope.cancel(reason)

    def _end_race(self, reason: str) -> None:
        if self.stopped_at is None:
            self.stopped_at = self._now()
        self._race.cancel(reason)

    def judge_began(self, thunk: ModelOutputThunk) -> None:
        """Somebody who judges the attempt has asked a model."""
        self.judges.append((thunk, self._now()))

    # --- the pump's sink -------------------------------------------------------------------------

    def write(self, text: str) -> bool:
        """Take a delta; true when a lane or the reader is behind."""
        if self._begins:
            # the white space between what was kept and what comes is there already
            text = text.lstrip()
            if not text:
                return False
            self._begins = False
        if self._checks.editors:  # else the lanes have it
            self._parts.append(text)
        return self._head.feed(text)

    def write_other(self, delta: Delta) -> None:
        """Take what a delta has besides its text: nobody judges it."""
        self.record.take(delta)
        if delta.reasoning:
            self._view.reasoned(delta.reasoning)

    async def room(self) -> None:
        """Wait for the first in the chain: an editor, or the lanes and the reader."""
        await self._head.room(self._valves)
