"""The public API as its users' type checkers see it.

Checked by mypy and pyright, both strict; never run. A line with ``type: ignore`` states what must be
refused: mypy complains when nothing there is.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol, assert_never, assert_type

import anyio

import mellea_sc.core as mellea_core
from mellea_sc import (
    Backend,
    BackendBusy,
    BackendError,
    BackendRejected,
    BacktrackStrategy,
    BestOfNStrategy,
    BudgetExceeded,
    CBlock,
    ChatContext,
    ChunkEvent,
    CodeBlocks,
    CompletedEvent,
    Component,
    Context,
    Delta,
    GenerationCancelled,
    GenerationRequest,
    Instruction,
    LLMJudge,
    MajorityVotingStrategy,
    MaxCharacters,
    MaxSentences,
    MaxWords,
    MelleaError,
    MelleaSession,
    Message,
    ModelOption,
    ModelOutputThunk,
    MustMatch,
    MustNotMatch,
    NoPII,
    NoRepetition,
    NoSecrets,
    PartialValidationResult,
    PreconditionFailed,
    RejectionSamplingStrategy,
    RepairTemplateStrategy,
    Requirement,
    SamplingResult,
    SessionClosed,
    SimpleContext,
    ThunkNotComputed,
    UsageError,
    ValidationResult,
    ValidatorTimeout,
    ValidJSON,
    check,
    limits,
    req,
    simple_validate,
    start_session,
    stream_with_chunking,
    wait_for_all_mots,
)
from mellea_sc.backends import (
    ChatMessage,
    LocalBackend,
    ModelIdentifier,
    OllamaBackend,
    OpenAIBackend,
    Retrying,
    ToolCall,
    Usage,
    model_ids,
)
from mellea_sc.backends.ollama import OllamaModelBackend
from mellea_sc.core import GenerationInfo, Limits, Prices, Retries, Spent, Trace, base
from mellea_sc.core.base import Thunk
from mellea_sc.stdlib import (
    Ask,
    AttemptResult,
    BaseSamplingStrategy,
    BoundBackend,
    Choice,
    ChunkingStrategy,
    Conversation,
    ErrorEvent,
    FullValidationEvent,
    LimitedBlock,
    MObject,
    MultiTurnStrategy,
    PlannedStrategy,
    QuickCheckEvent,
    RacingStrategy,
    RetryEvent,
    SamplingStrategy,
    SentenceChunker,
    StreamChunkingResult,
    StreamEvent,
    StreamingDoneEvent,
    StreamRequest,
    resolve_chunking,
)
from mellea_sc.stdlib.chunking import SentenceChunking
from mellea_sc.stdlib.components.chat import as_generic_chat_history
from mellea_sc.stdlib.streaming import Streamer, stream
from mellea_sc.testing import (
    Call,
    Cassette,
    Fail,
    Pause,
    Recording,
    Script,
    ScriptedAnswer,
    ScriptedBackend,
    Stall,
    assert_no_leaks,
    cancel_everywhere,
    check_backend,
    check_requirement,
    fail_everywhere,
    interrupt_everywhere,
    run_virtual,
)
from mellea_sc.testing.server import Answer, ModelServer, RecordedRequest


class Poem:
    """What a model is asked for; pydantic's models look like this."""

    lines: list[str]

    @classmethod
    def model_json_schema(cls) -> dict[str, object]:
        return {}

    @classmethod
    def model_validate_json(cls, json_data: str) -> Poem:
        return cls()


# --- sessions ---------------------------------------------------------------------------------


async def a_block_may_return() -> str:
    async with start_session() as m:
        assert_type(m, MelleaSession)
        return await (await m.ainstruct("Write a haiku."))


async def a_stack_of_blocks() -> None:
    async with AsyncExitStack() as stack:
        m = await stack.enter_async_context(start_session())
        assert_type(m, MelleaSession)
        result = await stack.enter_async_context(m.stream("Write a haiku."))
        assert_type(result, StreamChunkingResult)


class Chats(Protocol):
    """What a program of somebody's wants of a session."""

    async def achat(self, content: str) -> Message: ...


def is_one_that_chats(m: MelleaSession) -> Chats:
    return m


def a_plain_block_may_return() -> str:
    with start_session("ollama", "granite4:micro", model_options={ModelOption.SEED: 1}) as m:
        assert_type(m, MelleaSession)
        return m.instruct("Write a haiku.").value


async def sessions() -> None:
    m = start_session(
        "openai",
        model_id="a-model",
        ctx=ChatContext(window_size=4),
        base_url="http://127.0.0.1:8080",
        on_error="cancel",
        max_concurrency=2,
        retries=Retries(5, budget=9.5),
    )
    assert_type(m.backend, BoundBackend)
    assert_type(m.ctx, Context)
    m.cancel("no longer needed")
    m.close()
    assert_type(await m.aclose(), None)
    start_session(backend=OllamaBackend("granite4:micro"), context_type="chat")
    start_session(context_type="sometimes")  # type: ignore[arg-type]
    start_session("openai", "m", headers={"x-team": "t"}, verify=Path("ca.pem"), prefills="prefix")
    start_session("openai", "m", organisation="o")  # type: ignore[call-arg]
    start_session(on_error="ignore")  # type: ignore[arg-type]
    start_session(backend="ollama")  # type: ignore[arg-type]


# --- the six pairs ------------------------------------------------------------------------------


async def instruct(m: MelleaSession, flag: bool, first: ModelOutputThunk) -> None:
    assert_type(await m.ainstruct("Write."), ModelOutputThunk)
    assert_type(await m.ainstruct("Write.", await_result=True), ModelOutputThunk)
    assert_type(await m.ainstruct("Write.", return_sampling_results=False), ModelOutputThunk)
    assert_type(await m.ainstruct("Write.", return_sampling_results=True), SamplingResult)
    either = await m.ainstruct("Write.", return_sampling_results=flag)
    assert_type(either, ModelOutputThunk | SamplingResult)
    assert_type(either.value, str)
    assert_type(
        await m.ainstruct(
            CBlock("Write about {{ topic }}."),
            requirements=["be polite", req("be brief"), MaxWords(50)],
            icl_examples=["an example", CBlock("another")],
            grounding_context={"notes": first},
            user_variables={"topic": "water", "before": first, "about": Message("user", "Hi.")},
            prefix="Think.",
            output_prefix="Dear",
            strategy=RejectionSamplingStrategy(loop_budget=3),
            format=Poem,
            model_options={ModelOption.STREAM: True, "top_k": 40},
        ),
        ModelOutputThunk,
    )
    await m.ainstruct("Write.", strategy=None, format={"type": "object"}, model_options=None)

    assert_type(m.instruct("Write."), ModelOutputThunk)
    assert_type(m.instruct("Write.", return_sampling_results=False), ModelOutputThunk)
    assert_type(m.instruct("Write.", return_sampling_results=True), SamplingResult)
    assert_type(
        m.instruct("Write.", return_sampling_results=flag), ModelOutputThunk | SamplingResult
    )

    m.instruct()  # type: ignore[call-overload]
    m.instruct("Write.", requirements=[1])  # type: ignore[list-item]
    m.instruct("Write.", strategy="often")  # type: ignore[call-overload]
    m.instruct("Write.", tone="kind")  # type: ignore[call-overload]
    _ = m.ainstruct("Write.").value  # type: ignore[attr-defined]


async def act(m: MelleaSession, thunk: ModelOutputThunk, action: Component, flag: bool) -> None:
    assert_type(
        await m.aact(action, return_sampling_results=flag), ModelOutputThunk | SamplingResult
    )
    assert_type(m.act(action, return_sampling_results=flag), ModelOutputThunk | SamplingResult)
    assert_type(await m.aact(action), ModelOutputThunk)
    assert_type(await m.aact(thunk, requirements=[check("short")]), ModelOutputThunk)
    assert_type(await m.aact("Go on.", return_sampling_results=True), SamplingResult)
    assert_type(m.act(Instruction("Write.", ["be brief"])), ModelOutputThunk)
    assert_type(m.act(action, return_sampling_results=True), SamplingResult)
    m.act(42)  # type: ignore[call-overload]


async def the_others(m: MelleaSession, thunk: ModelOutputThunk) -> None:
    message = await m.achat("Hello.", "user", user_variables={"name": thunk})
    assert_type(message, Message)
    assert_type(message.content, str)
    assert_type(m.chat("Hello."), Message)
    m.chat("Hello.", role="robot")  # type: ignore[arg-type]

    assert_type(await m.aquery(MObject(), "How many?"), ModelOutputThunk)
    assert_type(m.query({"any": "object"}, "How many?", format=Poem), ModelOutputThunk)
    assert_type(await m.atransform([1, 2], "Sort it."), ModelOutputThunk)
    assert_type(m.transform([1, 2], "Sort it.", await_result=True), ModelOutputThunk)

    assert_type(await m.avalidate("be polite", output=thunk), list[ValidationResult])
    assert_type(await m.avalidate([req("a"), "b"], output="text"), list[ValidationResult])
    assert_type(m.validate(MaxSentences(2), input="Write."), list[ValidationResult])
    m.validate([1])  # type: ignore[list-item]


async def conversations(m: MelleaSession, flag: bool) -> Conversation:
    talk = m.conversation()
    assert_type(talk, Conversation)
    assert_type(m.conversation(ChatContext.from_messages(talk.ctx.to_messages())), Conversation)
    m.conversation([{"role": "user", "content": "Hi."}])  # type: ignore[arg-type]
    assert_type(await talk.ainstruct("Write."), ModelOutputThunk)
    assert_type(await talk.ainstruct("Write.", return_sampling_results=True), SamplingResult)
    assert_type(
        talk.instruct("Write.", return_sampling_results=flag), ModelOutputThunk | SamplingResult
    )
    assert_type(await talk.aact("Go on."), ModelOutputThunk)
    assert_type(await talk.achat("Hello."), Message)
    assert_type(talk.chat("Hello."), Message)
    assert_type(talk.query([1], "How many?"), ModelOutputThunk)
    assert_type(await talk.avalidate("be polite"), list[ValidationResult])
    async with talk.stream("Write.") as result:
        assert_type(result, StreamChunkingResult)
    return m  # a session is one


# --- thunks -----------------------------------------------------------------------------------------


async def thunks(thunk: ModelOutputThunk, other: ModelOutputThunk) -> None:
    assert_type(thunk.is_computed(), bool)
    assert_type(await thunk, str)
    assert_type(await thunk.avalue(), str)
    assert_type(await thunk.astream(), str)
    assert_type(thunk.value, str)
    assert_type([delta async for delta in thunk], list[str])
    async with thunk as entered:
        assert_type(entered, ModelOutputThunk)
    thunk.cancel()
    thunk.cancel("for a reason")
    assert_type(await wait_for_all_mots([thunk, other]), None)
    assert_type(thunk.error, Exception | None)
    assert_type(thunk.cancelled, bool)
    assert_type(thunk.parsed_repr, object)
    assert_type(thunk.format_error, str | None)
    assert_type(thunk.reasoning, str)
    assert_type(thunk.tool_calls, tuple[ToolCall, ...])
    assert_type(thunk.tool_calls[0].arguments, str)
    assert_type(thunk.sampling, SamplingResult | None)
    assert_type(thunk.generation, GenerationInfo)
    assert_type(thunk.generation.usage, Usage | None)
    assert_type(thunk.generation.model, str)
    assert_type(thunk.generation.finish_reason, str | None)
    assert_type(thunk.generation.is_broken_off, bool)
    assert_type(thunk.generation.time_to_first_token, float | None)
    assert_type(thunk.generation.attempts, int)
    assert_type(ModelOutputThunk.computed("text"), ModelOutputThunk)
    thunk.value = "text"  # type: ignore[misc]
    await wait_for_all_mots(thunk)  # type: ignore[arg-type]


def samples(result: SamplingResult) -> None:
    assert_type(result.success, bool)
    assert_type(result.value, str)
    assert_type(result.result, Thunk)
    assert_type(result.result.parsed_repr, object)
    if isinstance(result.result.parsed_repr, Poem):
        assert_type(result.result.parsed_repr, Poem)
    assert_type(result.result.format_error, str | None)
    assert_type(result.result.generation, GenerationInfo)
    assert_type(result.result.reasoning, str)
    assert_type(result.result.tool_calls, tuple[ToolCall, ...])
    assert_type(result.sample_generations, Sequence[Thunk])
    for requirement, verdict in result.result_validations:
        assert_type(requirement, Requirement)
        assert_type(verdict, ValidationResult)


# --- checked streams --------------------------------------------------------------------------------


async def streams(m: MelleaSession) -> StreamChunkingResult:
    request = stream_with_chunking(
        Instruction("Write."),
        m.backend,
        m.ctx,
        requirements=[MaxSentences(3), "be polite"],
        chunking="sentence",
        validation_backend=LocalBackend(),
        lane_buffer=4,
        lookahead=2,
        validator_timeout=None,
    )
    assert_type(request, StreamRequest)
    result = await request
    assert_type(result, StreamChunkingResult)
    assert_type([chunk async for chunk in result.astream()], list[str])
    assert_type(result.events(), AsyncIterator[StreamEvent])
    assert_type(await result.acomplete(), None)
    assert_type(result.completed, bool)
    assert_type(result.full_text, str)
    assert_type(result.final_validations, list[ValidationResult])
    assert_type(result.streaming_failures, list[tuple[Requirement, PartialValidationResult]])
    assert_type(result.as_thunk, ModelOutputThunk)
    assert_type(result.error, Exception | None)
    assert_type(result.generation, GenerationInfo)
    assert_type(result.finish_reason, str | None)
    assert_type(result.reasoning, str)
    assert_type(result.tool_calls, tuple[ToolCall, ...])
    result.cancel("enough")

    async with m.stream("Write.", requirements=[MustNotMatch(r"key=\S+")], chunking=None) as live:
        assert_type(live, StreamChunkingResult)
    m.stream("Write.", chunking=SentenceChunker(), user_variables={"a": "b"})
    m.stream("Write.", chunking=3)  # type: ignore[arg-type]
    return live


# --- strategies, and what follows a fail --------------------------------------------------------------


class Shorter(BaseSamplingStrategy):
    """A repairing strategy of one's own, as it is written for Mellea."""

    @staticmethod
    def repair(
        old_ctx: Context,
        new_ctx: Context,
        past_actions: Sequence[Component | str | CBlock | Thunk],
        past_results: Sequence[Thunk],
        past_val: Sequence[Sequence[tuple[Requirement, ValidationResult]]],
    ) -> tuple[Component | str | CBlock | Thunk, Context]:
        return Message("user", "Shorter, please."), new_ctx

    @staticmethod
    def select_from_failure(
        sampled_actions: Sequence[Component | str | CBlock | Thunk],
        sampled_results: Sequence[Thunk],
        sampled_val: Sequence[Sequence[tuple[Requirement, ValidationResult]]],
    ) -> int:
        return -1


class Twice(PlannedStrategy):
    """A strategy of one's own that decides, and leaves the asking to the library."""

    def begin(self, action: Component | str | CBlock | Thunk, context: Context) -> Sequence[Ask]:
        return [Ask(action=action, context=context)]

    def after(self, past: Sequence[AttemptResult], running: int) -> Sequence[Ask] | Choice:
        last = past[-1]
        assert_type(last.valid, bool)
        assert_type(last.reasons, list[str])
        assert_type(last.generation, GenerationInfo)
        return Choice(last.number, last.valid) if len(past) == 2 else [last.ask]


async def strategies(m: MelleaSession) -> None:
    async def worth(text: str) -> float:
        return float(len(text))

    several: list[PlannedStrategy] = [
        RejectionSamplingStrategy(loop_budget=3, concurrency_budget=2),
        RepairTemplateStrategy(loop_budget=3),
        MultiTurnStrategy(loop_budget=3, requirements=[MaxSentences(3)]),
        BestOfNStrategy(3, score=len),
        BestOfNStrategy(3, worth),
        BestOfNStrategy(3, LLMJudge("How good is it?")),
        MajorityVotingStrategy(5, key=str.strip),
        RacingStrategy(3, budget=9),
        BacktrackStrategy(tries=3, budget=12),
        Shorter(loop_budget=2),
        Twice(),
    ]
    for strategy in several:
        assert_type(await m.ainstruct("x", strategy=strategy), ModelOutputThunk)
        result = await m.stream("x", strategy=strategy, hold_back=2, preconditions=["is kind"])
        assert_type(result.attempts, Sequence[AttemptResult])
        assert_type(result.recorded_failures, list[tuple[Requirement, PartialValidationResult]])
        assert_type(result.released, int)
        assert_type(result.trace, Trace)
        assert_type(str(result.trace.cause), str)
        assert_type(result.trace.tokens.saved, int)
        assert_type(result.trace.to_dict(), dict[str, object])
    m.stream("x", strategy=SamplesItself())  # type: ignore[arg-type]
    sampled = await m.ainstruct("x", strategy=several[0], return_sampling_results=True)
    assert_type(sampled.trace, Trace | None)
    Requirement("x", on_fail="fix", blocking=False, window=200, every=3)
    Requirement("x", on_fail="ignore")  # type: ignore[arg-type]
    PartialValidationResult("fail", replacement="[…]")


async def again(m: MelleaSession, request: GenerationRequest) -> None:
    assert_type(await m.ainstruct("x", retries=0), ModelOutputThunk)
    assert_type(await m.achat("x", retries=Retries(times=1)), Message)
    assert_type(m.chat("x", retries=2), Message)
    m.stream("x", retries=None)
    m.stream("x", retries="3")  # type: ignore[arg-type]
    backend = Retrying(OpenAIBackend("m"), 5)
    assert_type(backend.retries, Retries)
    async with backend.connected() as connected, connected.open(request) as deltas:
        assert_type(connected, Retrying)
        assert_type(deltas, AsyncIterator[Delta])


async def spending(m: MelleaSession) -> None:
    with limits(
        tokens=1000, requests=3, seconds=9.5, cost=0.1, prices=Prices(prompt=1.0, completion=2.0)
    ) as block:
        thunk = await m.ainstruct("x", preconditions=["is kind"], limits=Limits(tokens=10))
        m.stream("x", limits=Limits(seconds=3))
        assert_type(block, LimitedBlock)
        assert_type(block.spent, Spent)
        assert_type(block.cost, float | None)
    try:
        await thunk
    except BudgetExceeded as exceeded:
        assert_type(exceeded.spent, Spent)
        assert_type(exceeded.partial_text, str)
    except PreconditionFailed as failed:
        assert_type(failed.reasons, list[str])


async def events(result: StreamChunkingResult) -> None:
    async for event in result.events():
        assert_type(event, StreamEvent)
        assert_type(event.timestamp, float)
        match event:
            case ChunkEvent():
                assert_type(event.text, str)
                assert_type(event.chunk_index, int)
            case QuickCheckEvent(passed=False):
                assert_type(event.results, Sequence[PartialValidationResult])
            case QuickCheckEvent():
                assert_type(event.attempt, int)
            case StreamingDoneEvent():
                assert_type(event.full_text, str)
            case FullValidationEvent():
                assert_type(event.passed, bool)
                assert_type(event.results, Sequence[ValidationResult])
            case RetryEvent():
                assert_type(event.reason, str)
            case ErrorEvent():
                assert_type(event.exception_type, str)
                assert_type(event.detail, str)
            case CompletedEvent():
                assert_type(event.success, bool)
                assert_type(event.attempts_used, int)
            case _:
                pass


# --- errors ------------------------------------------------------------------------------------------


async def errors(thunk: ModelOutputThunk) -> str:
    try:
        return await thunk
    except GenerationCancelled as cancelled:
        assert_type(cancelled.partial_text, str)
        assert_type(cancelled.reason, str | None)
        assert_type(cancelled.usage, Usage | None)
    except BackendBusy as busy:
        assert_type(busy.retry_after, float | None)
    except BackendRejected as rejected:
        assert_type(rejected.status, int)
        assert_type(rejected.body, str)
    except BackendError as failed:
        assert_type(failed.retryable, bool)
        assert_type(failed.retry_after, float | None)
    except MelleaError:
        pass
    return ""


def errors_are_also_what_python_would_raise(
    not_computed: ThunkNotComputed, closed: SessionClosed, late: ValidatorTimeout
) -> None:
    usage: UsageError = not_computed
    runtime: RuntimeError = closed
    timeout: TimeoutError = late
    del usage, runtime, timeout


# --- requirements ---------------------------------------------------------------------------------------


class AtMost(Requirement):
    """As the documents write one."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._count = 0

    def format_for_llm(self) -> str:
        return f"At most {self._limit} sentences."

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        thunk, after = await backend.generate_from_context("Is it polite?", ctx)
        assert_type(thunk, Thunk)
        assert_type(after, Context)
        if await thunk.avalue() == "no":
            return PartialValidationResult("fail", reason="impolite", score=0.1)
        return PartialValidationResult("unknown")

    async def validate(
        self,
        backend: Backend,
        ctx: Context,
        *,
        format: type | Mapping[str, object] | None = None,
        model_options: Mapping[str, object] | None = None,
    ) -> ValidationResult:
        output = ctx.last_output()
        assert_type(output, Thunk | None)
        return ValidationResult(output is not None, reason="there is one")


def requirements() -> None:
    assert_type(req("be polite"), Requirement)
    assert_type(check("short", simple_validate(lambda text: len(text) < 10)), Requirement)
    req("short", simple_validate(lambda text: (len(text) < 10, "too long")))
    req("short", lambda ctx: ValidationResult(ctx.last_output() is not None))
    Requirement("short", timeout=3.0, fail_open=True, check_only=True, chunking="word")
    assert_type(MaxWords(3).limit, int)
    assert_type(MaxCharacters(3, on_fail="filter").limit, int)
    MustMatch(r"a+", full=True, blocking=False)
    MustNotMatch(r"a+", replacement="*", on_fail="fix")
    ValidJSON()
    ValidJSON(Poem, fenced=True, check_only=True)
    assert_type(ValidJSON(find=True).json_in("x"), str | None)
    ValidJSON({"type": "object"}, on_fail="retry")
    CodeBlocks({"python", "sh"}, on_fail="backtrack")
    NoRepetition(3, at_least=20, longest=100, on_fail="stop")
    NoPII(["email", "iban"], replacement="***", on_fail="fix")
    NoSecrets(on_fail="noop")
    assert_type(LLMJudge("How polite?", 0.7, backend=LocalBackend(), every=3).threshold, float)
    NoPII(["name"])  # type: ignore[list-item]
    ValidJSON("schema")  # type: ignore[arg-type]
    MaxCharacters(3, on_fail="ignore")  # type: ignore[arg-type]
    assert_type(PartialValidationResult("pass").as_bool(), bool)
    PartialValidationResult("maybe")  # type: ignore[arg-type]
    simple_validate(lambda text: text)  # type: ignore[arg-type,return-value]


def verdict_in_words(verdict: PartialValidationResult) -> str:
    match verdict.success:
        case "pass" | "unknown":
            return "goes on"
        case "fail":
            return "stops"
        case _:
            assert_never(verdict.success)


# --- what users write themselves --------------------------------------------------------------------------


class Echo(Backend):
    """A backend of one's own."""

    provider = "echo"
    model_id = "echo"

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        assert_type(request.messages, tuple[ChatMessage, ...])
        assert_type(request.options, Mapping[str, object])
        yield self._deltas(request.messages[-1].content)

    async def _deltas(self, text: str) -> AsyncIterator[Delta]:
        yield Delta(text)
        yield Delta(finish_reason="stop", usage=Usage(1, 1))


class Lines(ChunkingStrategy):
    """A chunking of one's own."""

    def feed(self, delta: str) -> Sequence[str]:
        return [delta]

    def flush(self) -> Sequence[str]:
        return []


class Table(Component):
    """A component of one's own."""

    def format_for_llm(self) -> str:
        return "a | b"


class SamplesItself(SamplingStrategy):
    """A strategy of one's own."""

    async def sample(
        self,
        action: Component | str | CBlock | Thunk,
        context: Context,
        backend: Backend,
        requirements: Sequence[Requirement],
        *,
        format: object = None,
        model_options: Mapping[str, object] | None = None,
    ) -> SamplingResult:
        thunk, ctx = await backend.generate_from_context(action, context)
        await thunk.avalue()
        return SamplingResult(
            result_index=0,
            success=True,
            sample_generations=[thunk],
            sample_validations=[[]],
            sample_actions=[action],
            sample_contexts=[ctx],
        )


async def what_users_write_is_accepted(m: MelleaSession) -> None:
    start_session(backend=Echo(), ctx=SimpleContext())
    start_session(backend=OpenAIBackend("a-model", base_url="http://127.0.0.1:8080", api_key="key"))
    m.stream(Table(), requirements=[AtMost(3)], chunking=Lines())
    await m.aact(Table(), strategy=SamplesItself())
    assert_type(resolve_chunking("word"), ChunkingStrategy)
    with anyio.move_on_after(3) as scope:
        await m.achat("Hello.")
    assert_type(scope.cancelled_caught, bool)


# --- coming from Mellea ---------------------------------------------------------------------------------------


async def mellea_s_names(m: MelleaSession, thunk: mellea_core.ModelOutputThunk) -> None:
    assert_type(thunk, ModelOutputThunk)
    assert_type(base.ModelOutputThunk(value="text"), ModelOutputThunk)
    assert_type(mellea_core.MelleaLogger.get_logger(), logging.Logger)
    assert_type(OllamaModelBackend(model_ids.IBM_GRANITE_4_1_3B), OllamaBackend)
    OpenAIBackend(ModelIdentifier(openai_name="m"), model_options={ModelOption.SEED: 1})
    start_session("ollama", model_ids.IBM_GRANITE_4_1_3B)
    assert_type(SentenceChunking(), SentenceChunker)
    m.ctx = m.ctx.add("text")
    m.clone().ctx = "text"  # type: ignore[assignment]
    assert_type(m.clone(), MelleaSession)
    assert_type(m.reset(), None)
    assert_type(m.last_prompt(), list[dict[str, str]] | None)
    assert_type(m.ctx.last_turn(), mellea_core.ContextTurn | None)
    assert_type(m.ctx.previous_node, Context | None)
    assert_type(as_generic_chat_history(m.ctx, formatter=repr), list[Message])
    async with await stream("Write.", m.backend, m.ctx, chunking=SentenceChunking()) as chunks:
        assert_type(chunks, Streamer)
        async for chunk in chunks:
            assert_type(chunk, str)
        assert_type(chunks.mot, ModelOutputThunk | None)
    async with await stream_with_chunking("Write.", m.backend, m.ctx) as result:
        assert_type(result, StreamChunkingResult)
    mellea_core.Nothing  # type: ignore[attr-defined]  # noqa: B018
    base.Nothing  # type: ignore[attr-defined]  # noqa: B018


# --- the testing kit ------------------------------------------------------------------------------------------


async def kit() -> None:
    async def program() -> None: ...

    async def with_errors(backend: Backend, requirements: Sequence[Requirement]) -> object:
        return None

    async def number() -> int:
        return 1

    async with assert_no_leaks(ignore=["thread 'one that stays'"]):
        assert_type(await cancel_everywhere(program, max_points=3), int)
    assert_type(interrupt_everywhere(list, after_each=print, max_points=3), int)
    backend = ScriptedBackend("one", ["two ", "words"], judge=lambda _: True)
    assert_type(backend.calls, list[Call])
    answer: ScriptedAnswer = ["One ", Pause(3.0), "two", Stall()]
    ScriptedBackend(lambda request: Script(request.messages[-1].content, delay=0.1))
    ScriptedBackend(answer, Script("Three.", finish_reason="length"), Fail(ValueError("no")))
    async with ModelServer([Answer("Yes."), Answer(status=503)]) as server:
        assert_type(server.requests, list[RecordedRequest])
        start_session("openai", "m", base_url=server.openai_url, api_key="none")
    with ModelServer.in_thread(lambda request: Answer(request.prompt)) as served:
        assert_type(served, ModelServer)
    assert_type(
        await fail_everywhere(with_errors, backend=lambda: backend, requirements=[AtMost(3)]), int
    )
    assert_type(await check_backend(Echo), None)
    assert_type(await check_requirement(lambda: AtMost(3), texts=["One. Two."]), None)
    start_session(backend=Recording(Echo(), "echo.json", scrub=str.strip))
    start_session(backend=Cassette("echo.json", delays=True, repeat=True))
    assert_type(run_virtual(number, backend="trio", seed=3), int)
    run_virtual(number, backend="curio")  # type: ignore[arg-type]
