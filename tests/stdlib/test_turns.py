"""Overlapping requests on a conversation that remembers: told of, never stale, none lost."""

from __future__ import annotations

import logging

import anyio
import anyio.lowlevel
import pytest
from kit import Check, always

from mellea_sc import (
    BackendError,
    ChatContext,
    Context,
    GenerationCancelled,
    GenerationRequest,
    MelleaSession,
    ModelOption,
    Requirement,
    UsageError,
    ValidationResult,
    start_session,
)
from mellea_sc.core.base import CBlock, text_of
from mellea_sc.stdlib.turns import LONG
from mellea_sc.testing import Fail, Pause, Script, ScriptedBackend, cancel_everywhere

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]

STREAM = {ModelOption.STREAM: True}
WARNING = (
    "Not using a SimpleContext with asynchronous requests could cause unexpected results due to "
    "stale contexts. Ensure you await between requests."
)


def answer(request: GenerationRequest) -> Script:
    """Answers with the prompts it was shown; one that says "bad" fails."""
    prompts = [message.content for message in request.messages if message.role == "user"]
    if prompts[-1] == "bad":
        return Script([Pause(1), "half ", Fail(BackendError("bad"))])
    return Script([Pause(1), "+".join(prompts)])


def backend() -> ScriptedBackend:
    return ScriptedBackend(answer)


def said(m: MelleaSession) -> list[str]:
    return [text_of(item) for item in m.ctx.as_list()]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "mellea_sc"]


# --- told of ----------------------------------------------------------------------------------------------


async def test_awaiting_between_requests_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with start_session(backend=backend(), ctx=ChatContext()) as m:
        await m.achat("a")
        await (await m.ainstruct("b"))
        async with m.stream("c") as result:
            await result.acomplete()
        await m.ainstruct("d", await_result=True)
        await m.avalidate(Requirement("r", lambda _: ValidationResult(True)))
    assert not warnings_in(caplog)


async def test_an_overlap_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async with start_session(backend=backend(), ctx=ChatContext()) as m:
        await m.ainstruct("a")
        assert not warnings_in(caplog)
        await m.ainstruct("b")
        assert warnings_in(caplog) == [WARNING]
        await m.ainstruct("c")
        assert warnings_in(caplog) == [WARNING] * 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


async def test_a_simple_context_overlaps_silently_and_in_the_time_of_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with start_session(backend=backend()) as m:
        began = anyio.current_time()
        thunks = [await m.ainstruct(prompt) for prompt in "abc"]
        assert [await thunk for thunk in thunks] == ["a", "b", "c"]
        assert anyio.current_time() == pytest.approx(began + 1)
    assert not warnings_in(caplog)


# --- never stale, none lost ----------------------------------------------------------------------------------


async def test_a_later_turn_waits_for_the_earlier_one_and_sees_it() -> None:
    async with start_session(backend=backend(), context_type="chat") as m:
        thunks = [await m.ainstruct(prompt) for prompt in "abc"]
        assert [await thunk for thunk in thunks] == ["a", "a+b", "a+b+c"]
        assert said(m) == ["a", "a", "b", "a+b", "c", "a+b+c"]


async def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    async with start_session(backend=backend(), context_type="chat") as m:
        async with anyio.create_task_group() as tasks:
            for prompt in "abcd":
                tasks.start_soon(m.achat, prompt)
                await anyio.lowlevel.checkpoint()
                await anyio.wait_all_tasks_blocked()
        assert said(m)[::2] == ["a", "b", "c", "d"]
        assert said(m)[-1] == "a+b+c+d"


async def test_streams_and_requests_share_the_line() -> None:
    async with start_session(backend=backend(), context_type="chat") as m:
        first = await m.ainstruct("a")
        stream = await m.stream("b.")
        last = await m.ainstruct("c")
        assert await last == "a+b.+c"
        await stream.acomplete()
        assert stream.full_text == "a+b."
        assert await first == "a"
    assert said(m)[::2] == ["a", "b.", "c"]


async def test_a_stream_that_nobody_reads_does_not_hold_up_the_next_turn() -> None:
    words = [f"{n} " for n in range(1000)]
    source = ScriptedBackend(lambda _: words)
    async with start_session(backend=source, context_type="chat") as m:
        unread = await m.ainstruct("a", model_options=STREAM)
        await anyio.wait_all_tasks_blocked()
        held = await m.stream("b", chunking="word", lookahead=1)
        assert str(await m.achat("c")) == "".join(words)
        assert await unread == held.full_text == "".join(words)


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("seconds", [LONG - 1, 3 * LONG])
async def test_a_long_wait_for_a_turn_in_which_code_runs_is_told_of_once(
    judged: bool, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def judge(_: Context) -> ValidationResult:
        await anyio.sleep(seconds)
        return ValidationResult(True)

    source = ScriptedBackend(lambda _: [Pause(0 if judged else seconds), "a"])
    async with start_session(backend=source, context_type="chat") as m:
        first = await m.ainstruct("?", requirements=[Requirement("r", judge)] if judged else None)
        second = await m.ainstruct("??")
        assert (await first, await second) == ("a", "a")
    told = [one for one in caplog.messages if "has waited 30 s" in one]
    assert len(told) == (judged and seconds > LONG)


async def test_avalidate_waits_for_the_turns_in_line_and_judges_the_last_output() -> None:
    seen: list[str] = []

    def look(ctx: Context) -> ValidationResult:
        output = ctx.last_output()
        assert output is not None
        seen.append(output.value)
        return ValidationResult(True)

    async with start_session(backend=backend(), context_type="chat") as m:
        await m.ainstruct("a")
        await m.ainstruct("b", model_options=STREAM)
        await m.avalidate(Requirement("r", look))
    assert seen == ["a+b"]


async def test_avalidate_of_a_given_output_does_not_wait_for_the_conversation() -> None:
    async with start_session(backend=backend(), context_type="chat") as m:
        thunk = await m.ainstruct("a")
        began = anyio.current_time()
        await m.avalidate(Requirement("r", lambda _: ValidationResult(True)), output="text")
        assert anyio.current_time() == began
        assert not thunk.is_computed()


# --- a failed or cancelled turn leaves no trace -----------------------------------------------------------------


@pytest.mark.parametrize("how", ["fails", "is cancelled in line", "is cancelled at work"])
async def test_a_turn_that_does_not_succeed_leaves_the_conversation_as_it_was(how: str) -> None:
    async with start_session(backend=backend(), context_type="chat") as m:
        await m.achat("a")
        before = m.ctx
        if how == "is cancelled in line":
            await m.ainstruct("b")
        turn = await m.ainstruct("bad")
        await anyio.wait_all_tasks_blocked()
        if how == "fails":
            with pytest.raises(BackendError):
                await turn
        else:
            turn.cancel()
            with pytest.raises(GenerationCancelled):
                await turn
        if how != "is cancelled in line":
            assert m.ctx is before
        await m.achat("c")
    assert "bad" not in said(m)
    assert said(m)[-2] == "c"


async def test_cancelled_middle_turns_are_skipped_by_those_behind_them() -> None:
    async with start_session(backend=backend(), context_type="chat") as m:
        thunks = [await m.ainstruct(prompt) for prompt in "abcde"]
        thunks[3].cancel()
        thunks[1].cancel()
        assert await thunks[4] == "a+c+e"
        assert await thunks[2] == "a+c"


async def test_all_turns_cancelled_in_any_order_leave_an_empty_line() -> None:
    async with start_session(backend=backend(), context_type="chat") as m:
        for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)):
            thunks = [await m.ainstruct(prompt) for prompt in "abc"]
            await anyio.wait_all_tasks_blocked()
            for index in order:
                thunks[index].cancel()
                await anyio.lowlevel.checkpoint()
        assert str(await m.achat("d")) == "d"


async def test_a_stream_that_fails_its_check_leaves_the_conversation_as_it_was() -> None:
    async with start_session(backend=backend(), context_type="chat") as m:
        await m.achat("a")
        before = m.ctx
        result = await m.stream("b.", requirements=[Check(always("fail"))])
        after = await m.ainstruct("c")
        await result.acomplete()
        assert not result.completed
        assert m.ctx is before
        assert await after == "a+c"


async def test_a_cancelled_chat_leaves_the_conversation_as_it_was() -> None:
    async with start_session(backend=backend(), context_type="chat") as m:
        before = m.ctx
        with anyio.move_on_after(0.5):
            await m.achat("a")
        assert m.ctx is before
        assert str(await m.achat("b")) == "b"


async def test_a_conversation_is_whole_wherever_a_program_is_cancelled() -> None:
    sessions: list[MelleaSession] = []

    async def program() -> None:
        sessions.append(start_session(backend=backend(), context_type="chat"))
        async with sessions[-1] as m:
            first = await m.ainstruct("a")
            await m.achat("b")
            async with m.stream("c.") as result:
                await result.acomplete()
            assert await first == "a"

    async def check() -> None:
        m = sessions[-1]
        assert said(m) == ["a", "a", "b", "a+b", "c.", "a+b+c."][: len(said(m))]
        assert len(said(m)) % 2 == 0
        assert not m._turns._line

    await cancel_everywhere(program, after_each=check)


# --- a turn cannot wait for itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["achat", "ainstruct", "avalidate", "stream"])
async def test_a_validator_that_asks_its_own_conversation_gets_an_error_and_no_deadlock(
    how: str,
) -> None:
    async def asks(_: Context) -> ValidationResult:
        if how == "stream":
            await m.stream("inner")
        else:
            await getattr(m, how)("inner")
        return ValidationResult(True)

    async with start_session(backend=backend(), context_type="chat") as m:
        thunk = await m.ainstruct("a", requirements=[Requirement("r", asks, check_only=True)])
        with pytest.raises(UsageError, match="another conversation"):
            await thunk
        assert str(await m.achat("b")) == "b"


async def test_a_validator_may_ask_its_own_session_where_nothing_is_remembered() -> None:
    async def asks(_: Context) -> ValidationResult:
        return ValidationResult(str(await m.achat("inner")) == "inner")

    async with start_session(backend=backend()) as m:
        thunk = await m.ainstruct("a", requirements=[Requirement("r", asks, check_only=True)])
        assert await thunk == "a"


async def test_a_validator_may_ask_another_session_and_judge_given_outputs() -> None:
    async with (
        start_session(backend=backend(), context_type="chat") as other,
        start_session(backend=backend(), context_type="chat") as m,
    ):

        async def asks(_: Context) -> ValidationResult:
            await other.achat("inner")
            inner = Requirement("r", lambda _: ValidationResult(True))
            return (await m.avalidate(inner, output=CBlock("text")))[0]

        thunk = await m.ainstruct("a", requirements=[Requirement("r", asks, check_only=True)])
        assert await thunk == "a"
        assert said(other) == ["inner", "inner"]
