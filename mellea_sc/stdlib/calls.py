"""What a conversation does with a call: its keyword arguments, the question that they make, the task that answers it.

Several methods share their keyword arguments, and forward them as they are; each list is here. What each means is said
where it is documented: :meth:`MelleaSession.aact`, :meth:`MelleaSession.ainstruct` and :func:`stream_with_chunking`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial, wraps
from typing import Final, ParamSpec, TypeVar, cast

from mellea_sc.core.backend import (
    Backend,
    ChatMessage,
    CheckedSchema,
    Format,
    ModelOption,
    ModelOptions,
    merge_options,
)
from mellea_sc.core.base import CBlock, Component, Context, Span, Thunk, text_of
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.question import (
    Question,
    QuestionArguments,
    RequestArguments,
    describe,
    messages_for,
    request_for,
    settle,
    several,
)
from mellea_sc.core.requirement import (
    Requirement,
    ValidationResult,
    as_requirement,
    check_judges,
)
from mellea_sc.core.retries import retries_of_call
from mellea_sc.core.sampling import SamplingResult, SamplingStrategy
from mellea_sc.core.trace import TokenCount, Trace
from mellea_sc.runtime.budgets.limits import LimitedBlock
from mellea_sc.runtime.checks.validation import answer_if_met, validate_all
from mellea_sc.runtime.failures import shorten
from mellea_sc.runtime.generation.bound import answer_once, opened_scope
from mellea_sc.runtime.generation.generation import Generation
from mellea_sc.runtime.generation.pump import pump, read_meaning, warn_of_misfit
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.stdlib.components import Instruction, Query, Transform
from mellea_sc.stdlib.sampling.base import PlannedStrategy, RejectionSamplingStrategy, sampled
from mellea_sc.stdlib.sampling.results import does_not_fit
from mellea_sc.stdlib.turns import Turn, Turns

P = ParamSpec("P")
T = TypeVar("T")


class QueryArguments(RequestArguments, total=False):
    """Those of ``query`` and ``transform``."""

    await_result: bool


class ActArguments(QuestionArguments, total=False):
    """Those of ``act``."""

    strategy: SamplingStrategy | None
    await_result: bool


class InstructArguments(ActArguments, total=False):
    """Those of ``instruct``."""

    icl_examples: Sequence[str | CBlock] | None
    grounding_context: Mapping[str, Span] | None
    user_variables: Mapping[str, Span] | None
    prefix: str | CBlock | None
    output_prefix: str | CBlock | None


class StreamArguments(QuestionArguments, total=False):
    """Those of a stream."""

    chunking: str | ChunkingStrategy | None
    validation_backend: Backend | None
    lane_buffer: int
    lookahead: int | None
    validator_timeout: float | None
    strategy: PlannedStrategy | None
    hold_back: bool | int


def keyword_arguments(
    arguments: type[object], **defaults: object
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """For a public function that ends in ``**given: Unpack[arguments]``: have it refuse others, and show them all.

    Its errors, also where it is async, leave it with a short traceback. Type checkers and editors read the
    ``TypedDict``. ``help()`` and ``inspect.signature`` show ``**given`` as the keyword arguments it stands for, in the
    order of the docstring.

    Args:
        arguments: The ``TypedDict``.
        defaults: What an argument is when it is not given, where that is not ``None``.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = _signature_of(function, arguments, defaults)
        accepted = frozenset(signature.parameters)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if not accepted.issuperset(kwargs):
                raise _unexpected(function, kwargs, accepted)
            try:
                return function(*args, **kwargs)
            except (Exception, BaseExceptionGroup) as error:
                shorten(error)
                raise

        @wraps(function)
        async def acall(*args: P.args, **kwargs: P.kwargs) -> object:
            if not accepted.issuperset(kwargs):
                raise _unexpected(function, kwargs, accepted)
            try:
                return await cast("Awaitable[object]", function(*args, **kwargs))
            except (Exception, BaseExceptionGroup) as error:
                shorten(error)
                raise

        is_async = inspect.iscoroutinefunction(function)
        decorated = cast("Callable[P, T]", acall) if is_async else call
        vars(decorated)["__signature__"] = signature
        return decorated

    return decorate


def _unexpected(
    function: Callable[..., object], given: Iterable[str], accepted: frozenset[str]
) -> TypeError:
    unknown = next(name for name in given if name not in accepted)
    return TypeError(f"{function.__qualname__}() got an unexpected keyword argument {unknown!r}")


def _signature_of(
    function: Callable[..., object], arguments: type[object], defaults: Mapping[str, object]
) -> inspect.Signature:
    """Its signature, with the arguments in the place of ``**given``."""
    signature = inspect.signature(function)
    *own, given = signature.parameters.values()
    assert given.kind is inspect.Parameter.VAR_KEYWORD
    keyword = inspect.Parameter.KEYWORD_ONLY
    documentation = inspect.getdoc(function) or ""  # there is none under `python -OO`
    described = re.findall(r"^    (\w+): ", documentation, re.MULTILINE)
    order = {name: number for number, name in enumerate(described)}
    shared = [
        # under `from __future__ import annotations`, a type is a ForwardRef around its text
        given.replace(
            name=name,
            kind=keyword,
            default=defaults.get(name),
            annotation=getattr(kind, "__forward_arg__", kind),
        )
        for name, kind in arguments.__annotations__.items()
    ]
    positional = [one for one in own if one.kind is not keyword]
    by_keyword = [*own[len(positional) :], *shared]
    by_keyword.sort(key=lambda one: order.get(one.name, len(order)))
    return signature.replace(parameters=[*positional, *by_keyword])


DEFAULT_STRATEGY: Final = RejectionSamplingStrategy(loop_budget=2)


def question_of(action: Component | Span, given: ActArguments, options: ModelOptions) -> Question:
    """The question from the arguments of a call, and what an instruction says itself.

    Args:
        action: What the model is asked.
        given: The arguments of the call.
        options: Model options of the session.

    Raises:
        InvalidOption: an argument is not usable.
        MissingExtra: the format needs a package of the extra ``json``.
    """
    required = [as_requirement(one) for one in several("requirements", given.get("requirements"))]
    if isinstance(action, Instruction):
        required = [*action.requirements, *required]
    strategy: object = given.get("strategy", DEFAULT_STRATEGY)
    if strategy is not None and not isinstance(strategy, SamplingStrategy):
        raise InvalidOption(f"strategy must be a SamplingStrategy or None, not {strategy!r}")
    if strategy is DEFAULT_STRATEGY:
        # It has nothing to do without requirements. But an answer can still fail its format. For that alone, a strategy
        # that nobody has asked for does not hold back a text that somebody has asked to see live.
        if not required and (
            given.get("format") is None
            or merge_options(options, given.get("model_options")).get(ModelOption.STREAM)
        ):
            strategy = None
    elif strategy is not None and not strategy.is_needed(required):
        looks_at_format = given.get("format") is not None and isinstance(strategy, PlannedStrategy)
        strategy = strategy if looks_at_format else None
    return Question.of(action, given, requirements=tuple(required), strategy=strategy)


def start(question: Question, nursery: Nursery, turns: Turns) -> ModelOutputThunk:
    """Start the answer to a question, in a task of the nursery, as a turn of a conversation.

    Raises:
        InvalidOption: the model is none that can judge.
        SessionClosed: the nursery has ended.
        UsageError: the turn might wait for itself.
    """
    nursery.check_usable()  # else the turn that is taken here would never end
    strategy, action = question.strategy, question.action
    judged = [*question.preconditions]
    if isinstance(strategy, PlannedStrategy):
        judged += [*strategy.requirements, *question.requirements]
    # Whether code of the user's may run while it is answered: a tool, a strategy, a validator.
    runs_code = isinstance(action, Query | Transform) and bool(action.methods)
    runs_code |= strategy is not None and type(strategy) is not RejectionSamplingStrategy
    if judged:
        check_judges(judged, nursery.backend)
        # anything but the library's question to a model
        runs_code |= any(
            type(one) is not Requirement or one.validation_fn is not None for one in judged
        )
    options = merge_options(nursery.options, question.model_options)
    streamed = bool(options.get(ModelOption.STREAM))
    thunk = ModelOutputThunk(name=describe(action))
    thunk.producer = producer = Generation(nursery, thunk.name, streamed=streamed)
    turn = turns.take_turn(producer.stop_throttling, runs_code=runs_code)
    work = partial(_work, question, options, nursery, turn)
    producer.start(thunk, work, nursery.tasks, turn.give_up)
    return thunk


async def _work(
    question: Question,
    options: ModelOptions,
    nursery: Nursery,
    turn: Turn,
    thunk: ModelOutputThunk,
    sink: Generation,
) -> None:
    # Short, because thousands of thunks may be waiting here, each with this frame.
    action = question.action
    async with turn as ctx:
        if (
            question.strategy is None
            and question.limits is None
            and question.retries is None
            and not question.preconditions
            and not isinstance(action, Query | Transform)
        ):
            # What answer_once() does, without its frame.
            request, prefix = await request_for(
                action, ctx, options, question.format, prefills=nursery.backend.prefills
            )
            thunk.generation = await pump(nursery, request, sink, sink, prefix)
            read_meaning(thunk, sink.text, action, question.format)
            if thunk.format_error is not None:
                warn_of_misfit(thunk)
        else:
            await _answer_in_blocks(question, options, nursery, ctx, thunk, sink)
        ctx = ctx.add(action).add(thunk)
        if thunk.sampling is None:
            thunk.sampling = _only_attempt(thunk, action, ctx)
        turn.commit(ctx)


async def _answer_in_blocks(
    question: Question,
    options: ModelOptions,
    nursery: Nursery,
    ctx: Context,
    thunk: ModelOutputThunk,
    sink: Generation,
) -> None:
    """Answer within the limits and retries of the call, beside its preconditions."""
    action, format = question.action, question.format
    await settle(action, ctx)
    # to be awaited in this task, without another coroutine through which each delta would have to go
    if (strategy := question.strategy) is not None:
        answer = partial(_sample, question, strategy, nursery, ctx, thunk, sink)
    elif isinstance(action, Query | Transform) and action.methods and format is None:
        answer = partial(_carry_out, action, question, nursery, ctx, thunk, sink)
    else:
        answer = partial(answer_once, nursery, action, ctx, options, format, thunk, sink)
    with (
        nullcontext() if question.limits is None else LimitedBlock(question.limits),
        nullcontext() if question.retries is None else retries_of_call(question.retries),
    ):
        if question.preconditions:
            sink.is_held = True
            await answer_if_met(question, ctx, nursery, answer, met=sink.release_output)
        else:
            await answer()


async def _sample(
    question: Question,
    strategy: SamplingStrategy,
    nursery: Nursery,
    ctx: Context,
    thunk: ModelOutputThunk,
    sink: Generation,
) -> None:
    if isinstance(strategy, PlannedStrategy) and type(strategy).sample is PlannedStrategy.sample:
        # it opens a scope for whatever may generate something: one around all of it is not needed
        result = await sampled(strategy, question, ctx, nursery)
    else:
        async with opened_scope(nursery) as backend:
            result = await strategy.sample(
                question.action,
                ctx,
                backend,
                [*question.requirements],
                format=question.format,
                model_options=question.model_options,
            )
    kept = result.sample_generations[result.result_index]
    if isinstance(kept, ModelOutputThunk):
        thunk.parsed_repr, thunk.format_error = kept.parsed_repr, kept.format_error
        tried = [one for one in result.sample_generations if isinstance(one, ModelOutputThunk)]
        thunk.generation = kept.generation
        if len(tried) > 1:
            thunk.generation = kept.generation.summed_over([one.generation for one in tried])
    thunk.sampling = result
    if thunk.format_error is not None:
        warn_of_misfit(thunk)
    sink.write(kept.value)


async def _carry_out(
    action: Query | Transform,
    question: Question,
    nursery: Nursery,
    ctx: Context,
    thunk: ModelOutputThunk,
    sink: Generation,
) -> None:
    schema = action.answer_schema()
    format = schema and CheckedSchema(schema, lambda _: None)  # carrying it out will see
    async with opened_scope(nursery) as backend:
        answer, _ = await backend.generate_from_context(
            action, ctx, format=format, model_options=question.model_options
        )
        text = await answer.avalue()
        thunk.generation = answer.generation
        given = await action.carry_out(text)
    thunk.parsed_repr = given
    sink.write(
        text_of(given) if isinstance(given, str | CBlock | Component | Thunk) else str(given)
    )


def _only_attempt(
    thunk: ModelOutputThunk, action: Component | Span, conversation: Context
) -> SamplingResult:
    """An answer that nothing could reject but its format, as a sampling result."""
    known, misfit = thunk.generation, thunk.format_error
    generated = known.usage.completion_tokens if known.usage else 0
    reasoning = known.usage.reasoning_tokens if known.usage else 0
    return SamplingResult(
        result_index=0,
        success=misfit is None,
        sample_generations=[thunk],
        sample_validations=[[] if misfit is None else [does_not_fit(misfit)]],
        sample_actions=[action],
        sample_contexts=[conversation],
        trace=Trace(
            what=thunk.name,
            outcome="accepted" if misfit is None else "rejected",
            began=0.0,
            ended=known.total_time or 0.0,
            tokens=TokenCount(generated=generated, reasoning=reasoning),
        ),
    )


async def judge(
    nursery: Nursery,
    ctx: Context,
    requirements: Sequence[Requirement],
    output: Thunk | str | CBlock | None,
    input: Span | None,
    format: Format | None,
    model_options: ModelOptions | None,
) -> list[ValidationResult]:
    """Judge an output, or the last one of the conversation, in a scope of its own."""
    if output is not None:
        ctx = ctx.without_items()
        if input is not None:
            ctx = ctx.add(input)
        ctx = ctx.add(
            output if isinstance(output, Thunk) else ModelOutputThunk.computed(text_of(output))
        )
    if (judged := ctx.last_output()) is None:
        raise InvalidOption("there is no output to validate: give one, or ask the model first")
    await settle(judged)
    async with opened_scope(nursery) as backend:
        return await validate_all(
            requirements, backend, ctx, format=format, model_options=model_options
        )


def last_prompt(
    ctx: Context, backend: Backend, options: ModelOptions
) -> Sequence[ChatMessage] | None:
    """The messages that the newest answer of a conversation was asked with; ``None`` where there is none."""
    answer = ctx.last_output()
    node: Context | None = ctx
    if isinstance(answer, ModelOutputThunk) and answer.sampling is not None:
        node = answer.sampling.result_ctx  # that of the attempt that was kept
    while node is not None and not isinstance(node.node_data, Thunk):
        node = node.previous_node
    asked = None if node is None else node.previous_node
    if asked is None or asked.node_data is None or asked.previous_node is None:
        return None
    options = merge_options(backend.model_options, options)
    return messages_for(asked.node_data, asked.previous_node, options, prefills=backend.prefills)
