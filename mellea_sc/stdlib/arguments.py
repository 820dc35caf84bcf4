"""From the arguments of a call to what it asks."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from mellea_sc.core.arguments import several
from mellea_sc.core.backend import Format, schema_of
from mellea_sc.core.base import Component, Span
from mellea_sc.core.model_options import ModelOptions, merge_options
from mellea_sc.core.question import Question
from mellea_sc.core.requirement import Requirement
from mellea_sc.core.retries import Retries, retries_of
from mellea_sc.core.sampling import SamplingStrategy
from mellea_sc.core.spending import Limits
from mellea_sc.runtime.budgets.limits import limited
from mellea_sc.stdlib.requirements.making import as_requirement

__all__ = ["question_of"]


def question_of(
    action: Component | Span,
    *,
    requirements: Sequence[Requirement | str] | None,
    preconditions: Sequence[Requirement | str] | None,
    strategy: SamplingStrategy | None,
    limits: Limits | None,
    retries: int | Retries | None,
    format: Format | None,
    model_options: ModelOptions | None,
) -> Question:
    """What a call asks.

    Args:
        action: What the model is asked.
        requirements: As the user gave it to the call, like all that follow.
        preconditions: Copied.
        strategy: Not checked: which kinds of it are usable depends on the call.
        limits: …
        retries: …
        format: …
        model_options: …

    Raises:
        InvalidOption: one of them is not usable.
        Exception: as a precondition's ``__copy__`` raises it.
    """
    schema_of(format)
    merge_options(model_options)
    limited(limits)
    return Question(
        action=action,
        requirements=[as_requirement(one) for one in several("requirements", requirements)],
        preconditions=[
            copy.copy(as_requirement(one)) for one in several("preconditions", preconditions)
        ],
        strategy=strategy,
        format=format,
        model_options=model_options,
        limits=limits,
        retries=retries_of(retries),
    )
