"""Does a backend do what everybody relies on? Checks that it can be handed to.

Each promise of :class:`~mellea_sc.core.backend.Backend` has one check; the table at the end names
them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, TypeAlias

import anyio
import attrs

from mellea_sc.core.backend import Backend, ChatMessage, Delta, GenerationRequest, ToolCallDelta
from mellea_sc.core.errors import BackendError
from mellea_sc.testing._promises import check_promises
from mellea_sc.testing.everywhere import cancel_everywhere

__all__ = ["check_backend"]

_REQUEST: Final = GenerationRequest((ChatMessage("user", "Count from one to ten, in words."),))
_PATIENCE: Final = 5.0  # seconds for something that should happen at once
_NO_REASONS: Final = ("error", "abort", "network_error", "load", "unload")


async def check_backend(
    make: Callable[[], Backend | AbstractAsyncContextManager[Backend]],
    *,
    request: GenerationRequest = _REQUEST,
    max_points: int | None = 40,
) -> None:
    """Check that a backend keeps the promises that the library builds on.

    It makes several dozen requests; the model behind should answer quickly.

    Args:
        make: Makes the backend, or an async context manager that gives it, anew at each call.
        request: What is asked; the answer must have some text.
        max_points: At how many checkpoints, at most, a request is cancelled; ``None``: at all.

    Raises:
        AssertionError: the first promise that does not hold, and what happened instead.

    Cancellation: cancels the request that is going on.
    """
    await check_promises(_PROMISES, _Subject(make, request, max_points))


@attrs.frozen
class _Subject:
    make: Callable[[], Backend | AbstractAsyncContextManager[Backend]]
    request: GenerationRequest
    max_points: int | None

    @asynccontextmanager
    async def made(self) -> AsyncGenerator[Backend]:
        made = self.make()
        if isinstance(made, Backend):
            yield made
        else:
            async with made as backend:
                yield backend

    @asynccontextmanager
    async def ready(self) -> AsyncGenerator[Backend]:
        """A backend as a session uses it."""
        async with self.made() as backend, backend.connected() as connected:
            yield connected

    async def works(self, backend: Backend) -> None:
        """Ask once more and read the answer to its end."""
        async with backend.open(self.request) as deltas:
            text, _ = await _read(deltas)
        assert text, "the next request had an empty answer"


async def _read(deltas: AsyncIterator[Delta]) -> tuple[str, bool]:
    """The text, and whether it was said why the model has stopped."""
    text: list[str] = []
    finished = False
    delta: Delta | None = None
    while True:
        with anyio.move_on_after(_PATIENCE if finished else None) as scope:
            delta = await anext(deltas, None)
        assert not scope.cancelled_caught, (
            f"{_PATIENCE:g} s after it was said why the model has stopped, nothing has ended the answer"
        )
        if delta is None:
            return "".join(text), finished
        _is_delta(delta)
        text.append(delta.text)
        finished = finished or delta.finish_reason is not None


def _is_delta(thing: object) -> None:
    assert isinstance(thing, Delta), f"the iterator gave {thing!r}, which is not a Delta"
    assert isinstance(thing.text, str), f"the text of a delta is {thing.text!r}"
    assert isinstance(thing.reasoning, str), f"the reasoning of a delta is {thing.reasoning!r}"
    for piece in thing.tool_calls:
        assert isinstance(piece, ToolCallDelta), f"a piece of a call is {piece!r}"
    assert not any("\ud800" <= character <= "\udfff" for character in thing.text), (
        f"a delta has half a character, {thing.text!r}; servers cut them, and it waits for the other half"
    )
    reason = thing.finish_reason
    assert reason is None or (isinstance(reason, str) and reason), (
        f"the finish_reason of a delta is {reason!r}; while the model goes on, it is None"
    )
    assert reason not in _NO_REASONS, (
        f"the finish_reason of a delta is {reason!r}; an answer that failed is an error to raise"
    )
    if (usage := thing.usage) is not None:
        for count in (usage.prompt_tokens, usage.completion_tokens):
            is_count = isinstance(count, int) and not isinstance(count, bool) and count >= 0
            assert is_count, (
                f"the usage of a delta has {count!r} tokens; what the server does not say is None"
            )


async def _answers(subject: _Subject) -> None:
    async with subject.ready() as backend, backend.open(subject.request) as deltas:
        text, _ = await _read(deltas)
        assert text, "the answer has no text"


async def _ends(subject: _Subject) -> None:
    async with subject.ready() as backend, backend.open(subject.request) as deltas:
        await _read(deltas)
        for _ in range(2):
            more = await _next(deltas)
            assert more is None, f"after its end it gave {more!r}"


async def _is_closed(subject: _Subject) -> None:
    async with subject.ready() as backend:
        async with backend.open(subject.request) as deltas:
            await _next(deltas)
        try:
            more = await _next(deltas)
        except Exception:  # noqa: BLE001 # any error says that it is over
            return
        assert more is None, f"after the block it gave {more!r}"


async def _next(deltas: AsyncIterator[Delta]) -> Delta | None:
    with anyio.fail_after(_PATIENCE):
        return await anext(deltas, None)


async def _may_be_left(subject: _Subject) -> None:
    async with subject.ready() as backend:
        async with backend.open(subject.request):
            pass
        await subject.works(backend)
        async with backend.open(subject.request) as deltas:
            await _next(deltas)
        await subject.works(backend)
        async with backend.open(subject.request) as deltas:
            async for _ in deltas:
                break
            await anyio.sleep(0.05)  # the model goes on, and nobody reads
        await subject.works(backend)


class _ConsumersOwn(Exception):
    """What a consumer raises inside of the block."""


async def _passes_errors(subject: _Subject) -> None:
    async with subject.ready() as backend:
        for read_first in (False, True):
            error = _ConsumersOwn()
            caught: BaseException | None = None
            try:
                async with backend.open(subject.request) as deltas:
                    if read_first:
                        await _next(deltas)
                    raise error
            except Exception as raised:  # noqa: BLE001 # whatever it is, it is compared
                caught = raised
            assert caught is error, f"a consumer's {error!r} left the block as {caught!r}"
            await subject.works(backend)


async def _serves_two(subject: _Subject) -> None:
    async with subject.ready() as backend, anyio.create_task_group() as tg:
        for _ in range(2):
            tg.start_soon(subject.works, backend)


async def _leaves_others_alone(subject: _Subject) -> None:
    async with subject.ready() as backend:
        for reads in (True, False):
            async with AsyncExitStack() as first:
                deltas = await first.enter_async_context(backend.open(subject.request))
                finished = False
                if reads:
                    _, finished = await _read(deltas)
                async with backend.open(subject.request) as others:
                    await first.aclose()
                    text, finished_too = await _read(others)
            assert text, "a generation that was opened meanwhile had an empty answer"
            assert finished_too or not finished, (
                "a generation that was opened meanwhile ended, and it was not said why the model has stopped"
            )


async def _connects_again(subject: _Subject) -> None:
    async with subject.made() as backend:
        for _ in range(2):
            async with backend.connected() as connected:
                await subject.works(connected)
        async with backend.connected() as one:
            async with backend.connected() as other:
                await subject.works(other)
            await subject.works(one)


async def _bears(subject: _Subject, request: GenerationRequest) -> None:
    async with subject.ready() as backend:
        try:
            async with backend.open(request) as deltas:
                await _read(deltas)
        except BackendError:
            pass  # a server may refuse it, when it is told so
        await subject.works(backend)


async def _bears_options(subject: _Subject) -> None:
    options = {**subject.request.options, "an_option_that_nobody_knows": "some value"}
    await _bears(subject, attrs.evolve(subject.request, options=options))


async def _bears_schemas(subject: _Subject) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "maxLength": 20}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    await _bears(subject, attrs.evolve(subject.request, json_schema=schema))


async def _works_after_cancellation(subject: _Subject) -> None:
    async with subject.ready() as backend:
        for _ in range(3):
            left = False
            with anyio.CancelScope() as scope:
                async with backend.open(subject.request) as deltas:
                    await _next(deltas)
                    scope.cancel()
                    await anyio.sleep_forever()
                left = True
            assert not left, "the block was left as if it had not been cancelled"
            await subject.works(backend)


async def _is_cancelled_everywhere(subject: _Subject) -> None:
    says_why: bool | None = None

    async def program() -> None:
        nonlocal says_why
        ended = finished = False
        async with subject.ready() as backend:
            async with backend.open(subject.request) as deltas:
                _, finished = await _read(deltas)
                ended = True
            assert ended, "the block was left as if it had not been cancelled"
        if says_why is None:
            says_why = finished  # the first run is not cancelled
        assert finished or not says_why, "a cancelled answer ended as if it were complete"

    await cancel_everywhere(program, max_points=subject.max_points)


_Check: TypeAlias = Callable[[_Subject], Awaitable[None]]

_PROMISES: Final[dict[str, _Check]] = {
    "an answer is made of Delta objects and has text": _answers,
    "the iterator ends and stays ended": _ends,
    "nothing comes once the block has been left": _is_closed,
    "the block may be left at any time, and the next request works": _may_be_left,
    "an error of the consumer leaves the block as it is, and the next request works": _passes_errors,
    "two generations can go on at once": _serves_two,
    "leaving a block does nothing to a generation that was opened later": _leaves_others_alone,
    "connected() can be entered again, and twice at the same time": _connects_again,
    "an unknown option is passed on, left out, or refused with a BackendError": _bears_options,
    "a JSON schema is kept to, or refused with a BackendError": _bears_schemas,
    "a cancelled request does not harm the next one": _works_after_cancellation,
    "cancellation passes through at every checkpoint": _is_cancelled_everywhere,
}
