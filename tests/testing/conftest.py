"""What tests are made with is tested in real time: virtual time is a part of it."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend(real_time: str) -> str:
    """The event loop of a test."""
    return real_time
