"""Streams are tested with the ready tasks in two different orders, the same ones in every run."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend(two_orders: tuple[str, dict[str, object]]) -> tuple[str, dict[str, object]]:
    """The event loop of a test."""
    return two_orders
