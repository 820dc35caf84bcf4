"""The ledger: no chunk is releasable before every lane has passed it, and after a fail none is."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.runtime.checks.chunks import Chunk, Failure, Ledger, Move

PASS, FAIL, UNKNOWN = (PartialValidationResult(v) for v in ("pass", "fail", "unknown"))  # type: ignore[arg-type]


def chunk(start: int, end: int) -> Chunk:
    return Chunk("x" * (end - start), start, end)


def test_without_lanes_a_chunk_is_releasable_at_once() -> None:
    ledger = Ledger(0)
    assert ledger.cut(chunk(0, 3)) == "release"
    assert ledger.cut(chunk(4, 7)) == "release"
    assert ledger.releasable == 2
    assert ledger.take()[1] == []


def test_a_chunk_waits_for_every_lane() -> None:
    ledger = Ledger(2)
    assert ledger.cut(chunk(0, 3)) == "hold"
    assert ledger.judged(0, chunk(0, 3), PASS) == "hold"
    assert ledger.judged(1, chunk(0, 3), UNKNOWN) == "release"
    assert ledger.releasable == 1
    assert ledger.take()[1] == [PASS, UNKNOWN]


class Explained(PartialValidationResult):
    """A verdict of a user's own."""


def test_every_verdict_is_told_as_it_was_given() -> None:
    given = [
        UNKNOWN,
        PASS,
        PartialValidationResult("unknown", reason="why"),
        PartialValidationResult("pass", score=0.5),
        PartialValidationResult("pass", replacement="y"),
        Explained("pass"),
    ]
    ledger = Ledger(len(given))
    ledger.cut(chunk(0, 3))
    for lane, verdict in enumerate(given):
        ledger.judged(lane, chunk(0, 3), verdict)
    told = ledger.take()[1]
    assert told == given
    assert [type(verdict) for verdict in told] == [type(verdict) for verdict in given]


def test_verdicts_may_come_before_the_chunk_is_cut() -> None:
    ledger = Ledger(1)
    assert ledger.judged(0, chunk(0, 3), PASS) == "hold"
    assert ledger.cut(chunk(0, 5)) == "hold"
    assert ledger.judged(0, chunk(3, 6), PASS) == "release"


def test_one_verdict_may_release_many_chunks() -> None:
    ledger = Ledger(1)
    for at in range(3):
        ledger.cut(chunk(at * 3, at * 3 + 2))
    assert ledger.judged(0, chunk(0, 5), PASS) == "release"
    assert ledger.releasable == 2


def test_a_lane_that_is_behind_no_other_releases_nothing() -> None:
    ledger = Ledger(2)
    ledger.cut(chunk(0, 3))
    ledger.cut(chunk(3, 6))
    assert ledger.judged(0, chunk(0, 3), PASS) == "hold"
    assert ledger.judged(0, chunk(3, 6), PASS) == "hold"
    assert ledger.judged(1, chunk(0, 3), PASS) == "release"
    assert ledger.releasable == 1


def test_a_lane_whose_text_has_ended_has_passed_all_of_it() -> None:
    ledger = Ledger(2)
    ledger.cut(chunk(0, 3))
    assert ledger.passed(0, math.inf) == "hold"
    assert ledger.passed(1, math.inf) == "release"
    assert ledger.cut(chunk(3, 4)) == "release"
    assert [ledger.take()[1] for _ in range(2)] == [[UNKNOWN, UNKNOWN]] * 2


def test_after_a_fail_nothing_becomes_releasable() -> None:
    ledger = Ledger(3)
    ledger.cut(chunk(0, 3))
    assert not ledger.failures
    assert ledger.judged(0, chunk(0, 3), FAIL) == "cancel"
    assert ledger.failures
    assert ledger.judged(1, chunk(0, 3), PASS) == "cancel"
    assert ledger.judged(2, chunk(0, 3), PASS) == "cancel"
    assert ledger.judged(2, chunk(3, 6), PASS) == "cancel"
    assert ledger.cut(chunk(3, 6)) == "cancel"
    assert ledger.passed(1, math.inf) == "cancel"
    assert ledger.releasable == 0


def test_later_fails_are_known_too_and_come_in_the_order_of_lanes() -> None:
    ledger = Ledger(3)
    ledger.cut(chunk(0, 3))
    ledger.cut(chunk(3, 6))
    ledger.judged(2, chunk(3, 6), FAIL)
    ledger.judged(0, chunk(0, 3), FAIL)
    ledger.judged(0, chunk(3, 6), FAIL)
    assert ledger.failures == [Failure(0, FAIL, 0), Failure(2, FAIL, 1)]


def test_a_fail_belongs_to_the_chunk_in_which_its_piece_begins() -> None:
    ledger = Ledger(1)
    for start in (0, 4, 8):
        ledger.cut(chunk(start, start + 3))
    for start, index in ((0, 0), (2, 0), (3, 1), (4, 1), (9, 2), (11, 3), (40, 3)):
        ledger.failures.clear()
        ledger.judged(0, chunk(start, start + 5), FAIL)
        assert ledger.failures[0].chunk_index == index


def test_verdicts_on_the_failed_chunk_are_unknown_where_a_lane_has_not_come_so_far() -> None:
    ledger = Ledger(4)
    ledger.cut(chunk(0, 3))
    ledger.cut(chunk(3, 6))
    for lane in range(4):
        ledger.judged(lane, chunk(0, 3), PASS)
    ledger.take()
    ledger.judged(0, chunk(3, 6), PASS)
    ledger.judged(1, chunk(3, 5), PASS)  # a piece of its own, that ends before the chunk
    ledger.judged(3, chunk(3, 6), FAIL)
    assert ledger.failed_chunk() == (1, [PASS, UNKNOWN, UNKNOWN, FAIL])


def test_verdicts_on_a_fail_whose_chunk_is_not_cut_yet() -> None:
    ledger = Ledger(2)
    ledger.judged(0, chunk(0, 9), PASS)
    ledger.judged(1, chunk(0, 2), FAIL)
    assert ledger.failed_chunk() == (0, [UNKNOWN, FAIL])


def test_each_chunk_has_the_verdict_on_the_piece_that_covers_its_end() -> None:
    ledger = Ledger(1)
    verdicts = [PartialValidationResult("pass", reason=str(n)) for n in range(4)]
    for n, verdict in enumerate(verdicts):
        ledger.judged(0, chunk(n * 2, n * 2 + 2), verdict)
    for end in (1, 2, 5, 8):
        ledger.cut(chunk(max(0, end - 1), end))
    assert [ledger.take()[1][0].reason for _ in range(4)] == ["0", "0", "2", "3"]


def test_the_last_verdict_of_a_lane_that_has_ended_is_on_the_rest_as_well() -> None:
    ledger = Ledger(1)
    ledger.cut(chunk(0, 5))
    said = PartialValidationResult("pass", reason="fine so far")
    ledger.judged(0, chunk(0, 5), said)
    ledger.cut(chunk(6, 9))
    assert ledger.passed(0, math.inf) == "release"
    assert [ledger.take()[1] for _ in range(2)] == [[said], [said]]


@given(st.integers(0, 3))
def test_a_new_ledger_has_nothing_to_show(lanes: int) -> None:
    ledger = Ledger(lanes)
    assert (ledger.releasable, ledger.position, ledger.failures) == (0, 0, [])


def test_chunks_that_were_shown_before_are_counted_and_not_taken() -> None:
    ledger = Ledger(1)
    ledger.skip(2)
    assert ledger.end_of(2) == 0
    for start in (0, 4, 8):
        ledger.cut(chunk(start, start + 3))
    assert [ledger.end_of(count) for count in range(5)] == [0, 3, 7, 11, 11]
    said = PartialValidationResult("pass", reason="on the third")
    ledger.judged(0, chunk(0, 7), PASS)
    ledger.judged(0, chunk(8, 11), said)
    assert ledger.releasable == 3
    assert ledger.take() == (chunk(8, 11), [said])


class LedgerAgreement(RuleBasedStateMachine):
    """Whatever comes in whatever order: what is releasable is what the rules say, counted afresh."""

    @initialize(lanes=st.integers(0, 4))
    def begin(self, lanes: int) -> None:
        self.lanes = lanes
        self.ledger = Ledger(lanes)
        self.ends: list[int] = []
        self.passed: list[float] = [0] * lanes
        self.failed: set[int] = set()
        self.seen = 0

    def told(self, move: Move) -> None:
        if self.failed:
            assert move == "cancel"
        else:
            assert move == ("release" if self.ledger.releasable > self.seen else "hold")
        for index in range(self.seen, self.ledger.releasable):
            taken, told = self.ledger.take()
            assert taken.end == self.ends[index]
            assert len(told) == self.lanes
        self.seen = self.ledger.releasable

    @rule(gap=st.integers(0, 2), length=st.integers(1, 4))
    def cut(self, gap: int, length: int) -> None:
        start = (self.ends[-1] if self.ends else 0) + gap
        self.ends.append(start + length)
        self.told(self.ledger.cut(chunk(start, start + length)))

    @precondition(lambda self: self.lanes > 0)
    @rule(
        lane=st.integers(0, 3),
        gap=st.integers(0, 2),
        length=st.integers(1, 6),
        verdict=st.sampled_from([PASS, PASS, UNKNOWN, UNKNOWN, UNKNOWN, FAIL]),
    )
    def judge(self, lane: int, gap: int, length: int, verdict: PartialValidationResult) -> None:
        lane %= self.lanes
        if lane in self.failed or self.passed[lane] == math.inf:
            return
        start = int(self.passed[lane]) + gap
        if verdict is FAIL:
            self.failed.add(lane)
        else:
            self.passed[lane] = start + length
        self.told(self.ledger.judged(lane, chunk(start, start + length), verdict))

    @precondition(lambda self: self.lanes > 0)
    @rule(lane=st.integers(0, 3))
    def end(self, lane: int) -> None:
        lane %= self.lanes
        if lane not in self.failed:
            self.passed[lane] = math.inf
            self.told(self.ledger.passed(lane, math.inf))

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "ledger"):
            return
        if not self.failed:
            frontier = min(self.passed, default=math.inf)
            self.frozen = sum(end <= frontier for end in self.ends)
        assert self.ledger.releasable == self.frozen
        assert bool(self.ledger.failures) is bool(self.failed)
        assert [failure.lane for failure in self.ledger.failures] == sorted(self.failed)
        for failure in self.ledger.failures:
            assert failure.chunk_index >= self.ledger.releasable
        if self.failed:
            index, verdicts = self.ledger.failed_chunk()
            assert index == min(failure.chunk_index for failure in self.ledger.failures)
            assert len(verdicts) == self.lanes


TestLedgerAgreement = pytest.mark.filterwarnings("default")(LedgerAgreement.TestCase)
