"""What the task of a session's generation does: wait for its turn, ask once or sample, commit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Final

from mellea_sc.core.backend import Backend, ChatMessage, CheckedSchema, Format
from mellea_sc.core.base import CBlock, Component, Context, Span, Thunk, text_of
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.model_options import ModelOption, ModelOptions, merge_options
from mellea_sc.core.prompt import describe, messages_for, request_for, settle
from mellea_sc.core.question import Question, several
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
from mellea_sc.runtime.checks.validation import validate_all
from mellea_sc.runtime.enclosing import EnclosingTask, enclosing_tasks
from mellea_sc.runtime.generation.answers import read_meaning, warn_of_misfit
from mellea_sc.runtime.generation.bound import answer_once, opened_scope
from mellea_sc.runtime.generation.generation import Generation
from mellea_sc.runtime.generation.pump import pump
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.stdlib.arguments import ActArguments
from mellea_sc.stdlib.components import Instruction, Query, Transform
from mellea_sc.stdlib.preconditions import answer_if_met
from mellea_sc.stdlib.sampling.plan import does_not_fit
from mellea_sc.stdlib.sampling.planned import PlannedStrategy, sampled
from mellea_sc.stdlib.sampling.repairing import RejectionSamplingStrategy
from mellea_sc.stdlib.turns import Turn, Turns

__all__ = [
    "DEFAULT_STRATEGY",
    "judge",
    "last_prompt",
    "question_of",
    "start",
]

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
    if strategy is not None and not strategy.is_needed(required):
        # An answer can still fail its format.
        if given.get("format") is None or not isinstance(strategy, PlannedStrategy):
            strategy = None
        elif strategy is DEFAULT_STRATEGY:
            # For that alone, a strategy that nobody has asked for does not hold back a text that somebody has asked
            # to see live.
            merged = merge_options(options, given.get("model_options"))
            strategy = None if merged.get(ModelOption.STREAM) else strategy
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
    sink.enclosing = EnclosingTask(nursery)
    enclosing_tasks.set((*enclosing_tasks.get(), sink.enclosing))
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
