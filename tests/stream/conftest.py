"""Streams are tested in virtual time, on both loops, with the ready tasks in two different orders."""

from __future__ import annotations

from typing import cast

import pytest

from mellea_sc.testing.clock import LoopName, virtual_backend


@pytest.fixture(params=["asyncio-1", "asyncio-2", "trio-1", "trio-2"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """The event loop of a test: its name, and the seed that shuffles its tasks."""
    name, seed = cast("str", request.param).split("-")
    return virtual_backend(cast("LoopName", name), seed=int(seed))
