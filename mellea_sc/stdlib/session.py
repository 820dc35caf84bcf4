"""Sessions: where programs begin. A session holds a backend, a conversation, and every task it starts.

The six pairs are here: each a-method starts its work in the session's nursery, and its blocking half
runs the a-method to its end in the session's own thread. ``session_scope.py`` has the session's life,
``session_work.py`` what a generation's task does.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Concatenate, Final, Literal, ParamSpec, TypeVar, Unpack, overload

from mellea_sc.backends.model_ids import ModelIdentifier
from mellea_sc.backends.retry import retrying
from mellea_sc.backends.select import OpenAISettings, make_backend
from mellea_sc.core.arguments import several
from mellea_sc.core.backend import Backend, Format
from mellea_sc.core.base import CBlock, Component, Context, Role, Span, Thunk
from mellea_sc.core.chunking import ChunkingStrategy
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.model_options import ModelOptions, merge_options, wants_stream
from mellea_sc.core.prompt import messages_for
from mellea_sc.core.question import Question
from mellea_sc.core.requirement import Requirement, ValidationResult, as_requirement
from mellea_sc.core.retries import Retries, retried
from mellea_sc.core.sampling import SamplingResult, SamplingStrategy
from mellea_sc.core.spending import Limits
from mellea_sc.runtime.failures import raises_briefly, shortened
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.runtime.portal import refuse_in_event_loop
from mellea_sc.runtime.unobserved import OnError
from mellea_sc.stdlib.components import Instruction, Message, Query, Transform
from mellea_sc.stdlib.context import ChatContext, SimpleContext
from mellea_sc.stdlib.conversation import Turns
from mellea_sc.stdlib.formats import checked
from mellea_sc.stdlib.sampling import PlannedStrategy, RejectionSamplingStrategy
from mellea_sc.stdlib.sampling.engine.options import DEFAULT_LANE_BUFFER, StreamOptions
from mellea_sc.stdlib.session_scope import SessionScope
from mellea_sc.stdlib.session_work import judge, runs_code, thunk_of, work_for
from mellea_sc.stdlib.streaming import (
    DEFAULT_VALIDATOR_TIMEOUT,
    StreamRequest,
)

__all__ = ["Conversation", "MelleaSession", "start_session"]

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_STRATEGY: Final = RejectionSamplingStrategy(loop_budget=2)


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
    if ctx is not None and context_type is not None:
        raise InvalidOption("give either ctx or context_type, not both")
    if context_type not in (None, "simple", "chat"):
        raise InvalidOption(f'context_type must be "simple" or "chat", not {context_type!r}')
    if backend is None:
        backend = make_backend(backend_name, model_id, **settings)
    elif any(given is not None for given in (backend_name, model_id, *settings.values())):
        raise InvalidOption("give either a backend, or its name and settings, not both")
    if context_type == "chat":
        ctx = ChatContext()
    return MelleaSession(
        backend,
        ctx,
        model_options=model_options,
        on_error=on_error,
        max_concurrency=max_concurrency,
        retries=retries,
    )


def _blocking(
    method: Callable[Concatenate[Conversation, P], Coroutine[object, object, T]],
) -> Callable[Concatenate[Conversation, P], T]:
    """The blocking half of an a-method: same parameters, same result, which is computed on return."""
    name = method.__name__

    @functools.wraps(method)
    def call(self: Conversation, /, *args: P.args, **kwargs: P.kwargs) -> T:
        async def to_the_end() -> T:
            result = await method(self, *args, **kwargs)
            if isinstance(result, ModelOutputThunk):
                async with result:
                    await result.avalue()
            return result

        refuse_in_event_loop(f"m.{name[1:]}()", f"await m.{name}(…)")
        with shortened():
            return self._session.run_blocking(to_the_end)

    call.__name__ = name[1:]
    call.__qualname__ = f"Conversation.{name[1:]}"
    call.__doc__ = (
        f"Like :meth:`{name}`, and waits until the result is computed.\n\n"
        "Runs in the session's own event-loop thread; Ctrl-C cancels what it started.\n\n"
        "Raises:\n    SyncCallInEventLoop: an event loop runs in this thread; the error names the a-method.\n"
        "    Exception: as awaiting the result raises it.\n"
    )
    return call


def _is_in_order(ctx: object) -> bool:
    """Whether requests that go on with a conversation wait for one another."""
    if not isinstance(ctx, Context):
        raise InvalidOption(
            f"ctx must be a context, not {type(ctx).__name__}: of messages make one with "
            "ChatContext.from_messages(…)"
        )
    return not isinstance(ctx, SimpleContext)


class Conversation:
    """Turns of talk with the model of a session, and what was said in them.

    A session is one itself; :meth:`MelleaSession.conversation` makes others, one for each user of a server, say. What is
    asked in one sees what was said in that one alone. All of them share the session: its tasks run in the session's
    nursery and end with it, over its connections, within its limits.

    It has no end of its own. One that nobody holds any more is forgotten, and with it what was said; tasks that it has
    started go on, as the session's.

    Args:
        session: What asks.
        ctx: What was said so far.

    Raises:
        InvalidOption: ``ctx`` is no context.
    """

    def __init__(self, session: SessionScope, ctx: Context) -> None:
        self._session = session
        self._turns = Turns(ctx, in_order=_is_in_order(ctx))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {self._session!r}>"

    # --- its conversation -----------------------------------------------------------------------

    @property
    def ctx(self) -> Context:
        """The conversation so far: every turn that has succeeded. Assign another one to go on with that.

        Raises:
            UsageError: on assigning: requests that take turns in the conversation have not ended.
            InvalidOption: on assigning: it is no context.
        """
        return self._turns.ctx

    @ctx.setter
    def ctx(self, ctx: Context) -> None:
        self._turns.replace(ctx, in_order=_is_in_order(ctx))

    def reset(self) -> None:
        """Forget what was said: the conversation is empty, of the same kind and settings.

        Raises:
            UsageError: requests that take turns in the conversation have not ended.
        """
        self.ctx = self.ctx.without_items()

    def last_prompt(self) -> list[dict[str, str]] | None:
        """The messages that the newest answer of the conversation was asked with, in OpenAI's form.

        Of several attempts, those of the one that was kept. The system prompt is the session's or its
        backend's. ``None`` where there is no answer.
        """
        answer = self.ctx.last_output()
        ctx: Context | None = self.ctx
        if isinstance(answer, ModelOutputThunk) and answer.sampling is not None:
            ctx = answer.sampling.result_ctx
        while ctx is not None and not isinstance(ctx.node_data, Thunk):
            ctx = ctx.previous_node
        asked = None if ctx is None else ctx.previous_node
        if asked is None or asked.node_data is None or asked.previous_node is None:
            return None
        options = merge_options(self._session._raw.model_options, self._session._options)
        messages = messages_for(
            asked.node_data, asked.previous_node, options, prefills=self._session._raw.prefills
        )
        return [{"role": one.role, "content": one.content} for one in messages]

    # --- the a-methods -------------------------------------------------------------------------

    @overload
    async def aact(
        self,
        action: Component | Span,
        *,
        requirements: Sequence[Requirement | str] | None = ...,
        preconditions: Sequence[Requirement | str] | None = ...,
        strategy: SamplingStrategy | None = ...,
        return_sampling_results: Literal[False] = ...,
        limits: Limits | None = ...,
        retries: int | Retries | None = ...,
        format: Format | None = ...,
        model_options: ModelOptions | None = ...,
        await_result: bool = ...,
    ) -> ModelOutputThunk: ...
    @overload
    async def aact(
        self,
        action: Component | Span,
        *,
        requirements: Sequence[Requirement | str] | None = ...,
        preconditions: Sequence[Requirement | str] | None = ...,
        strategy: SamplingStrategy | None = ...,
        return_sampling_results: Literal[True],
        limits: Limits | None = ...,
        retries: int | Retries | None = ...,
        format: Format | None = ...,
        model_options: ModelOptions | None = ...,
        await_result: bool = ...,
    ) -> SamplingResult: ...
    @overload
    async def aact(
        self,
        action: Component | Span,
        *,
        requirements: Sequence[Requirement | str] | None = ...,
        preconditions: Sequence[Requirement | str] | None = ...,
        strategy: SamplingStrategy | None = ...,
        return_sampling_results: bool,
        limits: Limits | None = ...,
        retries: int | Retries | None = ...,
        format: Format | None = ...,
        model_options: ModelOptions | None = ...,
        await_result: bool = ...,
    ) -> ModelOutputThunk | SamplingResult: ...
    @raises_briefly
    async def aact(
        self,
        action: Component | Span,
        *,
        requirements: Sequence[Requirement | str] | None = None,
        preconditions: Sequence[Requirement | str] | None = None,
        strategy: SamplingStrategy | None = DEFAULT_STRATEGY,
        return_sampling_results: bool = False,
        limits: Limits | None = None,
        retries: int | Retries | None = None,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
        await_result: bool = False,
    ) -> ModelOutputThunk | SamplingResult:
        """Have the model answer an action: a component, a text, or a thunk.

        Args:
            action: What to ask.
            requirements: What must hold of the answer, besides what an ``Instruction`` says itself.
            preconditions: What must hold of what is asked; checked beside the generation, which a
                failing one cancels before anything of it is handed out.
            strategy: How often to ask, with what, and which answer to keep; ``None``: once, without
                validating.
            return_sampling_results: Wait, and return all attempts instead of a thunk.
            limits: What the call may use, all its attempts and judges together; see :func:`limits`.
            retries: How often a request of the call, its judges' included, is made again when it failed
                before its answer began, or :class:`Retries`; 0: never; ``None``: as the session says.
            format: A pydantic model class or a JSON schema that the model is constrained to. An answer that does
                not fit it is a failed attempt of the strategy. For that alone the default strategy does not hold
                back an answer that is streamed.
            model_options: See :class:`~mellea_sc.ModelOption`.
            await_result: Return only when the thunk is computed.

        Returns:
            A thunk, at once: generation (and with requirements the whole loop) runs in the nursery.

        Raises:
            InvalidOption: an argument is not usable.
            MissingExtra: for a JSON schema, if a package of the extra ``json`` is not installed.
            SessionClosed: the session has ended.
            BudgetExceeded: from awaiting the thunk: the call has used more than its limits.
            PreconditionFailed: from awaiting the thunk: the input does not meet a precondition.
            Exception: with ``await_result`` or ``return_sampling_results``, what awaiting raises.

        Cancellation: a thunk goes on. With ``await_result`` or ``return_sampling_results`` nobody
        else has the thunk, so the generation is cancelled too.
        """
        own = action.requirements if isinstance(action, Instruction) else []
        judged = [*own, *several("requirements", requirements)]
        if return_sampling_results and strategy is None:
            raise InvalidOption("return_sampling_results needs a strategy")
        options = merge_options(self._session._options, model_options)
        if strategy is DEFAULT_STRATEGY and not judged and wants_stream(options):
            # it would be there for the format alone; and what was asked for live is not held back by a strategy
            # that nobody has asked for
            strategy = None
        thunk = await self._start(
            Question.of(
                action,
                requirements=judged,
                preconditions=preconditions,
                strategy=strategy,
                limits=limits,
                retries=retries,
                format=checked(format),
                model_options=model_options,
            )
        )
        if return_sampling_results or await_result:
            async with thunk:
                await thunk.avalue()
        if return_sampling_results:
            assert thunk.sampling is not None
            return thunk.sampling
        return thunk

    @overload
    async def ainstruct(
        self,
        description: str | CBlock,
        *,
        requirements: Sequence[Requirement | str] | None = ...,
        icl_examples: Sequence[str | CBlock] | None = ...,
        grounding_context: Mapping[str, Span] | None = ...,
        user_variables: Mapping[str, Span] | None = ...,
        prefix: str | CBlock | None = ...,
        output_prefix: str | CBlock | None = ...,
        preconditions: Sequence[Requirement | str] | None = ...,
        strategy: SamplingStrategy | None = ...,
        return_sampling_results: Literal[False] = ...,
        limits: Limits | None = ...,
        retries: int | Retries | None = ...,
        format: Format | None = ...,
        model_options: ModelOptions | None = ...,
        await_result: bool = ...,
    ) -> ModelOutputThunk: ...
    @overload
    async def ainstruct(
        self,
        description: str | CBlock,
        *,
        requirements: Sequence[Requirement | str] | None = ...,
        icl_examples: Sequence[str | CBlock] | None = ...,
        grounding_context: Mapping[str, Span] | None = ...,
        user_variables: Mapping[str, Span] | None = ...,
        prefix: str | CBlock | None = ...,
        output_prefix: str | CBlock | None = ...,
        preconditions: Sequence[Requirement | str] | None = ...,
        strategy: SamplingStrategy | None = ...,
        return_sampling_results: Literal[True],
        limits: Limits | None = ...,
        retries: int | Retries | None = ...,
        format: Format | None = ...,
        model_options: ModelOptions | None = ...,
        await_result: bool = ...,
    ) -> SamplingResult: ...
    @overload
    async def ainstruct(
        self,
        description: str | CBlock,
        *,
        requirements: Sequence[Requirement | str] | None = ...,
        icl_examples: Sequence[str | CBlock] | None = ...,
        grounding_context: Mapping[str, Span] | None = ...,
        user_variables: Mapping[str, Span] | None = ...,
        prefix: str | CBlock | None = ...,
        output_prefix: str | CBlock | None = ...,
        preconditions: Sequence[Requirement | str] | None = ...,
        strategy: SamplingStrategy | None = ...,
        return_sampling_results: bool,
        limits: Limits | None = ...,
        retries: int | Retries | None = ...,
        format: Format | None = ...,
        model_options: ModelOptions | None = ...,
        await_result: bool = ...,
    ) -> ModelOutputThunk | SamplingResult: ...
    @raises_briefly
    async def ainstruct(
        self,
        description: str | CBlock,
        *,
        requirements: Sequence[Requirement | str] | None = None,
        icl_examples: Sequence[str | CBlock] | None = None,
        grounding_context: Mapping[str, Span] | None = None,
        user_variables: Mapping[str, Span] | None = None,
        prefix: str | CBlock | None = None,
        output_prefix: str | CBlock | None = None,
        preconditions: Sequence[Requirement | str] | None = None,
        strategy: SamplingStrategy | None = DEFAULT_STRATEGY,
        return_sampling_results: bool = False,
        limits: Limits | None = None,
        retries: int | Retries | None = None,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
        await_result: bool = False,
    ) -> ModelOutputThunk | SamplingResult:
        """Have the model follow an instruction; with requirements, validate and repair.

        Args:
            description: What to do.
            requirements: What must hold of the answer; a string is judged by a model.
            icl_examples: Examples of good answers.
            grounding_context: Named texts to rely on; may be thunks.
            user_variables: Named texts to fill into the templates of the other arguments; may be thunks.
            prefix: Goes before the description.
            output_prefix: What the answer begins with, its text included; the model goes on from there.
            preconditions: What must hold of what is asked; checked beside the generation, which a
                failing one cancels before anything of it is handed out.
            strategy: How often to ask, with what, and which answer to keep; ``None``: once, without
                validating.
            return_sampling_results: Wait, and return all attempts instead of a thunk.
            limits: What the call may use, all its attempts and judges together; see :func:`limits`.
            retries: How often a request of the call, its judges' included, is made again when it failed
                before its answer began, or :class:`Retries`; 0: never; ``None``: as the session says.
            format: A pydantic model class or a JSON schema that the model is constrained to. An answer that does
                not fit it is a failed attempt of the strategy. For that alone the default strategy does not hold
                back an answer that is streamed.
            model_options: See :class:`~mellea_sc.ModelOption`.
            await_result: Return only when the thunk is computed.

        Returns:
            A thunk, at once: generation (and with requirements the whole loop) runs in the nursery.

        Raises:
            InvalidOption: an argument is not usable.
            MissingExtra: for a JSON schema, if a package of the extra ``json`` is not installed.
            PromptTemplateError: a template is not valid, or uses a variable that is not given.
            SessionClosed: the session has ended.
            BudgetExceeded: from awaiting the thunk: the call has used more than its limits.
            PreconditionFailed: from awaiting the thunk: the input does not meet a precondition.
            Exception: with ``await_result`` or ``return_sampling_results``, what awaiting raises.

        Cancellation: as of :meth:`aact`.
        """
        instruction = Instruction(
            description,
            requirements,
            icl_examples,
            grounding_context,
            user_variables,
            prefix,
            output_prefix,
        )
        return await self.aact(
            instruction,
            preconditions=preconditions,
            strategy=strategy,
            return_sampling_results=return_sampling_results,
            limits=limits,
            retries=retries,
            format=format,
            model_options=model_options,
            await_result=await_result,
        )

    @raises_briefly
    async def achat(
        self,
        content: str,
        role: Role = "user",
        *,
        user_variables: Mapping[str, Span] | None = None,
        preconditions: Sequence[Requirement | str] | None = None,
        limits: Limits | None = None,
        retries: int | Retries | None = None,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
    ) -> Message:
        """Say something, and return the model's message when it is finished.

        Args:
            content: What to say; a template if there are variables.
            role: As whom.
            user_variables: Named texts to fill in.
            preconditions: As of :meth:`aact`.
            limits: As of :meth:`aact`.
            retries: As of :meth:`aact`.
            format: A pydantic model class or a JSON schema that the model is constrained to.
            model_options: See :class:`~mellea_sc.ModelOption`.

        Raises:
            SessionClosed: the session has ended.
            Exception: as the generation raised it.

        Cancellation: the generation is cancelled, and the conversation stays as it was.
        """
        message = Message(role, content, user_variables=user_variables)
        thunk = await self.aact(
            message,
            preconditions=preconditions,
            strategy=None,
            limits=limits,
            retries=retries,
            format=format,
            model_options=model_options,
            await_result=True,
        )
        return Message(
            "assistant",
            CBlock(thunk.value),
            reasoning=thunk.reasoning,
            tool_calls=thunk.tool_calls,
        )

    @raises_briefly
    async def aquery(
        self,
        obj: object,
        query: str,
        *,
        limits: Limits | None = None,
        retries: int | Retries | None = None,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
        await_result: bool = False,
    ) -> ModelOutputThunk:
        """Ask the model about an object.

        Args:
            obj: Any object; see :class:`~mellea_sc.stdlib.components.MObjectProtocol` for how it
                presents itself, and which of its methods the model may call to answer.
            query: The question.
            limits: As of :meth:`aact`.
            retries: As of :meth:`aact`.
            format: A pydantic model class or a JSON schema; then no method is called.
            model_options: See :class:`~mellea_sc.ModelOption`.
            await_result: Return only when the thunk is computed.

        Returns:
            A thunk of the answer, at once; its ``parsed_repr`` is what a called method returned.

        Raises:
            SessionClosed: the session has ended.

        Cancellation: as of :meth:`aact`.
        """
        return await self.aact(
            Query(obj, query),
            strategy=None,
            limits=limits,
            retries=retries,
            format=format,
            model_options=model_options,
            await_result=await_result,
        )

    @raises_briefly
    async def atransform(
        self,
        obj: object,
        transformation: str,
        *,
        limits: Limits | None = None,
        retries: int | Retries | None = None,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
        await_result: bool = False,
    ) -> ModelOutputThunk:
        """Have the model transform an object.

        Args:
            obj: Any object, as for :meth:`aquery`.
            transformation: What to make of it.
            limits: As of :meth:`aact`.
            retries: As of :meth:`aact`.
            format: A pydantic model class or a JSON schema; then no method is called.
            model_options: See :class:`~mellea_sc.ModelOption`.
            await_result: Return only when the thunk is computed.

        Returns:
            A thunk of the result, at once; its ``parsed_repr`` is what a called method returned.

        Raises:
            SessionClosed: the session has ended.

        Cancellation: as of :meth:`aact`.
        """
        return await self.aact(
            Transform(obj, transformation),
            strategy=None,
            limits=limits,
            retries=retries,
            format=format,
            model_options=model_options,
            await_result=await_result,
        )

    @raises_briefly
    async def avalidate(
        self,
        reqs: Requirement | str | Sequence[Requirement | str],
        *,
        output: Thunk | str | CBlock | None = None,
        input: Span | None = None,
        retries: int | Retries | None = None,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
    ) -> list[ValidationResult]:
        """Judge an output by requirements, all at the same time.

        Args:
            reqs: One requirement or several.
            output: What is judged; the last output of the conversation if not given.
            input: What the output answers, for validators that look at it.
            retries: As of :meth:`aact`.
            format: Handed to every validator.
            model_options: Handed to every validator.

        Returns:
            One verdict per requirement, in their order.

        Raises:
            InvalidOption: there is no output that could be judged.
            Exception: as a validator raised it; several at once as an ``ExceptionGroup``.

        Cancellation: every validator is cancelled.
        """
        given = [reqs] if isinstance(reqs, Requirement | str) else several("reqs", reqs)
        nursery = await self._session._nursery()
        ctx = await self._turns.settled() if output is None else self.ctx
        with retried(retries):
            return await nursery.call(
                judge,
                nursery,
                ctx,
                [as_requirement(requirement) for requirement in given],
                output,
                input,
                format,
                model_options,
                name="validate",
            )

    # --- their blocking halves -------------------------------------------------------------------

    instruct: Final = _blocking(ainstruct)
    chat: Final = _blocking(achat)
    act: Final = _blocking(aact)
    validate: Final = _blocking(avalidate)
    query: Final = _blocking(aquery)
    transform: Final = _blocking(atransform)

    # --- streams ----------------------------------------------------------------------------------

    def stream(
        self,
        action: str | Component,
        *,
        requirements: Sequence[Requirement | str] | None = None,
        chunking: str | ChunkingStrategy | None = "sentence",
        validation_backend: Backend | None = None,
        user_variables: Mapping[str, Span] | None = None,
        grounding_context: Mapping[str, Span] | None = None,
        format: Format | None = None,
        model_options: ModelOptions | None = None,
        lane_buffer: int = DEFAULT_LANE_BUFFER,
        lookahead: int | None = None,
        validator_timeout: float | None = DEFAULT_VALIDATOR_TIMEOUT,
        strategy: PlannedStrategy | None = None,
        hold_back: bool | int = False,
        preconditions: Sequence[Requirement | str] | None = None,
        limits: Limits | None = None,
        retries: int | Retries | None = None,
    ) -> StreamRequest:
        """Generate text that is checked while it streams, as a turn of the conversation.

        Await it, or enter it: ``async with m.stream("…", requirements=[…]) as result:``. The
        conversation goes on with the answer if it came to its natural end.

        Args:
            action: An instruction's description, or a component.
            requirements: What must hold; said in the prompt where the action is a description.
            chunking: See :func:`stream_with_chunking`.
            validation_backend: See :func:`stream_with_chunking`.
            user_variables: For a description: named texts to fill in.
            grounding_context: For a description: named texts to rely on.
            format: See :func:`stream_with_chunking`.
            model_options: See :func:`stream_with_chunking`.
            lane_buffer: See :func:`stream_with_chunking`.
            lookahead: See :func:`stream_with_chunking`.
            validator_timeout: See :func:`stream_with_chunking`.
            strategy: See :func:`stream_with_chunking`.
            hold_back: See :func:`stream_with_chunking`.
            preconditions: See :func:`stream_with_chunking`.
            limits: See :func:`stream_with_chunking`.
            retries: See :func:`stream_with_chunking`.

        Raises:
            InvalidOption: an argument is not usable.
            PromptTemplateError: a template is not valid.
            SessionClosed: on awaiting or entering: the session has ended.

        Cancellation: as of :func:`stream_with_chunking`.
        """
        with shortened():
            if isinstance(action, str):
                action = Instruction(
                    action,
                    requirements,
                    user_variables=user_variables,
                    grounding_context=grounding_context,
                )
            elif user_variables is not None or grounding_context is not None:
                raise InvalidOption(
                    "user_variables and grounding_context go with a description, not with a component"
                )
            return StreamRequest(
                Question.of(
                    action,
                    requirements=requirements,
                    preconditions=preconditions,
                    strategy=strategy,
                    limits=limits,
                    retries=retries,
                    format=checked(format),
                    model_options=model_options,
                ),
                StreamOptions(
                    chunking=chunking,
                    lane_buffer=lane_buffer,
                    validator_timeout=validator_timeout,
                    lookahead=lookahead,
                    hold_back=hold_back,
                ),
                functools.partial(self._turns.take_turn, runs_code=True),
                self._session.backend,
                validation_backend,
            )

    # --- inside ---------------------------------------------------------------------------------

    async def _start(self, question: Question) -> ModelOutputThunk:
        nursery = await self._session._nursery()
        thunk = thunk_of(question, nursery)
        producer = thunk.producer
        assert producer is not None
        turn = self._turns.take_turn(producer.stop_throttling, runs_code=runs_code(question))
        producer.start(thunk, work_for(question, nursery, turn), nursery.tasks, turn.give_up)
        return thunk


class MelleaSession(SessionScope, Conversation):
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
        SessionScope.__init__(
            self,
            retrying(backend, retries),
            model_options=model_options,
            on_error=on_error,
            max_concurrency=max_concurrency,
        )
        Conversation.__init__(self, self, SimpleContext() if ctx is None else ctx)

    def conversation(self, ctx: Context | None = None) -> Conversation:
        """Another conversation in this session, as each user of a server has one.

        Args:
            ctx: What was said so far: a stored conversation, ``ChatContext.from_messages(…)``, or that of another
                one, which it then goes on from by itself. Nothing, in a :class:`ChatContext`, if not given.

        Raises:
            InvalidOption: ``ctx`` is no context.
        """
        return Conversation(self, ChatContext() if ctx is None else ctx)

    def clone(self) -> MelleaSession:
        """The same session with a conversation of its own, which goes on from where this one is.

        Neither sees what the other says from now on. What the clone starts belongs to this session too: it is
        joined or cancelled when this one ends. A clone may be ended before, or be a block of its own.

        Raises:
            SessionClosed: the session has ended.
        """
        self._check_open()
        clone = copy.copy(self)
        SessionScope.__init__(
            clone,
            self._raw,
            model_options=self._options,
            on_error=self._on_error,
            max_concurrency=self._max_concurrency,
            host=self,
        )
        Conversation.__init__(clone, clone, self.ctx)
        return clone
