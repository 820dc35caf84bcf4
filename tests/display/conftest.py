"""Kernels for tests."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from kernels import BEGIN, Kernel, started


@pytest.fixture(scope="session")
def shared() -> Generator[Kernel]:
    """One kernel for most tests: to start it takes seconds."""
    with started() as kernel:
        yield kernel


@pytest.fixture
def kernel(shared: Kernel) -> Generator[Kernel]:
    """The kernel, with a session of its own for each test."""
    assert shared.run(BEGIN).get("error") is None
    yield shared
    shared.run("m.cancel(); m.close(); await m.aclose()")


@pytest.fixture
def interrupted() -> Generator[Kernel]:
    """A kernel of its own, which may die of it."""
    with started() as kernel:
        assert kernel.run(BEGIN).get("error") is None
        yield kernel
