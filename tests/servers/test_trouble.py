"""What servers refuse, and what becomes of them: typed errors, and a session that works on afterwards."""

from __future__ import annotations

import os

import anyio
import anyio.to_thread
import pytest
from asking import FOREVER, asked, endless, session
from running import Running

from mellea_sc import BackendError, BackendUnreachable, MelleaError, StreamInterrupted
from mellea_sc.core import errors
from mellea_sc.stdlib.session import MelleaSession

pytestmark = pytest.mark.anyio

MANY = 60 if os.environ.get("MELLEA_SC_SERVERS") is None else 300
WRONG_KEY = "sk-a-wrong-key-9876543210"


async def ask(m: MelleaSession, text: str = "Name a colour.", **options: object) -> str:
    thunk = await m.ainstruct(text, model_options={**asked(4), **options})
    return await thunk.avalue()


async def refused(m: MelleaSession, server: Running, what: str, **options: object) -> MelleaError:
    """The error that comes of a request which the server does not take."""
    wanted: type[MelleaError] = getattr(errors, server.server.errors[what], errors.BackendRejected)
    text = "tree river stone " * 1500 if what == "length" else "Name a colour."
    with pytest.raises(wanted) as caught:
        await ask(m, text, **options)
    return caught.value


def skip_unless_refused(server: Running, what: str) -> None:
    if what not in server.server.errors:
        pytest.skip(f"{server.server.name} takes it")


async def test_a_wrong_key_is_refused_and_not_repeated(server: Running) -> None:
    skip_unless_refused(server, "key")
    async with session(server, api_key=WRONG_KEY) as m:
        error = await refused(m, server, "key")
    assert WRONG_KEY not in f"{error} {error!r} {vars(error)}"


async def test_a_wrong_model_is_refused(server: Running) -> None:
    skip_unless_refused(server, "model")
    async with session(server, model_id="no-such-model") as m:
        assert "no-such-model" in str(await refused(m, server, "model"))


async def test_a_prompt_that_is_too_long_is_refused_and_the_session_works_on(
    server: Running,
) -> None:
    skip_unless_refused(server, "length")
    async with session(server) as m:
        for _ in range(3):
            assert "token" in str(await refused(m, server, "length"))
            assert await ask(m)


async def test_an_impossible_option_is_refused_in_the_servers_words(server: Running) -> None:
    skip_unless_refused(server, "option")
    async with session(server) as m:
        for _ in range(3):
            await refused(m, server, "option", top_p="hot")
            assert await ask(m)


async def test_a_wrong_path_is_an_error_that_speaks_of_base_url(server: Running) -> None:
    async with session(server, base_url=f"{server.url}/no/such/path") as m:
        with pytest.raises(BackendError, match="base_url"):
            await ask(m)


async def test_a_server_that_comes_late_dies_in_the_middle_and_comes_back(
    own_server: Running,
) -> None:
    async with session(own_server) as m:
        with pytest.raises(BackendUnreachable):
            await ask(m)
        own_server.start()
        assert await ask(m)
        thunk = await m.ainstruct(FOREVER, model_options=endless(own_server))
        assert await thunk.astream()
        own_server.stop()
        with pytest.raises(StreamInterrupted), anyio.fail_after(30):
            await thunk.avalue()
        own_server.start()
        assert await ask(m)


async def test_a_request_that_is_made_while_the_server_starts_anew_is_answered(
    own_server: Running,
) -> None:
    if own_server.server.slow or own_server.upstream is not None:
        pytest.skip(f"{own_server.server.name} takes longer to start than a request is tried again")
    own_server.start()
    async with session(own_server) as m:
        assert await ask(m)
        own_server.stop()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, own_server.start)
            assert await ask(m)


async def test_a_server_behind_a_gateway_that_dies_in_the_middle_is_an_error(
    own_server: Running,
) -> None:
    if own_server.upstream is None:
        pytest.skip(f"nothing is behind {own_server.server.name}")
    own_server.start()
    async with session(own_server) as m:
        thunk = await m.ainstruct(FOREVER, model_options=endless(own_server))
        assert await thunk.astream()
        own_server.upstream.stop()
        with pytest.raises(BackendError), anyio.fail_after(30):
            await thunk.avalue()


async def test_requests_in_sequence_under_load_do_not_fail(server: Running) -> None:
    """Servers close connections that they have said to keep."""

    async def keep_busy() -> None:
        while True:
            async with m.stream(FOREVER, chunking="word", model_options=endless(server)) as result:
                read = 0
                async for _ in result.astream():
                    read += 1
                    if read == 20:
                        break

    async with session(server, retries=0) as m, anyio.create_task_group() as group:
        if server.server.slots > 1:
            group.start_soon(keep_busy)
        for _ in range(15 if server.server.slow else MANY):
            assert await ask(m, **asked(1))
        group.cancel_scope.cancel()
