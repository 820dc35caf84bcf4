"""Does a backend that wraps another one lose anything of it? Checks for wrappers of one's own."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio
import anyio.lowlevel
import attrs

from mellea_sc.core.backend import (
    Backend,
    ChatMessage,
    Delta,
    GenerationRequest,
    ToolCallDelta,
    Usage,
)
from mellea_sc.core.errors import BackendError
from mellea_sc.testing._promises import check_promises

if TYPE_CHECKING:
    from typing import Self

__all__ = ["check_wrapper"]

_REQUEST: Final = GenerationRequest((ChatMessage("user", "Count from one to three."),))
_DELTAS: Final = (
    Delta(reasoning="Numbers."),
    Delta("one "),
    Delta("two "),
    Delta(tool_calls=(ToolCallDelta("1", "count", "{}", 0),)),
    Delta("three"),
    Delta("", "length", Usage(5, 3, 2, 1)),
)


async def check_wrapper(
    wrap: Callable[[Backend], Backend], *, changes: Collection[str] = ()
) -> None:
    """Check that a wrapper of backends passes on all that the wrapped one is, says and does.

    A :class:`~mellea_sc.core.backend.BackendWrapper` has most of that for nothing.
    :func:`~mellea_sc.testing.check_backend` checks the rest of what a backend promises.

    Args:
        wrap: Makes a wrapper around a backend.
        changes: Attributes that the wrapper changes on purpose (``"model_id"``, …).

    Raises:
        AssertionError: the first promise that does not hold, and what happened instead.
    """
    await check_promises(_PROMISES, _Subject(wrap, changes))


@attrs.frozen
class _Subject:
    wrap: Callable[[Backend], Backend]
    changes: Collection[str]


class _Inner(Backend):
    """A backend that says of itself, in everything, something else than backends do by default.

    Args:
        error: How its answers end, if not as they should.
    """

    def __init__(self, error: Exception | None = None) -> None:
        for name in Backend.__annotations__:
            default = getattr(Backend, name)
            setattr(self, name, not default if isinstance(default, bool) else f"the inner {name}")
        self.error = error
        self.is_connected = False
        self.log: list[str] = []  # one for all that are connected

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Self]:
        connected = copy.copy(self)
        connected.is_connected = True
        yield connected

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        self.log.append("opened, connected" if self.is_connected else "opened, not connected")
        try:
            await anyio.lowlevel.checkpoint()
            yield _Deltas(self.error)
        finally:
            self.log.append("left")


class _Deltas:
    """The deltas, and the error; there is nothing to close."""

    def __init__(self, error: Exception | None) -> None:
        self._left = [attrs.evolve(delta) for delta in reversed(_DELTAS)]
        self._error = error

    def __aiter__(self) -> _Deltas:
        return self

    async def __anext__(self) -> Delta:
        await anyio.lowlevel.checkpoint()
        if self._left:
            return self._left.pop()
        raise self._error or StopAsyncIteration


async def _says_the_same(subject: _Subject) -> None:
    inner = _Inner()
    wrapper = subject.wrap(inner)
    async with wrapper.connected() as connected:
        for name in [name for name in Backend.__annotations__ if name not in subject.changes]:
            expected = getattr(inner, name)
            for what, backend in (("", wrapper), (" once it is connected", connected)):
                found = getattr(backend, name)
                assert found == expected, (
                    f"the wrapped backend's {name} is {expected!r}, and the wrapper's{what} is {found!r}"
                )


async def _connects(subject: _Subject) -> None:
    inner = _Inner()
    async with subject.wrap(inner).connected() as connected, connected.open(_REQUEST) as deltas:
        await anext(deltas)
    assert inner.log[0] == "opened, connected", f"the wrapped backend was {inner.log[0]}"


async def _gives_all(subject: _Subject) -> None:
    async with subject.wrap(_Inner()).open(_REQUEST) as deltas:
        given = [delta async for delta in deltas]
    text = "".join(delta.text for delta in given)
    assert text == "one two three", f"the text was {text!r}"
    for name in [field.name for field in attrs.fields(Delta) if field.name != "text"]:
        expected = [value for delta in _DELTAS if (value := getattr(delta, name))]
        found = [value for delta in given if (value := getattr(delta, name))]
        assert found == expected, f"of the deltas' {name}, {expected} came as {found}"


async def _gives_the_error(subject: _Subject) -> None:
    error = BackendError("the wrapped backend's own")
    text = ""
    caught: Exception | None = None
    try:
        async with subject.wrap(_Inner(error)).open(_REQUEST) as deltas:
            async for delta in deltas:
                text += delta.text
    except Exception as raised:  # noqa: BLE001 # whatever it is, it is compared
        caught = raised
    assert caught is error, f"{error!r} came as {caught!r}"
    assert text == "one two three", f"of the text before the error, {text!r} came"


async def _leaves(subject: _Subject) -> None:
    inner = _Inner()
    async with subject.wrap(inner).open(_REQUEST) as deltas:
        await anext(deltas)
    assert inner.log[-1:] == ["left"], "the wrapped backend's block was not left with the wrapper's"


_Check: TypeAlias = Callable[[_Subject], Awaitable[None]]

_PROMISES: Final[dict[str, _Check]] = {
    "it says of itself what the wrapped backend says, unless told otherwise": _says_the_same,
    "leaving the block leaves the wrapped backend's": _leaves,
    "connected() connects the wrapped backend, and requests go to that": _connects,
    "all parts of an answer come through": _gives_all,
    "an error comes through, after what was before it": _gives_the_error,
}
