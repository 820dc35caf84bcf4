"""The contract between the library and whatever runs a model.

A backend knows one thing: how to talk to its model. It opens a generation as an async context
manager over deltas; leaving that block, for whatever reason, closes the connection, and with it
stops the model. Tasks, retries, conversations, validation and limits are the business of others.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import attrs

from mellea_sc.core.base import Component, Context, Role, Span, Thunk
from mellea_sc.core.errors import BackendNotBound, InvalidOption
from mellea_sc.core.model_options import ModelOptions
from mellea_sc.core.tool_calls import ToolCall, ToolCallDelta
from mellea_sc.core.usage import Usage

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "Backend",
    "BackendWrapper",
    "ChatMessage",
    "CheckedSchema",
    "Delta",
    "Format",
    "GenerationRequest",
    "JsonSchema",
    "SchemaModel",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
    "schema_of",
]

JsonSchema: TypeAlias = Mapping[str, object]
"""A JSON schema, as ``json.loads`` gives it."""


@runtime_checkable
class SchemaModel(Protocol):
    """A class that can say its JSON schema and read an instance from JSON: a pydantic model."""

    @classmethod
    def model_json_schema(cls) -> dict[str, object]:
        """The JSON schema of an instance."""
        ...

    @classmethod
    def model_validate_json(cls, json_data: str) -> object:
        """The instance that a JSON text stands for."""
        ...


Format: TypeAlias = type[SchemaModel] | JsonSchema
"""What an answer is constrained to: a pydantic model class, or a JSON schema."""


class CheckedSchema(dict[str, object]):
    """A JSON schema that answers are held against.

    Args:
        schema: The schema.
        misfit_of: Why a text does not fit it, be it no JSON at all; ``None``: it does, or somebody else will see.
    """

    def __init__(self, schema: JsonSchema, misfit_of: Callable[[str], str | None]) -> None:
        super().__init__(schema)
        self.misfit_of: Callable[[str], str | None] = misfit_of


def schema_of(format: Format | None) -> JsonSchema | None:
    """The JSON schema that an answer has to fit.

    Raises:
        InvalidOption: it is neither a pydantic model class nor a JSON schema.
    """
    if format is None:
        return None
    if isinstance(format, CheckedSchema):
        return dict(format)
    if isinstance(format, Mapping):
        return format
    if isinstance(format, type) and isinstance(format, SchemaModel):
        return format.model_json_schema()
    raise InvalidOption(f"format must be a pydantic model class or a JSON schema, not {format!r}")


@attrs.frozen
class ChatMessage:
    """One message of the conversation that the model reads."""

    role: Role
    content: str


@attrs.frozen
class GenerationRequest:
    """What a model is asked: everything is text by now.

    Args:
        messages: The conversation, oldest first. When the last one is the assistant's, the model
            is asked to go on with it.
        options: Keys of :class:`~mellea_sc.ModelOption`, and others that go to the server as they are.
        json_schema: What the answer has to fit; the backend constrains the model to it.
    """

    messages: tuple[ChatMessage, ...]
    options: ModelOptions = attrs.field(factory=dict[str, object])
    json_schema: JsonSchema | None = None


@attrs.define
class Delta:
    """The next piece of an answer: a value, though not frozen, for one is made for each token.

    Args:
        text: New text; may be empty.
        finish_reason: Why the model stopped, on the piece that says so (``"stop"``, ``"length"``, …).
        usage: The tokens used by the whole request so far, where the server says so.
        reasoning: New text of what the model thinks before it answers. It is no part of the answer.
        tool_calls: New pieces of calls that the model wants to have made.
    """

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


class Backend(abc.ABC):
    """How to talk to a model.

    A subclass implements :meth:`open`, sets :attr:`provider` and :attr:`model_id`, and overrides
    :meth:`connected` when it has something to keep open between requests.
    ``mellea_sc.testing.check_backend`` tells whether it does so as everybody relies on.
    """

    provider: str = "custom"
    """The kind of server, for people: ``"ollama"``, ``"openai"``, …"""
    model_id: str = ""
    """The model's name, as its server knows it."""
    prefills: bool = False
    """Whether the model writes on where the last message ends, if that is the assistant's. Where it does
    not, it is asked to go on."""
    judges: bool = True
    """Whether the model is of any use as a judge. Where it is not, asking it for a judgement is an error."""
    model_options: ModelOptions = MappingProxyType({})
    """What every request starts from; the options of a session and of a call win."""

    @abc.abstractmethod
    def open(self, request: GenerationRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Open a generation.

        Entering sends the request and waits for the answer to begin; the iterator inside gives the
        deltas as they arrive and ends when the model has finished.

        Raises:
            BackendError: on entering or from the iterator; a stream that ends early is an error too.

        Cancellation: leaving the block closes the connection, whatever is left unread; that is
        shielded and bounded in time.
        """

    def connected(self) -> AbstractAsyncContextManager[Self]:
        """A block within which requests share what is worth keeping open (a connection pool, an engine).

        A session enters it once per event loop and makes its requests of the backend it gives.
        """
        return nullcontext(self)

    async def generate_from_context(
        self,
        action: Component | Span,
        ctx: Context,
        *,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
    ) -> tuple[Thunk, Context]:
        """Start a generation in the scope that this backend is bound to.

        Sessions (``m.backend``) and runs hand out bound backends; a bare one has no tasks of its own.

        Returns:
            The thunk, already generating, and the context with the action and the thunk added.

        Raises:
            BackendNotBound: this backend is a bare one.
        """
        raise BackendNotBound(
            f"{type(self).__name__} is not bound to a session: make one with "
            "start_session(backend=…) and use its m.backend"
        )


class BackendWrapper(Backend):
    """A backend around another one: all that a subclass does not change is as the inner one has it.

    What the inner backend says of itself (its provider, its model's name, what it can do) is looked up there,
    so that no wrapper has to know what there is to say. A subclass may set an attribute of its own instead. It
    mostly overrides :meth:`open`. ``mellea_sc.testing.check_wrapper`` tells whether it loses something.

    Args:
        inner: The backend that is asked.
    """

    def __init__(self, inner: Backend) -> None:
        self.inner: Backend = inner

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    def connected(self) -> AbstractAsyncContextManager[Self]:
        """The same around the connected backend: a copy of this wrapper."""
        return self._connected()

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[Self]:
        async with self.inner.connected() as inner:
            connected = copy.copy(self)
            connected.inner = inner
            yield connected

    def open(self, request: GenerationRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Open a generation; see :meth:`Backend.open`."""
        return self.inner.open(request)


class _Delegated:
    """An attribute that is looked up in the wrapped backend, unless the wrapper has one of its own."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, wrapper: BackendWrapper | None, owner: type[BackendWrapper]) -> object:
        return getattr(Backend if wrapper is None else wrapper.inner, self._name)


for _name in Backend.__annotations__:
    setattr(BackendWrapper, _name, _Delegated(_name))
