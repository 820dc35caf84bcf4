"""What goes to a model: blocks of text, components, thunks that stand for text, and contexts.

A *span* is anything that can stand where text goes. A span that holds thunks can only be read as
text when they are computed: :func:`pending_thunks` finds them, the runtime waits for them in the
task of the generation that needs them, and then :func:`text_of` reads.
"""

from __future__ import annotations

import abc
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, SupportsIndex, TypeAlias

import attrs

from mellea_sc.core.generation_info import NOTHING_KNOWN, GenerationInfo
from mellea_sc.core.tool_calls import ToolCall

if TYPE_CHECKING:
    from typing import Self

    from mellea_sc.runtime.generation.thunk import ModelOutputThunk
else:

    def __getattr__(name):
        # Mellea has its thunk here; ours has a task, so it lives in the runtime, and is imported when asked for
        if name != "ModelOutputThunk":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mellea_sc.runtime.generation.thunk import ModelOutputThunk

        return ModelOutputThunk


__all__ = [
    "CBlock",
    "Component",
    "Context",
    "ContextTurn",
    "ModelOutputThunk",
    "Role",
    "Span",
    "Thunk",
    "pending_thunks",
    "role_of",
    "text_of",
]

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


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
    """Text that a model has been asked for and that may not be there yet.

    The one implementation is :class:`mellea_sc.ModelOutputThunk`; this is what components, contexts
    and validators may rely on.
    """

    __slots__ = ()

    parsed_repr: object = None
    """What the text means, as whoever asked for it reads it."""
    format_error: str | None = None
    """Why the text does not fit the ``format`` that was asked for, if it does not."""

    @abc.abstractmethod
    def is_computed(self) -> bool:
        """Whether the text is there: :attr:`value` can be read."""

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
            ThunkNotComputed: it is not there yet.
        """

    @property
    def generation(self) -> GenerationInfo:
        """What is known about the generation so far."""
        return NOTHING_KNOWN

    @property
    def reasoning(self) -> str:
        """What the model thought before it answered."""
        return self.generation.reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that the model wants to have made."""
        return self.generation.tool_calls


class Component(abc.ABC):
    """Something that knows how it reads in a prompt.

    A subclass gives :meth:`format_for_llm`, and :meth:`parts` where it holds thunks.
    """

    role: Role = "user"
    """As whom it speaks in a conversation."""

    def parts(self) -> Sequence[Span]:
        """The spans inside; thunks among them are computed before it is formatted."""
        return ()

    @abc.abstractmethod
    def format_for_llm(self) -> str:
        """The text that the model reads. Called only when every thunk inside is computed."""

    def summary(self) -> str:
        """A few words for people, in names and messages; never waits and never fails."""
        return type(self).__name__

    def assistant_prefix(self) -> str | None:
        """Text with which the answer has to begin, if any (it is not repeated by the model)."""
        return None

    def parse(self, text: str) -> object:
        """What the model's answer means; by default its text."""
        return text


Span: TypeAlias = str | CBlock | Component | Thunk
"""What may stand where text goes."""


def text_of(span: Span) -> str:
    """How a span reads in a prompt.

    Raises:
        ThunkNotComputed: a thunk inside is not computed.
        TypeError: it is none of the kinds of span.
    """
    match span:
        case str():
            return span
        case CBlock():
            return span.value
        case Component():
            return span.format_for_llm()
        case Thunk():
            return span.value
        case _:
            raise TypeError(
                f"a {type(span).__name__} cannot stand where text goes: give a str, a CBlock, "
                "a Component or a thunk"
            )


def role_of(item: Span) -> Role:
    """As whom a span speaks in a conversation."""
    match item:
        case Thunk():
            return "assistant"
        case Component():
            return item.role
        case _:
            return "user"


def pending_thunks(*spans: Span) -> Iterator[Thunk]:
    """The thunks inside the spans that are not computed, depth first, each once."""
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
    """What was said, and what was answered.

    Args:
        model_input: ``None`` where an answer stands alone.
        output: The answer: a thunk, or a message of the assistant's; ``None`` where there is none yet.
    """

    model_input: Span | None
    output: Span | None


class Context(abc.ABC):
    """What was said so far: immutable, a chain of spans; adding gives a new context.

    A subclass says with :meth:`view_for_generation` what the model gets to see of it, and may
    limit with :attr:`remembers` how long a chain is kept.
    """

    __slots__ = ("_item", "_listed", "_previous", "reading")

    remembers: ClassVar[int | None] = None
    """How many of the newest items are kept; ``None``: all."""
    is_chat_context: ClassVar[bool] = True
    """Whether the model gets to see what was said before."""

    def __init__(self) -> None:
        self._previous: Context | None = None
        self._item: Span | None = None
        self._listed: tuple[Span, ...] | None = None
        self.reading: object = None
        """What ``core/prompt.py`` has read of it, so that no turn is read twice. Not for users."""

    def without_items(self) -> Self:
        """A context of the same kind and settings in which nothing was said."""
        return type(self)()

    def add(self, item: Span) -> Self:
        """The context with one more item at its end; this one is unchanged."""
        if self.remembers is None:
            return self._chain(item)
        node = self.without_items()
        for earlier in self.as_list(self.remembers - 1):
            node = node._chain(earlier)
        return node._chain(item)

    def _chain(self, item: Span) -> Self:
        new = self.without_items()
        new._previous = self
        new._item = item
        return new

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
        """The items. Its newest part has the list of a conversation, so that no turn walks all of it again."""
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
        """The newest item and, where it is an answer, what it answers; ``None`` where nothing was said."""
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
        """The newest item; ``None`` where nothing was said."""
        return self._item

    @property
    def previous_node(self) -> Context | None:
        """The context before the newest item was added; ``None`` where nothing was said."""
        return self._previous

    @property
    def is_root_node(self) -> bool:
        """Whether nothing was said."""
        return self._item is None

    @abc.abstractmethod
    def view_for_generation(self) -> list[Span]:
        """The items that the model gets to see before the next action, oldest first."""

    def to_messages(self) -> list[dict[str, str]]:
        """All that was said, as JSON-able messages in OpenAI's form, oldest first.

        Raises:
            ThunkNotComputed: a thunk among the items is not computed.
        """
        return [{"role": role_of(item), "content": text_of(item)} for item in self._all()]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.as_list())} items>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[object, ...]:
        """Copies and pickles are made item by item: a long chain would nest too deep.

        Raises:
            ThunkNotComputed: an item is a thunk that is not computed, and the copy a deep one or a pickle.
        """
        if self._item is None:
            return super().__reduce_ex__(protocol)
        return _chained, (self.without_items(), self.as_list())


def _chained(empty: Context, items: list[Span]) -> Context:
    ctx = empty
    for item in items:
        ctx = ctx.add(item)
    return ctx
