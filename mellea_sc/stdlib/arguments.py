"""The keyword arguments of the methods that ask, each list in one place.

Several methods share them, and forward them as they are. What each means is said where it is documented:
:meth:`MelleaSession.aact`, :meth:`MelleaSession.ainstruct` and :func:`stream_with_chunking`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from mellea_sc.core.backend import Backend
from mellea_sc.core.base import CBlock, Span
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.question import QuestionArguments, RequestArguments
from mellea_sc.core.sampling import SamplingStrategy
from mellea_sc.runtime.failures import shorten
from mellea_sc.stdlib.sampling.base import PlannedStrategy

__all__ = [
    "ActArguments",
    "InstructArguments",
    "QueryArguments",
    "StreamArguments",
    "keyword_arguments",
]

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
