"""What cannot be used is refused where it is given, by an error of ours that names it."""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from mellea_sc import (
    Backend,
    BackendError,
    CBlock,
    ChatContext,
    ChunkingError,
    Component,
    Delta,
    Instruction,
    InvalidOption,
    InvalidVerdict,
    LLMJudge,
    MelleaSession,
    Message,
    PartialValidationResult,
    Requirement,
    ValidationResult,
    simple_validate,
    start_session,
    stream_with_chunking,
    wait_for_all_mots,
)
from mellea_sc.backends import OllamaBackend, OpenAIBackend, Retrying
from mellea_sc.stdlib import ChunkingStrategy
from mellea_sc.testing import ScriptedBackend

pytestmark = pytest.mark.anyio


def session() -> MelleaSession:
    return start_session(backend=ScriptedBackend(lambda _: "One. Two. Three."))


# --- where things are made ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: start_session(backend="ollama"), "backend must be a Backend, not 'ollama'"),
        (lambda: start_session(backend=OllamaBackend), "backend must be a Backend"),
        (lambda: MelleaSession("ollama"), "backend must be a Backend"),
        (lambda: Retrying("ollama"), "backend must be a Backend"),
        (lambda: LLMJudge("Is it good?", backend=session()), "m.backend"),
        (lambda: start_session("ollama", 3), "model_id must be a str"),
        (lambda: OpenAIBackend(None), "model_id must be a str"),
        (lambda: OpenAIBackend("m", base_url=8000), "must be a str, not int"),
        (lambda: OpenAIBackend("m", api_key=b"secret"), "api_key must be a str, not bytes$"),
        (lambda: OpenAIBackend("m", uds=3), "uds must be a str"),
        (lambda: OllamaBackend("m", client=httpx.Client()), "AsyncClient, not Client"),
        (lambda: start_session("ollama", max_concurrency="4"), "max_concurrency must be an int"),
        (lambda: start_session("ollama", max_concurrency=1.5), "max_concurrency must be an int"),
        (lambda: ChatContext(max_turns="3"), "max_turns must be an integer"),
        (lambda: ChatContext(window_size=1.5), "window_size must be an integer"),
        (lambda: ChatContext().add(None), "item of a context .*not None"),
        (lambda: ChatContext().add({"role": "user", "content": "x"}), "item of a context"),
        (lambda: Message("Hello.", "user"), "role must be one of system, user, assistant, tool"),
        (lambda: Message("user", None), "content must be a str, .*not None"),
        (lambda: Message("user", "{{a}}", user_variables={"a": 1}), r"user_variables\['a'\]"),
        (lambda: Instruction("x", user_variables="a"), "user_variables must be a mapping"),
        (lambda: Instruction("x", user_variables={1: "a"}), "user_variables must be a mapping"),
        (lambda: Instruction("x", grounding_context=["a"]), "grounding_context must be a mapping"),
        (lambda: Instruction("x", grounding_context={"a": None}), r"grounding_context\['a'\]"),
        (lambda: Instruction("x", icl_examples=[{"in": "out"}]), "an example must be a str"),
        (lambda: Instruction("x", prefix=3), "prefix must be a str"),
        (lambda: Instruction("x", output_prefix=["a"]), "output_prefix must be a str"),
        (lambda: Requirement(3), "description of a requirement"),
        (lambda: Requirement("short", "brief"), "validation_fn must be a function"),
        (lambda: Requirement("short", output_to_bool="yes"), "output_to_bool must be a function"),
        (lambda: Requirement("short", timeout="3"), "timeout must be a positive number"),
        (lambda: Requirement("short", timeout=0), "timeout must be a positive number"),
        (lambda: Requirement("short", timeout=math.nan), "timeout must be a positive number"),
        (lambda: simple_validate("short"), "simple_validate takes a function"),
    ],
)
def test_what_cannot_be_used_is_refused_where_it_is_given(
    make: Callable[[], object], says: str
) -> None:
    with pytest.raises(InvalidOption, match=says):
        make()


@pytest.mark.parametrize(
    "make",
    [lambda: start_session("olama"), lambda: start_session("openai", "m", base_url="localhost")],
)
def test_the_traceback_of_a_session_that_cannot_be_made_has_one_frame_of_ours(
    make: Callable[[], object],
) -> None:
    with pytest.raises(InvalidOption) as raised:
        make()
    frames = traceback.extract_tb(raised.value.__traceback__)
    assert frames[-2].name == "<lambda>"
    assert "mellea_sc" in frames[-1].filename


@pytest.mark.parametrize("result", ["no", None, 1, re.match("a", "a")])
def test_a_verdict_that_is_no_bool_is_no_verdict(result: object) -> None:
    verdict = ValidationResult(result)  # type: ignore[arg-type]
    with pytest.raises(InvalidVerdict, match="must be a bool, not"):
        bool(verdict)
    with pytest.raises(InvalidVerdict, match="must be a bool, not"):
        verdict.as_bool()


# --- where things are asked ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda m: m.aact(None), "what the model is asked must be a str"),
        (lambda m: m.achat(3), "content must be a str"),
        (lambda m: m.achat("user", "Hello."), "role must be one of"),
        (lambda m: m.avalidate("short", output=3), "output must be a thunk"),
        (lambda m: m.stream(None), "what the model is asked"),
        (lambda m: m.stream("x", validator_timeout="3"), "validator_timeout must be"),
        (lambda m: m.stream("x", validation_backend="ollama"), "validation_backend must be"),
        (lambda m: m.stream("x", validation_backend=OllamaBackend), "validation_backend must be"),
        (lambda m: stream_with_chunking("x", m, m.ctx), "backend must be a Backend"),
        (lambda m: m.backend.generate_from_context("x", "y"), "ctx must be a context"),
        (lambda m: m.backend.generate_from_context(m.ctx, "x"), "what the model is asked"),
        (lambda _: wait_for_all_mots(None), "mots takes a list"),
        (lambda _: wait_for_all_mots(["x"]), "mots takes thunks"),
    ],
)
async def test_what_cannot_be_asked_is_refused_and_nothing_is_started(
    ask: Callable[[MelleaSession], object], says: str, no_leaks: None
) -> None:
    async with session() as m:
        with pytest.raises(InvalidOption, match=says) as raised:
            await ask(m)  # type: ignore[misc]
        assert raised.value.__context__ is None


async def test_a_coroutine_in_the_place_of_a_thunk_is_told_so() -> None:
    async with session() as m:
        forgotten = m.ainstruct("x")
        with pytest.raises(InvalidOption, match=r"grounding_context\['a'\] .*coroutine"):
            await m.ainstruct("x", grounding_context={"a": forgotten})  # type: ignore[dict-item]
        with pytest.raises(InvalidOption, match="as `await m"):
            await wait_for_all_mots([forgotten])  # type: ignore[list-item]
        forgotten.close()
        with pytest.raises(InvalidOption, match="mots takes a list: mots="):
            await wait_for_all_mots(await m.ainstruct("x"))  # type: ignore[arg-type]


@pytest.mark.parametrize("lookahead", [0, -1, "2", 1.5])
async def test_events_with_no_chunk_to_wait_unread_are_refused(lookahead: int) -> None:
    # the run would wait for the reader, and the reader for the run
    async with session() as m, m.stream("x") as result:
        with pytest.raises(InvalidOption, match="lookahead must be an integer of at least 1"):
            result.events(lookahead=lookahead)
        assert [chunk async for chunk in result.astream()] == ["One.", "Two.", "Three."]


# --- what a user has written -----------------------------------------------------------------------------


class Plain(Requirement):
    def stream_validate(self, chunk, *, backend, ctx):
        return PartialValidationResult("pass")


class OtherParameters(Requirement):
    async def stream_validate(self, text):
        return PartialValidationResult("pass")


class PlainAtTheEnd(Requirement):
    def validate(self, backend, ctx, *, format=None, model_options=None):
        return ValidationResult(True)


class OtherParametersAtTheEnd(Requirement):
    async def validate(self, ctx):
        return ValidationResult(True)


@pytest.mark.parametrize("kind", [Plain, OtherParameters, PlainAtTheEnd, OtherParametersAtTheEnd])
async def test_a_validator_that_is_defined_otherwise_is_told_how(kind: type[Requirement]) -> None:
    async with session() as m:
        method = "stream_validate" if kind in (Plain, OtherParameters) else "validate"
        rule = kind("fine", lambda _: ValidationResult(True))
        with pytest.raises(
            InvalidVerdict, match=f"{method} of .* must be defined as `async def"
        ) as raised:
            async with m.stream("x", requirements=[rule]) as result:
                await result.acomplete()
        assert raised.value.__context__ is None or raised.value.__suppress_context__
        rule.fail_open = True
        async with m.stream("x", requirements=[rule]) as result:
            await result.acomplete()
        assert result.completed


async def test_an_error_inside_of_a_validator_is_raised_as_itself() -> None:
    class Breaks(Requirement):
        async def stream_validate(self, chunk, *, backend, ctx):
            return len(3)  # type: ignore[arg-type]

    async with session() as m:
        with pytest.raises(TypeError, match="no len") as raised:
            async with m.stream("x", requirements=[Breaks("fine")]) as result:
                await result.acomplete()
        assert type(raised.value) is TypeError


@pytest.mark.parametrize("given", ["One.", None])
async def test_a_chunking_that_returns_no_list_is_told_so(given: object) -> None:
    class Odd(ChunkingStrategy):
        def feed(self, delta):
            return given

        def flush(self):
            return given

    async with session() as m:
        with pytest.raises(ChunkingError, match=r"of Odd must return a list of chunks, not"):
            async with m.stream("x", chunking=Odd()) as result:
                await result.acomplete()


async def test_a_component_that_gives_no_text_is_named() -> None:
    class Odd(Component):
        def format_for_llm(self):
            return {"a": CBlock("b")}

    async with session() as m:
        with pytest.raises(TypeError, match=r"format_for_llm\(\) of Odd must return a str"):
            await (await m.aact(Odd()))


class YieldsText(Backend):
    @asynccontextmanager
    async def open(self, request):
        async def deltas():
            yield "text"

        yield deltas()


class IsBare(Backend):
    async def open(self, request):
        yield Delta("text")


@pytest.mark.parametrize("kind", [YieldsText, IsBare])
async def test_a_backend_that_is_written_otherwise_is_told_how(kind: type[Backend]) -> None:
    async with start_session(backend=kind()) as m:
        with pytest.raises(BackendError, match=rf"{kind.__name__}\.open\(\) must be an @async"):
            await (await m.ainstruct("x"))
