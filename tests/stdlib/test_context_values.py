"""Contexts are immutable chains; spans read as text; a conversation becomes the messages of a request."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mellea_sc import (
    CBlock,
    ChatContext,
    Component,
    Context,
    InvalidOption,
    Message,
    ModelOption,
    ModelOutputThunk,
    SimpleContext,
    start_session,
)
from mellea_sc.backends import ChatMessage
from mellea_sc.core.base import Span, pending_thunks, text_of
from mellea_sc.core.question import messages_for
from mellea_sc.testing import ScriptedBackend

KINDS = pytest.mark.parametrize("kind", [SimpleContext, ChatContext])


@KINDS
def test_adding_gives_a_new_context_and_leaves_the_old_one(kind: type[Context]) -> None:
    empty = kind()
    one = empty.add("a")
    two, other = one.add("b"), one.add("c")
    assert (empty.as_list(), one.as_list()) == ([], ["a"])
    assert (two.as_list(), other.as_list()) == (["a", "b"], ["a", "c"])
    assert type(two) is kind
    assert two.without_items().as_list() == []


@KINDS
def test_a_context_cannot_be_given_other_attributes(kind: type[Context]) -> None:
    with pytest.raises(AttributeError):
        kind().items = []  # type: ignore[attr-defined]


def test_a_simple_context_shows_nothing_and_keeps_the_last_exchange() -> None:
    ctx = SimpleContext()
    for item in "abcde":
        ctx = ctx.add(item)
    assert ctx.view_for_generation() == []
    assert ctx.as_list() == ["d", "e"]


def test_a_chat_context_shows_all_or_its_newest_part() -> None:
    ctx = ChatContext()
    windowed = ChatContext(window_size=3)
    for item in "abcde":
        ctx, windowed = ctx.add(item), windowed.add(item)
    assert ctx.view_for_generation() == list("abcde")
    assert windowed.view_for_generation() == list("cde")
    assert windowed.as_list() == list("abcde")
    assert windowed.without_items().window_size == 3
    assert ctx.as_list(2) == list("de")
    assert ctx.as_list(0) == []
    with pytest.raises(InvalidOption):
        ChatContext(window_size=0)


def test_a_long_conversation_does_not_nest_the_stack() -> None:
    ctx: Context = ChatContext()
    for n in range(5000):
        ctx = ctx.add(str(n))
    assert len(ctx.as_list()) == 5000
    assert "5000 items" in repr(ctx)
    del ctx


def test_the_last_output_is_the_newest_thunk_of_the_last_few_items() -> None:
    old, new = ModelOutputThunk.computed("old"), ModelOutputThunk.computed("new")
    ctx = ChatContext().add(old).add("?").add(new)
    assert ctx.last_output() is new
    assert ctx.add("a").add("b").last_output() is new
    assert ctx.add("a").add("b").add("c").last_output() is None
    assert ctx.add("a").add("b").add("c").last_output(check_last_n=6) is new
    assert ChatContext().last_output() is None


@pytest.mark.anyio
async def test_a_session_starts_with_a_simple_context_or_the_given_one() -> None:
    backend = ScriptedBackend(lambda _: "answer")
    assert isinstance(start_session(backend=backend).ctx, SimpleContext)
    assert isinstance(start_session(backend=backend, context_type="simple").ctx, SimpleContext)
    assert isinstance(start_session(backend=backend, context_type="chat").ctx, ChatContext)
    given = ChatContext().add("before")
    async with start_session(backend=backend, ctx=given) as m:
        assert m.ctx is given
        await m.achat("now")
        assert [text_of(item) for item in m.ctx.as_list()] == ["before", "now", "answer"]
    assert given.as_list() == ["before"]
    assert [message.content for message in backend.calls[0].request.messages] == ["before", "now"]


@pytest.mark.anyio
async def test_a_session_that_forgets_asks_every_time_anew() -> None:
    backend = ScriptedBackend(lambda _: "answer")
    async with start_session(backend=backend) as m:
        await m.achat("a")
        await m.achat("b")
        output = m.ctx.last_output()
        assert output is not None
        assert output.value == "answer"
    assert [len(call.request.messages) for call in backend.calls] == [1, 1]


# --- spans ----------------------------------------------------------------------------------------------------


class Pair(Component):
    """Two spans side by side."""

    def __init__(self, *spans: Span) -> None:
        self.spans = spans

    def parts(self) -> Sequence[Span]:
        return self.spans

    def format_for_llm(self) -> str:
        return "|".join(text_of(span) for span in self.spans)


class Bare(Component):
    """A component that says only how it reads."""

    def format_for_llm(self) -> str:
        return "bare"


def test_every_kind_of_span_reads_as_text_and_others_are_refused() -> None:
    thunk = ModelOutputThunk.computed("thunk")
    assert text_of(Pair("str", CBlock("block"), thunk, Bare())) == "str|block|thunk|bare"
    assert str(CBlock("block")) == "block"
    with pytest.raises(TypeError, match="int cannot stand where text goes"):
        text_of(42)  # type: ignore[arg-type]


def test_a_component_has_sensible_defaults() -> None:
    component = Bare()
    assert component.parts() == ()
    assert component.summary() == "Bare"
    assert component.assistant_prefix() is None
    assert component.parse("text") == "text"
    assert component.role == "user"


@pytest.mark.anyio
async def test_the_thunks_that_a_prompt_waits_for_are_found_each_once() -> None:
    async with start_session(backend=ScriptedBackend(lambda _: "x")) as m:
        a, b = await m.ainstruct("a"), await m.ainstruct("b")
        computed = ModelOutputThunk.computed("c")
        inner = Pair(b, computed)
        assert list(pending_thunks(Pair("text", a, inner), inner, a, CBlock("d"))) == [a, b]
        await a
        await b
        assert list(pending_thunks(Pair(a, b))) == []


# --- requests ---------------------------------------------------------------------------------------------------


class Prefixed(Bare):
    """The answer has to begin in a certain way."""

    def assistant_prefix(self) -> str:
        return "Sure:"


def test_a_request_is_the_system_prompt_the_conversation_the_action_and_the_answers_beginning() -> (
    None
):
    ctx = (
        ChatContext()
        .add("question")
        .add(ModelOutputThunk.computed("answer"))
        .add(Message("system", "note"))
        .add(CBlock("block"))
    )
    messages = messages_for(Prefixed(), ctx, {ModelOption.SYSTEM_PROMPT: "be brief"})
    assert messages == (
        ChatMessage("system", "be brief"),
        ChatMessage("user", "question"),
        ChatMessage("assistant", "answer"),
        ChatMessage("system", "note"),
        ChatMessage("user", "block"),
        ChatMessage("user", "bare"),
        ChatMessage("assistant", "Sure:"),
    )


def test_a_thunk_as_an_action_is_said_by_the_user() -> None:
    thunk = ModelOutputThunk.computed("answer")
    assert messages_for(thunk, SimpleContext(), {}) == (ChatMessage("user", "answer"),)
