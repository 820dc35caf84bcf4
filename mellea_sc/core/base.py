"""What goes to a model: blocks of text, components, thunks that stand for text, and contexts.

A *span* is anything that can be used as text in a prompt. A span that holds thunks has a text only when they are
computed: :func:`pending_thunks` finds those that are not, the runtime waits for them in the task of the
generation that needs them, and then :func:`text_of` returns the text.
"""

from __future__ import annotations

import abc
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, Literal, SupportsIndex, TypeAlias, TypeVar

import attrs

from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.generation_info import NOTHING_KNOWN, GenerationInfo, ToolCall

if TYPE_CHECKING:
    from typing import Self

    from mellea_sc.runtime.generation.thunk import ModelOutputThunk
else:

    def __getattr__(name):
        # Mellea's import path. Ours is in the runtime, which the core must not import, except when asked for it.
        if name != "ModelOutputThunk":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mellea_sc.runtime.generation.thunk import ModelOutputThunk

        return ModelOutputThunk


__all__ = [
    "ROLES",
    "SPANS",
    "CBlock",
    "Component",
    "Context",
    "ContextTurn",
    "ModelOutputThunk",
    "Role",
    "Span",
    "Thunk",
    "checked_texts",
    "no_span",
    "pending_thunks",
    "role_of",
    "text_of",
]

C = TypeVar("C", bound="Context")

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]

ROLES: Final = ("system", "user", "assistant", "tool")
"""All of them."""


@attrs.frozen
class CBlock:
    """A block of text that is data: it goes to the model as it is and is never a template.

    Args:
        value: The text.
    """

    value: str

    def __str__(self) -> str:
        return self.value


class Thunk(abc.ABC):
    """A text that a model generates, and that may not be complete yet.

    The only implementation is :class:`mellea_sc.ModelOutputThunk`. This is the interface that components, contexts
    and validators use.
    """

    __slots__ = ()

    parsed_repr: object = None
    """The parsed text; see ``ModelOutputThunk.parsed_repr``."""
    format_error: str | None = None
    """Why the text does not fit the requested ``format``, if it does not."""

    @abc.abstractmethod
    def is_computed(self) -> bool:
        """Whether the text is complete, so that :attr:`value` can be read."""

    @abc.abstractmethod
    async def avalue(self) -> str:
        """Wait for the text and return it."""

    def __await__(self) -> Generator[object, None, str]:
        """``await thunk`` is ``await thunk.avalue()``."""
        return self.avalue().__await__()

    @property
    @abc.abstractmethod
    def value(self) -> str:
        """The text.

        Raises:
            ThunkNotComputed: it is not complete yet.
        """

    @property
    def generation(self) -> GenerationInfo:
        """What is known about the generation so far."""
        return NOTHING_KNOWN

    @property
    def reasoning(self) -> str:
        """The model's reasoning before the answer."""
        return self.generation.reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of the model."""
        return self.generation.tool_calls


class Component(abc.ABC):
    """Something that can be formatted as text of a prompt.

    A subclass implements :meth:`format_for_llm`, and :meth:`parts` if it may hold thunks.
    """

    role: Role = "user"
    """Its role in a conversation."""

    def parts(self) -> Sequence[Span]:
        """The spans inside; thunks among them are awaited before :meth:`format_for_llm` is called."""
        return ()

    @abc.abstractmethod
    def format_for_llm(self) -> str:
        """The text that the model reads. Called only when every thunk inside is computed."""

    def summary(self) -> str:
        """A short description for names and messages; must not raise, also if thunks are not computed."""
        return type(self).__name__

    def assistant_prefix(self) -> str | None:
        """Text with which the answer must begin, if any; the model continues after it."""
        return None

    def parse(self, text: str) -> object:
        """Parse the model's answer; by default its text is returned."""
        return text

    def for_copies(self) -> Component:
        """The component that takes its place in deep copies and pickles of a conversation; by default itself.

        One that holds what only its own call needs, and what perhaps cannot be copied (validators, a live object),
        returns one with the same text without that.
        """
        return self


Span: TypeAlias = str | CBlock | Component | Thunk
"""Everything that can be used as text in a prompt."""

SPANS: Final = (str, CBlock, Component, Thunk)
"""The classes of a :data:`Span`, for ``isinstance``."""


def no_span(what: str, given: object) -> InvalidOption:
    """The error for an argument that cannot be used as text.

    Args:
        what: The argument, for people.
        given: Its value.
    """
    return InvalidOption(f"{what} must be a str, a CBlock, a Component or a thunk, not {given!r}")


def checked_texts(what: str, given: Mapping[str, Span]) -> dict[str, Span]:
    """An argument with named texts.

    Raises:
        InvalidOption: it is no mapping from names to texts.
    """
    if not isinstance(given, Mapping):
        raise InvalidOption(f"{what} must be a mapping from names to texts, not {given!r}")
    for name, text in given.items():
        if not isinstance(name, str):
            raise InvalidOption(f"{what} must be a mapping from names to texts, not {given!r}")
        if not isinstance(text, SPANS):
            raise no_span(f"{what}[{name!r}]", text)
    return dict(given)


def text_of(span: Span) -> str:
    """The text of a span in a prompt.

    Raises:
        ThunkNotComputed: a thunk inside is not computed.
        TypeError: it is no span, or a component that does not return a ``str``.
    """
    match span:
        case str():
            return span
        case CBlock():
            return span.value
        case Component():
            text: object = span.format_for_llm()
            if not isinstance(text, str):
                raise TypeError(
                    f"format_for_llm() of {type(span).__name__} must return a str, not {text!r}"
                )
            return text
        case Thunk():
            return span.value
        case _:
            raise TypeError(
                f"a {type(span).__name__} cannot stand where text goes: give a str, a CBlock, "
                "a Component or a thunk"
            )


def role_of(item: Span) -> Role:
    """The role of a span in a conversation."""
    match item:
        case Thunk():
            return "assistant"
        case Component():
            return item.role
        case _:
            return "user"


def pending_thunks(*spans: Span) -> Iterator[Thunk]:
    """The uncomputed thunks inside of spans, depth first, each once."""
    seen: set[int] = set()
    stack: list[Span] = list(reversed(spans))
    while stack:
        span = stack.pop()
        if id(span) in seen:
            continue
        seen.add(id(span))
        if isinstance(span, Thunk):
            if not span.is_computed():
                yield span
        elif isinstance(span, Component):
            stack.extend(reversed(span.parts()))


@attrs.frozen
class ContextTurn:
    """A turn of a conversation: a question and its answer.

    Args:
        model_input: The question; ``None`` if the answer has none.
        output: The answer, a thunk or a message of the assistant; ``None`` if there is none yet.
    """

    model_input: Span | None
    output: Span | None


class Context:
    """A conversation so far: an immutable chain of spans. Adding an item returns a new context.

    A subclass decides with :attr:`is_chat_context`, or with :meth:`view_for_generation`, which items the model sees, and
    may limit with :attr:`remembers` how many are kept.
    """

    __slots__ = ("_item", "_listed", "_previous", "reading")

    remembers: ClassVar[int | None] = None
    """How many of the newest items are kept; ``None``: all."""
    is_chat_context: ClassVar[bool] = True
    """Whether the model sees earlier turns."""

    def __init__(self) -> None:
        self._previous: Context | None = None
        self._item: Span | None = None
        self._listed: tuple[Span, ...] | None = None
        self.reading: object = None
        """What ``core/question.py`` has read of it, so that no turn is read twice. Not for users."""

    def without_items(self) -> Self:
        """An empty context of the same kind, with the same settings."""
        return type(self)()

    def add(self, item: Span) -> Self:
        """The context with one more item at its end; this one is unchanged.

        Raises:
            InvalidOption: the item cannot be used as text.
        """
        if not isinstance(item, SPANS):
            raise no_span("an item of a context", item)
        node, newest = self, [item]
        if self.remembers is not None:
            node, newest = self.without_items(), [*self.as_list(self.remembers - 1), item]
        for one in newest:
            longer = self.without_items()
            longer._previous, longer._item = node, one
            node = longer
        return node

    def as_list(self, last_n: int | None = None) -> list[Span]:
        """The items, oldest first; with ``last_n`` only that many of the newest."""
        if last_n is None:
            return list(self._all())
        items: list[Span] = []
        node: Context | None = self
        while node is not None and node._item is not None and len(items) < last_n:
            items.append(node._item)
            node = node._previous
        items.reverse()
        return items

    def _all(self) -> tuple[Span, ...]:
        """All items, oldest first.

        The list is cached, and handed on to the newest context of a conversation. Walking the chain anew for each
        turn would make a long conversation quadratic.
        """
        newer: list[Span] = []
        node: Context | None = self
        while node is not None and node._item is not None:
            if (known := node._listed) is not None:
                node._listed = None
                break
            newer.append(node._item)
            node = node._previous
        else:
            known = ()
        newer.reverse()
        self._listed = (*known, *newer)
        return self._listed

    def last_output(self, check_last_n: int = 3) -> Thunk | None:
        """The newest thunk among the last few items, if there is one."""
        for item in reversed(self.as_list(check_last_n)):
            if isinstance(item, Thunk):
                return item
        return None

    def last_turn(self) -> ContextTurn | None:
        """The newest item and, if it is an answer, its question; ``None`` in an empty context."""
        items: list[Span | None] = [None, *self.as_list(2)]
        last = items[-1]
        if last is None:
            return None
        return (
            ContextTurn(items[-2], last)
            if role_of(last) == "assistant"
            else ContextTurn(last, None)
        )

    @property
    def node_data(self) -> Span | None:
        """The newest item; ``None`` in an empty context."""
        return self._item

    @property
    def previous_node(self) -> Context | None:
        """The context before the newest item was added; ``None`` for an empty context."""
        return self._previous

    @property
    def is_root_node(self) -> bool:
        """Whether the context is empty."""
        return self._item is None

    def view_for_generation(self) -> list[Span]:
        """The items that the model sees before the next action, oldest first: by default all, or none."""
        return self.as_list() if self.is_chat_context else []

    def to_messages(self) -> list[dict[str, str]]:
        """All items as JSON-able messages in OpenAI's form, oldest first.

        Raises:
            ThunkNotComputed: a thunk among the items is not computed.
        """
        return [{"role": role_of(item), "content": text_of(item)} for item in self._all()]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.as_list())} items>"

    def __copy__(self) -> Self:
        """A context of its own with the same items."""
        return _chained(self.without_items(), self.as_list())

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[object, ...]:
        """Deep copies and pickles are made of the list of items: following the chain would exceed the recursion limit.

        Raises:
            ThunkNotComputed: an item is a thunk that is not computed, or has one inside.
        """
        if self._item is None:
            return super().__reduce_ex__(protocol)
        items = [one.for_copies() if isinstance(one, Component) else one for one in self.as_list()]
        return _chained, (self.without_items(), items)


def _chained(empty: C, items: list[Span]) -> C:
    ctx = empty
    for item in items:
        ctx = ctx.add(item)
    return ctx
