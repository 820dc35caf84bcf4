"""Mellea's names and import paths: what they are here, that they are typed as such, and that they cost nothing."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from collections.abc import Callable

import pytest

import mellea_sc
from mellea_sc import (
    Backend,
    CBlock,
    ChatContext,
    Context,
    GenerationRequest,
    InvalidOption,
    MelleaSession,
    Message,
    ModelOption,
    ModelOutputThunk,
    SimpleContext,
    ThunkNotComputed,
    backends,
    core,
    start_session,
    stdlib,
)
from mellea_sc.backends import OllamaBackend, OpenAIBackend, model_ids
from mellea_sc.backends.model_ids import ModelIdentifier
from mellea_sc.backends.ollama import OllamaModelBackend
from mellea_sc.backends.select import make_backend
from mellea_sc.core import ContextTurn, MelleaLogger
from mellea_sc.stdlib.components import as_chat_history, as_generic_chat_history
from mellea_sc.testing import Pause, ScriptedBackend
from mellea_sc.testing.server import Answer, ModelServer, RecordedRequest

# --- import paths --------------------------------------------------------------------------------------

PATHS = {
    "mellea_sc": (
        "Backend CBlock ChatContext Component Context Instruction MelleaSession Message ModelOption ModelOutputThunk "
        "RejectionSamplingStrategy Requirement SamplingResult SimpleComponent SimpleContext ValidationResult check "
        "req simple_validate start_session"
    ),
    "mellea_sc.core": (
        "Backend CBlock Component Context ModelOutputThunk PartialValidationResult Requirement SamplingResult "
        "SamplingStrategy ValidationResult"
    ),
    "mellea_sc.core.backend": "Backend",
    "mellea_sc.core.base": "CBlock Component Context ModelOutputThunk",
    "mellea_sc.core.requirement": "PartialValidationResult Requirement ValidationResult",
    "mellea_sc.core.sampling": "SamplingResult SamplingStrategy",
    "mellea_sc.backends": "Backend ModelOption",
    "mellea_sc.backends.model_options": "ModelOption",
    "mellea_sc.backends.openai": "OpenAIBackend",
    "mellea_sc.helpers.async_helpers": "wait_for_all_mots",
    "mellea_sc.stdlib": (
        "ChunkEvent ChunkingStrategy CompletedEvent ErrorEvent FullValidationEvent QuickCheckEvent StreamEvent "
        "Streamer StreamingDoneEvent stream"
    ),
    "mellea_sc.stdlib.components": (
        "CBlock Component Instruction MObject MObjectProtocol Message Query SimpleComponent Transform"
    ),
    "mellea_sc.stdlib.components.chat": "Message",
    "mellea_sc.stdlib.context": "ChatContext Context SimpleContext",
    "mellea_sc.stdlib.requirements": "Requirement ValidationResult check req simple_validate",
    "mellea_sc.stdlib.requirements.requirement": (
        "Requirement ValidationResult check req simple_validate"
    ),
    "mellea_sc.stdlib.sampling": (
        "BaseSamplingStrategy MajorityVotingStrategy MultiTurnStrategy RejectionSamplingStrategy "
        "RepairTemplateStrategy SamplingResult SamplingStrategy"
    ),
    "mellea_sc.stdlib.sampling.base": (
        "BaseSamplingStrategy MultiTurnStrategy RejectionSamplingStrategy RepairTemplateStrategy"
    ),
    "mellea_sc.stdlib.session": "MelleaSession start_session",
    "mellea_sc.stdlib.streaming": (
        "ChunkEvent CompletedEvent ErrorEvent FullValidationEvent QuickCheckEvent RetryEvent StreamEvent "
        "Streamer StreamingDoneEvent stream stream_with_chunking"
    ),
}
"""Where Mellea has what is public here under the same name."""


def public(name: str) -> object:
    """What a name is in the package that users import it from."""
    packages = (mellea_sc, core, backends, stdlib)
    return getattr(next(one for one in packages if name in one.__all__), name)


RENAMED = [
    ("mellea_sc.backends.ollama", "OllamaModelBackend", OllamaBackend),
    ("mellea_sc.stdlib.chunking", "SentenceChunking", stdlib.SentenceChunker),
    ("mellea_sc.stdlib.chunking", "WordChunking", stdlib.WordChunker),
    ("mellea_sc.stdlib.chunking", "ParagraphChunking", stdlib.ParagraphChunker),
]


@pytest.fixture
def anyio_backend(real_time: str) -> str:
    """Real time, since there are sockets."""
    return real_time


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module, names in PATHS.items() for name in names.split()],
)
def test_a_name_of_mellea_is_where_mellea_has_it(module: str, name: str) -> None:
    found = importlib.import_module(module)
    assert getattr(found, name) is public(name)
    if hasattr(found, "__all__"):
        assert name in found.__all__


@pytest.mark.parametrize(("module", "name", "ours"), RENAMED)
def test_another_name_of_mellea_is_ours(module: str, name: str, ours: type) -> None:
    found = importlib.import_module(module)
    assert getattr(found, name) is ours
    assert name in found.__all__


@pytest.mark.parametrize(
    "module",
    [
        "core",
        "core.base",
        "stdlib",
        "stdlib.streaming",
        "stdlib.components.chat",
        "stdlib.sampling.base",
    ],
)
def test_every_name_that_a_module_lists_can_be_imported_from_it(module: str) -> None:
    found = importlib.import_module(f"mellea_sc.{module}")
    for name in found.__all__:
        assert getattr(found, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = found.nothing


def loaded_by(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return {name for name in done.stdout.split() if name.startswith("mellea_sc")}


def test_importing_the_core_imports_nothing_of_the_runtime_until_it_is_asked_for() -> None:
    assert loaded_by("import mellea_sc.core") == {"mellea_sc", "mellea_sc._lazy", "mellea_sc.core"}
    values = loaded_by(
        "from mellea_sc.core import Context, Requirement; import mellea_sc.core.base"
    )
    assert not any(name.startswith("mellea_sc.runtime") for name in values)
    thunk = loaded_by("from mellea_sc.core.base import ModelOutputThunk")
    assert "mellea_sc.runtime.generation.thunk" in thunk


def test_the_thunk_can_be_the_first_thing_that_is_imported() -> None:
    for module in ("core", "core.base"):
        assert loaded_by(f"from mellea_sc.{module} import ModelOutputThunk")


def test_mellea_s_logger_is_that_of_the_library() -> None:
    assert MelleaLogger.get_logger() is logging.getLogger("mellea_sc")


# --- models and their backends --------------------------------------------------------------------------


def test_a_model_has_the_name_that_its_server_knows() -> None:
    model = ModelIdentifier(ollama_name="m:1b", openai_name="vendor/m", hf_model_name="org/M-1B")
    assert OllamaBackend(model).model_id == "m:1b"
    assert OpenAIBackend(model).model_id == "vendor/m"
    assert OpenAIBackend(ModelIdentifier(hf_model_name="org/M-1B")).model_id == "org/M-1B"
    assert make_backend("ollama", model).model_id == "m:1b"
    assert make_backend("openai", model).model_id == "vendor/m"
    assert "m:1b" in repr(start_session("ollama", model))


@pytest.mark.parametrize("backend_name", ["ollama", "local"])
def test_a_model_that_a_backend_has_no_name_for_is_refused(backend_name: str) -> None:
    with pytest.raises(InvalidOption, match=f"the {backend_name} backend knows no name for"):
        start_session(backend_name, ModelIdentifier(openai_name="gpt-5.1"))


def test_every_constant_names_a_model_of_a_backend_that_is_here() -> None:
    models = [value for value in vars(model_ids).values() if isinstance(value, ModelIdentifier)]
    assert len(models) > 40
    assert all(one.ollama_name or one.openai_name for one in models)
    assert mellea_sc.model_ids is model_ids


def test_without_a_model_mellea_s_backend_has_the_one_that_a_session_would_get(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MELLEA_SC_MODEL", raising=False)
    assert OllamaModelBackend().model_id == make_backend("ollama").model_id


# --- options of a backend -------------------------------------------------------------------------------


def ollama_and_openai(**options: object) -> list[Callable[[ModelServer], Backend]]:
    return [
        lambda server: OllamaModelBackend("m", base_url=server.ollama_url, model_options=options),
        lambda server: OpenAIBackend("m", base_url=server.openai_url, model_options=options),
    ]


def sent_options(request: RecordedRequest) -> dict[str, object]:
    """Ollama has them in an object of their own."""
    options = request.json.get("options", request.json)
    assert isinstance(options, dict)
    return options


@pytest.mark.anyio
@pytest.mark.parametrize("index", [0, 1])
async def test_a_backend_s_own_options_are_what_every_request_starts_from(index: int) -> None:
    own = {
        ModelOption.TEMPERATURE: 0.25,
        ModelOption.SEED: 1,
        ModelOption.SYSTEM_PROMPT: "be brief",
    }
    async with ModelServer(Answer("ok")) as server:
        backend = ollama_and_openai(**own)[index](server)
        async with start_session(backend=backend, model_options={ModelOption.SEED: 2}) as m:
            await (await m.aact(CBlock("hi"), model_options={ModelOption.TEMPERATURE: 0.5}))
            await (await m.aact(CBlock("hi")))
            async with m.stream("hi") as result:
                await result.acomplete()
            prompt = m.last_prompt()
    sent = [sent_options(request) for request in server.requests]
    assert [(one["temperature"], one["seed"]) for one in sent] == [(0.5, 2), (0.25, 2), (0.25, 2)]
    assert all(request.messages[0].content == "be brief" for request in server.requests)
    assert prompt is not None
    assert prompt[0] == {"role": "system", "content": "be brief"}


@pytest.mark.anyio
async def test_a_stream_with_a_bare_backend_starts_from_its_options() -> None:
    async with ModelServer(Answer("ok")) as server:
        backend = ollama_and_openai(**{ModelOption.SEED: 7})[0](server)
        async with mellea_sc.stream_with_chunking(CBlock("hi"), backend, SimpleContext()) as result:
            await result.acomplete()
    assert sent_options(server.requests[0]) == {"seed": 7}


@pytest.mark.anyio
async def test_a_stream_with_another_backend_than_the_session_s_does_not_have_that_one_s_options() -> (
    None
):
    async with ModelServer(Answer("ok")) as server:
        mine, other = (
            ollama_and_openai(**options)[0](server) for options in ({"top_k": 1}, {"top_p": 0.5})
        )
        async with (
            start_session(backend=mine, model_options={ModelOption.SEED: 3}),
            mellea_sc.stream_with_chunking(CBlock("hi"), other, SimpleContext()) as result,
        ):
            await result.acomplete()
    assert sent_options(server.requests[0]) == {"top_p": 0.5, "seed": 3}


def test_options_of_a_backend_that_are_none_are_refused() -> None:
    with pytest.raises(InvalidOption, match="model_options must be a mapping"):
        OllamaModelBackend(model_options=[1])  # type: ignore[arg-type]


# --- thunks and contexts ----------------------------------------------------------------------------------


def test_a_thunk_can_be_made_of_a_text_that_is_there() -> None:
    thunk = ModelOutputThunk(value="")
    assert thunk.is_computed()
    assert (thunk.value, thunk.parsed_repr, str(thunk)) == ("", "", "")
    assert ModelOutputThunk("text").value == "text"
    with pytest.raises(ThunkNotComputed):
        _ = ModelOutputThunk().value


def test_the_last_turn_is_a_question_with_its_answer_or_without_one() -> None:
    question, answer = Message("user", "?"), ModelOutputThunk(value="!")
    spoken = Message("assistant", "!")
    ctx = ChatContext()
    assert ctx.last_turn() is None
    assert ctx.add(question).last_turn() == ContextTurn(question, None)
    assert ctx.add(answer).last_turn() == ContextTurn(None, answer)
    assert ctx.add(question).add(answer).last_turn() == ContextTurn(question, answer)
    assert ctx.add(question).add(spoken).last_turn() == ContextTurn(question, spoken)
    assert ctx.add(question).add(answer).add(question).last_turn() == ContextTurn(question, None)


@pytest.mark.parametrize("ctx", [ChatContext(), SimpleContext()])
def test_a_context_is_a_chain_of_its_items(ctx: Context) -> None:
    assert ctx.is_root_node
    assert (ctx.node_data, ctx.previous_node) == (None, None)
    longer = ctx.add("one").add("two")
    assert not longer.is_root_node
    assert longer.node_data == "two"
    assert longer.previous_node is not None
    assert longer.previous_node.node_data == "one"
    assert longer.previous_node.previous_node is not None
    assert longer.previous_node.previous_node.is_root_node


def test_a_chat_context_says_that_it_is_one() -> None:
    assert ChatContext().is_chat_context
    assert not SimpleContext().is_chat_context


@pytest.mark.anyio
async def test_a_session_tells_its_last_turn() -> None:
    async with MelleaSession(ScriptedBackend("Paris."), ChatContext()) as m:
        await m.achat("What is the capital of France?")
        turn = m.ctx.last_turn()
        assert turn is not None
        assert (str(turn.model_input), str(turn.output)) == (
            "What is the capital of France?",
            "Paris.",
        )


def roles_and_texts(history: list[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in history]


def test_a_conversation_is_read_as_messages() -> None:
    asked = Message("user", "?")
    history = as_chat_history(ChatContext().add(asked).add(ModelOutputThunk(value="!")))
    assert history[0] is asked
    assert roles_and_texts(history) == [("user", "?"), ("assistant", "!")]


def test_what_is_no_message_is_read_as_one_only_where_that_is_asked_for() -> None:
    ctx = ChatContext().add(CBlock("a text")).add(mellea_sc.SimpleComponent(task="do it"))
    with pytest.raises(TypeError, match="a CBlock is no message of a chat"):
        as_chat_history(ctx)
    assert [role for role, _ in roles_and_texts(as_generic_chat_history(ctx))] == ["user", "user"]
    assert as_generic_chat_history(ctx)[0].content == "a text"
    assert "do it" in as_generic_chat_history(ctx)[1].content


def test_a_formatter_reads_components_and_what_answers_mean() -> None:
    plain, meant, said = (ModelOutputThunk(value=text) for text in ("plain", "{}", "hello"))
    meant.parsed_repr = {"n": 1}
    said.parsed_repr = Message("assistant", "hello!")
    component = mellea_sc.SimpleComponent(task="do it")
    ctx = ChatContext().add(Message("user", "?")).add("text")
    for item in (plain, meant, said, component):
        ctx = ctx.add(item)
    history = as_generic_chat_history(ctx, lambda item: f"<{type(item).__name__}>")
    assert [message.content for message in history] == [
        "?",
        "text",
        "plain",
        "<dict>",
        "hello!",
        "<SimpleComponent>",
    ]


@pytest.mark.anyio
async def test_a_conversation_with_an_answer_that_is_not_there_is_not_read() -> None:
    def slow(_: GenerationRequest) -> list[str | Pause]:
        return [Pause(0.01), "!"]

    async with start_session(backend=ScriptedBackend(slow)) as m:
        thunk = await m.aact(CBlock("?"))
        with pytest.raises(ThunkNotComputed):
            as_chat_history(ChatContext().add(thunk))
