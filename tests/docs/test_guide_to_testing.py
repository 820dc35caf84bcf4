"""The programs of the guide to testing run as they are printed."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "testing.md").read_text()


def test_the_programs_of_the_guide_pass(pytester: pytest.Pytester) -> None:
    tests = 0
    for name, text in re.findall(
        r"^```python\n# (\w+\.py)\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE
    ):
        (pytester.path / name).write_text(text)
        tests += name.startswith("test_")
    assert tests == GUIDE.count("```python") - 1 >= 5
    pytester.makeini(
        "[pytest]\npythonpath = .\naddopts = -p no:asyncio -p no:trio\nfilterwarnings = error\n"
    )
    result = pytester.runpytest_subprocess("--timeout=60")
    result.assert_outcomes(passed=28)


def test_what_the_guide_names_is_where_it_says() -> None:
    table = GUIDE[GUIDE.index("## Where it is") :]
    where = ""
    found = 0
    for place, names in re.findall(r"^\| (.*?) ?\| (.*) \|$", table, re.MULTILINE):
        where = place.strip("` ") or where
        if where.startswith("mellea_sc."):
            module = importlib.import_module(where)
            for name in re.findall(r"`(\w+)`", names):
                assert name in module.__all__
                found += 1
    assert found > 25
