"""A conversation as messages, shortened by whole turns, copied and pickled; and its work per turn."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc import (
    CBlock,
    ChatContext,
    Component,
    Context,
    InvalidOption,
    MaxWords,
    Message,
    ModelOutputThunk,
    MustNotMatch,
    SimpleContext,
    ThunkNotComputed,
    ValidationResult,
    req,
    start_session,
)
from mellea_sc.core.base import Span, text_of
from mellea_sc.core.question import messages_for
from mellea_sc.stdlib.components import Instruction
from mellea_sc.testing import Pause, ScriptedBackend, Stall

SAID: Sequence[dict[str, str]] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "u" * 40},
    {"role": "assistant", "content": "a" * 40},
    {"role": "user", "content": "v" * 40},
    {"role": "assistant", "content": "b" * 40},
]


def shown(ctx: Context) -> list[str]:
    """What the model gets to see, the first character of each."""
    return [text_of(item)[0] for item in ctx.view_for_generation()]


# --- messages -----------------------------------------------------------------------------------


def test_messages_make_the_conversation_that_says_them() -> None:
    ctx = ChatContext.from_messages(SAID)
    assert ctx.to_messages() == json.loads(json.dumps(SAID))
    last = ctx.last_output()
    assert last is not None
    assert last.value == "b" * 40


def test_a_content_may_be_a_list_of_texts() -> None:
    parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there."}]
    ctx = ChatContext.from_messages([{"role": "user", "content": parts}])
    assert ctx.to_messages() == [{"role": "user", "content": "Hello there."}]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "robot", "content": "x"},
        {"content": "x"},
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        "Hello",
    ],
)
def test_what_is_no_message_of_text_is_refused(message: object) -> None:
    with pytest.raises(InvalidOption, match="a message is"):
        ChatContext.from_messages([cast("dict[str, object]", message)])


@pytest.mark.anyio
async def test_a_conversation_goes_on_from_its_messages() -> None:
    backend = ScriptedBackend(lambda _: "And on.")
    async with start_session(backend=backend, ctx=ChatContext.from_messages(SAID)) as m:
        await m.achat("More?")
        asked = backend.calls[0].request.messages
        assert [(message.role, message.content) for message in asked] == [
            *((said["role"], said["content"]) for said in SAID),
            ("user", "More?"),
        ]
        assert [said["content"] for said in m.ctx.to_messages()[-2:]] == ["More?", "And on."]


@pytest.mark.anyio
async def test_a_conversation_with_an_answer_on_its_way_has_no_messages_yet() -> None:
    async with start_session(backend=ScriptedBackend([Stall()])) as m:
        thunk = await m.ainstruct("x")
        ctx = ChatContext().add("x").add(thunk)
        with pytest.raises(ThunkNotComputed):
            ctx.to_messages()
        thunk.cancel()


# --- shortened ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({}, "Buavb"),
        ({"max_turns": 1}, "Bvb"),
        ({"max_turns": 2}, "Buavb"),
        ({"max_tokens": 20}, "Bvb"),
        ({"max_tokens": 39}, "Bvb"),
        ({"max_tokens": 40}, "Buavb"),
        ({"max_tokens": 1}, "Bvb"),
        ({"max_turns": 1, "max_tokens": 1000}, "Bvb"),
        ({"window_size": 3}, "avb"),
        ({"window_size": 3, "max_turns": 1}, "vb"),
    ],
)
def test_only_the_newest_turns_are_shown(limits: dict[str, int], wanted: str) -> None:
    ctx = ChatContext.from_messages(SAID, **limits)
    assert "".join(shown(ctx)) == wanted
    assert len(ctx.as_list()) == 5
    assert "".join(shown(copy.deepcopy(ctx))) == wanted


@pytest.mark.parametrize("name", ["window_size", "max_turns", "max_tokens"])
def test_a_limit_below_one_is_refused(name: str) -> None:
    with pytest.raises(InvalidOption, match=name):
        ChatContext(**{name: 0})


@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text("x", max_size=60))),
    st.integers(1, 5) | st.none(),
    st.integers(1, 60) | st.none(),
)
def test_what_is_shown_is_a_whole_number_of_newest_turns(
    said: list[tuple[str, str]], turns: int | None, tokens: int | None
) -> None:
    messages = [{"role": role, "content": text} for role, text in said]
    ctx = ChatContext.from_messages(messages, max_turns=turns, max_tokens=tokens)
    view, items = ctx.view_for_generation(), ctx.as_list()
    assert view == items[len(items) - len(view) :]
    assert bool(view) is bool(items)
    left_out = items[: len(items) - len(view)]
    if left_out:
        assert isinstance(left_out[-1], ModelOutputThunk)  # the end of a turn
    if turns is not None:
        assert sum(isinstance(item, ModelOutputThunk) for item in view) <= turns


@pytest.mark.anyio
@pytest.mark.parametrize("limits", [{"max_tokens": 40}, {"max_turns": 1}])
async def test_2_9_a_shortened_conversation_waits_for_thunks_inside_of_its_items(
    limits: dict[str, int],
) -> None:
    backend = ScriptedBackend(lambda _: [Pause(1), "answer " * 40])
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct("?")
        about = Instruction("about", grounding_context={"text": thunk})
        ctx = ChatContext(**limits).add("first").add(ModelOutputThunk.computed("said"))
        async with start_session(backend=backend, ctx=ctx.add(about)) as other:
            assert await (await other.ainstruct("now")) == "answer " * 40
    shown = [one.content for one in backend.calls[-1].request.messages]
    assert len(shown) == 2
    assert "answer answer" in shown[0]


# --- copies -------------------------------------------------------------------------------------


def pickled(one: object) -> object:
    """Through a pickle."""
    return cast("object", pickle.loads(pickle.dumps(one)))


HOW: Sequence[Callable[[object], object]] = (copy.copy, copy.deepcopy, pickled)
COPIES = pytest.mark.parametrize("copied", HOW, ids=["copy", "deepcopy", "pickle"])


@COPIES
@pytest.mark.anyio
async def test_2_11_a_copy_of_a_computed_thunk_is_one_of_its_own(
    copied: Callable[[ModelOutputThunk], ModelOutputThunk],
) -> None:
    async with start_session(backend=ScriptedBackend(["Hello there."])) as m:
        thunk = await m.ainstruct("hi", await_result=True)
        again = copied(thunk)
    assert (again.value, await again) == ("Hello there.", "Hello there.")
    assert again.is_computed()
    assert again.generation == thunk.generation
    assert again.parsed_repr == thunk.parsed_repr
    assert again.producer is None


@COPIES
@pytest.mark.anyio
async def test_2_11_a_running_thunk_refuses_to_be_copied(
    copied: Callable[[ModelOutputThunk], ModelOutputThunk],
) -> None:
    async with start_session(backend=ScriptedBackend([Stall()])) as m:
        thunk = await m.ainstruct("hi")
        with pytest.raises(ThunkNotComputed, match="await"):
            copied(thunk)
        thunk.cancel()


@COPIES
@pytest.mark.parametrize("kind", [SimpleContext, ChatContext])
def test_2_11_a_copy_of_a_context_has_its_items(
    kind: type[Context], copied: Callable[[Context], Context]
) -> None:
    ctx = kind().add(Message("user", "hi")).add(ModelOutputThunk.computed("Hello."))
    again = copied(ctx)
    assert type(again) is kind
    assert again.to_messages() == ctx.to_messages()
    assert copied(kind()).as_list() == []


@COPIES
def test_2_11_a_long_conversation_is_copied_without_nesting(
    copied: Callable[[Context], Context],
) -> None:
    ctx: Context = ChatContext(max_turns=7)
    for n in range(5000):
        ctx = ctx.add(str(n))
    again = copied(ctx)
    assert len(again.as_list()) == 5000
    assert isinstance(again, ChatContext)
    assert again.max_turns == 7


# --- the work of a turn -------------------------------------------------------------------------


class Counted(Component):
    """Counts how often it is read."""

    def __init__(self) -> None:
        self.read = 0

    def format_for_llm(self) -> str:
        """A text."""
        self.read += 1
        return "text"


def test_what_was_said_before_is_read_once() -> None:
    items = [Counted() for _ in range(50)]
    ctx: Context = ChatContext()
    for item in items:
        messages = messages_for("next", ctx, {})
        assert len(messages) == len(ctx.as_list()) + 1
        ctx = ctx.add(item)
    assert [item.read for item in items] == [1] * 49 + [0]


def test_a_conversation_that_goes_on_in_two_ways_reads_as_it_was_said() -> None:
    trunk = ChatContext().add("a").add(CBlock("b"))
    left, right = trunk.add("left"), trunk.add("right")
    for ctx, end in ((left, "left"), (right, "right"), (left, "left"), (trunk, "b")):
        assert messages_for("?", ctx, {})[-2].content == end
        assert [m.content for m in messages_for("?", ctx, {})][:2] == ["a", "b"]
    assert [text_of(item) for item in left.as_list()] == ["a", "b", "left"]
    assert [text_of(item) for item in right.add("more").as_list()] == ["a", "b", "right", "more"]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=30))
def test_a_context_says_what_was_added_whatever_was_read_of_which_part(
    steps: list[tuple[int, int]],
) -> None:
    known: list[tuple[ChatContext, list[Span]]] = [(ChatContext(window_size=None), [])]
    for number, (which, what) in enumerate(steps):
        ctx, items = known[which % len(known)]
        match what:
            case 0:
                known.append((ctx.add(str(number)), [*items, str(number)]))
            case 1:
                assert ctx.as_list() == items
            case 2:
                assert [m.content for m in messages_for("?", ctx, {})] == [*items, "?"]
            case _:
                assert ctx.as_list(2) == items[-2:]
    for ctx, items in known:
        assert ctx.as_list() == items
        assert [m.content for m in messages_for("?", ctx, {})] == [*items, "?"]


class Live:
    """An object that cannot be copied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __str__(self) -> str:
        return "a live object"


@COPIES
@pytest.mark.anyio
async def test_2_11_a_copy_of_a_conversation_says_what_was_said_whatever_validated_it(
    copied: Callable[[Context], Context],
) -> None:
    live = Live()
    required = [
        MaxWords(9),
        MustNotMatch("{{braces}}"),
        req("in {{language}}", validation_fn=lambda _: bool(live) and ValidationResult(True)),
    ]
    backend = ScriptedBackend(lambda _: "Hello there.")
    async with start_session(backend=backend, context_type="chat") as m:
        await m.ainstruct(
            "hi {{name}}",
            requirements=required,
            user_variables={"name": "Ann", "language": "English"},
            await_result=True,
        )
        await m.aquery(live, "what is it?", await_result=True)
        await m.achat("bye")
        again = copied(m.ctx)
    assert again.to_messages() == m.ctx.to_messages()
    assert "- in English" in again.to_messages()[0]["content"]
    assert type(again) is ChatContext
    async with start_session(backend=backend, ctx=again) as m:
        await m.achat("hi")
    asked = backend.calls[-1].request.messages
    assert [one.content for one in asked[:-1]] == [one["content"] for one in again.to_messages()]


def test_2_11_an_instruction_by_itself_keeps_its_requirements() -> None:
    alone = Instruction("hi", [MaxWords(9)])
    assert copy.copy(alone).requirements == alone.requirements
    assert len(copy.deepcopy(alone).requirements) == 1
