"""What must hold of an answer, and the verdicts on it.

A requirement judges a finished answer with :meth:`Requirement.validate` and a running one, chunk by
chunk, with :meth:`Requirement.stream_validate`. A verdict is data; an exception in a validator is an
error and never counts as a verdict.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, get_args

import attrs

from mellea_sc.core.backend import Backend, Format
from mellea_sc.core.base import Component, Context, Thunk
from mellea_sc.core.errors import InvalidOption, InvalidVerdict
from mellea_sc.core.judgement import default_output_to_bool
from mellea_sc.core.model_options import ModelOptions

if TYPE_CHECKING:
    from typing import Self

    from mellea_sc.core.chunking import ChunkingStrategy

__all__ = [
    "OnFail",
    "PartialValidationResult",
    "Requirement",
    "ValidationFunction",
    "ValidationResult",
    "as_requirement",
    "check_can_judge",
    "check_judges",
    "default_output_to_bool",
    "label_of",
]

PartialVerdict: TypeAlias = Literal["pass", "fail", "unknown"]
_VERDICTS: Final = get_args(PartialVerdict)


@attrs.frozen
class ValidationResult:
    """The verdict on a finished answer; true when it passed.

    Args:
        result: Whether the answer passed.
        reason: Why, for people and for a repairing prompt.
        score: A number the validator chose to give.
        thunk: The judge's answer, if a model judged.
    """

    result: bool
    reason: str | None = attrs.field(default=None, kw_only=True)
    score: float | None = attrs.field(default=None, kw_only=True)
    thunk: Thunk | None = attrs.field(default=None, kw_only=True, repr=False)

    def as_bool(self) -> bool:
        """Whether the answer passed."""
        return self.result

    def __bool__(self) -> bool:
        return self.result


@attrs.frozen(slots=False, init=False)
class PartialValidationResult:
    """The verdict on a running answer, as far as one chunk tells.

    Args:
        success: ``"fail"`` stops the stream at once; ``"pass"`` and ``"unknown"`` let it go on, and
            neither replaces the final :meth:`Requirement.validate`.
        reason: Why, for people and for a repairing prompt.
        score: A number the validator chose to give.
        replacement: With ``"fail"``: what the reader gets instead of the piece of text that was
            judged, where the requirement says ``on_fail="fix"``.
        cuts_off: With ``"fail"``: whatever follows this piece fails too, as after a limit. Where the
            requirement says ``on_fail="filter"`` or ``"fix"``, the text ends here, and the model is
            stopped.
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
        # by hand, for one is made for each piece and requirement: attrs would take twice the time
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
"""Judges a finished answer: the last output of the context. It may be async."""

_JudgeByModel: TypeAlias = Callable[
    ["Requirement", str, Backend, Context, ModelOptions | None], Awaitable[ValidationResult]
]

OnFail: TypeAlias = Literal["stop", "retry", "backtrack", "filter", "fix", "noop"]
"""What follows a fail while a text streams; see :class:`Requirement`."""


class Requirement(Component):
    """Something that must hold of an answer.

    With a ``validation_fn`` that function judges the finished answer; without one a model does.
    Subclasses override :meth:`validate` or :meth:`stream_validate`; state that they gather from
    chunk to chunk is kept on a copy made for every attempt (see :meth:`__copy__`).

    Args:
        description: What must hold, in words: for the prompt and for a judge.
        validation_fn: Judges from the context, whose ``last_output()`` is the answer; may be async.
        output_to_bool: Reads a judge's answer; a ``ValueError`` from it means that it is unclear.
        check_only: The description stays out of the prompt.
        chunking: Cuts the text for this requirement alone: a strategy's name or a strategy.
        fail_open: An error in the validator counts as ``"unknown"`` (while streaming) or as passed,
            and is logged. Without it an error stops the run.
        timeout: Seconds one call of the validator may take, instead of the run's own limit.
        on_fail: What follows a ``"fail"`` while the text streams. ``None``: the strategy decides,
            and without one the run stops. ``"stop"``: it stops whatever the strategy. ``"retry"``:
            another attempt from the beginning. ``"backtrack"``: from the last good chunk.
            ``"filter"``: the piece is left out. ``"fix"``: the verdict's ``replacement`` stands in
            its place (without one, as ``None``). What an attempt before has shown of the piece stays.
            ``"noop"``: it is only recorded. How many attempts there are is the strategy's to say,
            without one two, and eight for going back.
        blocking: Whether text waits for this requirement's verdict. One that does not block is
            advisory: it may judge late, and what it fails may have been shown.
        window: So many characters of the text before each piece are handed to
            :meth:`stream_validate`, as the last output of its context.
        every: So many chunks are judged at once, by one call; the text waits for the last of them.

    Raises:
        InvalidOption: ``on_fail``, ``window`` or ``every`` is not usable.
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
        _check_count("window", window, 0)
        _check_count("every", every, 1)
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
        """The copy that serves one attempt; lists, dicts and sets of the original are copied too."""
        new = object.__new__(type(self))
        state: object = self.__getstate__()
        parts = cast("tuple[object, ...]", state) if isinstance(state, tuple) else (state,)
        for part in parts:  # the attributes and, where a subclass has some, the slots
            for name, value in cast("dict[str, object]", part or {}).items():
                object.__setattr__(new, name, _copied_if_gathered(value))
        return new

    def format_for_llm(self) -> str:
        """What must hold, as the prompt says it."""
        return self.description or ""

    def judge_of(self, backend: Backend) -> Backend | None:
        """The model that will be asked to judge, where validators are given this backend; or none."""
        is_asked = self.validation_fn is None and type(self).validate is Requirement.validate
        return backend if is_asked else None

    async def stream_validate(
        self, chunk: str, *, backend: Backend, ctx: Context
    ) -> PartialValidationResult:
        """Judge one more chunk of a running answer.

        Args:
            chunk: The chunk; what was before it is for the requirement to remember.
            backend: Bound to the run: what is generated with it ends with the run.
            ctx: The conversation up to and with the action; of the answer only the last
                ``window`` characters before the chunk are in it, and none without a window.

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
        """Judge a finished answer: the last output of the context.

        The reason of a fail is the function's, or where it gives none the description.

        It may ask models with the backend that it is given, or in another session. The conversation that is being
        judged takes no turn inside a turn: asking it raises a ``UsageError``, or, where a thread of
        ``loop.run_in_executor`` has the same event loop ask (which cannot be told from a thread of the program's
        own), waits until the ``timeout``.

        Raises:
            InvalidVerdict: the function returned something else than a ``ValidationResult``.
            InvalidOption: there is neither a function nor a description that a judge could use, or the
                model is none that can judge.
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
            raise InvalidOption("there is no output in the context that could be judged")
        # looked up when one is needed: here are contracts, and no prompts
        judging = import_module("mellea_sc.stdlib.requirements.judging")
        judge: _JudgeByModel = judging.judge_by_model
        return await judge(self, await output.avalue(), backend, ctx, model_options)

    def __repr__(self) -> str:
        said = f" {self.description!r}" if self.description else ""
        return f"<{type(self).__name__}{said}>"


def check_can_judge(judge: Backend) -> None:
    """Raise where a model is not to be asked for a judgement.

    Raises:
        InvalidOption: its backend says so; the message says how to name another.
    """
    if not judge.judges:
        raise InvalidOption(
            f"the model {judge.model_id} ({judge.provider}) cannot judge, it says yes to everything. Name "
            'one that can: LLMJudge("…", backend=…), or validation_backend=… for a stream; or judge with a '
            'function: req("…", validation_fn)'
        )


def check_judges(requirements: Iterable[Requirement], backend: Backend) -> None:
    """Raise, before anything is asked, where a model would be asked to judge that cannot.

    Args:
        requirements: What will be judged.
        backend: What validators will be given.

    Raises:
        InvalidOption: one of these would be judged by such a model.
    """
    for requirement in requirements:
        if (judge := requirement.judge_of(backend)) is not None:
            check_can_judge(judge)


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidOption(f"{name} must be a whole number of at least {least}, not {value!r}")


def _copied_if_gathered(value: object) -> object:
    if isinstance(value, list | dict | set | bytearray):
        return copy.copy(cast("object", value))
    return value


def label_of(requirement: Requirement) -> str:
    """A requirement, for people: its description, or else its kind."""
    return requirement.description or type(requirement).__name__


def as_requirement(requirement: Requirement | str) -> Requirement:
    """A requirement as it is, or of a description.

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
