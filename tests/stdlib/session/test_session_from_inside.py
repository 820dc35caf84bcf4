"""Code of the user's that runs in a session, and would wait for the end of what it is a part of: an error at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from mellea_sc import (
    GenerationCancelled,
    MelleaSession,
    SessionClosed,
    UsageError,
    start_session,
)
from mellea_sc.core.backend import Backend
from mellea_sc.core.base import Context
from mellea_sc.helpers.async_helpers import wait_for_all_mots
from mellea_sc.stdlib import StreamChunkingResult
from mellea_sc.testing import ScriptedBackend
from tests.kit import Check

pytestmark = pytest.mark.usefixtures("collected")

Action = Callable[[], Awaitable[object]]
Program = Callable[[MelleaSession, Check], Awaitable[object]]


def calling(action: Action) -> Check:
    """A requirement whose validators call something."""

    async def judge(text: str, backend: Backend, ctx: Context) -> object:
        await action()
        return "pass"

    return Check(judge, final=judge)


async def asking(m: MelleaSession, check: Check) -> object:
    return await (await m.ainstruct("?", requirements=[check]))


async def with_a_precondition(m: MelleaSession, check: Check) -> object:
    return await (await m.ainstruct("?", preconditions=[check]))


async def validating(m: MelleaSession, check: Check) -> object:
    return await m.avalidate(check, output="text")


async def streaming(m: MelleaSession, check: Check) -> object:
    async with m.stream("?", requirements=[check]) as result:
        return await result.acomplete()


async def in_a_clone(m: MelleaSession, check: Check) -> object:
    return await asking(m.clone(), check)


async def inside_another_session(m: MelleaSession, check: Check) -> object:
    async def ask() -> None:
        async with start_session(backend=ScriptedBackend("yes")) as other:
            await asking(other, check)

    return await asking(m, calling(ask))


@pytest.mark.anyio
@pytest.mark.timeout(20)
@pytest.mark.parametrize("block", [True, False], ids=["block", "bare"])
@pytest.mark.parametrize("end", ["aclose", "close"])
@pytest.mark.parametrize(
    "program",
    [asking, with_a_precondition, validating, streaming, in_a_clone, inside_another_session],
)
async def test_a_session_cannot_be_closed_by_what_its_end_waits_for(
    program: Program, end: str, block: bool
) -> None:
    m = start_session(backend=ScriptedBackend(lambda _: "One. Two."))

    async def close() -> None:
        if end == "aclose":
            await m.aclose()
        else:
            m.close()

    async def main() -> None:
        with pytest.raises(UsageError, match=r"wait for itself.*m\.cancel\(\)"):
            await program(m, calling(close))
        assert await asking(m, Check()) == "One. Two."  # nothing has been closed

    if block:
        async with m:
            await main()
    else:
        await main()
        await m.aclose()
        with pytest.raises(SessionClosed):
            await m.ainstruct("?")


@pytest.mark.anyio
@pytest.mark.timeout(20)
async def test_a_validator_may_cancel_its_session() -> None:
    m = start_session(backend=ScriptedBackend(lambda _: "One."))

    async def cancel() -> None:
        m.cancel("it has seen enough")
        await anyio.sleep(10)

    with pytest.raises(GenerationCancelled, match="seen enough"):
        await asking(m, calling(cancel))
    await m.aclose()


@pytest.mark.anyio
async def test_a_validator_may_close_a_clone_and_another_session() -> None:
    m = start_session(backend=ScriptedBackend(lambda _: "One."))
    clone, other = m.clone(), start_session(backend=ScriptedBackend(lambda _: "Two."))
    for one in (clone, other):
        await asking(one, Check())

    async def close() -> None:
        await clone.aclose()
        await other.aclose()

    assert await asking(m, calling(close)) == "One."
    await m.aclose()


@pytest.mark.anyio
async def test_a_task_that_a_validator_has_left_behind_may_close_the_session() -> None:
    m = start_session(backend=ScriptedBackend(lambda _: "One."))
    async with anyio.create_task_group() as tasks:
        answered = anyio.Event()

        async def close() -> None:
            await answered.wait()
            await m.aclose()

        async def leave_behind() -> None:  # noqa: ASYNC124 - a judge awaits it
            tasks.start_soon(close)

        assert await asking(m, calling(leave_behind)) == "One."
        answered.set()
    with pytest.raises(SessionClosed):
        await m.ainstruct("?")


@pytest.mark.anyio
@pytest.mark.timeout(20)
@pytest.mark.parametrize("how", ["avalue", "astream", "aclose", "block", "all"])
async def test_a_thunk_cannot_be_waited_for_by_its_own_validator(how: str) -> None:
    async def wait() -> None:
        if how == "block":
            async with thunk:
                pass
        elif how == "all":
            await wait_for_all_mots([thunk])
        else:
            await getattr(thunk, how)()

    async with start_session(backend=ScriptedBackend(lambda _: "One.")) as m:
        thunk = await m.ainstruct("?", requirements=[calling(wait)])
        with pytest.raises(UsageError, match=r"the thunk '\?'.*wait for itself.*cancel\(\)"):
            await thunk


@pytest.mark.anyio
@pytest.mark.timeout(20)
@pytest.mark.parametrize("how", ["acomplete", "wait_finished", "block"])
async def test_a_run_cannot_be_waited_for_by_its_own_validator(how: str) -> None:
    made: list[StreamChunkingResult] = []

    async def wait() -> None:
        if how == "block":
            async with made[0]:
                pass
        else:
            await getattr(made[0], how)()

    async with start_session(backend=ScriptedBackend(lambda _: "One.")) as m:
        made.append(await m.stream("?", requirements=[calling(wait)]))
        with pytest.raises(UsageError, match=r"the stream '\?'.*wait for itself.*cancel\(\)"):
            await made[0].acomplete()


# --- blocking calls, in the thread of the session -------------------------------------------------------------


@pytest.mark.timeout(20)
@pytest.mark.parametrize("thread", ["its own", "another"])
def test_a_validator_of_a_blocking_call_cannot_close_its_session(thread: str) -> None:
    async def close() -> None:
        if thread == "another":
            await anyio.to_thread.run_sync(m.close)
        else:
            await m.aclose()

    with start_session(backend=ScriptedBackend(lambda _: "One.")) as m:
        with pytest.raises(UsageError, match="wait for itself"):
            m.instruct("?", requirements=[calling(close)])
        assert str(m.instruct("?")) == "One."


@pytest.mark.timeout(20)
@pytest.mark.parametrize("use", ["aclose", "block", "raising block"])
def test_a_session_may_be_ended_in_its_own_thread(use: str) -> None:
    m = start_session(backend=ScriptedBackend(lambda _: "One."))

    async def main() -> str:
        if use == "aclose":
            answer = await (await m.ainstruct("?"))
            await m.aclose()
            return answer
        async with m:
            answer = await (await m.ainstruct("?"))
            if use == "raising block":
                raise ZeroDivisionError
            return answer

    if use == "raising block":
        with pytest.raises(ZeroDivisionError):
            m.run_blocking(main)
    else:
        assert m.run_blocking(main) == "One."
    m.close()
    assert not m._life.portal.is_running
    with pytest.raises(SessionClosed):
        m.instruct("?")
