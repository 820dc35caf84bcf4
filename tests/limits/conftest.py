"""Asynchronous tests of limits run in virtual time, with tasks in a shuffled order."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, object]]) -> tuple[str, dict[str, object]]:
    """The event loop of a test."""
    return virtual_time
