"""The HTTP clients that requests go out on: every way in which the backends can be used."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import httpx
import httpx2
import pytest

from mellea_sc.backends.http.client import AnyClient, has_aiohttp

CLIENTS: Final = ("direct", "fast", "httpx", "httpx2")


def use_own(kind: str, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have our own client's connections be "direct" or "fast"."""
    if kind == "direct":
        monkeypatch.setattr("mellea_sc.backends.http.client.has_aiohttp", lambda: False)
    elif loop != "asyncio" or not has_aiohttp():
        pytest.skip("aiohttp needs asyncio")


@asynccontextmanager
async def http_client(
    kind: str, loop: str, monkeypatch: pytest.MonkeyPatch, *, keeps: bool = True
) -> AsyncGenerator[AnyClient | None]:
    """A client of the caller's, which may keep connections open; none where the backend has its own."""
    kept = None if keeps else 0
    match kind:
        case "httpx":
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=kept)
            async with httpx.AsyncClient(limits=limits) as client:
                yield client
        case "httpx2":
            limits2 = httpx2.Limits(max_connections=None, max_keepalive_connections=kept)
            async with httpx2.AsyncClient(limits=limits2) as client2:
                yield client2
        case _:
            use_own(kind, loop, monkeypatch)
            yield None
