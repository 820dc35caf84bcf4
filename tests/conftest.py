"""How every test runs: in which event loops and in whose time, and how often properties are tried.

An asynchronous test runs on asyncio and on trio, in virtual time, with the tasks that are ready at the same
moment in a shuffled order. What needs sockets, threads or processes needs real time; its module says so::

    @pytest.fixture
    def anyio_backend(real_time: str) -> str:
        return real_time

and one test among others ``@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])``.

In CI properties are tried with the same examples each time, so that what fails has to do with the change; the
profile ``nightly`` draws new ones.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from typing import TypeAlias, cast

import pytest
from hypothesis import settings

from mellea_sc.testing.clock import LoopName, virtual_backend

VirtualBackend: TypeAlias = tuple[str, dict[str, object]]

settings.register_profile(
    "ci", max_examples=200, deadline=None, print_blob=True, derandomize=True, database=None
)
settings.register_profile(
    "nightly", parent=settings.get_profile("ci"), max_examples=10_000, derandomize=False
)
settings.register_profile("mutation", parent=settings.get_profile("ci"), max_examples=25)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """The number of workers of ``-n auto``: tests wait about as long as they compute, so more than there are cores."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return cores + (cores + 1) // 2


@pytest.fixture
def anyio_backend(virtual_time: VirtualBackend) -> VirtualBackend:
    """The event loop of a test."""
    return virtual_time


@pytest.fixture(params=["asyncio", "trio"])
def real_time(request: pytest.FixtureRequest) -> str:
    """Each event loop, as programs have it."""
    return str(request.param)


@pytest.fixture(params=["asyncio-1", "asyncio-2", "trio-1", "trio-2"])
def two_orders(request: pytest.FixtureRequest) -> VirtualBackend:
    """Each event loop in virtual time, with the ready tasks in two different orders."""
    name, seed = str(request.param).split("-")
    return virtual_backend(cast("LoopName", name), seed=int(seed))


@pytest.fixture
def collected() -> Generator[None]:
    """Sessions that the test did not close are gone before the next one."""
    yield
    gc.collect()
