"""The programs of the guide for those who come from Mellea run as they are printed, and its names are there."""

from __future__ import annotations

import importlib
import re

import pytest
from test_docs_programs import DOCS, PAGES

PAGE = DOCS / "guide" / "coming-from-mellea.md"

PLACES = re.findall(
    r"^\| `(?:mellea\.[^`]+)` \| `(mellea_sc\.[^`]+)` \|", PAGE.read_text(), re.MULTILINE
)
"""The second column of its tables of names: full names."""


def test_its_programs_are_run_with_those_of_the_other_pages() -> None:
    assert PAGE.relative_to(DOCS).as_posix() in PAGES
    assert PAGE.read_text().count("```python\n") >= 6


def test_its_table_has_names() -> None:
    assert len(PLACES) > 15


@pytest.mark.parametrize("place", PLACES)
def test_what_it_names_is_there(place: str) -> None:
    module, _, name = place.rpartition(".")
    assert getattr(importlib.import_module(module), name) is not None
