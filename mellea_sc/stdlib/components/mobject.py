"""Questions about a user's object, and transformations of it.

An object defines its text with ``content_as_string()``, and with ``callable_methods()`` the methods that a model may
call. :class:`MObject` is a base class for such objects. The text of any other object is ``str(object)``, and a model
may call none of its methods.

If there are callable methods, the model is constrained to answer with a call or a text. Only these methods are
called, and only with arguments that fit their signatures.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias, cast, runtime_checkable

from mellea_sc.core.backend import JsonSchema
from mellea_sc.core.base import CBlock, Component, Span, Thunk, text_of
from mellea_sc.core.errors import InvalidOption, ModelError
from mellea_sc.core.plain_text import shortened
from mellea_sc.core.question import several
from mellea_sc.stdlib.components.chat import Message

Method: TypeAlias = Callable[..., object]


@runtime_checkable
class MObjectProtocol(Protocol):
    """How an object presents itself to a model."""

    def content_as_string(self) -> str:
        """Its text for the model."""
        ...

    def callable_methods(self) -> Mapping[str, Method]:
        """The methods that a model may call, by their names; they may be async."""
        ...


class MObject:
    """A base class for objects that a model is asked about.

    Its text is ``str(self)``, and a model may call the methods named in :attr:`lends`.
    """

    lends: Sequence[str] = ()
    """The names of the methods that a model may call."""

    def content_as_string(self) -> str:
        """Its text for the model."""
        return str(self)

    def callable_methods(self) -> Mapping[str, Method]:
        """The methods that a model may call."""
        return {name: getattr(self, name) for name in several("lends", self.lends)}


class _AboutObject(Component):
    """A question about an object, or a wish for it."""

    def __init__(self, obj: object, wish: str) -> None:
        self._obj = obj
        self._wish = wish
        self.methods: Mapping[str, Method] = (
            obj.callable_methods() if isinstance(obj, MObjectProtocol) else {}
        )

    def parts(self) -> Sequence[Span]:
        """The object, where it is a span itself."""
        return [self._obj] if isinstance(self._obj, str | CBlock | Component | Thunk) else []

    def summary(self) -> str:
        """The wish."""
        return self._wish

    def _object_text(self) -> str:
        if isinstance(self._obj, MObjectProtocol):
            return self._obj.content_as_string()
        if isinstance(self._obj, str | CBlock | Component | Thunk):
            return text_of(self._obj)
        return str(self._obj)

    def _prompt(self, task: str) -> str:
        sections = [f"<object>\n{self._object_text()}\n</object>", task]
        if self.methods:
            lines = [
                f"- {name}{inspect.signature(method)}: {inspect.getdoc(method) or 'no description'}"
                for name, method in self.methods.items()
            ]
            how = (
                'Answer with JSON: {"method": its name, "arguments": {…}, "text": ""} to call it, '
                'or {"method": "none", "arguments": {}, "text": your answer}.'
            )
            sections.append(
                "\n".join(["You may call one of these methods of the object:", *lines, how])
            )
        return "\n\n".join(sections)

    def for_copies(self) -> Component:
        """Without the object, which may be anything."""
        return Message(self.role, CBlock(self.format_for_llm()))

    def answer_schema(self) -> JsonSchema | None:
        """The schema of the answer, a call or a text; ``None`` if there are no callable methods."""
        if not self.methods:
            return None
        return {
            "type": "object",
            "properties": {
                "method": {"type": "string", "enum": [*self.methods, "none"]},
                "arguments": {"type": "object"},
                "text": {"type": "string"},
            },
            "required": ["method", "arguments", "text"],
            "additionalProperties": False,
        }

    async def carry_out(self, answer: str) -> object:
        """Call the method that the answer names and return its result, or return the answer's text.

        Raises:
            ModelError: the answer is no valid call: no JSON, an unknown method, or arguments that do not fit.
        """
        if not self.methods:
            return answer
        try:
            call = json.loads(answer)
            name, arguments, text = call["method"], call["arguments"], call["text"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelError(
                f"the model was to call a method or to answer, and said {shortened(answer, 200)!r}"
            ) from error
        if name == "none" and isinstance(text, str):
            return text
        if not isinstance(name, str) or name not in self.methods or not isinstance(arguments, dict):
            raise ModelError(
                f"the model was to call one of {', '.join(self.methods)}, and said {shortened(answer, 200)!r}"
            )
        method = self.methods[name]
        try:
            bound = _bound(method, cast("dict[str, object]", arguments))
        except TypeError as error:
            raise ModelError(f"the model said {shortened(answer, 200)!r}: {error}") from error
        returned = bound()
        return await returned if inspect.isawaitable(returned) else returned


def _bound(method: Method, arguments: dict[str, object]) -> Callable[[], object]:
    """The call of a method.

    Raises:
        TypeError: it does not take these arguments.
    """
    function, given = method, []
    if inspect.ismethod(method):  # so that no argument can be called "self"
        function, given = method.__func__, [method.__self__]
    bound = inspect.signature(function).bind(*given, **arguments)
    return functools.partial(function, *bound.args, **bound.kwargs)


class Query(_AboutObject):
    """A question about an object.

    Args:
        obj: The object.
        query: The question.
    """

    def __init__(self, obj: object, query: str) -> None:
        if not isinstance(query, str):
            raise InvalidOption(f"a query is a str, not {query!r}")
        super().__init__(obj, query)

    def format_for_llm(self) -> str:
        """The object and the question."""
        return self._prompt(f"Answer this question about the object: {self._wish}")


class Transform(_AboutObject):
    """A transformation of an object.

    Args:
        obj: The object.
        transformation: What to make of it.
    """

    def __init__(self, obj: object, transformation: str) -> None:
        if not isinstance(transformation, str):
            raise InvalidOption(f"a transformation is a str, not {transformation!r}")
        super().__init__(obj, transformation)

    def format_for_llm(self) -> str:
        """The object and the wish."""
        return self._prompt(
            f"Transform the object as follows, and answer with the result only: {self._wish}"
        )
