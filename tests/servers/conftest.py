"""Which servers the list runs against: those named in MELLEA_SC_SERVERS, else xllamacpp's where it is installed.

MELLEA_SC_SERVERS_IN is the directory that has an environment for each of them, under its name; `nox -s servers`
makes all that and sets both. Without a model everything here is skipped.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from running import Running, backend_for, installed

from mellea_sc.backends import OpenAIBackend
from mellea_sc.backends.local import SMOLLM2, fetch
from mellea_sc.core.errors import EngineError

NOBODY = pytest.param("", marks=pytest.mark.skip("xllamacpp is not installed"))


def names() -> list[object]:
    named = os.environ.get("MELLEA_SC_SERVERS")
    if named is not None:
        return [*named.split()]
    return ["xllamacpp" if importlib.util.find_spec("xllamacpp") is not None else NOBODY]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_name" in metafunc.fixturenames:
        metafunc.parametrize("server_name", names(), scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.model)
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def anyio_backend(real_time: str) -> str:
    """Real time, since there are servers."""
    return real_time


@pytest.fixture(scope="session")
def weights() -> Path:
    async def fetch_weights() -> Path:
        return await fetch(SMOLLM2, lambda _: None)

    try:
        return anyio.run(fetch_weights)
    except EngineError as error:
        pytest.skip(f"no model: {error}")


@pytest.fixture(scope="session")
def server(server_name: str, weights: Path) -> Iterator[Running]:
    """A server that runs, shared by the tests."""
    with installed(server_name, weights) as running:
        running.start()
        yield running


@pytest.fixture
def own_server(server_name: str, weights: Path) -> Iterator[Running]:
    """A server of the test's own, which is not started yet."""
    with installed(server_name, weights) as running:
        yield running


@pytest.fixture
def backend(server: Running) -> OpenAIBackend:
    return backend_for(server)
