"""NoRepetition tells loops from text that repeats itself and is meant so."""

from __future__ import annotations

import pytest
from repetition_texts import GOOD, LOOPS
from requirement_help import first, marks, passes

from mellea_sc import NoRepetition
from mellea_sc.testing import run_virtual


@pytest.mark.parametrize("text", LOOPS.values(), ids=LOOPS.keys())
def test_a_loop_is_found_before_it_is_long(text: str) -> None:
    said = marks(NoRepetition(), [text])
    begins = first(said)
    assert begins is not None
    assert marks(NoRepetition(), [text[at : at + 7] for at in range(0, len(text), 7)]) == said
    assert not run_virtual(passes, NoRepetition(), text)


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD.keys())
def test_tables_rows_refrains_and_code_are_left_alone(text: str) -> None:
    assert "x" not in marks(NoRepetition(), [text])
    assert run_virtual(passes, NoRepetition(), text)


@pytest.mark.parametrize("line", ["-", "=-", "| ", "\u2500\u253c"])
def test_a_long_line_is_no_loop_wherever_it_is_cut(line: str) -> None:
    text = line * 3000
    for size in (1, 7, 1500):
        assert "x" not in marks(
            NoRepetition(), [text[at : at + size] for at in range(0, len(text), size)]
        )


def test_a_shorter_loop_would_take_good_text_for_loops() -> None:
    """What the default was chosen by: (found of the loops, good texts taken for loops)."""

    def counts(at_least: int) -> tuple[int, int]:
        requirement = NoRepetition(at_least=at_least)
        found = [sum("x" in marks(requirement, [t]) for t in of.values()) for of in (LOOPS, GOOD)]
        return found[0], found[1]

    assert (len(LOOPS), len(GOOD)) == (39, 63)
    assert [counts(at_least) for at_least in (100, 250, 300, 400, 500)] == [
        (39, 33),
        (39, 6),
        (39, 3),
        (39, 1),
        (39, 0),
    ]
