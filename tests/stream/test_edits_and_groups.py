"""Edits, rules of lanes, windows and groups, each against a plain reference that looks at the whole text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from mellea_sc.core.requirement import PartialValidationResult
from mellea_sc.runtime.cutter import Cutter, Grouped
from mellea_sc.runtime.edits import Edits
from mellea_sc.runtime.ledger import UNKNOWN, Chunk, Ledger, OnPiece, Rule
from mellea_sc.stdlib.chunking import resolve_chunking
from mellea_sc.testing.strategies import cuts, texts

PASS = PartialValidationResult("pass")
TEXT = "abcdefghij"
spans = st.tuples(st.integers(0, 9), st.integers(1, 5), st.sampled_from(["", "X", "Y"])).map(
    lambda one: (one[0], min(one[0] + one[1], len(TEXT)), one[2])
)


def reference(edits: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """The spans that are left: what overlaps is one, with the replacement of all, or with none."""
    left: list[tuple[int, int, str]] = []
    for start, end, replacement in edits:
        meets = [one for one in left if one[0] < end and start < one[1]]
        whole = [*meets, (start, end, replacement)]
        left = [one for one in left if one not in meets]
        said = {one[2] for one in whole}
        left.append(
            (
                min(one[0] for one in whole),
                max(one[1] for one in whole),
                replacement if len(said) == 1 else "",
            )
        )
    return sorted(left)


@given(st.lists(spans, max_size=8), st.integers(0, 10), st.integers(0, 10))
def test_edits_are_made_character_by_character(
    added: list[tuple[int, int, str]], one: int, other: int
) -> None:
    edits = Edits()
    for span in added:
        edits.add(*span)
    left = reference(added)
    assert edits.spans == left
    start, end = sorted((one, other))
    shown = ""
    for at in range(start, end):
        inside = next((span for span in left if span[0] <= at < span[1]), None)
        shown += TEXT[at] if inside is None else inside[2] * (inside[0] == at)
    assert edits.applied_to(TEXT[start:end], start) == shown


@given(
    st.lists(spans, max_size=8).flatmap(
        lambda added: st.tuples(st.just(added), st.permutations(added))
    )
)
def test_it_does_not_matter_which_edit_came_first(
    orders: tuple[list[tuple[int, int, str]], list[tuple[int, int, str]]],
) -> None:
    one, other = Edits(), Edits()
    for edits, order in zip((one, other), orders, strict=True):
        for span in order:
            edits.add(*span)
    assert one.spans == other.spans


@given(st.lists(spans, max_size=8), st.lists(st.integers(0, 10), max_size=4))
def test_edited_pieces_joined_are_the_edited_text(
    added: list[tuple[int, int, str]], places: list[int]
) -> None:
    edits = Edits()
    for span in added:
        edits.add(*span)
    bounds = [0, *sorted(places), len(TEXT)]
    parts = [edits.applied_to(TEXT[a:b], a) for a, b in pairwise(bounds)]
    assert "".join(parts) == edits.applied_to(TEXT)


@given(st.lists(spans, max_size=8), st.integers(0, 10))
def test_what_was_edited_before_a_position_stays_so_whatever_comes_after_it(
    added: list[tuple[int, int, str]], position: int
) -> None:
    edits = Edits()
    for span in added:
        edits.add(*span)
    kept = edits.before(position)
    assert kept.applied_to(TEXT[:position]) == edits.applied_to(TEXT[:position])
    assert kept.applied_to(TEXT[position:], position) == TEXT[position:]


@given(st.data())
def test_a_left_out_piece_leaves_no_double_white_space(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from(["a", "bb", "c."]), min_size=1, max_size=6))
    text = " ".join(words)
    gone = data.draw(st.sets(st.integers(0, len(words) - 1)))
    edits, at = Edits(), 0
    for index, word in enumerate(words):
        if index in gone:
            edits.add(at, at + len(word), "")
        at += len(word) + 1
    kept = [word for index, word in enumerate(words) if index not in gone]
    assert edits.applied_to(text).rstrip() == " ".join(kept)


rules = st.builds(Rule, on_fail=st.sampled_from(get_args(OnPiece)), blocking=st.booleans())
verdicts = st.sampled_from(["pass", "unknown", "fail", "fail, replaced"])


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
    edits: list[tuple[int, int, str]] = []
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
            verdict = PartialValidationResult(
                "fail" if said.startswith("fail") else said,  # type: ignore[arg-type]
                replacement="#" if said == "fail, replaced" else None,
            )
            if verdict.success == "fail":
                put = {"leave out": "", "replace": verdict.replacement}.get(rule.on_fail)
                if rule.on_fail == "cancel" or (rule.on_fail == "replace" and put is None):
                    stopped.add(lane)
                else:
                    noted.append(lane)
                    if put is not None and rule.blocking:
                        edits.append((start, start + length, put))
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
            for at, rule, told in zip(passed, lanes, ledger.verdicts_on(index), strict=True):
                if at < ends[index]:  # only who does not block can be behind
                    assert not rule.blocking
                    assert told is UNKNOWN
    assert [one.lane for one in ledger.noted] == noted
    assert [one.lane for one in ledger.failures] == sorted(stopped)
    assert ledger.edits.spans == reference(edits)


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
        assert one.before == text[max(0, one.start - window) : one.start]


@given(data=st.data(), window=st.integers(1, 9))
def test_a_window_reaches_over_raw_deltas(data: st.DataObject, window: int) -> None:
    text = data.draw(texts(16))
    deltas = data.draw(cuts(text))
    chunks = cut_by(Cutter(resolve_chunking(None), window), deltas)
    assert "".join(chunk.text for chunk in chunks) == text
    for one in chunks:
        assert one.before == text[max(0, one.start - window) : one.start]


def test_white_space_goes_with_what_is_left_out_between_white_space_and_with_nothing_else() -> None:
    glued, replaced = Edits(), Edits()
    glued.add(1, 2, "")
    assert glued.applied_to("ab cd") == "a cd"
    replaced.add(2, 4, "X ")
    assert replaced.applied_to("a bc d") == "a X  d"


def test_what_another_text_edited_and_noted_goes_on() -> None:
    edits = Edits()
    edits.add(0, 1, "X")
    ledger = Ledger(1, [Rule("record")], edits=edits)
    ledger.cut(Chunk("ab", 0, 2))
    ledger.judged(0, Chunk("ab", 0, 2), PartialValidationResult("fail"))
    assert ledger.edits is edits
    assert [(one.lane, one.chunk_index, one.end) for one in ledger.noted] == [(0, 0, 2)]


def test_a_lane_whose_last_piece_ends_before_the_chunk_has_its_verdict_on_the_chunk() -> None:
    ledger = Ledger(2, [Rule(), Rule(blocking=False)])
    ledger.cut(Chunk("abcd", 0, 4))
    for lane in (0, 1):
        ledger.judged(lane, Chunk("abc", 0, 3), PASS)
        ledger.ended(lane)
    assert ledger.verdicts_on(0) == [PASS, UNKNOWN]


def test_an_advisory_lane_is_told_that_another_one_has_failed() -> None:
    ledger = Ledger(2, [Rule(), Rule(blocking=False)])
    assert ledger.judged(1, Chunk("a", 0, 1), PASS) == "hold"
    assert ledger.judged(0, Chunk("a", 0, 1), PartialValidationResult("fail")) == "cancel"
    assert ledger.judged(1, Chunk("b", 1, 2), PASS) == "cancel"


def test_a_window_is_never_longer_than_it_was_asked_to_be() -> None:
    chunks = cut_by(Cutter(resolve_chunking("word"), 3), ["ab cd ef ", "gh ij"])
    assert [one.before for one in chunks] == ["", "ab ", "cd ", "ef ", "gh "]


def test_no_edit_reaches_back_to_what_was_shown() -> None:
    ledger = Ledger(1, [Rule("replace")])
    ledger.cut(Chunk("so.", 0, 3))
    ledger.cut(Chunk("ok", 4, 6))
    ledger.shown = 3
    fail = PartialValidationResult("fail", replacement="#")
    assert ledger.judged(0, Chunk("so. ok", 0, 6), fail) == "release"
    assert ledger.edits.spans == [(4, 6, "#")]


def test_a_piece_that_was_shown_whole_is_not_edited() -> None:
    ledger = Ledger(1, [Rule("leave out")])
    ledger.cut(Chunk("so.", 0, 3))
    ledger.shown = 3
    assert ledger.judged(0, Chunk("so.", 0, 3), PartialValidationResult("fail")) == "release"
    assert ledger.edits.spans == []
