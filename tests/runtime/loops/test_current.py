"""Which event loop is running."""

from __future__ import annotations

import asyncio
import sys

import pytest

from mellea_sc import start_session
from mellea_sc.testing import ScriptedBackend


def test_where_trio_was_never_imported_a_session_runs_on_asyncio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "trio", raising=False)

    async def main() -> str:
        async with start_session(backend=ScriptedBackend("Hello.")) as m:
            return await (await m.ainstruct("Greet."))

    assert asyncio.run(main()) == "Hello."
