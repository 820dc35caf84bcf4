"""CONTRIBUTING.md and the reference: the rooms that they name are there, and no public name is left out."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

import mellea_sc

HERE = Path(__file__).parents[2]
CONTRIBUTING = HERE / "CONTRIBUTING.md"
REFERENCE = HERE / "docs" / "reference"

PUBLIC = [
    "mellea_sc",
    "mellea_sc.backends",
    "mellea_sc.asgi",
    "mellea_sc.display",
    "mellea_sc.testing",
]


@pytest.mark.skipif(not CONTRIBUTING.exists(), reason="not in the source tree")
def test_every_file_that_a_recipe_names_is_there() -> None:
    named = re.findall(
        r"`((?:mellea_sc|tests|docs|benchmarks)/[^`*]+)`", CONTRIBUTING.read_text(encoding="utf-8")
    )
    there = [name for name in named if not re.search(r"\bx\.py|test_x\b|_build", name)]
    assert len(there) > 30
    for name in there:
        assert (HERE / name).exists(), name


BESIDES_ROOMS = {
    "benchmarks",
    "counting",
    "docs",
    "mission",
    "mutation",
    "promises",
    "servers",
    "typing",
}


def test_the_tests_have_the_rooms_of_the_package() -> None:
    tests, package = HERE / "tests", Path(mellea_sc.__file__).parent
    rooms = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    for room in rooms - {Path()}:
        if room.parts[0] not in BESIDES_ROOMS:
            assert (package / room).is_dir() or (package / room).with_suffix(".py").exists(), room


def documented() -> set[str]:
    """The names that pages of the reference have."""
    found: set[str] = set()
    for page in REFERENCE.glob("*.md"):
        found |= set(re.findall(r"^\.\. auto\w+:: (\w+)", page.read_text("utf-8"), re.MULTILINE))
    return found


@pytest.mark.parametrize("package", PUBLIC)
def test_the_reference_has_every_public_name(package: str) -> None:
    module = importlib.import_module(package)
    names = {name for name in module.__all__ if not inspect.ismodule(getattr(module, name))}
    assert names - documented() == set()


def test_the_reference_has_nothing_twice() -> None:
    names = [
        name
        for page in REFERENCE.glob("*.md")
        for name in re.findall(r"^\.\. auto\w+:: (\w+)", page.read_text("utf-8"), re.MULTILINE)
    ]
    assert len(names) == len(set(names))
