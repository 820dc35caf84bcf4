"""The contract between the library and a backend, which runs a model or talks to its server; and a request's options.

A backend does one thing: it opens a generation as an async context manager over deltas. Leaving that block, for
whatever reason, closes the connection, and that stops the model. Tasks, retries, conversations, validation and
limits are implemented elsewhere.

Options are a plain mapping. Those of :class:`ModelOption` mean the same with every model; others are sent to the server
unchanged.
"""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast, runtime_checkable

import attrs

from mellea_sc.core.base import Component, Context, Role, Span, Thunk
from mellea_sc.core.errors import BackendNotBound, InvalidOption
from mellea_sc.core.generation_info import ToolCall as ToolCall
from mellea_sc.core.generation_info import ToolCallDelta as ToolCallDelta
from mellea_sc.core.generation_info import Usage as Usage

if TYPE_CHECKING:
    from typing import Self

ModelOptions: TypeAlias = Mapping[str, object]
"""Options by the names of :class:`ModelOption`; others are sent to the server unchanged."""

DEFAULT_STREAM_TIMEOUT: Final = 120.0


class ModelOption:
    """The options every backend understands (the names are Mellea's).

    A value of ``None`` counts as not given; for :attr:`STREAM_TIMEOUT` it means without limit.
    """

    MAX_NEW_TOKENS: Final = "@@@max_new_tokens@@@"
    """int: at most so many tokens are generated."""
    SYSTEM_PROMPT: Final = "@@@system_prompt@@@"
    """str: goes before everything else, as the system's message."""
    TEMPERATURE: Final = "temperature"
    """float: 0 is greedy."""
    CONTEXT_WINDOW: Final = "@@@context_window@@@"
    """int: tokens of context, where the server lets a request choose."""
    SEED: Final = "@@@seed@@@"
    """int: the seed of the sampling; the same seed gives the same answer, where the server supports it."""
    STOP_SEQUENCES: Final = "@@@stop_sequences@@@"
    """list of str: generation ends before the first occurrence of any of them."""
    STREAM: Final = "@@@stream@@@"
    """bool: hand out deltas as they arrive. The server is asked to stream either way."""
    STREAM_TIMEOUT: Final = "@@@stream_timeout@@@"
    """float, seconds: bounds the wait for each delta, the first included; default 120, ``None``: off."""
    THINK_TAGS: Final = "@@@think_tags@@@"
    """bool, or two str: tags around the reasoning at the beginning of answers, which is then removed from their text
    (``True``: ``<think>`` and ``</think>``). For models whose server leaves the reasoning in the text. The first tag
    may be empty, for models whose prompt already ends with it."""


def merge_options(*layers: ModelOptions | None) -> ModelOptions:
    """Merge layers of options into one mapping; later layers have priority.

    Raises:
        InvalidOption: a layer is not a mapping with ``str`` keys.
    """
    merged: dict[str, object] = {}
    for layer in layers:
        if layer is None:
            continue
        if not isinstance(layer, Mapping) or not all(isinstance(key, str) for key in layer):
            raise InvalidOption(
                f"model_options must be a mapping with str keys (see ModelOption), not {layer!r}"
            )
        merged.update(layer)
    if ModelOption.STREAM_TIMEOUT in merged:
        stream_timeout(merged)
    if ModelOption.THINK_TAGS in merged:
        think_tags(merged)
    return merged


def stream_timeout(options: ModelOptions) -> float:
    """Seconds to wait for each delta; ``math.inf`` when the limit is off.

    Raises:
        InvalidOption: it is not a positive number.
    """
    value = options.get(ModelOption.STREAM_TIMEOUT, DEFAULT_STREAM_TIMEOUT)
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InvalidOption(
            f"ModelOption.STREAM_TIMEOUT must be a positive number of seconds or None, not {value!r}"
        )
    return float(value)


def think_tags(options: ModelOptions) -> tuple[str, str] | None:
    """The tags around the reasoning at the beginning of answers; ``None`` if the option is off.

    Raises:
        InvalidOption: it is neither a bool nor two strings, of which the second must not be empty.
    """
    match options.get(ModelOption.THINK_TAGS):
        case None | False:
            return None
        case True:
            return "<think>", "</think>"
        case (str() as opening, str() as closing) if closing:
            return opening, closing
        case value:
            raise InvalidOption(
                f'ModelOption.THINK_TAGS must be a bool or two tags, like ("<think>", "</think>"), not {value!r}'
            )


def asks_for_calls(options: ModelOptions) -> bool:
    """Whether a request offers functions, so that tool calls are a valid answer."""
    places: list[Mapping[str, object]] = [options]
    if isinstance(beside := options.get("extra_body"), Mapping):
        places.append(cast("Mapping[str, object]", beside))
    return any(place.get(name) for place in places for name in ("tools", "functions"))


JsonSchema: TypeAlias = Mapping[str, object]
"""A JSON schema, as ``json.loads`` gives it."""


@runtime_checkable
class SchemaModel(Protocol):
    """A class that has a JSON schema and can parse an instance from JSON: a pydantic model."""

    @classmethod
    def model_json_schema(cls) -> dict[str, object]:
        """The JSON schema of an instance."""
        ...

    @classmethod
    def model_validate_json(cls, json_data: str) -> object:
        """Parse an instance from a JSON text."""
        ...


Format: TypeAlias = type[SchemaModel] | JsonSchema
"""The format that an answer is constrained to: a pydantic model class, or a JSON schema."""


class CheckedSchema(dict[str, object]):
    """A JSON schema together with a function that validates answers against it.

    Args:
        schema: The schema.
        misfit_of: Returns the reason why a text does not fit the schema or is no JSON; ``None``: it fits, or is
            validated elsewhere.
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


def checked_format(format: Format) -> Format:
    """The same format, but a plain JSON schema as a :class:`CheckedSchema`.

    Raises:
        InvalidOption: it is neither a pydantic model class nor a JSON schema; or the schema is of an unknown draft,
            or has a reference that leads nowhere or in a circle.
        MissingExtra: for a schema, if a package of the extra ``json`` is not installed.
    """
    schema = schema_of(format)
    if schema is None or isinstance(format, type | CheckedSchema):
        return format
    # Imported here, because the validation is in the stdlib, which the core must not import, and because that takes as
    # long as everything else that a session does.
    validation = import_module("mellea_sc.stdlib.requirements.json.schema")
    misfits_with: Callable[[JsonSchema], Callable[[str], str | None]] = validation.misfits_with
    return CheckedSchema(schema, misfits_with(schema))


@attrs.frozen
class ChatMessage:
    """One message of the conversation that the model reads."""

    role: Role
    content: str


@attrs.frozen
class GenerationRequest:
    """A request to a model. All thunks and components in it have been turned into text.

    Args:
        messages: The conversation, oldest first. If the last message is the assistant's, the model
            is asked to continue it.
        options: Keys of :class:`~mellea_sc.ModelOption`, and others that are sent to the server unchanged.
        json_schema: The schema that the backend constrains the answer to.
    """

    messages: tuple[ChatMessage, ...]
    options: ModelOptions = attrs.field(factory=dict[str, object])
    json_schema: JsonSchema | None = None


@attrs.define
class Delta:
    """The next piece of an answer.

    It is a value: nobody changes one. It is not frozen only because there is one for each token, and making a
    frozen one takes longer.

    Args:
        text: New text; may be empty.
        finish_reason: Why the model stopped (``"stop"``, ``"length"``, …); only on the delta that reports it.
        usage: The tokens used by the whole request so far, if the server reports them.
        reasoning: New text of the model's reasoning. It is no part of the answer.
        tool_calls: New pieces of tool calls.
    """

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


def other_characters(delta: Delta) -> int:
    """The number of characters in the reasoning and the tool calls of a delta."""
    calls = sum(len(piece.name) + len(piece.arguments) for piece in delta.tool_calls)
    return len(delta.reasoning) + calls


class Backend(abc.ABC):
    """How to talk to a model.

    A subclass implements :meth:`open`, sets :attr:`provider` and :attr:`model_id`, and overrides
    :meth:`connected` when it has something to keep open between requests.
    ``mellea_sc.testing.check_backend`` tests whether it keeps this contract.
    """

    provider: str = "custom"
    """The kind of server, for people: ``"ollama"``, ``"openai"``, …"""
    model_id: str = ""
    """The model's name, as its server knows it."""
    prefills: bool = False
    """Whether the model continues the last message, if that is the assistant's. If not, it is asked in words to
    continue."""
    judges: bool = True
    """Whether the model can be used as a judge. If not, asking it for a judgement is an error."""
    model_options: ModelOptions = MappingProxyType({})
    """Default options of every request; the options of a session and of a call have priority."""

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
        """A block within which requests share resources: a connection pool, an engine.

        A session enters it once per event loop, and makes its requests with the backend that it yields.
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

        Sessions (``m.backend``) and runs hand out bound backends. A bare backend has no task group to start a
        generation in.

        Returns:
            The thunk, already generating, and the context with the action and the thunk added.

        Raises:
            BackendNotBound: this backend is a bare one.
        """
        raise BackendNotBound(
            f"{type(self).__name__} is not bound to a session: make one with "
            "start_session(backend=…) and use its m.backend"
        )


def no_backend(name: str, given: object) -> InvalidOption:
    """The error for an argument that is no backend.

    Args:
        name: The argument.
        given: Its value.
    """
    return InvalidOption(
        f"{name} must be a Backend, not {given!r}: make one of a name with "
        'mellea_sc.backends.make_backend("ollama", …); that of a session is m.backend'
    )


class BackendWrapper(Backend):
    """A backend around another one, which behaves like it except for what a subclass overrides.

    The attributes of a backend (its provider, its model's name, its abilities) are looked up in the inner one, so
    that a wrapper need not know them. A subclass may set an attribute itself; mostly it overrides :meth:`open`.
    ``mellea_sc.testing.check_wrapper`` tests whether a wrapper hides something of the inner backend.

    Args:
        inner: The wrapped backend.

    Raises:
        InvalidOption: it is none.
    """

    def __init__(self, inner: Backend) -> None:
        if not isinstance(inner, Backend):
            raise no_backend("backend", inner)
        self.inner: Backend = inner

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    def connected(self) -> AbstractAsyncContextManager[Self]:
        """A block with a copy of this wrapper around the connected inner backend."""
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
    """A descriptor that looks its attribute up in the wrapped backend.

    It has no ``__set__``: an attribute that is set on the wrapper itself has priority.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, wrapper: BackendWrapper | None, owner: type[BackendWrapper]) -> object:
        return getattr(Backend if wrapper is None else wrapper.inner, self._name)


# Also for attributes that Backend gets later: no wrapper can forget one.
for _name in Backend.__annotations__:
    setattr(BackendWrapper, _name, _Delegated(_name))
