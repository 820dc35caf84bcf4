"""Conversations of several users in one session: each sees its own turns, and keeps nothing alive."""

from __future__ import annotations

import gc
import json
import logging
import weakref
from contextlib import suppress

import anyio
import pytest

from mellea_sc import (
    BackendError,
    ChatContext,
    GenerationCancelled,
    GenerationRequest,
    InvalidOption,
    Message,
    Requirement,
    SessionClosed,
    SimpleContext,
    UsageError,
    ValidationResult,
    start_session,
)
from mellea_sc.core.base import text_of
from mellea_sc.stdlib import Conversation
from mellea_sc.testing import Fail, Pause, Script, ScriptedBackend, Stall

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_leaks")]


def answer(request: GenerationRequest) -> Script:
    """Answers after a second with all that the user has said; "bad" fails, and "stall" never ends."""
    prompts = [message.content for message in request.messages if message.role == "user"]
    if prompts[-1] == "bad":
        return Script([Pause(1), "half ", Fail(BackendError("bad"))])
    if prompts[-1] == "stall":
        return Script(["half ", Stall()])
    return Script([Pause(1), "+".join(prompts)])


def backend() -> ScriptedBackend:
    return ScriptedBackend(answer)


def said(conversation: Conversation) -> list[str]:
    return [text_of(item) for item in conversation.ctx.as_list()]


# --- each its own ------------------------------------------------------------------------------------


async def test_users_whose_turns_interleave_see_their_own_only() -> None:
    async with start_session(backend=backend(), on_error="log") as m:
        ann, bob = m.conversation(), m.conversation()
        await ann.achat("a1")
        assert await (await bob.ainstruct("b1")) == "b1"
        async with ann.stream("a2.") as result:
            await result.acomplete()
        assert await (await bob.aact(Message("user", "b2"))) == "b1+b2"
        assert str(await ann.achat("a3")) == "a1+a2.+a3"
        assert said(bob) == ["b1", "b1", "b2", "b1+b2"]
        assert said(ann)[::2] == ["a1", "a2.", "a3"]
        assert said(m) == []


async def test_every_method_that_asks_has_the_context_of_its_conversation() -> None:
    asked = ScriptedBackend(lambda request: json.dumps(len(request.messages)))
    long = Requirement("it is 3", lambda ctx: ValidationResult(ctx.last_output().value == "3"))
    async with start_session(backend=asked) as m:
        ann, bob = m.conversation(), m.conversation()
        await ann.achat("?")
        thunks = [
            await ann.aquery(["milk"], "How many?", await_result=True),
            await ann.atransform("text", "Shorten it.", await_result=True),
        ]
        assert [thunk.value for thunk in thunks] == ["3", "5"]
        await bob.achat("?")
        await bob.achat("?")
        [of_ann], [of_bob] = await ann.avalidate(long), await bob.avalidate(long)
        assert (of_ann.as_bool(), of_bob.as_bool()) == (False, True)


async def test_a_session_is_a_conversation_too_and_goes_on_beside_the_others() -> None:
    async with start_session(backend=backend(), context_type="chat") as m:
        ann = m.conversation()
        assert isinstance(m, Conversation)
        await m.achat("m1")
        await ann.achat("a1")
        assert (said(m), said(ann)) == (["m1", "m1"], ["a1", "a1"])
        assert repr(ann) == f"<Conversation in {m!r}>"


async def test_a_conversation_goes_on_from_another_by_itself() -> None:
    async with start_session(backend=backend()) as m:
        ann = m.conversation()
        await ann.achat("a1")
        branch = m.conversation(ann.ctx)
        await branch.achat("b2")
        await ann.achat("a2")
    assert said(branch)[2:] == ["b2", "a1+b2"]
    assert said(ann)[2:] == ["a2", "a1+a2"]


# --- overlaps ------------------------------------------------------------------------------------------


async def test_turns_overlap_across_conversations_and_come_after_one_another_within_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with start_session(backend=backend()) as m:
        ann, bob = m.conversation(), m.conversation()
        began = anyio.current_time()
        first = [await ann.ainstruct("a1"), await bob.ainstruct("b1")]
        assert not caplog.records
        assert [await thunk for thunk in first] == ["a1", "b1"]
        assert anyio.current_time() - began == pytest.approx(1)
        second = [await ann.ainstruct("a2"), await ann.ainstruct("a3"), await bob.ainstruct("b2")]
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert [await thunk for thunk in second] == ["a1+a2", "a1+a2+a3", "b1+b2"]
        assert anyio.current_time() - began == pytest.approx(3)


async def test_a_conversation_that_forgets_overlaps_in_the_time_of_one() -> None:
    async with start_session(backend=backend()) as m:
        forgetful = m.conversation(SimpleContext())
        began = anyio.current_time()
        thunks = [await forgetful.ainstruct(prompt) for prompt in "abc"]
        assert [await thunk for thunk in thunks] == ["a", "b", "c"]
        assert anyio.current_time() - began == pytest.approx(1)


async def test_the_limits_of_the_session_hold_for_all_conversations_together() -> None:
    async with start_session(backend=backend(), max_concurrency=2) as m:
        began = anyio.current_time()
        thunks = [await m.conversation().ainstruct(prompt) for prompt in "abcd"]
        assert [await thunk for thunk in thunks] == ["a", "b", "c", "d"]
        assert anyio.current_time() - began == pytest.approx(2)


async def test_a_validator_may_ask_another_conversation_and_not_its_own() -> None:
    refused: list[UsageError] = []
    async with start_session(backend=backend()) as m:
        ann, aside = m.conversation(), m.conversation()

        async def validate(_: object) -> ValidationResult:
            try:
                await ann.ainstruct("again")
            except UsageError as error:
                refused.append(error)
            return ValidationResult(str(await aside.achat("aside")) == "aside")

        requirement = Requirement("r", validate, check_only=True)
        assert await (await ann.ainstruct("a", requirements=[requirement])) == "a"
    assert "another conversation" in str(refused[0])


@pytest.mark.parametrize("first", ["achat", "ainstruct", "avalidate", "stream"])
@pytest.mark.parametrize("second", ["achat", "avalidate", "stream"])
async def test_conversations_whose_validators_ask_each_other_get_an_error_and_no_deadlock(
    first: str, second: str
) -> None:
    async def asks(other: Conversation, how: str) -> None:
        if how == "stream":
            await (await other.stream("inner")).acomplete()
        elif how == "ainstruct":
            await (await other.ainstruct("inner"))
        else:
            await getattr(other, how)("inner" if how == "achat" else good)

    def asking(other: Conversation, how: str, delay: float) -> Requirement:
        async def validate(_: object) -> ValidationResult:
            await anyio.sleep(delay)
            await asks(other, how)
            return ValidationResult(True)

        return Requirement("r", validate, check_only=True)

    good = Requirement("good", lambda _: ValidationResult(True))
    before = ChatContext.from_messages(
        [{"role": "user", "content": "0"}, {"role": "assistant", "content": "0"}]
    )
    async with start_session(backend=backend(), on_error="log") as m:
        ann, bob = m.conversation(before), m.conversation(before)
        of_ann = await ann.ainstruct("a", requirements=[asking(bob, first, 1)])
        of_bob = await bob.ainstruct("b", requirements=[asking(ann, second, 2)])
        with anyio.fail_after(60):
            with pytest.raises(UsageError, match="of its own"):
                await of_bob
            assert await of_ann == "0+a"
            assert str(await ann.achat("c")) == "0+a+c"
        assert not ann._turns._line
        assert not bob._turns._line


async def test_a_validator_may_ask_a_conversation_that_others_wait_for() -> None:
    async with start_session(backend=backend()) as m:
        shared = m.conversation()

        async def validate(_: object) -> ValidationResult:
            return ValidationResult("s" in str(await shared.achat("s")))

        requirement = Requirement("r", validate, check_only=True)
        thunks = [
            await m.conversation().ainstruct("q", requirements=[requirement]) for _ in range(3)
        ]
        assert [await thunk for thunk in thunks] == ["q"] * 3
    assert said(shared)[-1] == "s+s+s"


# --- ends ----------------------------------------------------------------------------------------------


async def test_leaving_the_session_joins_every_conversation() -> None:
    async with start_session(backend=backend()) as m:
        conversations = [m.conversation() for _ in range(3)]
        thunks = [await one.ainstruct("q") for one in conversations]
    assert [thunk.value for thunk in thunks] == ["q"] * 3
    assert [said(one) for one in conversations] == [["q", "q"]] * 3
    with pytest.raises(SessionClosed):
        await conversations[0].ainstruct("q")


@pytest.mark.parametrize("how", ["thunk", "stream", "scope"])
async def test_a_turn_that_is_cancelled_leaves_its_conversation_as_it_was_and_the_others_alone(
    how: str,
) -> None:
    source = backend()
    async with start_session(backend=source, on_error="log") as m:
        ann, bob = m.conversation(), m.conversation()
        await ann.achat("a1")
        running = await bob.ainstruct("b1")
        match how:
            case "thunk":
                thunk = await ann.ainstruct("stall")
                await anyio.wait_all_tasks_blocked()
                thunk.cancel("enough")
                with pytest.raises(GenerationCancelled):
                    await thunk
            case "stream":
                async with ann.stream("stall"):
                    await anyio.wait_all_tasks_blocked()
            case _:
                with anyio.move_on_after(0.5):
                    await ann.achat("stall")
        assert await running == "b1"
        assert str(await ann.achat("a2")) == "a1+a2"
    assert sorted(call.outcome for call in source.calls) == ["cancelled", "ended", "ended", "ended"]


async def test_a_turn_that_fails_leaves_its_conversation_as_it_was() -> None:
    async with start_session(backend=backend()) as m:
        ann = m.conversation()
        await ann.achat("a1")
        with pytest.raises(BackendError):
            await ann.achat("bad")
        assert str(await ann.achat("a2")) == "a1+a2"


# --- stored ----------------------------------------------------------------------------------------------


async def test_a_conversation_is_stored_as_messages_and_goes_on_in_another_session() -> None:
    async with start_session(backend=backend()) as m:
        ann = m.conversation(ChatContext().add(Message("system", "Be brief.")))
        await ann.achat("a1")
        stored = json.dumps(ann.ctx.to_messages())
    source = backend()
    async with start_session(backend=source) as m:
        again = m.conversation(ChatContext.from_messages(json.loads(stored), max_turns=1))
        assert str(await again.achat("a2")) == "a1+a2"
        assert str(await again.achat("a3")) == "a2+a3"
    roles = [message.role for message in source.calls[0].request.messages]
    assert roles == ["system", "user", "assistant", "user"]


async def test_messages_are_no_context() -> None:
    async with start_session(backend=backend()) as m:
        with pytest.raises(InvalidOption, match="from_messages"):
            m.conversation([{"role": "user", "content": "hi"}])  # type: ignore[arg-type]


# --- nothing is kept ---------------------------------------------------------------------------------------


async def test_a_conversation_that_nobody_holds_is_gone_at_once() -> None:
    async with start_session(backend=backend(), on_error="log") as m:
        ann = m.conversation()
        await ann.achat("a1")
        async with ann.stream("a2") as result:
            await result.acomplete()
        here = weakref.ref(ann)
        del ann, result
        await anyio.wait_all_tasks_blocked()
        assert here() is None


async def test_an_error_that_nobody_read_keeps_no_conversation() -> None:
    async with start_session(backend=backend(), on_error="log") as m:
        ann = m.conversation()
        with suppress(BackendError):
            await ann.achat("bad")
        thunk = await ann.ainstruct("bad")
        await anyio.sleep(2)
        here, turns = weakref.ref(ann), weakref.ref(ann._turns)
        del ann, thunk
        await anyio.wait_all_tasks_blocked()
        gc.collect()  # an error and its frames are a cycle
        assert here() is None
        assert turns() is None


async def test_a_turn_goes_on_when_its_conversation_is_forgotten() -> None:
    async with start_session(backend=backend()) as m:
        thunk = await m.conversation().ainstruct("q")
        gc.collect()
        assert await thunk == "q"


async def test_ten_thousand_conversations_leave_nothing_behind() -> None:
    source = ScriptedBackend(lambda _: "x")
    async with start_session(backend=source, on_error="log") as m:

        async def users(count: int) -> int:
            for _ in range(count):
                talk = m.conversation()
                await talk.achat("q")
                async with talk.stream("q") as result:
                    await result.acomplete()
                source.calls.clear()
            del talk, result
            gc.collect()
            return len(gc.get_objects())

        await users(50)
        before = await users(50)
        for _ in range(10_000):
            m.conversation()
        assert await users(250) - before < 250  # less than an object for each of them
