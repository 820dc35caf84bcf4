"""Sessions: where programs begin. A session holds a backend, a conversation, and every task it starts.

``conversation.py`` has the methods that ask, ``session_life.py`` where tasks go and how they end.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from types import FrameType, TracebackType
from typing import Final, Literal, Self, Unpack

from mellea_sc.backends.model_ids import ModelIdentifier
from mellea_sc.backends.retry import retrying
from mellea_sc.backends.select import OpenAISettings, make_backend
from mellea_sc.core.backend import Backend, ModelOptions
from mellea_sc.core.base import Context
from mellea_sc.core.errors import InvalidOption, MelleaError
from mellea_sc.core.retries import Retries
from mellea_sc.runtime.failures import raise_unchanged, raises_briefly, shorten
from mellea_sc.runtime.generation.bound import BoundBackend
from mellea_sc.runtime.portal import refuse_in_event_loop
from mellea_sc.runtime.unobserved import OnError, log_unobserved
from mellea_sc.stdlib.context import ChatContext, SimpleContext
from mellea_sc.stdlib.conversation import Conversation
from mellea_sc.stdlib.session_life import SessionLife

__all__ = ["Conversation", "MelleaSession", "start_session"]


def start_session(
    backend_name: str | None = None,
    model_id: str | ModelIdentifier | None = None,
    ctx: Context | None = None,
    *,
    context_type: Literal["simple", "chat"] | None = None,
    model_options: ModelOptions | None = None,
    backend: Backend | None = None,
    on_error: OnError = "hold",
    max_concurrency: int | None = None,
    retries: int | Retries | None = None,
    **settings: Unpack[OpenAISettings],
) -> MelleaSession:
    """Make a session. Nothing is connected or started before it is used.

    Use it as ``async with start_session() as m:`` or ``with start_session() as m:``, or bare, as
    ``m = start_session()``: then the running event loop hosts its tasks, and ``await m.aclose()`` (or
    ``m.close()``) ends it.

    Args:
        backend_name: ``"local"``, ``"ollama"`` or ``"openai"``; else ``MELLEA_SC_BACKEND``, else ``local``
            where the extra is installed, else ``ollama``.
        model_id: The model's name, or one of ``model_ids``; else ``MELLEA_SC_MODEL``, else one that the
            backend chooses.
        ctx: The conversation to go on with; a :class:`SimpleContext` if not given.
        context_type: ``"simple"`` or ``"chat"``, instead of ``ctx``.
        model_options: For every generation, see :class:`~mellea_sc.ModelOption`.
        backend: A backend of your own, instead of a name.
        on_error: ``"hold"``: a failure belongs to its thunk, and what nobody observed is raised when
            the session is left; ``"cancel"``: the first failure cancels the session; ``"log"``: as
            ``"hold"``, but what nobody observed is logged (logger ``mellea_sc``) when its thunk or run is
            cancelled or forgotten, or the session is left. For what lives as long as a server.
        max_concurrency: At most so many requests of the session are in flight at the same time.
        retries: How often a request is made again that failed before its answer began, or :class:`Retries`;
            3 times, within 30 s, if not given; 0: never. See ``docs/guide/retries.md``.
        settings: Of the server, for ``"ollama"`` and ``"openai"``: ``base_url`` (else ``OLLAMA_HOST`` or
            ``OPENAI_BASE_URL``), ``api_key`` (else ``OPENAI_API_KEY``), ``headers``, ``client``, ``verify``,
            ``proxy``, ``timeout``, ``extra_body``, and for ``"openai"`` also ``stream_options``, ``strict``,
            ``prefills`` and ``uds``: see :class:`~mellea_sc.backends.OpenAIBackend`.

    Raises:
        InvalidOption: an argument, or a variable of the environment, is not usable.
        MissingExtra: the backend needs an optional package.
    """
    try:
        if ctx is not None and context_type is not None:
            raise InvalidOption("give either ctx or context_type, not both")
        if context_type not in (None, "simple", "chat"):
            raise InvalidOption(f'context_type must be "simple" or "chat", not {context_type!r}')
        if backend is None:
            backend = make_backend(backend_name, model_id, **settings)
        elif any(given is not None for given in (backend_name, model_id, *settings.values())):
            raise InvalidOption("give either a backend, or its name and settings, not both")
        return MelleaSession(
            backend,
            ChatContext() if context_type == "chat" else ctx,
            model_options=model_options,
            on_error=on_error,
            max_concurrency=max_concurrency,
            retries=retries,
        )
    except MelleaError as error:
        shorten(error)
        raise


class MelleaSession(Conversation):
    """A backend, a conversation, and every task that is started through it.

    Args:
        backend: How to talk to the model.
        ctx: The conversation to go on with; a :class:`SimpleContext` if not given.
        model_options: For every generation.
        on_error: See :func:`start_session`.
        max_concurrency: See :func:`start_session`.
        retries: See :func:`start_session`.
    """

    def __init__(
        self,
        backend: Backend,
        ctx: Context | None = None,
        *,
        model_options: ModelOptions | None = None,
        on_error: OnError = "hold",
        max_concurrency: int | None = None,
        retries: int | Retries | None = None,
    ) -> None:
        life = SessionLife(
            retrying(backend, retries),
            model_options=model_options,
            on_error=on_error,
            max_concurrency=max_concurrency,
        )
        super().__init__(life, SimpleContext() if ctx is None else ctx)

    def __repr__(self) -> str:
        return repr(self._life)

    @property
    def backend(self) -> BoundBackend:
        """The backend, bound to this session: what is generated with it runs in the session's nursery."""
        return self._backend

    def conversation(self, ctx: Context | None = None) -> Conversation:
        """Another conversation in this session, as each user of a server has one.

        Args:
            ctx: What was said so far: a stored conversation, ``ChatContext.from_messages(…)``, or that of another
                one, which it then goes on from by itself. Nothing, in a :class:`ChatContext`, if not given.

        Raises:
            InvalidOption: ``ctx`` is no context.
        """
        return Conversation(self._life, ChatContext() if ctx is None else ctx)

    def clone(self) -> Self:
        """The same session with a conversation of its own, which goes on from where this one is.

        Neither sees what the other says from now on. What the clone starts belongs to this session too: it is
        joined or cancelled when this one ends. A clone may be ended before, or be a block of its own; so it has
        connections and a ``max_concurrency`` of its own. ``m.conversation(m.ctx)`` branches, too, and shares those of
        this session.

        Raises:
            SessionClosed: the session has ended.
        """
        clone = copy.copy(self)
        Conversation.__init__(clone, self._life.inner(), self.ctx)
        return clone

    # --- its life ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        _warn_in_generator(inspect.currentframe())
        await self._life.enter()
        return self

    @raises_briefly
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:  # a plain bool would tell type checkers that any exception may be swallowed
        """Join what is running, or cancel it when the block raised; then end.

        Raises:
            ExceptionGroup: of the errors that nobody observed.
        """
        return await self._life.leave(exc_type, exc, tb)  # noqa: ASYNC102 - it joins

    def __enter__(self) -> Self:
        refuse_in_event_loop("with start_session()", "async with start_session() as m:")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if exc is None:
            self.close()
            return
        try:
            self._life.close(cancel="its block raised an exception")
        except ExceptionGroup as group:
            if isinstance(exc, Exception):
                what = f"its block was left by an error, and there are {group.message}"
                raise_unchanged(ExceptionGroup(what, [exc, *group.exceptions]))
            log_unobserved("the session", list(group.exceptions))

    @raises_briefly
    async def aclose(self) -> None:
        """Wait for what is running in this event loop and for blocking calls, and end the session.

        Raises:
            WrongEventLoop: the session is running in another event loop, and not in this one.
            ExceptionGroup: of the errors that nobody observed.

        Cancellation: what is running is cancelled too, and its cleanup is waited for; errors that nobody
        observed go before.
        """
        await self._life.aclose()

    def close(self) -> None:
        """The blocking half of :meth:`aclose`: ends what blocking calls have started, and their thread.

        Raises:
            WrongEventLoop: the session is running in another thread's event loop.
            ExceptionGroup: of the errors that nobody observed.
        """
        self._life.check_runs_here()
        self._life.close()

    cleanup = close
    """Mellea's name for :meth:`close`."""

    def cancel(self, reason: str | None = None) -> None:
        """Cancel everything that the session runs, and end it.

        Inside its block, the block is cancelled too. Blocking calls are cancelled wherever this is called.

        Args:
            reason: Said in the errors of what is cancelled.

        Raises:
            WrongEventLoop: the session is running in another event loop, and not in this one; nothing is
                cancelled.
        """
        self._life.cancel(reason)


def _warn_in_generator(entering: FrameType | None) -> None:
    """Warn of a block inside an async generator, which may be ended in another task than it has begun in (PEP 789).

    Args:
        entering: The frame of ``__aenter__``.
    """
    block = None if entering is None else entering.f_back
    if block is None or not block.f_code.co_flags & inspect.CO_ASYNC_GENERATOR:
        return
    driver = block.f_back
    if driver is not None and driver.f_globals.get("__name__", "").startswith(_ENDS_WHERE_IT_BEGAN):
        return
    warnings.warn(
        "a session is opened inside an async generator. If that is not read to its end, its session will end in "
        "another task, or never. Make the generator an @asynccontextmanager, open the session outside of it, or "
        "answer a web request with mellea_sc.asgi.SSEResponse",
        RuntimeWarning,
        stacklevel=3,
    )


_ENDS_WHERE_IT_BEGAN: Final = ("contextlib", "anyio.", "pytest_trio.")
"""Who drives async generators so that both happens in one task: context managers, and fixtures of tests."""
