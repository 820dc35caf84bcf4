"""One attempt at an answer: a generation that is validated while it runs, in one cancel scope.

::

    backend ──delta──> pump ──> Attempt.write ──> editors ──> Lanes ──> ledger ──release──> view
                                   (one for each requirement   │                  │
                                    that edits, or none)    validators            └──cancel──> the scope of the race
                                                                                               (connection, editors,
                                                                                                lanes, their judges)

:meth:`Attempt.run` has two phases:

1. *The race* of the producer, the editors and the lanes. It ends when all of the text is validated, when a lane
   fails, or when something raises. A backend's error ends the text where it happened: the text before it is
   validated and released like any text, and after that the error is raised. If an editor cuts the text off, the
   producer is stopped, and that is a natural end of the text.
2. After a natural end, *the final validation* of the whole text by every requirement.

There are two texts: the generated one and the shown one. They are equal where nothing is edited. Chunks, verdicts
and positions belong to the shown text.

An attempt may begin with text that was kept of an earlier one: :class:`ResumePoint`. That text is cut into chunks
again, but not validated again: each requirement goes on with what it knew at its end.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Literal, TypeAlias

import anyio
import anyio.abc
import anyio.lowlevel

from mellea_sc.core.answer_prefix import AnswerPrefix
from mellea_sc.core.backend import Backend, Delta, ModelOption, merge_options
from mellea_sc.core.base import Context
from mellea_sc.core.errors import BackendTimeout
from mellea_sc.core.generation_info import CHARACTERS
from mellea_sc.core.question import Question, request_for
from mellea_sc.core.requirement import PartialValidationResult, Requirement, ValidationResult
from mellea_sc.runtime.checks.chunks import Failure, Ledger
from mellea_sc.runtime.checks.editors import Editor, Edits, Placed
from mellea_sc.runtime.checks.interfaces import TextSink, View
from mellea_sc.runtime.checks.lanes import Lanes, ValidatorCalls
from mellea_sc.runtime.checks.memory import LaneCheckpoint, ResumePoint
from mellea_sc.runtime.checks.validation import validate_all
from mellea_sc.runtime.failures import (
    failure_of,
    raise_unchanged,
    stray_cancellation_as,
    task_group,
)
from mellea_sc.runtime.generation.bound import opened_scope
from mellea_sc.runtime.generation.pump import AnswerRecord, pump
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.nursery import Nursery, reraise_if_cancelled

AttemptEnd: TypeAlias = Literal["running", "completed", "failed", "stopped", "error", "cancelled"]
"""How an attempt has ended: with its last token, by a failed check, because it was not needed any more, …"""


class Attempt:
    """The tasks of one attempt, and the sink of its pump.

    Args:
        question: The arguments of the call.
        ctx: The conversation before the question.
        lanes: Validate the text while it runs; their ledger has one lane for each requirement, also for those that
            do not validate running text.
        view: Shows the text; ``None``: nobody does.
        asked: The conversation that validators are given, with the question.
        copies: The copies of the requirements, in order.
        editors: The chain of editors that the text passes before the lanes; several for each requirement that edits.
        edits: Records their edits.
        timeout: Seconds that one final validation may take, unless the requirement has its own timeout.
        kept: The text of an earlier attempt that it begins with.
    """

    def __init__(
        self,
        question: Question,
        ctx: Context,
        lanes: Lanes,
        view: View | None,
        *,
        asked: Context,
        copies: Sequence[Requirement],
        editors: Sequence[Editor],
        edits: Edits,
        timeout: float,
        kept: ResumePoint | None,
    ) -> None:
        self._question = question
        self._ctx = ctx
        self._asked = asked
        self.ledger: Ledger = lanes.ledger
        self.edits: Edits = edits
        self.record: AnswerRecord = AnswerRecord()
        self.validations: list[ValidationResult] = []
        self.end: AttemptEnd = "running"
        self.stopped_by: str | None = None
        self.stopped_at: float | None = None
        self.token_limit: int | None = None
        self.judges: list[tuple[ModelOutputThunk, float]] = []
        self.cut_off: tuple[Requirement, PartialValidationResult] | None = None
        """The requirement that has cut the text off, if one has, with its verdict."""
        self.kept_length: int = 0 if kept is None else len(kept.text)
        self.started_at: float = 0.0
        self.ended_at: float = 0.0
        self._lanes = lanes
        self._view = view
        self._copies = copies
        self._editors = editors
        self._timeout = timeout
        self._kept = kept
        # Whether the text is still the kept one, which ends with white space that the model may send once more.
        self._begins = False
        self._leading: list[str] = []  # what the model has sent since then
        self._errors: list[Exception] = []
        self._race = anyio.CancelScope()
        self.scope: anyio.CancelScope = anyio.CancelScope()
        """The scope of the generation alone. It may be stopped before the text that has come is validated."""
        self.late: BackendTimeout | None = None
        self.parts: list[str] = [] if editors else lanes.parts
        """The generated text so far, validated or not, in pieces, with the text that it began with."""
        self._head: TextSink = lanes
        for editor in reversed(editors):
            editor.connect(self._head, self._cut_off)
            self._head = editor
        # Mostly there is nothing to do with a delta but to pass it on.
        self.write: Callable[[str], bool] = self._write if kept or editors else lanes.feed
        """Take new text; true if the pump should wait for a lane or the reader."""

    # --- what became of it ---------------------------------------------------------------------

    @property
    def requirements(self) -> list[Requirement]:
        """The copies of the requirements that validate it now, in order."""
        requirements = list(self._copies)
        for lane in self._lanes.lanes:
            requirements[lane.index] = lane.requirement
        return requirements

    @property
    def generated(self) -> str:
        """The generated text so far, validated or not, with the text that it began with."""
        return "".join(self.parts)

    @property
    def edited(self) -> str:
        """The text as the editors have changed it so far, validated or not."""
        return "".join(self._lanes.parts)

    @property
    def text(self) -> str:
        """The text as far as it may be shown; all of it after a natural end."""
        text = "".join(self._lanes.parts)
        return text if self.end == "completed" else text[: self.ledger.position]

    @property
    def failures(self) -> list[tuple[Requirement, PartialValidationResult]]:
        """The requirements that have stopped it, in order, with their verdicts."""
        requirements = self.requirements
        return [(requirements[f.lane], f.verdict) for f in self.ledger.failures]

    @property
    def noted(self) -> list[tuple[Requirement, PartialValidationResult]]:
        """The fails that have not stopped it: first those that were only recorded, as they came, then those whose
        spans were edited, as far as the text may be shown, in its order.
        """
        requirements = self.requirements
        noted: list[Failure | Placed] = [*self.ledger.noted, *self.edited_spans]
        return [(requirements[one.lane], one.verdict) for one in noted]

    @property
    def edited_spans(self) -> list[Placed]:
        """The edits of the text that may be shown, in its order."""
        return self.edits.before(math.inf if self.end == "completed" else self.ledger.position)

    @property
    def estimate(self) -> int:
        """An estimate of the received tokens: one for each delta, or one for four characters."""
        kept = 0 if self._kept is None else len(self._kept.chunks) + 1
        tokens = sum(max(1, len(delta) // CHARACTERS) for delta in self.parts[kept:])
        return tokens + self.record.estimate

    @property
    def error(self) -> Exception | None:
        """The error that has ended it, if one has; several as a group."""
        if len(self._errors) > 1:
            return ExceptionGroup("a stream failed in more than one way", self._errors)
        return self._errors[0] if self._errors else None

    def kept(self, count: int) -> ResumePoint:
        """Its first chunks, for another attempt to begin with; only for an attempt that remembers."""
        text, chunks = self.edited, self._lanes.chunks
        end = chunks[count - 1].end if count else 0
        rest = text[end:]
        after = (
            end + len(rest) - len(rest.lstrip()) if count == len(chunks) else chunks[count].start
        )
        # White space after the last chunk is kept for the text that comes next, but not if it is what has failed. Where
        # all text after it fails too, the piece may be longer than what has failed.
        failed = [
            one.start
            for one in self.ledger.failures
            if end <= one.start and (one.end <= after or one.verdict.cuts_off)
        ]
        after = min([after, *failed])
        return ResumePoint(
            text=text[:after],
            chunks=chunks[:count],
            edits=self.edits.before(after),
            noted=[failure for failure in self.ledger.noted if failure.end <= after],
            known=self._checkpoints(),
            deltas=[end for end in self._delta_ends() if end <= after],
        )

    def _checkpoints(self) -> list[Callable[[int], LaneCheckpoint]]:
        """For each requirement, a function from a position to what the requirement knew there."""
        memories = {lane.index: lane.memory for lane in self._lanes.lanes}
        return [
            memory.known_at if (memory := memories.get(index)) else partial(_as_it_is, requirement)
            for index, requirement in enumerate(self.requirements)
        ]

    def _delta_ends(self) -> list[int]:
        """The positions in the shown text at which its deltas end."""
        begun = 0 if self._kept is None else len(self._kept.text)
        before = [] if self._kept is None else list(self._kept.deltas)
        ends = [self.edits.place(end) for end in accumulate(map(len, self.parts)) if end > begun]
        return before + [int(end) for end in ends if end < math.inf]

    # --- its life ------------------------------------------------------------------------------

    async def run(self, nursery: Nursery, judges: Nursery) -> None:
        """Generate and validate.

        Args:
            nursery: The nursery whose backend generates.
            judges: The nursery whose backend the validators use.

        Raises:
            Exception: the error that has ended it; several at once as an ``ExceptionGroup``.

        Cancellation: the connection is closed and every validator is cancelled; all of them have ended. If the
            backend has failed before, its error is raised instead.
        """
        self._valves = nursery.valves
        self._options = merge_options(nursery.options, self._question.model_options)
        limit = self._options.get(ModelOption.MAX_NEW_TOKENS)
        self.token_limit = limit if isinstance(limit, int) else None
        self._now, task = nursery.now, nursery.loop_services.current_task()
        self.started_at = self._now()
        try:
            if self._kept is not None:
                self._begin(self._kept)
            with self._race:
                async with opened_scope(judges, started=self.judge_began) as judging:
                    async with task_group() as tasks:
                        self._start(tasks, judging, nursery)
                    is_whole = not self._errors and not self.ledger.failures
                    if self._view is not None:
                        if is_whole and not self._begins:
                            self._lanes.finish()
                        # With ``lookahead``, the last chunks may still be waiting for the reader.
                        await self._view.room(self._valves)
                    if is_whole:
                        await self._finish(judging)
        except BaseException as error:  # noqa: ASYNC103 - what failure_of() does not know is raised
            # An error has priority over a cancellation, as in a task group. The backend's error is among
            # self._errors since it happened, but is raised only after the text before it was validated.
            if (failure := failure_of(error, "an attempt", task)) is not None:
                self._errors.append(failure)
            elif not self._errors or not isinstance(error, anyio.get_cancelled_exc_class()):
                raise
        finally:
            for lane in (*self._lanes.lanes, *(editor.lane for editor in self._editors)):
                lane.close()
            self.ended_at = self._now()
            if self.end == "running":
                if self._errors:
                    self.end = "error"
                elif self.ledger.failures:
                    self.end = "failed"
                else:
                    self.end = "stopped" if self._race.cancel_called else "cancelled"
        if self._errors and (failure := self.error) is not None:
            raise_unchanged(failure)

    def stop(self, reason: str) -> None:
        """Close its connection and cancel its validators, because it is not needed any more."""
        if self.end == "running" and not self._race.cancel_called:
            self.stopped_by = reason
            self._end_race(reason)

    def _start(self, tasks: anyio.abc.TaskGroup, judging: Backend, nursery: Nursery) -> None:
        calls = ValidatorCalls(judging, self._asked, nursery)
        start_task = nursery.loop_services.start_task
        self._lanes.start(tasks, calls, partial(self._end_race, "a check failed"))
        for number, editor in enumerate(self._editors):
            name = f"editor {number}: {editor.lane.requirement!r}"
            start_task(tasks, editor.run(calls, self._valves), name=name)
        # In a task of its own. Each delta resumes all coroutines that its task is in the middle of. In the attempt's
        # own task these would be five more: those of the run, the plan and the attempt.
        start_task(tasks, self._produce(nursery), name="producer")

    def _begin(self, kept: ResumePoint) -> None:
        for piece in kept.pieces():
            if self._editors:
                # The editors have it already; without them, the lanes add it to the parts.
                self.parts.append(piece)
            self._lanes.feed(piece)
        self._begins = kept.text[-1:].isspace()

    async def _finish(self, judging: Backend) -> None:
        if self._begins and self._kept is not None:
            # no text came after the kept one: white space after its last chunk stands between no chunks
            end = self._kept.chunks[-1].end
            self._lanes.parts[:] = [self.edited[:end]]
            self.parts[:] = [self.generated[:end]]
        text, requirements = "".join(self._lanes.parts), self.requirements
        if self._view is not None:
            self._view.generated(text)
        if requirements:
            answer = ModelOutputThunk.computed(text, generation=self.record.info())
            self.validations = await validate_all(
                requirements,
                judging,
                self._asked.add(answer),
                timeout=self._timeout,
                format=self._question.format,
            )
            if self._view is not None:
                self._view.validated(self.validations)
        self.end = "completed"

    async def _produce(self, nursery: Nursery) -> None:
        question, prefills = self._question, nursery.backend.prefills
        # A task that was cancelled before its first step makes no request. And tasks that have waited for the
        # connections go first.
        await anyio.lowlevel.checkpoint()
        try:
            with self.scope, stray_cancellation_as("a generation"):
                request, prefix = await request_for(
                    question.action, self._ctx, self._options, question.format, prefills=prefills
                )
                if self._kept is not None:  # which the model may repeat
                    prefix = None if prefills else AnswerPrefix("", self._kept.text, asked=True)
                await pump(nursery, request, self, self.scope, prefix)
            if self.late is not None and self.scope.cancelled_caught:
                raise self.late
        except Exception as error:  # noqa: BLE001 - raised by run(), after the text before it was validated
            await reraise_if_cancelled(error)  # noqa: ASYNC120 - that is the point
            self._errors.append(error)
        try:
            self._head.end()
        except Exception as error:  # noqa: BLE001 - the error of a chunking, raised by run() too
            self._errors.append(error)

    def _cut_off(self, by: Editor) -> None:
        """Stop the model and the editors before this one: it has cut the text off, so none of their text can be shown."""
        if self.cut_off is None and by.cut_off is not None:
            self.cut_off = (by.lane.requirement, by.cut_off)
        reason = "nothing more can be shown"
        if self.stopped_at is None:
            self.stopped_at = self._now()
        self.scope.cancel(reason)
        for editor in self._editors:
            if editor is by:
                break
            editor.scope.cancel(reason)

    def _end_race(self, reason: str) -> None:
        if self.stopped_at is None:
            self.stopped_at = self._now()
        self._race.cancel(reason)

    def judge_began(self, thunk: ModelOutputThunk) -> None:
        """Take notice that a validator has started a generation."""
        self.judges.append((thunk, self._now()))

    # --- the pump's sink -------------------------------------------------------------------------

    def _write(self, text: str) -> bool:
        if self._begins:
            self._leading.append(text)
            if not text.strip():
                return False
            self._begins = False
            text = self._without_doubled_space("".join(self._leading))
        if self._editors:  # without editors, these are the parts of the lanes
            self.parts.append(text)
        return self._head.feed(text)

    def _without_doubled_space(self, text: str) -> str:
        """The first text after the kept one, without the white space that the kept one ends with already."""
        assert self._kept is not None
        kept, rest = self._kept.text, text.lstrip()
        if len(kept) > self._kept.chunks[-1].end:
            return rest  # the white space between two chunks is that of the kept text
        size = len(text) - len(rest)
        while not kept.endswith(text[:size]):
            size -= 1
        return text[size:]

    def write_other(self, delta: Delta) -> None:
        """Take the other parts of a delta, which no requirement validates."""
        self.record.take(delta)
        if delta.reasoning and self._view is not None:
            self._view.reasoned(delta.reasoning)

    async def room(self) -> None:
        """Wait until there is room again: in the first editor, or else in the lanes and at the reader."""
        await self._head.room(self._valves)


def _as_it_is(requirement: Requirement, _: int) -> LaneCheckpoint:
    """The checkpoint of a requirement that does not validate running text."""
    return LaneCheckpoint(0, copy.copy(requirement))
