"""A backend without a model: it gives the answers that a test has written down.

It opens no socket, starts no task and never switches tasks between two deltas that have no delay
between them, so whatever a test observes was done by the code under test.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Literal, TypeAlias, cast

import anyio
import anyio.lowlevel
import attrs

from mellea_sc.core.backend import Backend, Delta, GenerationRequest, Usage

__all__ = [
    "Call",
    "Fail",
    "Outcome",
    "Pause",
    "Script",
    "ScriptExhausted",
    "ScriptedAnswer",
    "ScriptedBackend",
    "Stall",
    "Step",
    "is_judge_request",
]


@attrs.frozen
class Pause:
    """Nothing comes for some time.

    Args:
        seconds: How long; 0 is one task switch.
    """

    seconds: float


@attrs.frozen
class Stall:
    """Nothing comes any more, and the stream does not end either."""


@attrs.frozen
class Fail:
    """The stream breaks here. As a whole answer: opening it fails.

    Args:
        error: What is raised.
    """

    error: Exception


Step: TypeAlias = str | Delta | Pause | Stall | Fail
"""A delta of a scripted answer, or what happens between two."""


@attrs.frozen
class Script:
    """An answer with all that a server says about it.

    Args:
        steps: A text, which is cut into words; or deltas and what happens between them. A ``Delta`` may
            have reasoning or calls. An iterable that is not a sequence is read as the consumer goes on, once.
        delay: Seconds before each delta.
        usage: The tokens on the closing delta; by default one for each word of the prompt and one
            for each delta.
        finish_reason: Why the model stopped, on the closing delta. There is no closing delta when
            a delta of the script has said it already.
    """

    steps: str | Iterable[Step]
    delay: float = attrs.field(default=0.0, kw_only=True)
    usage: Usage | None = attrs.field(default=None, kw_only=True)
    finish_reason: str = attrs.field(default="stop", kw_only=True)


ScriptedAnswer: TypeAlias = str | Iterable[Step] | Script | Fail
"""What a scripted backend may answer."""
Outcome: TypeAlias = Literal["running", "ended", "cancelled", "closed", "error"]
"""What became of a call."""


class ScriptExhausted(AssertionError):
    """More was asked of a :class:`ScriptedBackend` than it has answers for."""


@attrs.define(eq=False)
class Call:
    """One request to a :class:`ScriptedBackend` and what became of it.

    Args:
        request: What was asked.
        started_at: When, by the event loop's clock.
        judged: Whether the rule for judges has answered it.
        outcome: ``"ended"``: the answer was read to its end; ``"cancelled"``; ``"closed"``: the
            consumer left before the end, normally or by an exception of its own; ``"error"``: the
            script's own failure.
        deltas_sent: How many deltas of the script the consumer was given; the closing one, with
            the usage, does not count.
        ended_at: When the answer was over or the block was left, by the event loop's clock.
    """

    request: GenerationRequest = attrs.field(repr=False)
    started_at: float
    judged: bool = False
    outcome: Outcome = "running"
    deltas_sent: int = 0
    ended_at: float | None = None

    @property
    def prompt(self) -> str:
        """The last message of the request."""
        return self.request.messages[-1].content if self.request.messages else ""

    def end(self, outcome: Outcome) -> None:
        """The answer is over; without effect where it was before."""
        if self.outcome == "running":
            self.outcome = outcome
            self.ended_at = anyio.current_time()


def is_judge_request(request: GenerationRequest) -> bool:
    """Whether a requirement asks a model: the schema has an ``answer`` of yes or no, or a ``score``."""
    answer = _at(_at(request.json_schema, "properties"), "answer")
    return _at(answer, "enum") == ["yes", "no"] or _asks_for_score(request)


def _asks_for_score(request: GenerationRequest) -> bool:
    score = _at(_at(request.json_schema, "properties"), "score")
    return _at(score, "type") == "number"


def _at(json_value: object, key: str) -> object:
    if not isinstance(json_value, Mapping):
        return None
    return cast("Mapping[str, object]", json_value).get(key)


class ScriptedBackend(Backend):
    """A backend that gives the answers it was made with.

    Args:
        answers: Used in turn, one for each request; or one function that chooses the answer by the
            request, as often as it is asked. A text is cut into words, a sequence is deltas and
            what happens between them, a :class:`Script` says more, a :class:`Fail` refuses.
        judge: Answers the requests of judges instead, without using up an answer: true and false
            stand for a judge's yes and no, or its scores 1 and 0.
        is_judge: Which requests these are; by default those of a
            :class:`~mellea_sc.core.requirement.Requirement` without a function and of a
            :class:`~mellea_sc.LLMJudge`.

    Raises:
        ScriptExhausted: on opening: there is no answer left.
    """

    provider = "scripted"
    model_id = "scripted"
    prefills = True

    def __init__(
        self,
        *answers: ScriptedAnswer | Callable[[GenerationRequest], ScriptedAnswer],
        judge: Callable[[GenerationRequest], bool | ScriptedAnswer] | None = None,
        is_judge: Callable[[GenerationRequest], bool] = is_judge_request,
    ) -> None:
        self.calls: list[Call] = []
        """Every request so far, oldest first."""
        self._choose: Callable[[GenerationRequest], ScriptedAnswer] | None = None
        self._left: deque[_Prepared] = deque()
        self._unanswered = 0
        self._judge = judge
        self._is_judge = is_judge
        for answer in answers:
            if not callable(answer):
                self._left.append(_prepare(answer))
            elif len(answers) == 1:
                self._choose = answer
            else:
                raise TypeError("give answers, or one function that chooses them: not both")

    def open(self, request: GenerationRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Give the next answer; the one checkpoint of its own is on entering."""
        return self._open(request)

    @asynccontextmanager
    async def _open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        call = Call(request, anyio.current_time())
        self.calls.append(call)
        try:
            await anyio.lowlevel.checkpoint()
            try:
                answer = self._answer(call)
                if isinstance(answer, Fail):
                    raise answer.error
            except Exception:
                call.end("error")
                raise
            deltas = _play(answer, call)
            try:
                yield deltas
            finally:
                await deltas.aclose()
        except anyio.get_cancelled_exc_class():
            call.end("cancelled")
            raise
        finally:
            call.end("closed")

    def _answer(self, call: Call) -> _Prepared:
        if self._judge is not None and self._is_judge(call.request):
            call.judged = True
            verdict = self._judge(call.request)
            if isinstance(verdict, bool):
                said: dict[str, object] = {"answer": "yes" if verdict else "no"}
                if _asks_for_score(call.request):
                    said = {"score": int(verdict)}
                verdict = json.dumps({**said, "reason": "by the test's rule"})
            return _prepare(verdict)
        if self._choose is not None:
            return _prepare(self._choose(call.request))
        try:
            return self._left.popleft()
        except IndexError:
            self._unanswered += 1
            raise ScriptExhausted(
                f"no scripted answer is left for request {len(self.calls)}: {call.prompt[:200]!r}"
            ) from None

    def assert_exhausted(self) -> None:
        """Check that every answer was asked for, and nothing more than that.

        Raises:
            AssertionError: naming the unused answers, or how many requests found none.
        """
        if self._unanswered:
            raise ScriptExhausted(f"{self._unanswered} requests found no scripted answer left")
        if self._left:
            unused = ", ".join(str(answer) for answer in self._left)
            raise AssertionError(f"{len(self._left)} scripted answers were not used: {unused}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.calls)} calls, {len(self._left)} answers left>"


@attrs.frozen
class _Ready:
    """An answer whose deltas are made."""

    steps: Iterable[Delta | Pause | Stall | Fail]
    script: Script

    def __str__(self) -> str:
        steps = self.script.steps
        text = repr(steps) if isinstance(steps, Sequence) else f"an iterable {steps!r}"
        return text if len(text) <= 60 else text[:59] + "…"


_Prepared: TypeAlias = _Ready | Fail
_WORD: Final = re.compile(r"\s*\S+|\s+")


def _prepare(answer: ScriptedAnswer) -> _Prepared:
    if isinstance(answer, Fail):
        return answer
    script = answer if isinstance(answer, Script) else Script(answer)
    steps = script.steps
    if isinstance(steps, str):
        return _Ready([Delta(word) for word in _WORD.findall(steps)], script)
    ready = (Delta(step) if isinstance(step, str) else step for step in steps)
    return _Ready(list(ready) if isinstance(steps, Sequence) else ready, script)


async def _play(answer: _Ready, call: Call) -> AsyncGenerator[Delta]:
    delay = answer.script.delay
    finished = False
    try:
        for step in answer.steps:
            if isinstance(step, Delta):
                if delay:
                    await anyio.sleep(delay)
                call.deltas_sent += 1
                if step.finish_reason is not None:
                    finished = True
                yield step
            elif isinstance(step, Pause):
                await anyio.sleep(step.seconds)
            elif isinstance(step, Stall):
                await anyio.sleep_forever()
            else:
                raise step.error
    except Exception:
        call.end("error")
        raise
    if not finished:
        usage = answer.script.usage or Usage(_words(call.request), call.deltas_sent)
        yield Delta(finish_reason=answer.script.finish_reason, usage=usage)
    call.end("ended")


def _words(request: GenerationRequest) -> int:
    return sum(len(message.content.split()) for message in request.messages)
