"""Answers whose beginning was given: what is added to it, whatever servers repeat."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mellea_sc import BacktrackStrategy, Delta, Instruction, simple_validate, start_session
from mellea_sc.backends.ollama import OllamaBackend
from mellea_sc.backends.openai import OpenAIBackend
from mellea_sc.core.answer_prefix import AnswerPrefix, EchoFilter
from mellea_sc.core.backend import ChatMessage, GenerationRequest
from mellea_sc.core.requirement import PartialValidationResult, Requirement
from mellea_sc.testing import ScriptedBackend
from mellea_sc.testing.server import Answer, ModelServer

BEGUN = "The tea is"


@pytest.fixture
def anyio_backend(real_time: str) -> str:
    """Real time, since there are sockets."""
    return real_time


class Asked(ScriptedBackend):
    """A model that does not write on where an assistant's message ends."""

    prefills = False


def fed(one: EchoFilter | AnswerPrefix, pieces: list[str]) -> str:
    return "".join([*map(one.feed, pieces), one.end()])


# --- the two transformers --------------------------------------------------------------------


@given(st.text(max_size=8), st.text(max_size=8), st.lists(st.text(max_size=3)))
def test_what_an_echo_gives_never_depends_on_the_cuts(
    beginning: str, after: str, pieces: list[str]
) -> None:
    for text in (beginning + after, after, "".join(pieces)):
        whole = fed(EchoFilter(beginning), [text])
        assert fed(EchoFilter(beginning), list(text)) == whole
        assert text.endswith(whole)


@pytest.mark.parametrize(
    ("answer", "rest", "heard"),
    [
        ("The tea is hot.", " hot.", True),
        ("\n The tea is hot.", " hot.", True),
        ("The tea is", "", True),
        (" hot.", " hot.", False),
        ("The teapot", "The teapot", False),
        ("The tea", "The tea", None),
        ("", "", None),
    ],
)
def test_a_beginning_that_is_repeated_is_taken_out(
    answer: str, rest: str, heard: bool | None
) -> None:
    echo = EchoFilter(BEGUN)
    assert fed(echo, list(answer)) == rest
    assert echo.found is heard


def test_a_long_beginning_costs_what_its_length_does() -> None:
    beginning = "word " * 40_000
    echo = EchoFilter(beginning)
    assert fed(echo, [*beginning, "!"]) == " !"


@pytest.mark.parametrize(
    ("shown", "said", "asked", "answer"),
    [
        (BEGUN, " hot.", False, "The tea is hot."),
        (BEGUN, "n't", False, "The tea isn't"),
        (BEGUN + " ", " hot.", False, "The tea is hot."),
        (BEGUN + " ", "hot.", True, "The tea is hot."),
        (BEGUN, "hot.", True, "The tea is hot."),
        (BEGUN, "The tea is hot.", True, "The tea is hot."),
        (BEGUN, "The tea isn't", True, "The tea isn't"),
        (BEGUN, ", say, hot.", True, "The tea is, say, hot."),
        ("Dear", "", False, "Dear"),
        ("{", '"a": 1}', True, '{"a": 1}'),
        ("茶は", "熱い", True, "茶は熱い"),
        ("First.", "Second.", True, "First. Second."),
    ],
)
def test_an_answer_is_its_beginning_and_what_the_model_adds(
    shown: str, said: str, asked: bool, answer: str
) -> None:
    assert fed(AnswerPrefix(shown, shown, asked=asked), list(said)) == answer


# --- generations -----------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [ScriptedBackend, Asked])
async def test_an_answer_begins_with_its_output_prefix_on_every_server(
    kind: type[ScriptedBackend],
) -> None:
    backend = kind([Delta(" hot"), Delta(".", "stop")], [Delta("hot."), Delta("", "stop")])
    async with start_session(backend=backend, context_type="chat") as m:
        assert await (await m.ainstruct("How?", output_prefix=BEGUN)) == "The tea is hot."
        streamed = await m.ainstruct("How?", output_prefix=f"{BEGUN} ", model_options={"a": 1})
        assert "".join([delta async for delta in streamed]) == "The tea is hot."
    for call in backend.calls:
        messages = [m for m in call.request.messages if m.content != "The tea is hot."]
        given = ChatMessage("assistant", BEGUN)
        assert messages[-1 if kind is ScriptedBackend else -2] == given
        assert (messages[-1].content == "Continue your answer.") is (kind is Asked)


@pytest.mark.anyio
async def test_requirements_judge_the_beginning_too() -> None:
    seen: list[str] = []

    class Note(Requirement):
        async def stream_validate(self, chunk: str, **_: object) -> PartialValidationResult:  # type: ignore[override]
            seen.append(chunk)
            return PartialValidationResult("unknown")

    backend = ScriptedBackend([Delta(" hot."), Delta(" Yes.", "stop")])
    note = Note("is noted", simple_validate(lambda text: text.startswith(BEGUN)))
    async with (
        start_session(backend=backend) as m,
        m.stream(Instruction("How?", output_prefix=BEGUN), requirements=[note]) as result,
    ):
        await result.acomplete()
    assert all(result.final_validations)
    assert result.full_text == "The tea is hot. Yes."
    assert seen == ["The tea is hot.", "Yes."]


class Without(Requirement):
    """Fails a chunk that has a word."""

    async def stream_validate(self, chunk: str, **_: object) -> PartialValidationResult:  # type: ignore[override]
        return PartialValidationResult("fail" if "curse" in chunk else "unknown")


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [ScriptedBackend, Asked])
async def test_going_on_from_what_was_good_says_the_beginning_once(
    kind: type[ScriptedBackend],
) -> None:
    again = "The tea is hot. Fine." if kind is Asked else " Fine."
    backend = kind(" hot. A curse.", again)
    async with start_session(backend=backend) as m:
        thunk = await m.ainstruct(
            "How?",
            output_prefix=BEGUN,
            requirements=[Without("no curse", simple_validate(lambda text: "curse" not in text))],
            strategy=BacktrackStrategy(),
        )
        assert await thunk == "The tea is hot. Fine."
    messages = backend.calls[1].request.messages
    assert messages[-1 if kind is ScriptedBackend else -2].content.rstrip() == "The tea is hot."


# --- servers that prefill --------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("protocol", ["openai", "ollama"])
async def test_a_server_that_repeats_the_beginning_and_one_that_does_not_give_the_same(
    protocol: str,
) -> None:
    request = GenerationRequest((ChatMessage("user", "?"), ChatMessage("assistant", BEGUN)))

    async def text() -> str:
        async with backend.open(request) as deltas:
            return "".join([delta.text async for delta in deltas])

    answers = [
        Answer(["The tea", " is hot", "."]),
        Answer([" cold", "."]),
        Answer(["The tea is", " gone."]),
    ]
    async with ModelServer(answers) as server:
        backend = (
            OpenAIBackend("m", base_url=server.openai_url, prefills=True)
            if protocol == "openai"
            else OllamaBackend("m", base_url=server.ollama_url)
        )
        assert [await text() for _ in answers] == [" hot.", " cold.", " gone."]


@pytest.mark.anyio
async def test_a_server_that_is_known_not_to_repeat_is_left_to_say_the_same_again() -> None:
    request = GenerationRequest((ChatMessage("user", "?"), ChatMessage("assistant", "Ha")))

    async def text() -> str:
        async with backend.open(request) as deltas:
            return "".join([delta.text async for delta in deltas])

    async with ModelServer([Answer([" ho"]), Answer(["Ha", "ha"])]) as server:
        backend = OpenAIBackend("m", base_url=server.openai_url, prefills=True)
        assert [await text(), await text()] == [" ho", "Haha"]
