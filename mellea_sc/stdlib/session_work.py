"""What the task of a session's generation does: wait for its turn, ask once or sample, commit."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from mellea_sc.core.backend import CheckedSchema, Format
from mellea_sc.core.base import CBlock, Component, Context, Span, Thunk, text_of
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.model_options import ModelOptions, merge_options, wants_stream
from mellea_sc.core.prompt import not_yet_read
from mellea_sc.core.requirement import Requirement, ValidationResult, check_judges
from mellea_sc.core.retries import Retries, retried, retries_of
from mellea_sc.core.sampling import SamplingResult, SamplingStrategy
from mellea_sc.core.spending import Limits
from mellea_sc.core.trace import TokenCount, Trace
from mellea_sc.runtime.budgets.limits import limited
from mellea_sc.runtime.checks.validation import check_input, validate_all
from mellea_sc.runtime.failures import stray_cancellation_as, task_group
from mellea_sc.runtime.generation.answers import warn_of_misfit
from mellea_sc.runtime.generation.producer import describe, generate_into, opened_scope, settle
from mellea_sc.runtime.generation.thunk import ModelOutputThunk, Work
from mellea_sc.runtime.nursery import Nursery
from mellea_sc.stdlib.components import Query, Transform
from mellea_sc.stdlib.conversation import Turn
from mellea_sc.stdlib.formats import checked
from mellea_sc.stdlib.sampling.plan import does_not_fit, raise_if_unmet
from mellea_sc.stdlib.sampling.planned import PlannedStrategy
from mellea_sc.stdlib.sampling.repairing import RejectionSamplingStrategy

__all__ = ["Asked", "judge", "work_for"]


@attrs.frozen
class Asked:
    """What a session was asked for.

    Args:
        repairs_format: Whether a strategy is used for the format alone, where nothing else is required.
    """

    action: Component | Span
    requirements: Sequence[Requirement] = attrs.field(kw_only=True)
    preconditions: Sequence[Requirement] = attrs.field(kw_only=True)
    strategy: SamplingStrategy | None = attrs.field(kw_only=True)
    limits: Limits | None = attrs.field(kw_only=True)
    retries: int | Retries | None = attrs.field(kw_only=True)
    format: Format | None = attrs.field(kw_only=True, converter=checked)
    repairs_format: bool = attrs.field(kw_only=True)
    model_options: ModelOptions | None = attrs.field(kw_only=True)

    def thunk(self, nursery: Nursery) -> ModelOutputThunk:
        """The thunk of it, not yet generating.

        Raises:
            InvalidOption: the strategy, an option or the format is not usable, or the model none that can
                judge.
        """
        nursery.check_usable()
        strategy: object = self.strategy
        if strategy is not None and not isinstance(strategy, SamplingStrategy):
            raise InvalidOption(f"strategy must be a SamplingStrategy or None, not {strategy!r}")
        limited(self.limits)
        retries_of(self.retries)
        check_judges(self.preconditions, nursery.backend)
        if isinstance(sampling := self.sampled_by, PlannedStrategy):
            check_judges([*sampling.requirements, *self.requirements], nursery.backend)
        options = merge_options(nursery.options, self.model_options)
        return ModelOutputThunk(nursery, name=describe(self.action), streamed=wants_stream(options))

    @property
    def sampled_by(self) -> SamplingStrategy | None:
        """The strategy, where there is anything for one to do: an answer can fail its format, too."""
        strategy = self.strategy
        if strategy is None or strategy.is_needed(self.requirements):
            return strategy
        has_format = self.format is not None and isinstance(strategy, PlannedStrategy)
        return strategy if has_format and self.repairs_format else None

    @property
    def runs_code(self) -> bool:
        """Whether code of the user's may run while it is answered: a validator, a tool, a strategy."""
        strategy = self.sampled_by
        if isinstance(self.action, Query | Transform) and self.action.methods:
            return True
        if strategy is not None and type(strategy) is not RejectionSamplingStrategy:
            return True
        judging = [] if strategy is None else [*strategy.requirements, *self.requirements]
        return any(map(has_code, [*self.preconditions, *judging]))


def has_code(requirement: Requirement) -> bool:
    """Whether it is judged by other code than the library's question to a model."""
    return type(requirement) is not Requirement or requirement.validation_fn is not None


def work_for(asked: Asked, nursery: Nursery, turn: Turn) -> Work:
    """The work of a thunk's task: the answer to what was asked, in its turn of the conversation."""

    async def work(thunk: ModelOutputThunk) -> None:
        async with turn as ctx:
            await settle(asked.action, *not_yet_read(ctx))
            with limited(asked.limits), retried(asked.retries):
                if asked.preconditions:
                    await _answer_if_met(asked, nursery, ctx, thunk)
                else:
                    await _answer(asked, nursery, ctx, thunk)
            warn_of_misfit(thunk)
            turn.commit(ctx.add(asked.action).add(thunk))

    return work


async def _answer(asked: Asked, nursery: Nursery, ctx: Context, thunk: ModelOutputThunk) -> None:
    action = asked.action
    if (strategy := asked.sampled_by) is not None:
        await _sample(asked, strategy, nursery, ctx, thunk)
    elif isinstance(action, Query | Transform) and action.methods and asked.format is None:
        await _carry_out(action, asked, nursery, ctx, thunk)
    else:
        await generate_into(
            thunk,
            nursery,
            action,
            ctx,
            format=asked.format,
            model_options=asked.model_options,
        )
        thunk.sampling = _single(asked, ctx, thunk)


async def _answer_if_met(
    asked: Asked, nursery: Nursery, ctx: Context, thunk: ModelOutputThunk
) -> None:
    """Answer, and check the input beside that; nothing is handed out before it is found good."""

    async def check() -> None:
        with stray_cancellation_as("a precondition"):
            async with opened_scope(nursery) as backend:
                verdicts = await check_input(asked.preconditions, asked.action, backend, ctx)
            raise_if_unmet(list(zip(asked.preconditions, verdicts, strict=True)))
        thunk.release_output()

    thunk.hold_output()
    async with task_group() as tasks:
        tasks.start_soon(check, name="preconditions")
        with stray_cancellation_as("an answer"):
            await _answer(asked, nursery, ctx, thunk)


async def _sample(
    asked: Asked,
    strategy: SamplingStrategy,
    nursery: Nursery,
    ctx: Context,
    thunk: ModelOutputThunk,
) -> None:
    async with opened_scope(nursery) as backend:
        result = await strategy.sample(
            asked.action,
            ctx,
            backend,
            asked.requirements,
            format=asked.format,
            model_options=asked.model_options,
        )
    kept = result.result
    if isinstance(kept, ModelOutputThunk):
        thunk.parsed_repr, thunk.format_error = kept.parsed_repr, kept.format_error
        thunk.generation = kept.generation.summed_over(
            [
                one.generation
                for one in result.sample_generations
                if isinstance(one, ModelOutputThunk)
            ]
        )
    thunk.sampling = result
    thunk.write(kept.value)


async def _carry_out(
    action: Query | Transform,
    asked: Asked,
    nursery: Nursery,
    ctx: Context,
    thunk: ModelOutputThunk,
) -> None:
    schema = action.answer_schema()
    format = schema and CheckedSchema(schema, lambda _: None)  # carrying it out will see
    async with opened_scope(nursery) as backend:
        answer, _ = await backend.generate_from_context(
            action, ctx, format=format, model_options=asked.model_options
        )
        text = await answer.avalue()
        thunk.generation = answer.generation
        given = await action.carry_out(text)
    thunk.parsed_repr = given
    thunk.write(
        text_of(given) if isinstance(given, str | CBlock | Component | Thunk) else str(given)
    )


def _single(asked: Asked, ctx: Context, thunk: ModelOutputThunk) -> SamplingResult:
    """An answer that nothing could reject but its format, as a sampling result."""
    known, misfit = thunk.generation, thunk.format_error
    generated = known.usage.completion_tokens if known.usage else 0
    reasoning = known.usage.reasoning_tokens if known.usage else 0
    return SamplingResult(
        result_index=0,
        success=misfit is None,
        sample_generations=[thunk],
        sample_validations=[[] if misfit is None else [does_not_fit(misfit)]],
        sample_actions=[asked.action],
        sample_contexts=[ctx.add(asked.action).add(thunk)],
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
