"""docs/promises.md: every promise has tests, every link leads to one, and no test speaks of a promise that is not there."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"

sys.path.insert(0, str(DOCS))
try:
    import promise_links
finally:
    sys.path.remove(str(DOCS))

PAGE = (DOCS / "promises.md").read_text(encoding="utf-8")
PROMISES = promise_links.tests_by_promise(PAGE)
FILES = promise_links.tests_by_name()


def test_the_promises_are_numbered_without_gaps() -> None:
    numbers = [tuple(map(int, number.split("."))) for number in PROMISES]
    for before, after in itertools.pairwise(numbers):
        assert after in {(before[0], before[1] + 1), (before[0] + 1, 1)}
    assert numbers[0] == (1, 1)
    assert numbers[-1][0] == 6
    assert len(numbers) >= 50


@pytest.mark.parametrize("number", PROMISES)
def test_a_promise_has_tests(number: str) -> None:
    tests = PROMISES[number]
    assert tests
    assert len(tests) == len(set(tests))
    for test in tests:
        assert test in FILES, f"{test} is no more"


def test_every_link_leads_to_the_file_that_has_the_test() -> None:
    assert promise_links.mended(PAGE) == PAGE, "python docs/promise_links.py mends them"


def test_every_line_about_a_test_is_a_link() -> None:
    """What the others of these tests look at is all that looks like the name of a test."""
    named = re.findall(r"^- .*test_\w+", PAGE, re.MULTILINE)
    assert len(named) == sum(map(len, PROMISES.values()))


def test_no_test_speaks_of_a_promise_that_is_not_there() -> None:
    for name in FILES:
        if number := re.match(r"test_(\d+)_(\d+)_", name):
            assert f"{number[1]}.{number[2]}" in PROMISES, name
