"""Which event loop is running."""

from __future__ import annotations

import asyncio
import errno
import sys

import pytest

from mellea_sc import start_session
from mellea_sc.runtime.loops import current
from mellea_sc.testing import ScriptedBackend


def test_where_trio_was_never_imported_a_session_runs_on_asyncio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "trio", raising=False)

    async def main() -> str:
        async with start_session(backend=ScriptedBackend("Hello.")) as m:
            return await (await m.ainstruct("Greet."))

    assert asyncio.run(main()) == "Hello."


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_where_a_standard_stream_is_closed_uvloop_is_not_used(
    closed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current, "find_spec", lambda name: name)
    monkeypatch.setattr(current, "prefers_uvloop", True)

    def fstat(descriptor: int) -> None:
        if descriptor == closed:
            raise OSError(errno.EBADF, "closed")

    assert current.loop_options() == {"use_uvloop": sys.platform != "win32"}
    with monkeypatch.context() as patched:
        patched.setattr("os.fstat", fstat)
        options = current.loop_options()
    assert options == {"use_uvloop": False}
