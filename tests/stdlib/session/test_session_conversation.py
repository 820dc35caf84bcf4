"""A session's conversation can be looked at, replaced, forgotten, and taken on by a clone."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable

import anyio
import pytest

from mellea_sc import (
    BackendError,
    CBlock,
    ChatContext,
    Context,
    GenerationCancelled,
    GenerationRequest,
    Instruction,
    InvalidOption,
    MelleaSession,
    Message,
    ModelOption,
    RejectionSamplingStrategy,
    SessionClosed,
    SimpleContext,
    UsageError,
    ValidationResult,
    req,
    start_session,
)
from mellea_sc.testing import Fail, Pause, ScriptedAnswer, ScriptedBackend, Stall

pytestmark = pytest.mark.usefixtures("collected")


def echo(request: GenerationRequest) -> ScriptedAnswer:
    """What was asked last, and how much was said before."""
    return [f"{request.messages[-1].content} after {len(request.messages) - 1}"]


def chat(*answers: ScriptedAnswer | Callable[[GenerationRequest], ScriptedAnswer]) -> MelleaSession:
    return start_session(backend=ScriptedBackend(*answers or [echo]), ctx=ChatContext())


def said(ctx: Context) -> list[str]:
    return [message["content"] for message in ctx.to_messages()]


# --- ctx and reset -----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_assigned_conversation_is_the_one_that_goes_on() -> None:
    async with chat() as m:
        await m.achat("one")
        m.ctx = ChatContext().add(Message("system", "be brief")).add(Message("user", "hello"))
        assert str(await m.achat("two")) == "two after 2"
        assert said(m.ctx) == ["be brief", "hello", "two", "two after 2"]


@pytest.mark.anyio
async def test_what_an_assigned_conversation_remembers_is_what_counts_from_then_on() -> None:
    async with start_session(backend=ScriptedBackend(echo)) as m:
        await m.achat("one")
        m.ctx = ChatContext()
        thunks = [await m.aact(CBlock(word)) for word in ("two", "three")]
        assert [await thunk for thunk in thunks] == ["two after 0", "three after 2"]
        m.ctx = SimpleContext()
        assert str(await m.achat("four")) == "four after 0"


@pytest.mark.anyio
async def test_a_conversation_is_not_replaced_under_a_turn_that_would_be_lost() -> None:
    async with chat(lambda _: [Pause(1), "done"]) as m:
        thunk = await m.aact(CBlock("one"))
        for replace in (m.reset, lambda: setattr(m, "ctx", ChatContext())):
            with pytest.raises(UsageError, match="have not ended"):
                replace()
        await thunk
        assert said(m.ctx) == ["one", "done"]
        m.reset()
        assert m.ctx.is_root_node


@pytest.mark.anyio
async def test_a_request_that_began_before_the_assignment_does_not_undo_it() -> None:
    async with start_session(backend=ScriptedBackend(lambda _: [Pause(1), "done"])) as m:
        thunk = await m.aact(CBlock("one"))
        m.ctx = ctx = ChatContext()
        assert await thunk == "done"
        assert m.ctx is ctx


def test_a_conversation_is_a_context() -> None:
    m = chat()
    with pytest.raises(InvalidOption, match="ctx must be a context, not list"):
        m.ctx = []  # type: ignore[assignment]
    assert m.ctx.is_root_node


def test_reset_forgets_what_was_said_and_keeps_the_settings() -> None:
    with start_session(backend=ScriptedBackend(echo), ctx=ChatContext(max_turns=3)) as m:
        m.chat("one")
        m.reset()
        assert isinstance(m.ctx, ChatContext)
        assert m.ctx.max_turns == 3
        assert str(m.chat("two")) == "two after 0"


# --- last_prompt ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ctx", [ChatContext(), SimpleContext()])
def test_the_last_prompt_is_what_the_model_was_sent(ctx: Context) -> None:
    backend = ScriptedBackend(echo)
    options = {ModelOption.SYSTEM_PROMPT: "be brief"}
    with start_session(backend=backend, ctx=ctx, model_options=options) as m:
        assert m.last_prompt() is None
        m.chat("one")
        m.instruct("two", grounding_context={"doc": "a text"}, output_prefix="so")
        sent = [
            {"role": one.role, "content": one.content} for one in backend.calls[-1].request.messages
        ]
        assert m.last_prompt() == sent
        assert sent[0] == {"role": "system", "content": "be brief"}


def test_the_last_prompt_of_a_repaired_answer_is_that_of_the_attempt_that_was_kept() -> None:
    backend = ScriptedBackend("no", "yes")
    strategy = RejectionSamplingStrategy(loop_budget=2)
    yes = req("Say yes.", lambda ctx: ValidationResult(str(ctx.last_output()) == "yes"))
    with start_session(backend=backend, ctx=ChatContext()) as m:
        assert str(m.instruct("Say it.", requirements=[yes], strategy=strategy)) == "yes"
        kept = backend.calls[-1].request.messages
        assert m.last_prompt() == [{"role": one.role, "content": one.content} for one in kept]


def test_there_is_no_last_prompt_where_an_answer_stands_alone() -> None:
    answer = {"role": "assistant", "content": "hello"}
    m = start_session(backend=ScriptedBackend(echo), ctx=ChatContext.from_messages([answer]))
    assert m.last_prompt() is None


# --- clone -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_clones_go_on_from_where_the_session_is_and_do_not_see_one_another() -> None:
    async with chat() as m:
        await m.achat("start")
        first, second = m.clone(), m.clone()
        assert str(await first.achat("a")) == "a after 2"
        assert str(await second.achat("b")) == "b after 2"
        assert str(await first.achat("c")) == "c after 4"
        assert said(m.ctx) == ["start", "start after 0"]


@pytest.mark.anyio
async def test_requests_of_clones_run_at_the_same_time() -> None:
    async with chat(lambda _: [Pause(1), "done"]) as m:
        began = anyio.current_time()
        thunks = [await m.clone().aact(CBlock("?")) for _ in range(3)]
        assert [await thunk for thunk in thunks] == ["done"] * 3
        assert anyio.current_time() == pytest.approx(began + 1)


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_leaving_the_block_joins_what_its_clones_have_started() -> None:
    async with chat(lambda _: [Pause(1), "done"]) as m:
        clone = m.clone()
        thunks = [await clone.aact(CBlock("?")), await clone.clone().aact(CBlock("?"))]
    assert [thunk.value for thunk in thunks] == ["done", "done"]
    with pytest.raises(SessionClosed):
        await clone.achat("!")


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_an_exception_in_the_block_cancels_what_its_clones_have_started() -> None:
    backend = ScriptedBackend(lambda _: ["some ", Stall()])
    with pytest.raises(ZeroDivisionError):
        async with start_session(backend=backend) as m:
            thunk = await m.clone().aact(CBlock("?"))
            await anyio.wait_all_tasks_blocked()
            raise ZeroDivisionError
    assert thunk.cancelled
    assert [call.outcome for call in backend.calls] == ["cancelled"]


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_cancelling_the_session_cancels_its_clones_and_cancelling_a_clone_only_that() -> None:
    async with chat(lambda _: ["some ", Stall()]) as m:
        one, other = m.clone(), m.clone()
        thunks = [await session.aact(CBlock("?")) for session in (one, other)]
        one.cancel("enough")
        with pytest.raises(GenerationCancelled, match="enough"):
            await thunks[0]
        assert thunks[1].error is None
        m.cancel()
    assert thunks[1].cancelled


@pytest.mark.anyio
async def test_an_error_in_a_clone_that_nobody_observed_is_raised_when_the_session_is_left() -> (
    None
):
    with pytest.raises(ExceptionGroup) as caught:
        async with chat(Fail(BackendError("lost")), "done") as m:
            lost = await m.clone().aact(CBlock("?"))
            await anyio.wait_all_tasks_blocked()
            assert lost.error is not None
            assert str(await m.achat("!")) == "done"
    assert [str(error) for error in caught.value.exceptions] == ["lost"]


@pytest.mark.anyio
async def test_the_failure_of_a_clone_cancels_a_strict_session() -> None:
    backend = ScriptedBackend(
        lambda request: (
            Fail(BackendError("lost")) if request.messages[-1].content == "?" else [Stall()]
        )
    )
    with pytest.raises(ExceptionGroup) as caught:
        async with start_session(backend=backend, on_error="cancel") as m:
            stalled = await m.aact(CBlock("!"))
            await anyio.wait_all_tasks_blocked()
            await m.clone().aact(CBlock("?"))
            await stalled
    assert [str(error) for error in caught.value.exceptions] == ["lost"]
    assert stalled.cancelled


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("used_before", [True, False])
async def test_a_validator_may_use_a_clone_while_the_session_is_being_left(
    used_before: bool,
) -> None:
    async def asks_the_clone(_: Context) -> ValidationResult:
        await anyio.sleep(1)
        return ValidationResult(str(await clone.achat("good?")) == "yes")

    async with start_session(backend=ScriptedBackend(lambda _: "yes")) as m:
        clone = m.clone()
        if used_before:
            await clone.achat("hello")
        thunk = await m.ainstruct("Write.", requirements=[req("It is good.", asks_the_clone)])
    assert thunk.value == "yes"


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_cancelling_reaches_clones_that_are_being_joined() -> None:
    async with anyio.create_task_group() as tasks, chat(lambda _: ["some ", Stall()]) as m:
        thunk = await m.clone().aact(CBlock("?"))

        async def cancel() -> None:
            await anyio.wait_all_tasks_blocked()
            m.cancel("enough")

        tasks.start_soon(cancel)
    with pytest.raises(GenerationCancelled, match="enough"):
        await thunk


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_a_cancellation_from_outside_reaches_clones() -> None:
    with anyio.move_on_after(1) as scope:
        async with chat(lambda _: ["some ", Stall()]) as m:
            thunk = await m.clone().aact(CBlock("?"))
    assert scope.cancelled_caught
    assert thunk.cancelled


def test_an_exit_in_a_clone_leaves_the_session_as_one_of_its_own_does() -> None:
    def leaves(_: Context) -> ValidationResult:
        raise SystemExit(3)

    async def main() -> None:
        async with chat(lambda _: "yes") as m:
            await m.clone().ainstruct("Write.", requirements=[req("It is good.", leaves)])

    # asyncio ends its loop by it
    with pytest.raises(SystemExit) as caught:
        anyio.run(main, backend="trio")
    assert caught.value.code == 3


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_closing_a_clone_joins_what_it_has_started_and_leaves_the_session_open() -> None:
    async with chat([Pause(1), "done"], "still here") as m:
        clone = m.clone()
        thunk = await clone.aact(CBlock("?"))
        await clone.aclose()
        assert thunk.value == "done"
        with pytest.raises(SessionClosed):
            await clone.achat("!")
        assert str(await m.achat("!")) == "still here"


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_a_clone_can_be_a_block_of_its_own() -> None:
    async with chat() as m:
        await m.achat("start")
        async with m.clone() as clone:
            thunk = await clone.aact(Instruction("a"))
        assert thunk.is_computed()
        assert str(await m.achat("b")) == "b after 2"


@pytest.mark.anyio
@pytest.mark.usefixtures("no_leaks")
async def test_a_clone_of_a_bare_session_ends_with_it() -> None:
    m = chat(lambda _: [Pause(1), "done"])
    thunk = await m.clone().aact(CBlock("?"))
    await m.aclose()
    assert thunk.value == "done"


def test_blocking_calls_of_clones_share_the_thread_of_the_session() -> None:
    before = set(threading.enumerate())
    with chat() as m:
        m.chat("start")
        one = m.clone()
        assert str(one.chat("a")) == "a after 2"
        with m.clone() as other:
            assert str(other.instruct("b")).endswith("after 2")
            assert len(set(threading.enumerate()) - before) == 1
        assert str(one.chat("c")) == "c after 4"
    assert set(threading.enumerate()) <= before
    with pytest.raises(SessionClosed):
        one.chat("d")


def test_a_clone_that_is_forgotten_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with chat() as m:
            m.clone().chat("a")
            gc.collect()


def test_a_session_that_has_ended_is_not_cloned() -> None:
    m = chat()
    m.close()
    with pytest.raises(SessionClosed):
        m.clone()


def test_a_clone_keeps_what_a_subclass_has() -> None:
    class Named(MelleaSession):
        def __init__(self, name: str) -> None:
            super().__init__(ScriptedBackend(echo), retries=0)
            self.name: str = name

    m = Named("mine")
    clone = m.clone()
    assert isinstance(clone, Named)
    assert clone.name == "mine"
    assert clone.backend is not m.backend
