"""A backend around another one loses nothing of it; the check names what a wrapper loses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from mellea_sc import Backend, Delta, GenerationRequest, limits, start_session
from mellea_sc.backends import BackendWrapper, Retrying
from mellea_sc.core.errors import BackendError
from mellea_sc.runtime.budgets.budget import open_budgets
from mellea_sc.runtime.budgets.metering import Metered
from mellea_sc.testing import (
    FailingBackend,
    Recording,
    check_wrapper,
)

pytestmark = pytest.mark.anyio


class Plain(BackendWrapper):
    """Changes nothing."""


@pytest.mark.parametrize("wrap", [Plain, Retrying, FailingBackend])
async def test_ours_lose_nothing(wrap: Callable[[Backend], Backend]) -> None:
    await check_wrapper(wrap)


async def test_a_recording_loses_nothing(tmp_path: Path) -> None:
    await check_wrapper(lambda inner: Recording(inner, tmp_path / "cassette.json"))


async def test_a_metered_backend_loses_nothing() -> None:
    with limits(requests=100):
        await check_wrapper(lambda inner: Metered(inner, open_budgets.get()))


async def test_a_session_hands_out_a_backend_that_says_what_its_own_says() -> None:
    inner = Quiet()
    async with start_session(backend=inner) as m:
        for name in Backend.__annotations__:
            assert getattr(m.backend, name) == getattr(inner, name), name


class Quiet(Backend):
    """Says what backends do not say by default."""

    provider = "quiet"
    model_id = "still"
    prefills = True
    judges = False

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        raise BackendError("it is quiet")
        yield


class FromAbove(Backend):
    """Copies what it says by hand, and passes the rest on as it should."""

    copied: tuple[str, ...] = ()

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        for name in self.copied:
            setattr(self, name, getattr(inner, name))

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[FromAbove]:
        async with self.inner.connected() as inner:
            yield type(self)(inner)

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        async with self.inner.open(request) as deltas:
            yield deltas


@pytest.mark.parametrize("lost", ["provider", "model_id", "prefills", "judges"])
async def test_a_wrapper_that_forgets_to_copy_an_attribute_is_found(lost: str) -> None:
    class Forgets(FromAbove):
        copied = tuple(name for name in Backend.__annotations__ if name != lost)

    with pytest.raises(AssertionError, match=f"wrapped backend's {lost} is"):
        await check_wrapper(Forgets)
    await check_wrapper(Forgets, changes=[lost])


def test_an_attribute_is_looked_up_in_the_inner_backend_unless_the_wrapper_has_its_own() -> None:
    class Later(Quiet):
        prefills = False

    wrapper = Plain(Quiet())
    assert wrapper.prefills
    wrapper.inner = Later()
    assert not wrapper.prefills
    wrapper.prefills = True
    assert wrapper.prefills
    assert not wrapper.inner.prefills
    assert Plain.judges is Backend.judges


class NotConnecting(Plain):
    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[NotConnecting]:
        yield self


class TextOnly(Plain):
    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        async with self.inner.open(request) as deltas, aclosing(_made_anew(deltas)) as anew:
            yield anew


async def _made_anew(deltas: AsyncIterator[Delta]) -> AsyncGenerator[Delta]:
    async for delta in deltas:
        yield Delta(delta.text)


class Swallowing(Plain):
    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        async with self.inner.open(request) as deltas, aclosing(_cut_short(deltas)) as some:
            yield some


async def _cut_short(deltas: AsyncIterator[Delta]) -> AsyncGenerator[Delta]:
    try:
        async for delta in deltas:
            yield delta
    except BackendError:
        pass


class Holding(Plain):
    held: ClassVar[list[AbstractAsyncContextManager[AsyncIterator[Delta]]]] = []

    @asynccontextmanager
    async def open(self, request: GenerationRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        self.held.append(self.inner.open(request))
        yield await self.held[-1].__aenter__()


@pytest.mark.parametrize(
    ("wrap", "told"),
    [
        (NotConnecting, r"connected\(\) connects the wrapped backend"),
        (TextOnly, "all parts of an answer come through"),
        (Swallowing, "an error comes through"),
        (Holding, "leaving the block"),
    ],
)
async def test_a_wrapper_that_breaks_a_promise_is_told_which(
    wrap: Callable[[Backend], Backend], told: str
) -> None:
    with pytest.raises(AssertionError, match=told):
        await check_wrapper(wrap)
    while Holding.held:
        await Holding.held.pop().__aexit__(None, None, None)
