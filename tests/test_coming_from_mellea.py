"""The programs of the guide for those who come from Mellea run as they are printed, and its names are there."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "guide" / "coming-from-mellea.md"

PLACES = re.findall(
    r"^\| `(?:mellea\.[^`]+)` \| `(mellea_sc\.[^`]+)` \|", PAGE.read_text(), re.MULTILINE
)
"""The second column of its tables of names: full names."""


def test_its_programs_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "docs_programs.py"), str(PAGE)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == PAGE.read_text().count("```python\n") >= 6


def test_its_table_has_names() -> None:
    assert len(PLACES) > 15


@pytest.mark.parametrize("place", PLACES)
def test_what_it_names_is_there(place: str) -> None:
    module, _, name = place.rpartition(".")
    assert getattr(importlib.import_module(module), name) is not None
