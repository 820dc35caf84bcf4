"""The arguments of one call, as values: what is asked, and of a stream, how its text is checked and shown."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Final, TypedDict, TypeVar

import attrs

from mellea_sc.core.backend import Format, checked_format
from mellea_sc.core.base import SPANS, Component, Span, no_span
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.model_options import ModelOptions, merge_options
from mellea_sc.core.requirement import Requirement, as_requirement
from mellea_sc.core.retries import Retries, retries_of
from mellea_sc.core.sampling import SamplingStrategy
from mellea_sc.core.spending import Limits, check_limits

__all__ = [
    "STREAM_DEFAULTS",
    "ConditionArguments",
    "Question",
    "QuestionArguments",
    "RequestArguments",
    "StreamOptions",
    "check_count",
    "check_lookahead",
    "several",
]


T = TypeVar("T")


class RequestArguments(TypedDict, total=False):
    """What every call that asks the model may be given; :meth:`MelleaSession.aact` says what each means."""

    limits: Limits | None
    retries: int | Retries | None
    format: Format | None
    model_options: ModelOptions | None


class ConditionArguments(RequestArguments, total=False):
    """Those of a call whose question can be checked."""

    preconditions: Sequence[Requirement | str] | None


class QuestionArguments(ConditionArguments, total=False):
    """Those of a call whose answer can be checked too."""

    requirements: Sequence[Requirement | str] | None


@attrs.frozen(kw_only=True, weakref_slot=False)
class Question:
    """The validated arguments of one call.

    The conversation is not among them: it is known only when the call's turn has come.

    Args:
        action: The question or task for the model.
        requirements: Requirements on the answer; the originals, which are copied for each attempt.
        preconditions: Requirements on the input; copies that belong to this call.
        strategy: Decides what follows a rejected answer. Each call accepts certain kinds.
        format: The format of the answer; a JSON schema as a :class:`CheckedSchema`.
        model_options: Options of every generation of the call.
        limits: Limits of the call, its attempts and judges included.
        retries: How often its requests are retried; ``None``: the session decides.
    """

    action: Component | Span
    requirements: Sequence[Requirement] = ()
    preconditions: Sequence[Requirement] = ()
    strategy: SamplingStrategy | None = None
    format: Format | None = None
    model_options: ModelOptions | None = None
    limits: Limits | None = None
    retries: Retries | None = None

    @classmethod
    def of(
        cls,
        action: Component | Span,
        given: ConditionArguments,
        *,
        requirements: Sequence[Requirement],
        strategy: SamplingStrategy | None,
    ) -> Question:
        """Make the question from a user's arguments.

        Args:
            action: What the model is asked.
            given: The arguments of the call.
            requirements: What must hold of the answer.
            strategy: What follows a rejected answer.

        Raises:
            InvalidOption: one of them is not usable.
            MissingExtra: the format needs a package of the extra ``json``.
            Exception: as a precondition's ``__copy__`` raises it.
        """
        if not isinstance(action, SPANS):
            raise no_span("what the model is asked", action)
        options, format = given.get("model_options"), given.get("format")
        merge_options(options)
        limits, retries = given.get("limits"), given.get("retries")
        if limits is not None:
            check_limits(limits)
        conditions = several("preconditions", given.get("preconditions"))
        return cls(
            action=action,
            requirements=requirements,
            preconditions=tuple(map(copy.copy, map(as_requirement, conditions))),
            strategy=strategy,
            format=None if format is None else checked_format(format),
            model_options=options,
            limits=limits,
            retries=None if retries is None else retries_of(retries),
        )


def several(name: str, given: Iterable[T] | None) -> list[T]:
    """The items of an argument as a list.

    Raises:
        InvalidOption: the argument cannot be iterated, or is a ``str``, which would be taken for a list of its
            letters. The message shows the list to write.
    """
    if given is None:
        return []
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidOption(f"{name} takes a list: {name}=[{given!r}]")
    return list(given)


def check_count(name: str, value: object, least: int = 1, *, or_none: bool = False) -> None:
    """Check an argument that is a number of things.

    Raises:
        InvalidOption: it is not an integer of at least ``least``.
    """
    if value is None and or_none:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        wanted = f"an integer of at least {least}{' or None' if or_none else ''}"
        raise InvalidOption(f"{name} must be {wanted}, not {value!r}")


def _or_infinite(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


def check_lookahead(lookahead: int | None) -> None:
    """Raise unless a number of released chunks may wait unread.

    Raises:
        InvalidOption: it is less than 1: a run would wait for a reader, and the reader for the run.
    """
    ahead: object = lookahead
    if ahead is not None and (not isinstance(ahead, int) or ahead < 1):
        raise InvalidOption(f"lookahead must be an integer from 1 on or None, not {ahead!r}")


@attrs.frozen(kw_only=True)
class StreamOptions:
    """How a text is checked while it is generated, and how it is shown.

    Args:
        chunking: The chunking of the stream, and of requirements without a chunking.
        lane_buffer: The number of chunks that one lane may be ahead of another.
        validator_timeout: Seconds that one call of a validator may take; ``None``, which becomes infinity: no timeout.
        lookahead: The number of released chunks that may wait unread; ``None``: any number.
        hold_back: The number of chunks that are held back until their attempt is accepted; ``True``: all.

    Raises:
        InvalidOption: one of them is not usable. The name of a chunking is checked only where it is used.
    """

    chunking: str | ChunkingStrategy | None = "sentence"
    lane_buffer: int = 16
    validator_timeout: float = attrs.field(default=120.0, converter=_or_infinite)
    lookahead: int | None = None
    hold_back: bool | int = False

    def __attrs_post_init__(self) -> None:
        held = self.hold_back
        check_count("lane_buffer", self.lane_buffer)
        check_lookahead(self.lookahead)
        timeout: object = self.validator_timeout
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise InvalidOption(
                "validator_timeout must be a positive number of seconds or None, not "
                f"{self.validator_timeout!r}"
            )
        if not isinstance(held, int) or held < 0:
            raise InvalidOption(f"hold_back must be a bool or a number of chunks, not {held!r}")

    @property
    def held_back(self) -> float:
        """The number of chunks that are held back; may be infinite."""
        return math.inf if self.hold_back is True else self.hold_back


STREAM_DEFAULTS: Final = StreamOptions()
"""What is meant where an argument of a stream is not given."""
