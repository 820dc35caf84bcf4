"""What survivors.toml explains is there: a function that has gone has no survivors."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

ENTRIES = tomllib.loads(Path(__file__).with_name("survivors.toml").read_text("utf-8"))["survivor"]


def found(name: str) -> object:
    """The function of that full name; ``None`` where there is none."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError:
        return getattr(found(module), attribute, None)


@pytest.mark.parametrize("function", sorted({one["function"] for one in ENTRIES}))
def test_a_function_with_survivors_is_there(function: str) -> None:
    assert callable(found(function))


def test_each_survivor_has_a_reason() -> None:
    assert all(one["why"] and one["why"] != "TO BE EXPLAINED" for one in ENTRIES)
