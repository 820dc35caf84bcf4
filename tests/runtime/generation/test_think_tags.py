"""Reasoning that a model writes into its text is taken out of it, however the text is cut."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc import (
    BackendError,
    BudgetExceeded,
    Delta,
    EmptyAnswer,
    InvalidOption,
    ModelOption,
    StreamInterrupted,
    limits,
    start_session,
)
from mellea_sc.backends import OllamaBackend, OpenAIBackend
from mellea_sc.core.backend import ChatMessage, GenerationRequest
from mellea_sc.runtime.generation.think_tags import TagSplitter
from mellea_sc.testing import Fail, ScriptedBackend, Step, cancel_everywhere
from mellea_sc.testing.strategies import cuts

pytestmark = pytest.mark.anyio

TAGS = {ModelOption.THINK_TAGS: True}
INSIDE = {ModelOption.THINK_TAGS: ("", "</think>")}
TEXTS = [
    "<think>Hm.</think>Hello.",
    " \n<think>\nHm.\n</think>\n\nHello.",
    "<think>\n\n</think>\n\nHello.",
    "<think>Hm, 1 < 2, </thin</think> Hello <think>there</think>.",
    "Hello, <think> is a tag.",
    "  Hello.",
    "<thinking>Hm.</thinking>Hello.",
    "<thin",
    "<think>Hm",
    "<think>Hm</th",
    " ",
    "",
]


def split(pieces: Sequence[str], opening: str = "<think>") -> tuple[str, str]:
    splitter = TagSplitter(opening, "</think>")
    said = [splitter.feed(piece) for piece in pieces] + [splitter.end()]
    return "".join(one for one, _ in said), "".join(one for _, one in said)


@pytest.mark.parametrize(
    ("text", "expected"),
    list(
        zip(
            TEXTS,
            [
                ("Hm.", "Hello."),
                ("Hm.\n", "Hello."),
                ("", "Hello."),
                ("Hm, 1 < 2, </thin", "Hello <think>there</think>."),
                ("", "Hello, <think> is a tag."),
                ("", "  Hello."),
                ("", "<thinking>Hm.</thinking>Hello."),
                ("", "<thin"),
                ("Hm", ""),
                ("Hm</th", ""),
                ("", " "),
                ("", ""),
            ],
            strict=True,
        )
    ),
)
def test_what_is_between_the_tags_at_the_beginning_is_reasoning(
    text: str, expected: tuple[str, str]
) -> None:
    assert split([text]) == expected
    assert split(list(text)) == expected


@given(data=st.data())
def test_it_makes_no_difference_where_a_text_is_cut(data: st.DataObject) -> None:
    pieces = st.sampled_from(["<think>", "</think>", "<", "</", "think", ">", " ", "\n", "a", "b"])
    text = data.draw(st.sampled_from(TEXTS) | st.lists(pieces, max_size=12).map("".join))
    for opening in ("<think>", ""):
        assert split(data.draw(cuts(text)), opening) == split([text], opening)


def test_no_more_is_held_back_than_may_be_a_tag() -> None:
    splitter = TagSplitter("<think>", "</think>")
    assert splitter.feed(" <thi") == ("", "")
    assert splitter.feed("nk>Hm, </th") == ("Hm, ", "")
    assert splitter.feed("is </") == ("</this ", "")
    assert splitter.feed("think> ") == ("", "")
    assert splitter.feed(" \nHello") == ("", "Hello")
    assert splitter.is_done


def test_a_text_that_begins_in_the_middle_of_it() -> None:
    assert split(["Hm.</think>", "\nHello."], "") == ("Hm.", "Hello.")


@pytest.mark.parametrize("value", ["<think>", 1, ("<think>",), ("<think>", ""), ("a", 2), [1, 2]])
async def test_other_values_are_refused(value: object) -> None:
    async with start_session(backend=ScriptedBackend("x")) as m:
        with pytest.raises(InvalidOption, match="THINK_TAGS"):
            await m.ainstruct("?", model_options={ModelOption.THINK_TAGS: value})


def test_it_is_not_for_the_server() -> None:
    request = GenerationRequest((ChatMessage("user", "?"),), TAGS)
    for backend in (OpenAIBackend("m"), OllamaBackend("m")):
        assert "think" not in repr(backend.payload(request))


@pytest.mark.parametrize("options", [{}, {ModelOption.STREAM: True}], ids=["whole", "streamed"])
async def test_a_thunk_has_the_reasoning_apart(options: dict[str, object]) -> None:
    steps = ["<th", "ink>H", "m.</thi", "nk>\n", "Hello", " <think>."]
    backend = ScriptedBackend(lambda _: steps)
    async with start_session(backend=backend, model_options=TAGS | options) as m:
        thunk = await m.ainstruct("?")
        assert "".join([delta async for delta in thunk]) == "Hello <think>."
        assert thunk.reasoning == "Hm."
        async with m.stream("?", chunking=None, model_options=TAGS) as result:
            assert "".join([piece async for piece in result.atext()]) == "Hello <think>."
            assert result.reasoning == "Hm."
        without = await m.ainstruct("?", model_options={ModelOption.THINK_TAGS: None})
        assert await without == "".join(steps)


async def test_the_deltas_of_a_script_are_not_changed() -> None:
    steps = [Delta("<think>Hm."), Delta("</think>Hello.", "stop")]
    async with start_session(backend=ScriptedBackend(lambda _: steps), model_options=TAGS) as m:
        for _ in range(2):
            assert await (await m.ainstruct("?")) == "Hello."
    assert steps == [Delta("<think>Hm."), Delta("</think>Hello.", "stop")]


async def test_only_reasoning_is_no_answer() -> None:
    async with start_session(
        backend=ScriptedBackend("<think>Hm, ", "Yes."), model_options=TAGS
    ) as m:
        with pytest.raises(EmptyAnswer, match="all that it generated is reasoning"):
            await m.ainstruct("?", await_result=True)
        with pytest.raises(EmptyAnswer) as caught:  # a model that did not think after all
            await m.ainstruct("?", model_options=INSIDE, await_result=True)
        assert caught.value.reasoning == "Yes."


@pytest.mark.parametrize("held", ["<think>Hm.</thi", "  <thi"])
@pytest.mark.parametrize("ends", [[], [Fail(StreamInterrupted("gone"))], [Delta("", "stop")]])
async def test_what_is_held_back_comes_before_the_end(held: str, ends: list[Step]) -> None:
    backend = ScriptedBackend([*held, *ends])
    seen = ""
    async with start_session(backend=backend, model_options=TAGS) as m:
        try:
            async with m.backend.open(
                GenerationRequest((ChatMessage("user", "?"),), TAGS)
            ) as deltas:
                async for delta in deltas:
                    seen += delta.reasoning + delta.text
        except BackendError:
            assert ends
    assert seen == held.replace("<think>", "")


async def test_an_answer_that_goes_on_does_not_begin_to_think() -> None:
    backend = ScriptedBackend(lambda _: " and so on.")
    async with start_session(backend=backend, model_options=INSIDE) as m:
        assert await (await m.ainstruct("?", output_prefix="Once")) == "Once and so on."
        backend.prefills = False  # asked to go on, it thinks first
        with pytest.raises(EmptyAnswer):
            await m.ainstruct("?", output_prefix="Once", await_result=True)


async def test_limits_count_it_like_text() -> None:
    backend = ScriptedBackend(lambda _: ["<think>", *["word "] * 50, "</think>", "Yes."])
    async with start_session(backend=backend, model_options=TAGS) as m:
        with pytest.raises(BudgetExceeded), limits(tokens=30):
            await m.ainstruct("?", await_result=True)


async def test_cancelled_anywhere_it_leaves_nothing() -> None:
    async def program() -> None:
        backend = ScriptedBackend(["<think>", "Hm.", "</think>", "Hello."])
        async with start_session(backend=backend, model_options=TAGS) as m:
            await m.ainstruct("?", await_result=True)
            await anyio.lowlevel.checkpoint()

    await cancel_everywhere(program)
