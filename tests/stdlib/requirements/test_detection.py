"""How much NoPII and NoSecrets find, and how little else, on the labelled sets; and what waits meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mellea_sc.stdlib.requirements.kinds.secrets import SECRETS
from mellea_sc.stdlib.requirements.sensitive import PERSONAL

if TYPE_CHECKING:
    from benchmarks.detection.labelled import Counts, Line, count, lines
    from benchmarks.detection.prose import held_back
else:
    labelled = pytest.importorskip("benchmarks.detection.labelled", reason="only in a checkout")
    Counts, Line, count, lines = labelled.Counts, labelled.Line, labelled.count, labelled.lines
    from benchmarks.detection.prose import held_back

RECALL, PRECISION = 0.98, 0.97
ALL = [*lines(), *lines("later.tsv")]


@pytest.fixture(scope="module")
def judged() -> list[tuple[Line, list[tuple[int, int]]]]:
    """Each line with what is found; fails where random cuts give something else than the whole."""
    return list(count(enumerate(ALL)))


def test_the_set_has_what_it_should() -> None:
    assert len(ALL) >= 400
    assert len({line.script for line in ALL}) >= 8
    assert {line.domain for line in ALL} == {"prose", "table", "log", "code", "markdown"}
    assert {kind for line in ALL for _, _, kind in line.things} == {*PERSONAL, *SECRETS}
    assert sum(not line.things for line in ALL) >= 150


@pytest.mark.parametrize("domain", ["prose", "table", "log", "code", "markdown", "all"])
def test_what_is_to_be_found_is_found_and_little_else(
    judged: list[tuple[Line, list[tuple[int, int]]]], domain: str
) -> None:
    counts = Counts()
    for line, spans in judged:
        if domain in ("all", line.domain):
            counts.add(line, spans)
    assert counts.things
    assert counts.recall >= RECALL
    assert counts.precision >= PRECISION


@pytest.mark.parametrize("is_latin", [True, False])
def test_it_is_so_in_every_script(
    judged: list[tuple[Line, list[tuple[int, int]]]], is_latin: bool
) -> None:
    counts = Counts()
    for line, spans in judged:
        if (line.script == "latin") == is_latin:
            counts.add(line, spans)
    assert counts.things
    assert counts.recall >= RECALL
    assert counts.precision >= PRECISION


def test_ordinary_text_waits_for_a_word_at_most() -> None:
    for text, by_requirement in held_back().items():
        for name, held in by_requirement.items():
            assert held.median <= 4, (text, name)
            assert held.most <= 16, (text, name)
