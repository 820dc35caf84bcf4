"""Requirements on answers, and their verdicts.

A requirement validates a finished answer with :meth:`Requirement.validate`, and a running one, chunk by chunk, with
:meth:`Requirement.stream_validate`. A verdict is data. An exception in a validator is an error and never counts as
a verdict.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, get_args

import attrs

from mellea_sc.core.backend import Backend, Format, ModelOptions
from mellea_sc.core.base import Component, Context, Thunk
from mellea_sc.core.errors import InvalidOption, InvalidVerdict
from mellea_sc.core.judgement import default_output_to_bool as default_output_to_bool

if TYPE_CHECKING:
    from typing import Self

    from mellea_sc.core.chunking import ChunkingStrategy

PartialVerdict: TypeAlias = Literal["pass", "fail", "unknown"]
_VERDICTS: Final = get_args(PartialVerdict)


@attrs.frozen
class ValidationResult:
    """The verdict on a finished answer; true when it passed.

    Args:
        result: Whether the answer passed.
        reason: The reason, for people and for a repair prompt.
        score: An optional number given by the validator.
        thunk: The judge's answer, if a model was the judge.
        context: What the judge was asked, and that answer.
    """

    result: bool
    reason: str | None = attrs.field(default=None, kw_only=True)
    score: float | None = attrs.field(default=None, kw_only=True)
    thunk: Thunk | None = attrs.field(default=None, kw_only=True, repr=False)
    context: Context | None = attrs.field(default=None, kw_only=True, repr=False)

    def as_bool(self) -> bool:
        """Whether the answer passed.

        Raises:
            InvalidVerdict: the result is no ``bool``.
        """
        return bool(self)

    def __bool__(self) -> bool:
        result: object = self.result
        if not isinstance(result, bool):
            raise InvalidVerdict(
                f"the result of a ValidationResult must be a bool, not {result!r} (of type {type(result).__name__})"
            )
        return result


@attrs.frozen(slots=False, init=False)
class PartialValidationResult:
    """The verdict on one chunk of a running answer.

    Args:
        success: ``"fail"`` stops the stream at once; ``"pass"`` and ``"unknown"`` let it go on. Neither of them
            replaces the final :meth:`Requirement.validate`.
        reason: The reason, for people and for a repair prompt.
        score: An optional number given by the validator.
        replacement: With ``"fail"``: the text that replaces the failing piece, if the requirement has
            ``on_fail="fix"``.
        cuts_off: With ``"fail"``: all text after this piece fails too, as after a limit. With
            ``on_fail="filter"`` or ``"fix"`` the text then ends here, and the model is stopped.
    """

    success: PartialVerdict
    reason: str | None = None
    score: float | None = None
    replacement: str | None = attrs.field(default=None, repr=False)
    cuts_off: bool = attrs.field(default=False, repr=False)

    def __init__(
        self,
        success: PartialVerdict,
        *,
        reason: str | None = None,
        score: float | None = None,
        replacement: str | None = None,
        cuts_off: bool = False,
    ) -> None:
        if success not in _VERDICTS:
            raise InvalidOption(f'success must be "pass", "fail" or "unknown", not {success!r}')
        # Written by hand: one is made for each chunk and requirement, and attrs' takes twice the time.
        fields = self.__dict__
        fields["success"] = success
        fields["reason"] = reason
        fields["score"] = score
        fields["replacement"] = replacement
        fields["cuts_off"] = cuts_off

    def as_bool(self) -> bool:
        """Whether the verdict is ``"pass"``."""
        return self.success == "pass"

    def __bool__(self) -> bool:
        return self.as_bool()


ValidationFunction: TypeAlias = Callable[[Context], ValidationResult | Awaitable[ValidationResult]]
"""Validates a finished answer, the last output of the context. It may be async."""

_JudgeByModel: TypeAlias = Callable[
    ["Requirement", str, Backend, Context, ModelOptions | None], Awaitable[ValidationResult]
]

OnFail: TypeAlias = Literal["stop", "retry", "backtrack", "filter", "fix", "noop"]
"""What happens after a fail while a text streams; see :class:`Requirement`."""


class Requirement(Component):
    """A requirement on an answer.

    With a ``validation_fn``, that function validates the finished answer; without one, a model judges it.
    Subclasses override :meth:`validate` or :meth:`stream_validate`. State that they gather from chunk to chunk
    belongs to a copy, which is made for each attempt (see :meth:`__copy__`).

    Args:
        description: The requirement in words, for the prompt and for a judge.
        validation_fn: Validates the answer, which is ``last_output()`` of the context; may be async.
        output_to_bool: Parses a judge's answer; raises ``ValueError`` if the answer is unclear.
        check_only: Leave the description out of the prompt.
        chunking: The chunking for this requirement alone: the name of a strategy, or a strategy.
        fail_open: Log an error of the validator, and count it as ``"unknown"`` (while streaming) or as passed.
            Without this, an error stops the run.
        timeout: Seconds that one call of the validator may take, instead of the run's own timeout.
        on_fail: What happens after a ``"fail"`` while the text streams. ``None``: the strategy decides; without
            a strategy the run stops. ``"stop"``: the run stops, whatever the strategy. ``"retry"``: a new attempt
            from the beginning. ``"backtrack"``: a new attempt from the last good chunk. ``"filter"``: the failing
            piece is left out. ``"fix"``: the verdict's ``replacement`` takes its place (without one: as ``None``).
            A part of the piece that an earlier attempt has shown stays. ``"noop"``: the fail is only recorded. The
            strategy limits the number of attempts; without one there are two, or eight with ``"backtrack"``.
        blocking: Whether text is shown only after this requirement's verdict. Without this the requirement is
            advisory: its verdict may come after the text has been shown.
        window: The number of characters before each chunk that :meth:`stream_validate` gets, as the last output
            of its context.
        every: The number of chunks that are judged together, by one call; the text waits for the last of them.

    Raises:
        InvalidOption: an argument is not usable.
    """

    description: str | None = None
    validation_fn: ValidationFunction | None = None
    output_to_bool: Callable[[str], bool] = staticmethod(default_output_to_bool)
    check_only: bool = False
    chunking: str | ChunkingStrategy | None = None
    fail_open: bool = False
    timeout: float | None = None
    on_fail: OnFail | None = None
    blocking: bool = True
    window: int = 0
    every: int = 1

    def __init__(
        self,
        description: str | None = None,
        validation_fn: ValidationFunction | None = None,
        *,
        output_to_bool: Callable[[str], bool] = default_output_to_bool,
        check_only: bool = False,
        chunking: str | ChunkingStrategy | None = None,
        fail_open: bool = False,
        timeout: float | None = None,
        on_fail: OnFail | None = None,
        blocking: bool = True,
        window: int = 0,
        every: int = 1,
    ) -> None:
        if on_fail is not None and on_fail not in get_args(OnFail):
            known = ", ".join(map(repr, get_args(OnFail)))
            raise InvalidOption(f"on_fail must be one of {known} or None, not {on_fail!r}")
        for name, value, least in (("window", window, 0), ("every", every, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InvalidOption(
                    f"{name} must be a whole number of at least {least}, not {value!r}"
                )
        if not isinstance(description, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidOption(f"the description of a requirement is a str, not {description!r}")
        if not (validation_fn is None or callable(validation_fn)):
            raise InvalidOption(
                f"validation_fn must be a function of the context, not {validation_fn!r}"
            )
        if not callable(output_to_bool):
            raise InvalidOption(
                f"output_to_bool must be a function of a judge's answer, not {output_to_bool!r}"
            )
        is_time = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        if timeout is not None and not (is_time and timeout > 0):
            raise InvalidOption(
                f"timeout must be a positive number of seconds or None, not {timeout!r}"
            )
        self.description = description
        self.validation_fn = validation_fn
        self.output_to_bool = output_to_bool
        self.check_only = check_only
        self.chunking = chunking
        self.fail_open = fail_open
        self.timeout = timeout
        self.on_fail = on_fail
        self.blocking = blocking
        self.window = window
        self.every = every

    def __copy__(self) -> Self:
        """A copy for one attempt; lists, dicts and sets among the attributes are copied too."""
        new = object.__new__(type(self))
        # not the one of a subclass, which is for pickles: that of attrs has nothing but its own fields
        state: object = object.__getstate__(self)
        parts = cast("tuple[object, ...]", state) if isinstance(state, tuple) else (state,)
        for part in parts:  # the attributes and, where a subclass has some, the slots
            for name, value in cast("dict[str, object]", part or {}).items():
                own: object = value
                if isinstance(value, list | dict | set | bytearray):
                    own = copy.copy(cast("object", value))
                object.__setattr__(new, name, own)
        return new

    def format_for_llm(self) -> str:
        """The description, as it is written in a prompt."""
        return self.description or ""

    def judge_of(self, backend: Backend) -> Backend | None:
        """The backend that will be asked to judge, if validators get this backend; ``None``: no model is asked."""
        is_asked = self.validation_fn is None and type(self).validate is Requirement.validate
        return backend if is_asked else None

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        """Validate the next chunk of a running answer.

        Args:
            chunk: The chunk. A requirement that needs earlier chunks has to remember them.
            backend: A backend that is bound to the run: its generations end with the run.
            ctx: The conversation up to the action. With a ``window``, the last characters of the answer before the
                chunk are its last output.

        Cancellation: the call is cancelled as soon as another requirement fails.
        """
        return PartialValidationResult("unknown")

    async def validate(
        self,
        backend: Backend,
        ctx: Context,
        *,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
    ) -> ValidationResult:
        """Validate a finished answer: the last output of the context.

        The reason of a fail is that of the function, or else the description.

        A validator may ask models with the given backend, or in another session. It must not ask in the conversation
        that is being validated, whose turn has not ended: that raises a ``UsageError``. One case cannot be detected
        and waits until the ``timeout``: a thread of ``loop.run_in_executor`` that has the same event loop ask.

        Raises:
            InvalidVerdict: the function returned something else than a ``ValidationResult``.
            InvalidOption: there is neither a function nor a description for a judge, or the model cannot be used as a
                judge.
            UnclearJudgement: a judge was asked twice and answered neither yes nor no.

        Cancellation: a judge's generation is cancelled with the call.
        """
        if self.validation_fn is None:
            return await self._judge(backend, ctx, model_options)
        verdict: object = self.validation_fn(ctx)
        if inspect.isawaitable(verdict):
            verdict = await verdict
        if not isinstance(verdict, ValidationResult):
            raise InvalidVerdict(
                f"the validation_fn of {self!r} must return a ValidationResult, not {verdict!r}"
                " (simple_validate makes one of a plain function)"
            )
        if not verdict and verdict.reason is None and self.description:
            return attrs.evolve(verdict, reason=self.description)
        return verdict

    async def _judge(
        self, backend: Backend, ctx: Context, model_options: ModelOptions | None
    ) -> ValidationResult:
        output = ctx.last_output()
        if output is None:
            raise InvalidOption("there is no output in the context to judge")
        # Imported here, because the prompts of judges are in the stdlib, which the core must not import.
        judging = import_module("mellea_sc.stdlib.requirements.judging")
        judge: _JudgeByModel = judging.judge_by_model
        return await judge(self, await output.avalue(), backend, ctx, model_options)

    def __repr__(self) -> str:
        said = f" {self.description!r}" if self.description else ""
        return f"<{type(self).__name__}{said}>"


def check_can_judge(judge: Backend) -> None:
    """Raise if a model cannot be used as a judge.

    Raises:
        InvalidOption: its backend says so (:attr:`Backend.judges`); the message says how to choose another.
    """
    if not judge.judges:
        raise InvalidOption(
            f"the model {judge.model_id} ({judge.provider}) cannot judge, it says yes to everything. Name "
            'one that can: LLMJudge("…", backend=…), or validation_backend=… for a stream; or judge with a '
            'function: req("…", validation_fn)'
        )


def check_judges(requirements: Iterable[Requirement], backend: Backend) -> None:
    """Raise, before any request is made, if a model that cannot judge would be asked to.

    Args:
        requirements: The requirements that will be validated.
        backend: The backend that validators will get.

    Raises:
        InvalidOption: one of the requirements would be judged by such a model.
    """
    for requirement in requirements:
        if (judge := requirement.judge_of(backend)) is not None:
            check_can_judge(judge)


def is_misdefined(error: Exception) -> bool:
    """Whether an error that the caller of a validator has caught came from the call itself, and not from inside.

    That is a validator with other parameters, or one that is not ``async``.
    """
    trail = error.__traceback__
    return type(error) is TypeError and trail is not None and trail.tb_next is None


def reasons_in(verdicts: Sequence[tuple[Requirement, ValidationResult]]) -> list[str]:
    """Why an answer was rejected, one line for each requirement that it does not meet."""
    return [
        verdict.reason or requirement.format_for_llm() or repr(requirement)
        for requirement, verdict in verdicts
        if is_rejected(requirement, verdict)
    ]


def is_rejected(requirement: Requirement, verdict: ValidationResult) -> bool:
    """Whether a verdict rejects an answer; a fail with ``on_fail="noop"`` does not."""
    return not verdict and requirement.on_fail != "noop"


def label_of(requirement: Requirement) -> str:
    """A name of a requirement, for people: its description, or else its class."""
    return requirement.description or type(requirement).__name__


def as_requirement(requirement: Requirement | str) -> Requirement:
    """A requirement unchanged, or a new one for a description.

    Raises:
        InvalidOption: it is neither.
    """
    match requirement:
        case Requirement():
            return requirement
        case str():
            return Requirement(requirement)
        case _:
            raise InvalidOption(f"a requirement is a Requirement or a str, not {requirement!r}")
