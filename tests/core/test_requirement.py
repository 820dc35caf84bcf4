"""A requirement says at once what it cannot mean."""

from __future__ import annotations

from typing import Any

import pytest

from mellea_sc import InvalidOption, Requirement


@pytest.mark.parametrize("option", [{"on_fail": "ignore"}, {"window": -1}, {"every": 0}])
def test_a_requirement_refuses_what_it_cannot_mean(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(option))):
        Requirement("x", **option)
