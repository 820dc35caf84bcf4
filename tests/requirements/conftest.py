"""Requirements are tested in virtual time, on both loops."""

from __future__ import annotations

from typing import cast

import pytest

from mellea_sc.testing.clock import LoopName, virtual_backend


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """The event loop of a test."""
    return virtual_backend(cast("LoopName", request.param))
