"""Backends are tested in real time, since there are sockets, and with every HTTP client that they can use."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from http_clients import CLIENTS, http_client, use_own

from mellea_sc.backends.http.client import AnyClient


@pytest.fixture
def anyio_backend(real_time: str) -> str:
    """The event loop of a test."""
    return real_time


@pytest.fixture(params=["direct", "fast"])
def own(
    request: pytest.FixtureRequest, anyio_backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> str:
    """How the connections of our own client are made and read."""
    use_own(request.param, anyio_backend_name, monkeypatch)
    return str(request.param)


@pytest.fixture(params=CLIENTS)
async def client(
    request: pytest.FixtureRequest, anyio_backend_name: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[AnyClient | None]:
    """A client of the caller's; none where the backend has its own."""
    async with http_client(request.param, anyio_backend_name, monkeypatch) as client:
        yield client
