"""The pytest plugin: fixtures for programs that use the library.

Loaded in every pytest run where the library is installed, so it imports little by itself.

``virtual_time``
    What makes the event loop run in virtual time, once for asyncio and once for trio, with the
    tasks in a shuffled order. A test module uses it as its ``anyio_backend``::

        @pytest.fixture
        def anyio_backend(virtual_time):
            return virtual_time

    A failing test says its seed, and the environment variable ``MELLEA_SC_SEED`` repeats it.
``no_leaks``
    The async test that asks for it must leave nothing behind.
``scripted_backend``
    Makes scripted backends; at the end of the test all their answers must have been asked for.
"""

from __future__ import annotations

import functools
import inspect
import os
import random
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Final, cast

import pytest

if TYPE_CHECKING:
    from mellea_sc.testing.clock import LoopName
    from mellea_sc.testing.scripted import ScriptedBackend

__all__ = ["no_leaks", "scripted_backend", "virtual_time"]

_SEED: Final = pytest.StashKey[int]()
_SEED_VARIABLE: Final = "MELLEA_SC_SEED"


@pytest.fixture(params=["asyncio", "trio"])
def virtual_time(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """A value for ``anyio_backend`` under which the test runs in virtual time."""
    from mellea_sc.testing.clock import virtual_backend

    name = cast("LoopName", request.param)
    if name == "trio":
        pytest.importorskip("trio")
    given = os.environ.get(_SEED_VARIABLE)
    seed = random.SystemRandom().randrange(2**32) if given is None else int(given)
    cast("pytest.Item", request.node).stash[_SEED] = seed
    return virtual_backend(name, seed=seed)


@pytest.fixture
def no_leaks(request: pytest.FixtureRequest) -> None:
    """Run the test, and only the test, within :func:`mellea_sc.testing.assert_no_leaks`."""
    from mellea_sc.testing.leaks import assert_no_leaks

    item = cast("pytest.Function", request.node)
    test = cast("Callable[..., Awaitable[None]]", item.obj)
    if not inspect.iscoroutinefunction(test):
        pytest.fail("no_leaks is for async tests; use assert_no_leaks() inside of a program")

    @functools.wraps(test)
    async def checked(**fixtures: object) -> None:
        async with assert_no_leaks():
            await test(**fixtures)

    item.obj = checked


@pytest.fixture
def scripted_backend() -> Generator[Callable[..., ScriptedBackend]]:
    """Make a scripted backend; takes what :class:`mellea_sc.testing.ScriptedBackend` takes."""
    from mellea_sc.testing.scripted import ScriptedBackend

    made: list[ScriptedBackend] = []

    @functools.wraps(ScriptedBackend, updated=())
    def make(*args: object, **kwargs: object) -> ScriptedBackend:
        backend = cast("Callable[..., ScriptedBackend]", ScriptedBackend)(*args, **kwargs)
        made.append(backend)
        return backend

    yield make
    for backend in made:
        backend.assert_exhausted()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say the seed of a test that has failed."""
    report = yield
    seed = item.stash.get(_SEED, None)
    if report.failed and seed is not None:
        repeat = f"{_SEED_VARIABLE}={seed} repeats the order of tasks"
        report.sections.append(("mellea_sc", repeat))
    return report
