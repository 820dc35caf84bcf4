"""What a model is asked: the arguments of one call as values, and the request that is made of an action and a conversation.

Nothing here starts anything: whoever needs a prompt waits, in its own task, for the thunks in it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from operator import is_
from typing import Final, TypedDict, TypeVar, cast

import attrs

from mellea_sc.core.answer_prefix import AnswerPrefix
from mellea_sc.core.backend import (
    ChatMessage,
    Format,
    GenerationRequest,
    ModelOption,
    ModelOptions,
    checked_format,
    merge_options,
    schema_of,
)
from mellea_sc.core.base import (
    SPANS,
    CBlock,
    Component,
    Context,
    Span,
    no_span,
    pending_thunks,
    role_of,
    text_of,
)
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import DependencyFailed, InvalidOption, WrongEventLoop
from mellea_sc.core.requirement import Requirement, as_requirement
from mellea_sc.core.retries import Retries, retries_of
from mellea_sc.core.sampling import SamplingStrategy
from mellea_sc.core.spending import Limits, check_limits

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


GO_ON: Final = "Continue your answer."
"""With a longer sentence, small models begin again instead of continuing; measured in benchmarks/PROMPTING.md."""


def describe(action: Component | Span) -> str:
    """A short name for a generation: the beginning of the action's text."""
    match action:
        case str():
            said = action
        case CBlock():
            said = action.value
        case Component():
            said = action.summary()
        case _:
            said = repr(action)
    if (line := " ".join(said.split())) != said:
        said = line  # else the text itself, and no copy of it with each of thousands of thunks
    return f"{said[:57]}…" if len(said) > 58 else said


async def settle(action: Span, ctx: Context | None = None) -> None:
    """Wait for the thunks that a prompt needs: those of an action, and those that a conversation shows before it.

    Raises:
        DependencyFailed: one of them failed or was cancelled; the message names it.
        WrongEventLoop: one of them is being generated in another event loop.

    Cancellation: only the waiting ends.
    """
    spans = [action]
    if ctx is not None and (shown := ctx.view_for_generation()):
        # those before have been in a request already
        spans += shown[len(_known_of(ctx, shown).items) :]
    for thunk in pending_thunks(*spans):
        try:
            await thunk.avalue()
        except WrongEventLoop:
            raise
        except Exception as error:
            raise DependencyFailed(
                f"the prompt needs {thunk!r}, and that failed: {_first_cause(error)}"
            ) from error


def _first_cause(error: BaseException) -> BaseException:
    """What began a chain of failures: each message with all of those before it would be as long as the chain."""
    while isinstance(error, DependencyFailed) and error.__cause__ is not None:
        error = error.__cause__
    return error


async def request_for(
    action: Span, ctx: Context, options: ModelOptions, format: Format | None, *, prefills: bool
) -> tuple[GenerationRequest, AnswerPrefix | None]:
    """Wait for the thunks that a prompt needs, and make the request; the prefix of its answer, if it has one.

    Raises:
        DependencyFailed: one of them failed.
        InvalidOption: the format is not usable.

    Cancellation: only the waiting ends.
    """
    await settle(action, ctx)
    messages = messages_for(action, ctx, options, prefills=prefills)
    schema = None if format is None else schema_of(format)
    prefix = None
    if isinstance(action, Component) and (beginning := action.assistant_prefix()):
        prefix = AnswerPrefix(beginning, beginning, asked=not prefills)
    return GenerationRequest(messages, options, schema), prefix


def messages_for(
    action: Span, ctx: Context, options: ModelOptions, *, prefills: bool = True
) -> tuple[ChatMessage, ...]:
    """The messages that ask for an answer to ``action``; every thunk in them is computed.

    First the system prompt of the options, then the items that the context shows, then the action. If the action
    has an ``assistant_prefix``, that follows as a message of the assistant, and, unless the server ``prefills``, a
    message that asks the model to continue it.
    """
    messages: list[ChatMessage] = []
    system = options.get(ModelOption.SYSTEM_PROMPT)
    if system is not None:
        messages.append(ChatMessage("system", str(system)))
    if shown := ctx.view_for_generation():
        known = _known_of(ctx, shown)
        if new := shown[len(known.items) :]:
            more = (ChatMessage(role_of(item), text_of(item)) for item in new)
            known = _Read(tuple(shown), (*known.messages, *more))
        ctx.reading = known
        messages.extend(known.messages)
    role = action.role if isinstance(action, Component) else "user"
    messages.append(ChatMessage(role, text_of(action)))
    if isinstance(action, Component) and (beginning := action.assistant_prefix()):
        # Tokenizers join a space to the word after it: a prefix that ends with one makes models answer worse.
        messages.append(ChatMessage("assistant", beginning.rstrip()))
        if not prefills:
            messages.append(ChatMessage("user", GO_ON))
    return tuple(messages)


@attrs.frozen
class _Read:
    """A cache: the items that a conversation shows, and their messages.

    Earlier items do not change. Rendering all of them for each turn would make a long conversation quadratic, so
    a turn takes over the messages of the turn before.
    """

    items: tuple[Span, ...] = ()
    messages: tuple[ChatMessage, ...] = ()


_NOTHING_READ: Final = _Read()


def _known_of(ctx: Context, shown: list[Span]) -> _Read:
    """The cached messages of the first items that a context shows."""
    node = ctx
    while node.reading is None:
        if node.previous_node is None:
            return _NOTHING_READ
        node = node.previous_node
    known = cast("_Read", node.reading)
    if node is not ctx:
        node.reading = None  # one copy for a conversation: its newest turn has it
        ctx.reading = known
    is_beginning = len(known.items) <= len(shown) and all(map(is_, known.items, shown))
    return known if is_beginning else _NOTHING_READ
