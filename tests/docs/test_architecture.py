"""The architecture page: the files, classes and functions that it names are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import mellea_sc

PACKAGE = Path(mellea_sc.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""

pytestmark = pytest.mark.skipif(not TEXT, reason="not in the source tree")


@cache
def classes() -> dict[str, set[str]]:
    """The names of the package's classes, each with those of its functions."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).update(
                    member.name
                    for member in node.body
                    if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)
                )
    return found


def test_the_files_that_it_names_are_there() -> None:
    there = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py*")}
    named = set(re.findall(r"[\w/]+\.pyi?\b", TEXT))
    assert len(named) > 40
    for name in named:
        wanted = name.removeprefix("mellea_sc/")
        assert any(path == wanted or path.endswith(f"/{wanted}") for path in there), name


def test_the_functions_that_it_names_are_there() -> None:
    named = set(re.findall(r"\b(_?[A-Z]\w+)\.(?!md\b)([a-z_]\w*)", TEXT))
    assert len(named) > 15
    for name, member in named:
        assert member in classes()[name], f"{name}.{member}"
