"""Strategies as a plain model: whatever is generated, cut, judged and edited, a stream agrees with it.

Verdicts and edits depend on the text alone, so what may follow an attempt is known from its text; only *which* of
several failing lanes came first depends on the schedule. The model therefore takes the attempts one by
one as they ended, says whether they could end so, and what the strategy has to ask next.

There is one text: what the editors make of the answer, one after the other, as whole texts. Its chunks
are shown, every judge passes it or the attempt fails, and it is what is validated at the end.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import anyio
import attrs
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st
from kit import read_chunks, read_events
from test_stream_model import pieces

from mellea_sc import (
    BacktrackStrategy,
    BestOfNStrategy,
    ChunkEvent,
    CompletedEvent,
    MajorityVotingStrategy,
    ModelOption,
    RejectionSamplingStrategy,
    RepairTemplateStrategy,
    RetractEvent,
    start_session,
)
from mellea_sc.core.backend import Backend, GenerationRequest
from mellea_sc.core.base import Context
from mellea_sc.core.requirement import (
    OnFail,
    PartialValidationResult,
    Requirement,
    ValidationResult,
)
from mellea_sc.runtime.checks.editors import PASSES
from mellea_sc.stdlib import (
    EditEvent,
    PlannedStrategy,
    QuickCheckEvent,
    RacingStrategy,
    RetryEvent,
    StreamChunkingResult,
    StreamEvent,
)
from mellea_sc.stdlib.sampling import AttemptResult
from mellea_sc.testing.clock import LoopName, run_virtual
from mellea_sc.testing.scripted import Pause, ScriptedBackend, Step
from mellea_sc.testing.strategies import cuts, pauses

WORDS = ("ok", "it", "my", "so.", "no!", "ok", "it.", "ax", "bx", "cx.", "aaxx", "bax", " ", "\n\n")
EDITS = ("filter", "fix")
RECORDS = (*EDITS, "noop")


@attrs.frozen(kw_only=True)
class Judge:
    """Fails a piece that has its word, once it has seen more than ``allowed`` of them."""

    word: str
    allowed: int
    on_fail: OnFail | None
    blocking: bool
    chunking: str | None
    every: int
    window: int
    delay: float | None
    final: str | None
    put: str = "#"

    def verdicts(self, text: str, deltas: Sequence[str], main: str | None) -> list[Verdict]:
        places = [(a, b) for a, b, _ in pieces(self.chunking or main, deltas)]
        groups = [places[at : at + self.every] for at in range(0, len(places), self.every)]
        seen, verdicts = 0, []
        for start, end in [(group[0][0], group[-1][1]) for group in groups]:
            count = text[start:end].count(self.word)
            seen += count
            verdicts.append(Verdict(start, end, count > 0 and seen > self.allowed))
        return verdicts

    @property
    def edits(self) -> bool:
        return self.on_fail in EDITS and self.blocking

    @property
    def cancels(self) -> bool:
        return self.edits or self.on_fail not in RECORDS


@attrs.frozen
class Verdict:
    start: int
    end: int
    fails: bool


class Judged(Requirement):
    """A requirement that judges as its description says."""

    def __init__(self, judge: Judge) -> None:
        super().__init__(
            f"no {judge.word}",
            on_fail=judge.on_fail,
            blocking=judge.blocking,
            chunking=judge.chunking,
            every=judge.every,
            window=judge.window,
        )
        self.judge = judge
        self.count = 0

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        here = chunk.count(self.judge.word)
        self.count += here
        if self.judge.delay is not None:
            await anyio.sleep(self.judge.delay)
        if here and self.count > self.judge.allowed:
            return PartialValidationResult("fail", reason=chunk, replacement=self.judge.put)
        return PartialValidationResult("pass")

    async def validate(
        self, backend: Backend, ctx: Context, **_options: object
    ) -> ValidationResult:
        output = ctx.last_output()
        assert output is not None
        return ValidationResult(self.judge.final is None or self.judge.final not in output.value)


Kind = Literal["once", "reject", "repair", "back", "race", "best", "vote"]


@attrs.frozen(kw_only=True)
class Program:
    kind: Kind
    budget: int
    answers: Sequence[Sequence[str]]
    pause: float | None
    chunking: str | None
    judges: Sequence[Judge]
    hold_back: bool | int
    lookahead: int | None
    readers: Sequence[str]

    @property
    def concurrent(self) -> bool:
        return self.kind in ("race", "best", "vote")

    def strategy(self) -> PlannedStrategy | None:
        n = self.budget
        return {
            "once": None,
            "reject": RejectionSamplingStrategy(loop_budget=n),
            "repair": RepairTemplateStrategy(loop_budget=n),
            "back": BacktrackStrategy(tries=2, budget=n),
            "race": RacingStrategy(2, budget=n),
            "best": BestOfNStrategy(n, len),
            "vote": MajorityVotingStrategy(n),
        }[self.kind]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    kind: Kind = draw(
        st.sampled_from(
            ["once", "reject", "repair", "back", "back", "back", "race", "best", "vote"]
        )
    )
    answers: list[list[str]] = []
    for _ in range(draw(st.integers(1, 4))):
        words = draw(st.lists(st.sampled_from(WORDS), min_size=2, max_size=12))
        answers.append(draw(cuts(" ".join(words), max_deltas=6)))
    concurrent = kind in ("race", "best", "vote")
    does: list[OnFail | None] = [None, None, None, "filter", "fix", "noop"]
    does += [] if concurrent else ["stop", "retry", "backtrack"]
    main = draw(st.sampled_from(["word", "word", "sentence", "paragraph"]))
    judges = draw(
        st.lists(
            st.builds(
                Judge,
                word=st.sampled_from(["ax", "bx", "cx"]),
                allowed=st.sampled_from([0, 0, 1]),
                on_fail=st.sampled_from(does),
                blocking=st.sampled_from([True, True, True, False]),
                chunking=st.sampled_from([None, None, "word", "sentence", "paragraph"]),
                every=st.sampled_from([1, 1, 2]),
                window=st.sampled_from([0, 0, 3]),
                delay=pauses(),
                final=st.sampled_from([None, None, None, "ax", "my"]),
                put=st.sampled_from(["#", "#", "#", "", "bx", "an ax. "]),
            ),
            max_size=3,
        )
    )
    return Program(
        kind=kind,
        budget=draw(st.integers(1, 4)),
        answers=answers,
        pause=draw(pauses()),
        chunking=main,
        judges=judges,
        hold_back=draw(st.sampled_from([False, False, False, True, 1, 2])),
        lookahead=draw(st.sampled_from([None, None, 1, 2])),
        readers=draw(st.sampled_from([[], ["chunks"], ["events"], ["chunks", "events"]])),
    )


# --- the model ---------------------------------------------------------------------------------


@attrs.frozen
class Expected:
    """What one attempt's text brings about."""

    text: str  # what the editors make of all of it
    chunks: Sequence[tuple[int, int]]
    fails: dict[int, int]  # by lane: the chunk in which its first failing piece begins
    may_show: int  # chunks that no blocking lane has failed or not passed

    @property
    def space(self) -> str:
        """What no chunk holds at the end."""
        return self.text[self.chunks[-1][1] if self.chunks else 0 :]


def edited(program: Program, text: str, kept: int) -> str:
    """What the editors make of a whole text, whose first ``kept`` characters stay."""
    for judge in [judge for judge in program.judges if judge.edits] * PASSES:
        made, at = "", 0
        for one in judge.verdicts(text, [text], program.chunking):
            start = max(one.start, kept)
            if one.fails and start < one.end:
                made += text[at:start] + ("" if judge.on_fail == "filter" else judge.put)
                at = one.end
        text = made + text[at:]
    return text


def model(program: Program, answer: str, kept: int = 0) -> Expected:
    text = edited(program, answer, kept)
    chunks = [(a, b) for a, b, _ in pieces(program.chunking, [text])]
    fails: dict[int, int] = {}
    passed = math.inf
    for lane, judge in enumerate(program.judges):
        before = 0
        for one in judge.verdicts(text, [text], program.chunking):
            if one.fails and judge.cancels:
                fails[lane] = sum(end <= one.start for _, end in chunks)
                passed = min(passed, before) if judge.blocking else passed
                break
            before = one.end
    may_show = sum(end <= passed for _, end in chunks)
    return Expected(text, chunks, fails, may_show)


def asks_next(program: Program, past: Sequence[AttemptResult]) -> int | None:
    """How many chunks the next attempt keeps; ``None``: there is none."""
    last = past[-1]
    if last.valid:
        return None
    said = {one.on_fail for one, _ in last.rejected}
    kind, budget = program.kind, program.budget
    if "stop" in said or (kind == "once" and not said & {"retry", "backtrack"}):
        return None
    if "retry" in said and kind not in ("reject", "repair"):
        kind, budget = "repair", 2
    elif "retry" not in said and "backtrack" in said and kind != "back":
        place = goes_back(past, 8)
        if place is not None:  # otherwise the strategy decides
            return place
    if kind == "back":
        return goes_back(past, budget)
    if kind in ("reject", "repair"):
        return 0 if sum(not one.ask.keep for one in past) < budget else None
    return None


def goes_back(past: Sequence[AttemptResult], budget: int) -> int | None:
    """How many chunks backtracking keeps; ``None``: it has come to its end."""
    last = past[-1]
    if len(past) >= budget:
        return None
    if last.completed:
        return None if last.released else 0
    tried = Counter(one.ask.keep for one in past if one.ask.of)
    places = range(last.failed_at, last.released - 1, -1)
    anew = None if last.released else 0
    return next((place for place in places if tried[place] < 2), anew)


# --- a run of it ---------------------------------------------------------------------------------


@attrs.define
class Ran:
    result: StreamChunkingResult
    backend: ScriptedBackend
    chunks: list[str]
    events: list[StreamEvent]


async def run(program: Program) -> Ran:
    def answer(request: GenerationRequest) -> list[Step]:
        number = request.options[ModelOption.SEED]
        assert isinstance(number, int)
        steps: list[Step] = []
        for delta in program.answers[(number - 1) % len(program.answers)]:
            steps += [delta] if program.pause is None else [Pause(program.pause), delta]
        return steps

    backend = ScriptedBackend(answer)
    async with start_session(backend=backend) as m:
        result = await m.stream(
            "?",
            requirements=[Judged(judge) for judge in program.judges],
            chunking=program.chunking,
            strategy=program.strategy(),
            hold_back=program.hold_back,
            lookahead=program.lookahead,
            model_options={ModelOption.STREAM_TIMEOUT: None, ModelOption.SEED: 1},
            validator_timeout=None,
        )
        ran = Ran(result, backend, [], [])

        async def chunks() -> None:
            ran.chunks += await read_chunks(result)

        async def events() -> None:
            ran.events += await read_events(result)

        async with anyio.create_task_group() as tg:
            if "chunks" in program.readers:
                tg.start_soon(chunks)
            if "events" in program.readers:
                tg.start_soon(events)
            if not program.readers:
                tg.start_soon(result.acomplete)
        await result.acomplete()
        if "chunks" not in program.readers:
            await chunks()
        if "events" not in program.readers:
            await events()
    return ran


def check_attempts(program: Program, ran: Ran) -> dict[int, Expected]:
    """Every attempt has ended as its text lets it; gives what its whole text brings about."""
    expected: dict[int, Expected] = {}
    for one in sorted(ran.result.attempts, key=lambda one: one.number):
        answer = "".join(program.answers[(one.number - 1) % len(program.answers)])
        kept = ""
        if one.ask.keep:
            before = expected[one.ask.of]
            after = [start for start, _ in before.chunks][one.ask.keep :]
            kept = before.text[: after[0]] if after else before.text
            if kept[-1:].isspace():
                answer = answer.lstrip()
                # white space that was kept for what comes after it goes when nothing does
                kept = kept if answer else kept.rstrip()
            answer = kept + answer
        mine = expected[one.number] = model(program, answer, len(kept))
        assert mine.text.startswith(kept)
        assert answer.startswith(one.generated)
        assert mine.text.startswith(one.text)
        failed = {r.judge.word: r for r, _ in one.failures if isinstance(r, Judged)}
        lanes = [n for n in mine.fails if program.judges[n].word in failed]
        if one.end == "failed":
            assert lanes
            assert one.failed_at in {mine.fails[lane] for lane in lanes}
        elif one.end == "completed":
            assert not mine.fails
            assert one.generated == answer
            assert one.text == mine.text
            # the verdicts at the end are on the text as it is shown
            finals = [j.final is None or j.final not in one.text for j in program.judges]
            assert [bool(verdict) for _, verdict in one.validations] == finals
            bad = [j for j, ok in zip(program.judges, finals, strict=True) if not ok]
            assert one.valid is all(j.on_fail == "noop" for j in bad)
        else:
            assert one.end == "stopped"
            assert program.concurrent
    return expected


def check_events(program: Program, ran: Ran, expected: dict[int, Expected]) -> list[ChunkEvent]:
    """What a reader of the events pieces together, which is given, is in order and was passed."""
    shown: list[ChunkEvent] = []
    attempt, keep = 1, {one.number: one.ask.keep for one in ran.result.attempts}
    retracts = 0
    for before, one in zip([None, *ran.events], ran.events, strict=False):
        if isinstance(one, RetractEvent):
            assert one.attempt == attempt
            assert one.chunk_index < len(shown)
            shown = shown[: one.chunk_index]
            retracts += 1
        elif isinstance(one, RetryEvent):
            attempt += 1
            assert program.concurrent or one.attempt == attempt
            assert program.concurrent or len(shown) <= keep[attempt]
            if isinstance(before, RetractEvent):
                assert len(shown) == keep[attempt]
        elif isinstance(one, ChunkEvent):
            assert program.concurrent or one.attempt == attempt
            assert one.chunk_index == len(shown)
            mine = expected[one.attempt]
            if one.text:
                assert one.chunk_index < mine.may_show
                start, end = mine.chunks[one.chunk_index]
                assert one.text == mine.text[start:end]
            else:
                assert one.before == mine.space
            shown.append(one)
        elif isinstance(one, EditEvent):
            assert program.judges[one.requirement].edits
            assert one.chunk_index == len(shown)
            assert one.result.success == "fail"
        elif isinstance(one, QuickCheckEvent):
            assert one.passed is (
                one.chunk_index == len(shown)
                and not any(
                    v.success == "fail" and program.judges[n].cancels
                    for n, v in enumerate(one.results)
                )
            )
        if not isinstance(one, RetryEvent):
            assert not isinstance(before, RetractEvent)
    if program.hold_back is True or program.concurrent:
        assert not retracts
    if program.kind == "back" and not any(j.on_fail == "retry" for j in program.judges):
        assert not retracts
    ends = [one for one in ran.events if isinstance(one, CompletedEvent)]
    assert len(ends) == 1
    assert ran.events[-1] is ends[0]
    assert ends[0].attempts_used == len(ran.result.attempts)
    assert sorted(keep) == [*range(1, len(keep) + 1)]
    assert attempt - 1 == sum(one.ask.reason is not None for one in ran.result.attempts)
    assert (ends[0].success, ends[0].full_text) == (ran.result.completed, ran.result.full_text)
    edits = sum(isinstance(one, EditEvent) for one in ran.events)
    event(f"{program.kind}: {attempt} attempts, {retracts} retractions, {min(edits, 3)} edits")
    return shown


def check_agreement(program: Program, ran: Ran) -> None:
    result = ran.result
    assert not result.cancelled
    expected = check_attempts(program, ran)
    shown = check_events(program, ran, expected)
    # all that was shown in the end is the text, for who reads either or both
    assert "".join(one.before + one.text for one in shown) == result.full_text
    assert ran.chunks == [one.text for one in shown if one.text]
    # the strategy has asked what it should
    past = list(result.attempts)
    valid = [one for one in past if one.valid]
    if not program.concurrent:
        for at, one in enumerate(past[1:], start=1):
            assert one.ask.keep == asks_next(program, past[:at])
        assert asks_next(program, past) is None
        if valid:
            assert result.completed
            assert result.full_text == past[-1].text
        elif program.hold_back:
            assert not result.completed
        else:
            assert result.completed is past[-1].completed
        if result.completed:
            last = expected[past[-1].number]
            assert len(shown) == len(last.chunks) + bool(last.space)
    else:
        assert len(past) <= program.budget
        assert result.completed is bool(valid)
        if program.kind != "vote" and not (program.kind == "race" and valid):
            assert len(past) == program.budget
            assert all(one.end != "stopped" for one in past)
        if valid:
            worth = {
                "race": lambda one: 0,
                "best": lambda one: len(one.text),
                "vote": lambda one: sum(other.text.split() == one.text.split() for other in valid),
            }[program.kind]
            best = max(map(worth, valid))
            assert result.full_text in {one.text for one in valid if worth(one) == best}
    assert all(call.outcome != "running" for call in ran.backend.calls)


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    log = logging.getLogger("mellea_sc")
    log.disabled = True
    yield
    log.disabled = False


NO_AX = Judge(
    word="ax",
    allowed=0,
    on_fail=None,
    blocking=True,
    chunking=None,
    every=1,
    window=0,
    delay=None,
    final=None,
)
HELD_BACK = Program(
    kind="reject",
    budget=2,
    answers=[["ok it ax "], ["my my my my ax "]],
    pause=None,
    chunking="word",
    judges=[NO_AX],
    hold_back=1,
    lookahead=None,
    readers=[],
)
AN_EDIT_REACHES_OVER = Program(
    kind="back",
    budget=3,
    answers=[["ok bx my ", "ax so. it"], ["it. bx ok."]],
    pause=1,
    chunking="word",
    judges=[attrs.evolve(NO_AX, delay=1), attrs.evolve(NO_AX, word="bx", every=2, on_fail="fix")],
    hold_back=False,
    lookahead=None,
    readers=["events"],
)
NOTHING_CAME = Program(
    kind="once",
    budget=1,
    answers=[["ok ax"], ["   "], ["ok ok"]],
    pause=None,
    chunking="word",
    judges=[NO_AX, attrs.evolve(NO_AX, on_fail="backtrack")],
    hold_back=False,
    lookahead=None,
    readers=[],
)
SHOWN_AS_NOTHING = attrs.evolve(
    NOTHING_CAME,
    answers=[["ok ax"], ["ok ok"]],
    judges=[
        attrs.evolve(NO_AX, on_fail="filter", every=2),
        attrs.evolve(NO_AX, on_fail="backtrack"),
    ],
)
FURTHER_BACK_THAN_THE_LAST = attrs.evolve(
    NOTHING_CAME,
    answers=[["ok bx"], ["ok bx"], ["bx ok"], ["ok cx."]],
    judges=[
        attrs.evolve(NO_AX, word="bx", on_fail="backtrack"),
        attrs.evolve(NO_AX, word="cx", on_fail="backtrack", every=2),
    ],
    hold_back=True,
)
SHOWN_BEFORE_THE_EDIT = attrs.evolve(
    NOTHING_CAME,
    answers=[["ok cx."], ["so. ok \n\n cx."]],
    judges=[
        attrs.evolve(NO_AX, word="cx", on_fail="filter", chunking="paragraph"),
        attrs.evolve(NO_AX, word="cx", on_fail="backtrack", chunking="sentence"),
    ],
)
SHOWN_AS_ANOTHER_TEXT = attrs.evolve(
    NOTHING_CAME,
    answers=[["ax cx."], ["ok ok"]],
    judges=[
        attrs.evolve(NO_AX, word="cx", on_fail="backtrack"),
        attrs.evolve(NO_AX, on_fail="fix", chunking="sentence"),
    ],
)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@example(program=SHOWN_AS_ANOTHER_TEXT, seed=None)
@example(program=FURTHER_BACK_THAN_THE_LAST, seed=None)
@example(program=SHOWN_BEFORE_THE_EDIT, seed=None)
@example(program=SHOWN_AS_NOTHING, seed=None)
@example(program=NOTHING_CAME, seed=None)
@example(program=HELD_BACK, seed=None)
@example(program=AN_EDIT_REACHES_OVER, seed=None)
@given(program=programs(), seed=st.none() | st.integers(0, 9))
def test_a_stream_with_a_strategy_agrees_with_the_model(
    loop: LoopName, program: Program, seed: int | None
) -> None:
    check_agreement(program, run_virtual(run, program, backend=loop, seed=seed))
