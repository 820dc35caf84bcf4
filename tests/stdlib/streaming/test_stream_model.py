"""Section 4 as a plain model: for any text, cuts, chunking, lanes and schedule, a run agrees with it.

The model has no tasks. It knows when each delta is produced and when each lane has judged each piece,
and from that what must have been released when the run stopped (what was passed before) and what may
have been (what was passed by then: several things can happen at the same moment, in any order).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import anyio
import attrs
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from kit import kinds, read_events

from mellea_sc.core.backend import ModelOption
from mellea_sc.core.errors import ModelError, ValidatorTimeout
from mellea_sc.stdlib.chunking import resolve_chunking
from mellea_sc.stdlib.session import start_session
from mellea_sc.stdlib.streaming import StreamChunkingResult
from mellea_sc.stdlib.streaming.events import ChunkEvent, FullValidationEvent, QuickCheckEvent
from mellea_sc.testing.clock import LoopName, run_virtual
from mellea_sc.testing.scripted import Fail, Pause, Script, ScriptedBackend, Step
from mellea_sc.testing.strategies import Lane, ScheduledError, cuts, lanes, pauses, texts


@attrs.frozen(kw_only=True)
class Program:
    deltas: Sequence[str]
    pauses: Sequence[float | None]
    fails: bool
    chunking: str | None
    lanes: Sequence[Lane]
    lane_buffer: int
    lookahead: int | None
    readers: Sequence[str]
    cancel_at: float | None


@st.composite
def programs(draw: st.DrawFn) -> Program:
    deltas = draw(cuts(draw(texts(16)), max_deltas=12))
    count = len(deltas) + 1
    return Program(
        deltas=deltas,
        pauses=draw(st.lists(pauses(), min_size=count, max_size=count)),
        fails=draw(st.sampled_from([False, False, True])),
        chunking=draw(st.sampled_from([None, "sentence", "word", "word", "paragraph"])),
        lanes=draw(st.lists(lanes(), max_size=4)),
        lane_buffer=draw(st.sampled_from([1, 1, 2, 3, 16])),
        lookahead=draw(st.sampled_from([None, 1, 2])),
        readers=draw(st.sampled_from([[], ["chunks"], ["events"], ["chunks", "events"]])),
        cancel_at=draw(st.sampled_from([None] * 5 + [0, 1, 2.5, 4, 7])),
    )


# --- the model ---------------------------------------------------------------------------------


def pieces(chunking: str | None, deltas: Sequence[str]) -> list[tuple[int, int, float]]:
    """Where each chunk begins and ends, and how much of the text must have been seen to know it.

    What the chunks of a text are is tested with the chunkings; here they are what letters give.
    """
    if chunking is None:
        ends = [*accumulate(map(len, filter(None, deltas)))]
        return [(start, end, end) for start, end in pairwise([0, *ends])]
    strategy, text = resolve_chunking(chunking), "".join(deltas)
    found: list[tuple[int, int, float]] = []
    for seen, letter in [*enumerate(text, 1), (math.inf, None)]:
        for piece in strategy.flush() if letter is None else strategy.feed(letter):
            begin = text.index(piece, found[-1][1] if found else 0)
            found.append((begin, begin + len(piece), seen))
    return found


@attrs.define
class Judging:
    """One lane: its pieces, when it begins with each, and when it is done with it and how."""

    lane: Lane
    todo: list[tuple[int, int, float]]
    begun: list[float] = attrs.field(factory=list)
    done: list[tuple[float, int, str]] = attrs.field(factory=list)
    free: float = 0
    ended: float = math.inf

    def offer(self, now: float, seen: float) -> None:
        while self.todo and self.todo[0][2] <= seen:
            judgement = self.lane.judgement(len(self.begun))
            self.begun.append(max(now, self.free))
            delay, outcome = judgement.delay or 0, judgement.outcome
            if delay > (limit := self.lane.timeout or math.inf):
                delay, outcome = limit, "error"
            if outcome == "error" and self.lane.fail_open:
                outcome = "unknown"
            self.free = self.begun[-1] + delay
            self.done.append((self.free, self.todo.pop(0)[1], outcome))
            if outcome in ("fail", "error"):
                self.free = math.inf

    def passed(self, now: float, *, by: bool) -> float:
        """How far it has passed the text before a moment, or by it."""
        judged = [
            end for at, end, how in self.done if how in ("pass", "unknown") and sooner(at, now, by)
        ]
        return math.inf if sooner(self.ended, now, by) else max(judged, default=0)


def sooner(at: float, now: float, by: bool) -> bool:
    return at < now or (by and at == now < math.inf)


@attrs.frozen
class Model:
    """What happens when: each delta, the end of the text, each chunk, each verdict, and the stop."""

    produced: Sequence[float]
    text_ends: float
    cut: Sequence[tuple[float, int]]
    lanes: Sequence[Judging]
    stop: float
    why: set[str]
    failing: set[int]

    def released(self, *, by: bool) -> int:
        frontier = min((lane.passed(self.stop, by=by) for lane in self.lanes), default=math.inf)
        return sum(sooner(at, self.stop, by) and end <= frontier for at, end in self.cut)

    def sent(self, *, by: bool) -> int:
        return sum(sooner(at, self.stop, by) for at in self.produced)


def model(program: Program) -> Model:
    judging = [
        Judging(lane, pieces(lane.chunking or program.chunking, program.deltas))
        for lane in program.lanes
    ]
    chunks = pieces(program.chunking, program.deltas)
    produced: list[float] = []
    cut: list[tuple[float, int]] = []
    now = seen = 0.0
    for delta, pause in zip([*program.deltas, None], program.pauses, strict=True):
        now += pause or 0
        seen = math.inf if delta is None else seen + len(delta)
        produced += [] if delta is None else [now]
        while chunks and chunks[0][2] <= seen:
            cut.append((now, chunks.pop(0)[1]))
        for lane in judging:
            lane.offer(now, seen)
        if delta is not None:  # a full lane slows the producer
            full = (
                lane.begun[-1 - program.lane_buffer :][: -program.lane_buffer] for lane in judging
            )
            now = max(now, *(begun[0] for begun in full if begun), now)
    bad = {"fail", "error"}
    for lane in judging:
        if not any(how in bad for _, _, how in lane.done):
            lane.ended = max(now, lane.free)
    over = max([now, *(lane.ended for lane in judging)])
    ends = {(at, how) for lane in judging for at, _, how in lane.done if how in bad}
    ends |= {(over, "natural")} | {(program.cancel_at, "cancel")} - {(None, "cancel")}
    stop = min(at for at, _ in ends)
    failing = {
        index
        for index, lane in enumerate(judging)
        if any(at == stop and how == "fail" for at, _, how in lane.done)
    }
    return Model(
        produced, now, cut, judging, stop, {how for at, how in ends if at == stop}, failing
    )


# --- a run of it ---------------------------------------------------------------------------------


@attrs.define
class Ran:
    result: StreamChunkingResult
    backend: ScriptedBackend
    chunks: list[str] = attrs.field(factory=list)
    events: list[object] = attrs.field(factory=list)
    raised: list[Exception] = attrs.field(factory=list)
    took: float = 0.0


async def run(program: Program) -> Ran:
    steps: list[Step] = []
    for delta, pause in zip([*program.deltas, None], program.pauses, strict=True):
        steps += [] if pause is None else [Pause(pause)]
        steps += [] if delta is None else [delta]
    if program.fails:
        steps.append(Fail(ModelError("broken")))
    backend = ScriptedBackend(Script(steps))
    async with start_session(backend=backend) as m:
        result = await m.stream(
            "?",
            requirements=[lane.requirement() for lane in program.lanes],
            chunking=program.chunking,
            lane_buffer=program.lane_buffer,
            lookahead=program.lookahead,
            model_options={ModelOption.STREAM_TIMEOUT: None},
            validator_timeout=None,
        )
        ran = Ran(result, backend)
        held: dict[str, int] = {"chunks": 0, "events": 0}

        async def read_chunks() -> None:
            try:
                async for chunk in result.astream():
                    ran.chunks.append(chunk)
                    check_lookahead("chunks")
            except Exception as error:
                ran.raised.append(error)

        async def read_all_events() -> None:
            async for one in result.events():
                ran.events.append(one)
                check_lookahead("events", isinstance(one, ChunkEvent))

        def check_lookahead(who: str, is_chunk: bool = True) -> None:
            held[who] += is_chunk
            if program.lookahead is not None:
                assert result.released - max(held.values()) <= program.lookahead

        async def complete() -> None:
            try:
                await result.acomplete()
            except Exception as error:
                ran.raised.append(error)

        async def cancel() -> None:
            if program.cancel_at is not None:
                await anyio.sleep(program.cancel_at)
                result.cancel()

        async with anyio.create_task_group() as tg:
            if "chunks" in program.readers:
                tg.start_soon(read_chunks)
            if "events" in program.readers:
                tg.start_soon(read_all_events)
            if not program.readers:
                tg.start_soon(complete)
            tg.start_soon(cancel)
            await result.wait_finished()
            ran.took = anyio.current_time()
        await complete()
        if "events" not in program.readers:
            ran.events += await read_events(result)
        if "chunks" not in program.readers:
            ran.chunks += [chunk async for chunk in result.astream()]
    return ran


def check_agreement(program: Program, ran: Ran) -> None:
    expected, result = model(program), ran.result
    text = "".join(program.deltas)
    kind = type(result.error) if result.error is not None else None
    # when it stopped, and why
    assert ran.took == expected.stop
    source = result.error is not None and has_the_source(result.error)
    stopped_by_error = result.error is not None and not only_the_source(result.error)
    fails = {result_lane(program, result, index) for index in range(len(result.streaming_failures))}
    assert fails <= expected.failing
    assert result.cancelled <= ("cancel" in expected.why)
    assert stopped_by_error <= ("error" in expected.why)
    ended_by = {
        *(["fail"] if fails else []),
        *(["error"] if stopped_by_error else []),
        *(["cancel"] if result.cancelled else []),
    } or ({"cancel"} if source and "natural" not in expected.why else {"natural"})
    assert ended_by <= expected.why
    event(f"ended by {'+'.join(sorted(ended_by))}{', source broken' if program.fails else ''}")
    if len(expected.why) == 1:
        assert ended_by == expected.why
        assert expected.why != {"fail"} or len(expected.failing) > 1 or fails == expected.failing
    # the source's own error: always where it came before the stop
    assert source <= (program.fails and expected.text_ends <= expected.stop)
    if program.fails and (expected.text_ends < expected.stop or expected.why == {"natural"}):
        assert source
    assert result.completed is (ended_by == {"natural"} and not program.fails)
    # how much was released, and how much was generated
    released = [one.text for one in ran.events if isinstance(one, ChunkEvent) and one.text]
    everything = pieces(program.chunking, program.deltas)
    judged_all = ended_by == expected.why == {"natural"} or result.completed
    at_least = len(everything) if judged_all else expected.released(by=False)
    assert at_least <= len(released) <= expected.released(by=True)
    assert released == ran.chunks == [text[a:b] for a, b, _ in everything[: len(released)]]
    end = everything[len(released) - 1][1] if released else 0
    assert result.released == len(released)
    # what stands between them, and after the last of them
    shown = [one for one in ran.events if isinstance(one, ChunkEvent)]
    space = bool(shown) and not shown[-1].text
    if result.completed:
        assert space is bool(text[end:])
    if space:
        assert shown[-1].before == text[end:]
        end = len(text)
    assert "".join(one.before + one.text for one in shown) == text[:end]
    assert result.full_text == (text if result.completed else text[:end])
    sent = sum(call.deltas_sent for call in ran.backend.calls)
    assert expected.sent(by=False) <= sent <= expected.sent(by=True)
    # the events
    checked = bool(program.lanes)
    told = [*(["QuickCheck"] * checked), "Chunk"] * len(shown)
    told += ["QuickCheck"] * bool(fails)
    told += ["StreamingDone", *(["FullValidation"] * checked)] * result.completed
    told += ["Error"] * (result.error is not None) + ["Completed"]
    assert kinds(ran.events) == told  # type: ignore[arg-type]
    quick = [one for one in ran.events if isinstance(one, QuickCheckEvent)]
    assert [one.passed for one in quick] == [True] * (len(quick) - bool(fails)) + [False] * bool(
        fails
    )
    indices = [one.chunk_index for one in quick[: len(shown)]]
    assert indices == [*range(len(indices))]
    assert all(len(one.results) == len(program.lanes) for one in quick)
    if fails:
        assert quick[-1].chunk_index >= len(released)
        assert {n for n, v in enumerate(quick[-1].results) if v.success == "fail"} == fails
    finals = [lane.final for lane in program.lanes] if result.completed else []
    assert [bool(verdict) for verdict in result.final_validations] == finals
    for one in ran.events:
        if isinstance(one, FullValidationEvent):
            assert one.passed is all(finals)
    # the error was raised once, as itself
    assert [type(error) for error in ran.raised] == ([] if kind is None else [kind])


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def only_the_source(error: Exception) -> bool:
    assert all(
        isinstance(one, ModelError | ScheduledError | ValidatorTimeout) for one in leaves(error)
    )
    return all(isinstance(one, ModelError) for one in leaves(error))


def has_the_source(error: Exception) -> bool:
    return any(isinstance(one, ModelError) for one in leaves(error))


def result_lane(program: Program, result: StreamChunkingResult, index: int) -> int:
    requirement, verdict = result.streaming_failures[index]
    assert verdict.success == "fail"
    lane = requirement._lane  # type: ignore[attr-defined]
    return next(n for n, mine in enumerate(program.lanes) if mine is lane)


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    log = logging.getLogger("mellea_sc")
    log.disabled = True
    yield
    log.disabled = False


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@given(program=programs(), seed=st.none() | st.integers(0, 9))
def test_a_run_agrees_with_the_model(loop: LoopName, program: Program, seed: int | None) -> None:
    check_agreement(program, run_virtual(run, program, backend=loop, seed=seed))
