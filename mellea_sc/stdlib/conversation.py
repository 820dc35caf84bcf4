"""Conversations: what was said so far, and the methods that go on with it.

Each of the six a-methods starts its work in the session's nursery (``calls.py`` has what that does); its
blocking half runs the a-method to its end in the session's own thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, Literal, TypeVar, Unpack, overload

import attrs

from mellea_sc.core.backend import Format, ModelOptions
from mellea_sc.core.base import CBlock, Component, Context, Role, Span, Thunk
from mellea_sc.core.errors import InvalidOption
from mellea_sc.core.question import STREAM_DEFAULTS, ConditionArguments, several
from mellea_sc.core.requirement import Requirement, ValidationResult, as_requirement
from mellea_sc.core.retries import Retries, retries_of, retries_of_call
from mellea_sc.core.sampling import SamplingResult
from mellea_sc.runtime.failures import raises_briefly
from mellea_sc.runtime.generation.bound import BoundBackend
from mellea_sc.runtime.generation.thunk import ModelOutputThunk
from mellea_sc.stdlib.calls import (
    DEFAULT_STRATEGY,
    ActArguments,
    InstructArguments,
    QueryArguments,
    StreamArguments,
    judge,
    keyword_arguments,
    last_prompt,
    question_of,
    start,
)
from mellea_sc.stdlib.components import Instruction, Message, Query, Transform
from mellea_sc.stdlib.session_life import SessionLife, blocking_half
from mellea_sc.stdlib.streaming.request import StreamRequest, stream_request
from mellea_sc.stdlib.turns import Turns

T = TypeVar("T")

_ASKED_ONCE: Final[ActArguments] = {"strategy": None}
"""Where there is nothing to validate."""


class Conversation:
    """Turns of talk with the model of a session, and what was said in them.

    A session is one itself; :meth:`MelleaSession.conversation` makes others, one for each user of a server, say. What is
    asked in one sees what was said in that one alone. All of them share the session: its tasks run in the session's
    nursery and end with it, over its connections, within its limits.

    It has no end of its own. One that nobody holds any more is forgotten, and with it what was said; tasks that it has
    started go on, as the session's.

    Args:
        life: Where its tasks go: the session's.
        ctx: What was said so far.

    Raises:
        InvalidOption: ``ctx`` is no context.
    """

    def __init__(self, life: SessionLife, ctx: Context) -> None:
        self._life = life
        self._backend = BoundBackend(life.place, life.backend)
        self._turns = Turns(ctx)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {self._life!r}>"

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
        self._turns.replace(ctx)

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
        messages = last_prompt(self.ctx, self._life.backend, self._life.options)
        if messages is None:
            return None
        return [{"role": one.role, "content": one.content} for one in messages]

    # --- the a-methods -------------------------------------------------------------------------

    @overload
    async def aact(
        self,
        action: Component | Span,
        *,
        return_sampling_results: Literal[False] = ...,
        **given: Unpack[ActArguments],
    ) -> ModelOutputThunk: ...
    @overload
    async def aact(
        self,
        action: Component | Span,
        *,
        return_sampling_results: Literal[True],
        **given: Unpack[ActArguments],
    ) -> SamplingResult: ...
    @overload
    async def aact(
        self,
        action: Component | Span,
        *,
        return_sampling_results: bool,
        **given: Unpack[ActArguments],
    ) -> ModelOutputThunk | SamplingResult: ...
    @keyword_arguments(ActArguments, strategy=DEFAULT_STRATEGY, await_result=False)
    async def aact(
        self,
        action: Component | Span,
        *,
        return_sampling_results: bool = False,
        **given: Unpack[ActArguments],
    ) -> ModelOutputThunk | SamplingResult:
        """Have the model answer an action: a component, a text, or a thunk.

        Args:
            action: What to ask.
            return_sampling_results: Wait, and return all attempts instead of a thunk.
            given: The others are those of :meth:`ainstruct`. The ``requirements`` are added to those of an
                ``Instruction``.

        Returns:
            A thunk, at once: generation (and with requirements the whole loop) runs in the nursery.

        Raises:
            Exception: as of :meth:`ainstruct`.

        Cancellation: as of :meth:`ainstruct`.
        """
        if return_sampling_results:
            return await self._attempts(action, given)
        return await self._ask(action, given)

    @overload
    async def ainstruct(
        self,
        description: str | CBlock,
        *,
        return_sampling_results: Literal[False] = ...,
        **given: Unpack[InstructArguments],
    ) -> ModelOutputThunk: ...
    @overload
    async def ainstruct(
        self,
        description: str | CBlock,
        *,
        return_sampling_results: Literal[True],
        **given: Unpack[InstructArguments],
    ) -> SamplingResult: ...
    @overload
    async def ainstruct(
        self,
        description: str | CBlock,
        *,
        return_sampling_results: bool,
        **given: Unpack[InstructArguments],
    ) -> ModelOutputThunk | SamplingResult: ...
    @keyword_arguments(InstructArguments, strategy=DEFAULT_STRATEGY, await_result=False)
    async def ainstruct(
        self,
        description: str | CBlock,
        *,
        return_sampling_results: bool = False,
        **given: Unpack[InstructArguments],
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

        Cancellation: a thunk goes on. With ``await_result`` or ``return_sampling_results`` nobody
        else has the thunk, so the generation is cancelled too.
        """
        instruction = Instruction(
            description,
            given.get("requirements"),
            given.get("icl_examples"),
            given.get("grounding_context"),
            given.get("user_variables"),
            given.get("prefix"),
            given.get("output_prefix"),
        )
        given["requirements"] = None  # the instruction has them
        if return_sampling_results:
            return await self._attempts(instruction, given)
        return await self._ask(instruction, given)

    @keyword_arguments(ConditionArguments)
    async def achat(
        self,
        content: str,
        role: Role = "user",
        *,
        user_variables: Mapping[str, Span] | None = None,
        **given: Unpack[ConditionArguments],
    ) -> Message:
        """Say something, and return the model's message when it is finished.

        Args:
            content: What to say; a template if there are variables.
            role: As whom.
            user_variables: Named texts to fill in.
            given: The others are those of :meth:`ainstruct`.

        Raises:
            SessionClosed: the session has ended.
            Exception: as the generation raised it.

        Cancellation: the generation is cancelled, and the conversation stays as it was.
        """
        message = Message(role, content, user_variables=user_variables)
        thunk = await self._ask(message, {**_ASKED_ONCE, **given, "await_result": True})
        return Message(
            "assistant",
            CBlock(thunk.value),
            reasoning=thunk.reasoning,
            tool_calls=thunk.tool_calls,
        )

    @keyword_arguments(QueryArguments, await_result=False)
    async def aquery(
        self, obj: object, query: str, **given: Unpack[QueryArguments]
    ) -> ModelOutputThunk:
        """Ask the model about an object.

        Args:
            obj: Any object; see :class:`~mellea_sc.stdlib.components.MObjectProtocol` for how it
                presents itself, and which of its methods the model may call to answer.
            query: The question.
            given: The others are those of :meth:`ainstruct`. With a ``format``, no method is called.

        Returns:
            A thunk of the answer, at once; its ``parsed_repr`` is what a called method returned.

        Raises:
            SessionClosed: the session has ended.

        Cancellation: as of :meth:`ainstruct`.
        """
        return await self._ask(Query(obj, query), {**_ASKED_ONCE, **given})

    @keyword_arguments(QueryArguments, await_result=False)
    async def atransform(
        self, obj: object, transformation: str, **given: Unpack[QueryArguments]
    ) -> ModelOutputThunk:
        """Have the model transform an object.

        Args:
            obj: Any object, as for :meth:`aquery`.
            transformation: What to make of it.
            given: The others are those of :meth:`ainstruct`. With a ``format``, no method is called.

        Returns:
            A thunk of the result, at once; its ``parsed_repr`` is what a called method returned.

        Raises:
            SessionClosed: the session has ended.

        Cancellation: as of :meth:`ainstruct`.
        """
        return await self._ask(Transform(obj, transformation), {**_ASKED_ONCE, **given})

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
            retries: As of :meth:`ainstruct`.
            format: Handed to every validator.
            model_options: Handed to every validator.

        Returns:
            One verdict per requirement, in their order.

        Raises:
            InvalidOption: there is no output that could be judged, or an argument is not usable.
            Exception: as a validator raised it; several at once as an ``ExceptionGroup``.

        Cancellation: every validator is cancelled.
        """
        if output is not None and not isinstance(output, Thunk | str | CBlock):
            raise InvalidOption(f"output must be a thunk, a str or a CBlock, not {output!r}")
        given = [reqs] if isinstance(reqs, Requirement | str) else several("reqs", reqs)
        required = [as_requirement(requirement) for requirement in given]
        nursery = await self._life.nursery()
        ctx = await self._turns.settled() if output is None else self.ctx
        judging = partial(judge, nursery, ctx, required, output, input, format, model_options)
        with retries_of_call(None if retries is None else retries_of(retries)):
            return await nursery.call(judging, name="validate")

    def run_blocking(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an async function in the session's own event-loop thread, and wait for what it returns.

        Raises:
            SessionClosed: the session has ended, or the interpreter is ending and starts no more threads.
            SyncCallInEventLoop: an event loop runs in this thread.
        """
        return self._life.run_blocking(function)

    # --- their blocking halves -------------------------------------------------------------------

    instruct: Final = blocking_half(ainstruct)
    chat: Final = blocking_half(achat)
    act: Final = blocking_half(aact)
    validate: Final = blocking_half(avalidate)
    query: Final = blocking_half(aquery)
    transform: Final = blocking_half(atransform)

    # --- streams ----------------------------------------------------------------------------------

    @keyword_arguments(StreamArguments, **attrs.asdict(STREAM_DEFAULTS))
    def stream(
        self,
        action: str | Component,
        *,
        user_variables: Mapping[str, Span] | None = None,
        grounding_context: Mapping[str, Span] | None = None,
        **given: Unpack[StreamArguments],
    ) -> StreamRequest:
        """Generate text that is checked while it streams, as a turn of the conversation.

        Await it, or enter it: ``async with m.stream("…", requirements=[…]) as result:``. The
        conversation goes on with the answer if it came to its natural end.

        Args:
            action: An instruction's description, or a component.
            user_variables: For a description: named texts to fill in.
            grounding_context: For a description: named texts to rely on.
            given: The others are those of :func:`stream_with_chunking`. The requirements are said in the prompt
                where the action is a description.

        Raises:
            InvalidOption: an argument is not usable.
            PromptTemplateError: a template is not valid.
            SessionClosed: on awaiting or entering: the session has ended.

        Cancellation: as of :func:`stream_with_chunking`.
        """
        if isinstance(action, str):
            action = Instruction(
                action,
                given.get("requirements"),
                user_variables=user_variables,
                grounding_context=grounding_context,
            )
        elif user_variables is not None or grounding_context is not None:
            raise InvalidOption(
                "user_variables and grounding_context go with a description, not with a component"
            )
        take_turn = partial(self._turns.take_turn, runs_code=True)
        return stream_request(action, self._backend, take_turn, given)

    # --- inside ---------------------------------------------------------------------------------

    async def _attempts(self, action: Component | Span, given: ActArguments) -> SamplingResult:
        if given.get("strategy", DEFAULT_STRATEGY) is None:
            raise InvalidOption("return_sampling_results needs a strategy")
        thunk = await self._ask(action, {**given, "await_result": True})
        assert thunk.sampling is not None
        return thunk.sampling

    async def _ask(self, action: Component | Span, given: ActArguments) -> ModelOutputThunk:
        question = question_of(action, given, self._life.options)
        thunk = start(question, await self._life.nursery(), self._turns)
        if given.get("await_result"):
            async with thunk:
                await thunk.avalue()
        return thunk
