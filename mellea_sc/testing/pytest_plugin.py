"""The pytest plugin: fixtures for programs that use the library.

Loaded in every pytest run where the library is installed, so it imports little by itself.

``virtual_time``
    What makes the event loop run in virtual time, once for asyncio and once for trio, with the
    tasks in a shuffled order. A test module uses it as its ``anyio_backend``::

        @pytest.fixture
        def anyio_backend(virtual_time):
            return virtual_time

    A test of pytest-trio only asks for it. A test that would run in real time fails. A failing test
    says its seed, and the environment variable ``MELLEA_SC_SEED`` repeats it.
``no_leaks``
    The async test that asks for it must leave nothing behind, whichever plugin runs it.
``no_leaks_ignore``
    What ``no_leaks`` does not look at; a test module says its own.
``scripted_backend``
    Makes scripted backends; at the end of the test all their answers must have been asked for.
"""

from __future__ import annotations

import functools
import inspect
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import pytest

if TYPE_CHECKING:
    from mellea_sc.testing.clock import LoopName
    from mellea_sc.testing.scripted import ScriptedBackend

__all__ = ["no_leaks", "no_leaks_ignore", "scripted_backend", "virtual_time"]

_AsyncTest: TypeAlias = Callable[..., Awaitable[None]]
_Virtual: TypeAlias = tuple[str, dict[str, object]]

_SEED: Final = pytest.StashKey[int]()
_VIRTUAL: Final = pytest.StashKey[_Virtual]()
_SEED_VARIABLE: Final = "MELLEA_SC_SEED"
_REAL_TIME: Final = (
    "virtual_time has no effect here: this test runs in real time. Mark it with pytest.mark.anyio, and "
    "have a fixture anyio_backend return virtual_time. The event loops of pytest-asyncio cannot be virtual; "
    'beside it, asyncio_mode must be "strict". In a test that is not async, use mellea_sc.testing.run_virtual().'
)


@pytest.fixture(params=["asyncio", "trio"])
def virtual_time(request: pytest.FixtureRequest) -> _Virtual:
    """A value for ``anyio_backend`` under which the test runs in virtual time."""
    from mellea_sc.testing.clock import virtual_backend

    name = cast("LoopName", request.param)
    item = cast("pytest.Item", request.node)
    if name == "trio":
        pytest.importorskip("trio")
    elif _is_of_pytest_trio(item):
        pytest.skip("pytest-trio runs this test, under trio only")
    given = os.environ.get(_SEED_VARIABLE)
    seed = random.SystemRandom().randrange(2**32) if given is None else int(given)
    item.stash[_SEED] = seed
    item.stash[_VIRTUAL] = backend = virtual_backend(name, seed=seed)
    return backend


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Make sure that a test which asks for virtual time gets it."""
    yield
    backend = item.stash.get(_VIRTUAL, None)
    if backend is None or not isinstance(item, pytest.Function):
        return
    if _async_test(item) is not None:
        if _is_of_pytest_trio(item):
            item.add_marker(_in_virtual_time(backend), append=False)
        _run_within(item, functools.partial(_in_no_real_time, backend))
    elif item.funcargs.get("anyio_backend") != backend:  # nor do its async fixtures
        pytest.fail(_REAL_TIME, pytrace=False)


@asynccontextmanager
async def _in_no_real_time(backend: _Virtual) -> AsyncGenerator[None]:
    from mellea_sc.testing.clock import runs_in

    if not runs_in(backend):
        raise RuntimeError(_REAL_TIME)
    yield


def _is_of_pytest_trio(item: pytest.Item) -> bool:
    marked = item.get_closest_marker("trio") is not None
    return marked and item.config.pluginmanager.hasplugin("trio")


def _in_virtual_time(backend: _Virtual) -> pytest.MarkDecorator:
    """What tells pytest-trio how to run a test."""
    import trio

    run = cast("Callable[..., object]", trio.run)

    def run_virtual(
        async_fn: Callable[[], object], clock: object = None, instruments: Sequence[object] = ()
    ) -> object:
        if clock is not None:
            raise pytest.UsageError("virtual_time has a clock of its own: ask for one of the two")
        ours = cast("list[object]", backend[1]["instruments"])
        return run(async_fn, clock=backend[1]["clock"], instruments=[*ours, *instruments])

    return pytest.mark.trio(run=run_virtual)


@pytest.fixture
def no_leaks_ignore() -> Sequence[str]:
    """What ``no_leaks`` does not look at, see :func:`mellea_sc.testing.assert_no_leaks`; to be overridden."""
    return ()


@pytest.fixture
def no_leaks(request: pytest.FixtureRequest, no_leaks_ignore: Sequence[str]) -> None:
    """Run the test, and only the test, within :func:`mellea_sc.testing.assert_no_leaks`."""
    from mellea_sc.testing.leaks import assert_no_leaks

    item = cast("pytest.Function", request.node)
    if _async_test(item) is None:
        pytest.fail("no_leaks is for async tests; use assert_no_leaks() inside of a program")
    _run_within(item, functools.partial(assert_no_leaks, ignore=no_leaks_ignore))


def _async_test(item: pytest.Function) -> _AsyncTest | None:
    test: object = getattr(getattr(item.obj, "hypothesis", None), "inner_test", item.obj)
    return cast("_AsyncTest", test) if inspect.iscoroutinefunction(test) else None


def _run_within(
    item: pytest.Function, block: Callable[[], AbstractAsyncContextManager[None]]
) -> None:
    """Run a test inside of a block, whichever plugin runs it; with hypothesis, every example."""
    test = _async_test(item)
    assert test is not None

    @functools.wraps(test)
    async def within(*args: object, **kwargs: object) -> None:
        async with block():
            await test(*args, **kwargs)

    given: object = getattr(item.obj, "hypothesis", None)
    if given is None:
        item.obj = within
    else:  # which all runs of the test have in common
        item.addfinalizer(functools.partial(setattr, given, "inner_test", test))
        setattr(given, "inner_test", within)  # noqa: B010 - an object of hypothesis


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
