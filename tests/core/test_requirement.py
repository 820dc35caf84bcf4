"""A requirement says at once what it cannot mean."""

from __future__ import annotations

import copy
from typing import Any

import attrs
import pytest

from mellea_sc import InvalidOption, Requirement


@pytest.mark.parametrize("option", [{"on_fail": "ignore"}, {"window": -1}, {"every": 0}])
def test_a_requirement_refuses_what_it_cannot_mean(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(option))):
        Requirement("x", **option)


@attrs.define(eq=False)
class OfAttrs(Requirement):
    """Has a state for pickles that is not all of it: attrs leaves out what are not its own fields."""

    limit: int
    seen: list[str] = attrs.field(factory=lambda: list[str]())

    def __attrs_post_init__(self) -> None:
        super().__init__(f"at most {self.limit}", on_fail="fix", timeout=5, fail_open=True)


class WithStateForPickles(Requirement):
    """Leaves out of pickles what cannot be pickled, such as a lock."""

    def __init__(self) -> None:
        super().__init__("x", on_fail="fix", timeout=5, fail_open=True)
        self.limit = 3
        self.seen: list[str] = []

    def __getstate__(self) -> dict[str, object]:
        return {"description": self.description}


@pytest.mark.parametrize("made", [OfAttrs(3), WithStateForPickles()])
def test_4_7_a_copy_has_all_attributes_whatever_goes_into_pickles(
    made: OfAttrs | WithStateForPickles,
) -> None:
    again = copy.copy(made)
    assert again.description == made.description
    assert (again.on_fail, again.timeout, again.fail_open, again.limit) == ("fix", 5, True, 3)
    again.seen.append("one")
    assert made.seen == []
