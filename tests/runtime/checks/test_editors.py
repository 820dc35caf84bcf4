"""Edits, rules of lanes, windows and groups, each against a plain reference that looks at the whole text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.runtime.checks.chunks import UNKNOWN, Chunk, Cutter, Grouped, Ledger, OnPiece, Rule
from mellea_sc.runtime.checks.editors import Edit, Edits
from mellea_sc.stdlib.chunking import resolve_chunking
from mellea_sc.testing.strategies import cuts, texts

PASS = PartialValidationResult("pass")
FAIL = PartialValidationResult("fail")
CUTS_OFF = PartialValidationResult("fail", cuts_off=True)


@st.composite
def chains(draw: st.DrawFn) -> tuple[Edits, list[list[int | None]]]:
    """Some editors' edits of a text, and for each text on the way where its characters came from."""
    texts: list[list[int | None]] = [list(range(12))]
    edits = Edits(number := draw(st.integers(0, 3)))
    for editor in range(number):
        given, made, done = texts[-1], list[int | None](), 0
        for _ in range(draw(st.integers(0, 4))):
            start = draw(st.integers(done, len(given)))
            end = draw(st.integers(start, len(given)))
            if start == end:
                continue
            made += given[done:start]
            put = draw(st.integers(0, 2))
            edits.add(editor, Edit(editor, FAIL, start, end, len(made), len(made) + put))
            made += [None] * put
            done = end
        made += given[done:]
        texts.append(made)
    return edits, texts


@given(chains())
def test_what_was_not_edited_is_found_in_the_shown_text_and_back(
    chain: tuple[Edits, list[list[int | None]]],
) -> None:
    edits, texts = chain
    generated, shown = texts[0], texts[-1]
    for at, origin in enumerate(shown):
        if origin is not None:
            assert edits.place(origin) == at
            assert edits.source(at + 1) == origin + 1
    assert edits.source(0) == 0
    assert [edits.source(at) for at in range(len(shown) + 1)] == sorted(
        edits.source(at) for at in range(len(shown) + 1)
    )
    assert edits.place(len(generated)) == len(shown)


@given(chains(), st.integers(0, 14))
def test_edits_are_told_in_the_order_of_the_shown_text_and_once(
    chain: tuple[Edits, list[list[int | None]]], position: int
) -> None:
    edits, texts = chain
    every = edits.before(math.inf)
    assert [one.position for one in every] == sorted(one.position for one in every)
    for one in every:
        assert one.position <= len(texts[-1])
    before = edits.before(position)
    assert before == [one for one in every if one.position < position]
    assert edits.take(position) == before
    assert edits.take(position) == []
    assert sorted([*before, *edits.take(math.inf)], key=repr) == sorted(every, key=repr)


def test_what_was_cut_off_has_no_place_in_the_shown_text() -> None:
    edits = Edits(2)
    edits.add(0, Edit(0, FAIL, 2, 3, 2, 2))
    edits.add(0, Edit(0, FAIL, 8, 9, 7, 7))
    edits.add(1, Edit(1, CUTS_OFF, 5, 6, 5, 6))
    assert [one.lane for one in edits.before(math.inf)] == [0, 1]
    assert edits.place(6) == 5
    assert edits.place(7) == math.inf
    assert edits.source(5) == 6


def test_what_another_attempt_edited_in_what_was_kept_is_known_and_was_told() -> None:
    first = Edits(1)
    first.add(0, Edit(3, FAIL, 1, 2, 1, 1))
    edits = Edits(1, first.before(4))
    assert edits.before(math.inf) == first.before(4)
    assert edits.take(math.inf) == []


rules = st.builds(Rule, on_fail=st.sampled_from(get_args(OnPiece)), blocking=st.booleans())
verdicts = st.sampled_from(["pass", "unknown", "fail"])


@given(
    lanes=st.lists(rules, max_size=3),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), verdicts), max_size=20),
)
def test_a_ledger_does_what_the_rules_of_its_lanes_say(
    lanes: list[Rule], steps: list[tuple[int, int, str]]
) -> None:
    ledger = Ledger(len(lanes), lanes)
    ends: list[int] = []
    passed = [0] * len(lanes)
    stopped: set[int] = set()
    noted: list[int] = []
    shown = 0
    for who, length, said in steps:
        lane = who - 1
        if lane < 0 or lane >= len(lanes):
            start = ends[-1] if ends else 0
            ends.append(start + length)
            move = ledger.cut(Chunk("x" * length, start, start + length))
        elif lane in stopped:
            continue
        else:
            rule, start = lanes[lane], passed[lane]
            verdict = PartialValidationResult(said)  # type: ignore[arg-type]
            if verdict.success == "fail":
                if rule.on_fail == "cancel":
                    stopped.add(lane)
                else:
                    noted.append(lane)
            if lane not in stopped:
                passed[lane] += length
            move = ledger.judged(lane, Chunk("x" * length, start, start + length), verdict)
        blocking = [at for at, rule in zip(passed, lanes, strict=True) if rule.blocking]
        before = shown
        if not stopped:
            frontier = min(blocking, default=math.inf)
            shown = sum(end <= frontier for end in ends)
        assert ledger.releasable == shown
        want = "cancel" if stopped else "release" if shown > before else "hold"
        assert move is want
        for index in range(before, shown):
            taken, verdicts_on_it = ledger.take()
            assert taken.end == ends[index]
            for at, rule, told in zip(passed, lanes, verdicts_on_it, strict=True):
                if at < ends[index]:  # only who does not block can be behind
                    assert not rule.blocking
                    assert told is UNKNOWN
    assert [one.lane for one in ledger.noted] == noted
    assert [one.lane for one in ledger.failures] == sorted(stopped)


def cut_by(cutter: Cutter, deltas: Sequence[str]) -> list[Chunk]:
    return [*(chunk for delta in deltas for chunk in cutter.feed(delta)), *cutter.flush()]


@given(
    data=st.data(),
    name=st.sampled_from(["sentence", "word", "paragraph"]),
    window=st.integers(0, 9),
    size=st.integers(1, 4),
)
def test_groups_and_windows_depend_on_the_text_alone(
    data: st.DataObject, name: str, window: int, size: int
) -> None:
    text = data.draw(texts(16))
    deltas = data.draw(cuts(text))
    single = cut_by(Cutter(resolve_chunking(name)), [text])
    strategy = resolve_chunking(name)
    groups = cut_by(Cutter(Grouped(strategy, size), window), deltas)
    wanted = [single[at : at + size] for at in range(0, len(single), size)]
    assert [(one.start, one.end) for one in groups] == [
        (group[0].start, group[-1].end) for group in wanted
    ]
    for one in groups:
        assert one.text == text[one.start : one.end]
        assert one.window == text[max(0, one.start - window) : one.start]


@given(data=st.data(), window=st.integers(1, 9))
def test_a_window_reaches_over_raw_deltas(data: st.DataObject, window: int) -> None:
    text = data.draw(texts(16))
    deltas = data.draw(cuts(text))
    chunks = cut_by(Cutter(resolve_chunking(None), window), deltas)
    assert "".join(chunk.text for chunk in chunks) == text
    for one in chunks:
        assert one.window == text[max(0, one.start - window) : one.start]


def test_what_another_text_noted_goes_on() -> None:
    first = Ledger(1, [Rule("record")])
    first.judged(0, Chunk("ab", 0, 2), FAIL)
    ledger = Ledger(1, [Rule("record")], noted=first.noted)
    ledger.cut(Chunk("ab", 0, 2))
    ledger.judged(0, Chunk("ab", 0, 2), FAIL)
    assert [(one.lane, one.end) for one in ledger.noted] == [(0, 2), (0, 2)]


def test_a_lane_whose_last_piece_ends_before_the_chunk_has_its_verdict_on_the_chunk() -> None:
    ledger = Ledger(2, [Rule(), Rule(blocking=False)])
    ledger.cut(Chunk("abcd", 0, 4))
    for lane in (0, 1):
        ledger.judged(lane, Chunk("abc", 0, 3), PASS)
        ledger.passed(lane, math.inf)
    assert ledger.take()[1] == [PASS, UNKNOWN]


def test_an_advisory_lane_is_told_that_another_one_has_failed() -> None:
    ledger = Ledger(2, [Rule(), Rule(blocking=False)])
    assert ledger.judged(1, Chunk("a", 0, 1), PASS) == "hold"
    assert ledger.judged(0, Chunk("a", 0, 1), PartialValidationResult("fail")) == "cancel"
    assert ledger.judged(1, Chunk("b", 1, 2), PASS) == "cancel"


def test_a_window_is_never_longer_than_it_was_asked_to_be() -> None:
    chunks = cut_by(Cutter(resolve_chunking("word"), 3), ["ab cd ef ", "gh ij"])
    assert [one.window for one in chunks] == ["", "ab ", "cd ", "ef ", "gh "]


@given(data=st.data(), name=st.sampled_from(["sentence", "word", "paragraph", None]))
def test_what_stands_between_chunks_is_with_them_and_joined_it_is_the_text(
    data: st.DataObject, name: str | None
) -> None:
    text = data.draw(texts(16))
    cutter = Cutter(resolve_chunking(name))
    chunks = cut_by(cutter, data.draw(cuts(text)))
    rest = cutter.rest()
    assert "".join(one.before + one.text for one in chunks) + (rest.before if rest else "") == text
    if rest is not None:
        assert (rest.text, rest.start, rest.end) == ("", len(text), len(text))
        assert rest.before.isspace()


@given(data=st.data(), name=st.sampled_from(["sentence", "word", "paragraph"]))
def test_white_space_is_known_to_stand_between_chunks_as_soon_as_it_is_there(
    data: st.DataObject, name: str
) -> None:
    text = data.draw(texts(16))
    cutter = Cutter(resolve_chunking(name))
    seen, known = "", ""  # what came, and what of it is known to be in chunks or between them
    for delta in data.draw(cuts(text)):
        seen += delta
        for chunk in cutter.feed(delta):
            known = text[: chunk.end]
        known += cutter.space()
        assert seen.startswith(known)
        left = seen[len(known) :]
        assert not left[:1].isspace()


def test_a_strategy_whose_chunks_may_begin_with_white_space_gives_none_ahead() -> None:
    cutter = Cutter(resolve_chunking(None))
    assert [one.text for one in cutter.feed(" a ")] == [" a "]
    assert cutter.space() == ""
