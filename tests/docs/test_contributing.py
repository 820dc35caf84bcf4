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
    "mellea_sc.core",
    "mellea_sc.stdlib",
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


def documented() -> list[tuple[str, str]]:
    """The names that pages of the reference have, each with the module that it is to be imported from."""
    found: list[tuple[str, str]] = []
    for page in REFERENCE.glob("*.md"):
        module = ""
        directives = re.findall(r"^\.\. (\w+):: (\S+)", page.read_text("utf-8"), re.MULTILINE)
        for directive, name in directives:
            if directive == "currentmodule":
                module = name
            elif directive != "automodule":
                found.append((module, name.partition("(")[0]))
    return found


@pytest.mark.parametrize("package", PUBLIC)
def test_the_reference_has_every_public_name(package: str) -> None:
    module = importlib.import_module(package)
    there = documented()
    names = {name for _, name in there}
    values = [getattr(importlib.import_module(home), name) for home, name in there]
    missing = [
        name
        for name in module.__all__
        if name not in names  # or it is another name for what the reference has
        and not inspect.ismodule(getattr(module, name))
        and getattr(module, name) not in values
    ]
    assert missing == []


def test_the_reference_has_nothing_twice() -> None:
    names = [name for _, name in documented()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("module", "name"), documented())
def test_a_name_is_public_where_the_reference_says_that_it_is_imported_from(
    module: str, name: str
) -> None:
    assert name in importlib.import_module(module).__all__
