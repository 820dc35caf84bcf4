"""Arguments: those that take several things, and keyword arguments that several functions share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec, TypeVar

from mellea_sc.core.errors import InvalidOption

__all__ = ["keyword_arguments", "several"]

P = ParamSpec("P")
T = TypeVar("T")


def several(name: str, given: Iterable[T] | None) -> list[T]:
    """What an argument was given; a ``str`` is no list of its letters.

    Raises:
        InvalidOption: it is a ``str``, or nothing that can be iterated; the message shows the list to write.
    """
    if given is None:
        return []
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidOption(f"{name} takes a list: {name}=[{given!r}]")
    return list(given)


def keyword_arguments(
    arguments: type[object], **defaults: object
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """For a function that ends in ``**given: Unpack[arguments]``: have it refuse others, and show them all.

    Type checkers and editors read the ``TypedDict``. ``help()`` and ``inspect.signature`` show ``**given`` as the
    keyword arguments it stands for, in the order of the docstring.

    Args:
        arguments: The ``TypedDict``.
        defaults: What an argument is when it is not given, where that is not ``None``.
    """
    types = {  # under `from __future__ import annotations`, a ForwardRef around the text
        name: getattr(kind, "__forward_arg__", kind)
        for name, kind in arguments.__annotations__.items()
    }

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)
        *own, given = signature.parameters.values()
        assert given.kind is inspect.Parameter.VAR_KEYWORD
        documentation = inspect.getdoc(function) or ""
        described = [*re.findall(r"^    (\w+): ", documentation, re.MULTILINE)]
        shared = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=kind
            )
            for name, kind in types.items()
        ]
        shown = sorted([*own, *shared], key=lambda one: (one.kind, place_of(one.name)))
        accepted = frozenset(one.name for one in [*own, *shared])

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if not accepted.issuperset(kwargs):
                unknown = next(name for name in kwargs if name not in accepted)
                raise TypeError(
                    f"{function.__qualname__}() got an unexpected keyword argument {unknown!r}"
                )
            return function(*args, **kwargs)

        vars(call)["__signature__"] = signature.replace(parameters=shown)
        return call

    return decorate
