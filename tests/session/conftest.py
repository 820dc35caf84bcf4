"""Asynchronous tests of sessions run in virtual time, with tasks in a shuffled order."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest


@pytest.fixture
def collected() -> Generator[None]:
    """Sessions that the test did not close are gone before the next one."""
    yield
    gc.collect()


@pytest.fixture
def anyio_backend(virtual_time: tuple[str, dict[str, object]]) -> tuple[str, dict[str, object]]:
    """The event loop of a test."""
    return virtual_time
