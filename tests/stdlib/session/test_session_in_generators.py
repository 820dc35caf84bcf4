"""A session inside an async generator: warned of where the generator may be ended in another task."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from mellea_sc import MelleaSession, start_session
from mellea_sc.testing import ScriptedBackend

pytestmark = pytest.mark.anyio


async def test_1_10_a_session_inside_an_async_generator_warns_when_it_is_opened_and_names_the_way_out() -> (
    None
):
    async def texts() -> AsyncIterator[str]:
        async with start_session(backend=ScriptedBackend("One.")) as m:
            yield str(await m.achat("Say one."))

    async with aclosing(texts()) as reading:  # type: ignore[type-var]
        with pytest.warns(RuntimeWarning, match="inside an async generator.*@asynccontextmanager"):
            assert await anext(reading) == "One."


async def test_1_10_a_context_manager_may_open_one() -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[MelleaSession]:
        async with start_session(backend=ScriptedBackend("One.")) as m:
            yield m

    async with opened() as m:  # warnings are errors here
        assert str(await m.achat("Say one.")) == "One."
